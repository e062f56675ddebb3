//! Products of bf16 matrices with sums in `f32`.

use half::bf16;

use super::kernel::Loops;
#[cfg(target_arch = "x86_64")]
use super::kernel_avx512_bf16;
use super::{Kernel, MatMut, MatRef, Parallel, Product, gemm_with};

/// `C ← beta·C + alpha·A·B` of bf16 operands, with products, sums and `C` in `f32`.
///
/// With AVX-512 BF16 subnormal numbers count as zero; without it, `f32` copies of the operands are multiplied.
///
/// # Shapes
/// `a: [m, k]`, `b: [k, n]`, `c: [m, n]`.
///
/// # Panics
/// If a view does not hold its matrix, or rows of `c` overlap.
#[track_caller]
#[expect(clippy::too_many_arguments, reason = "the signature of BLAS, known to every reader")]
pub fn gemm_bf16(
    m: usize,
    n: usize,
    k: usize,
    alpha: f32,
    a: MatRef<bf16>,
    b: MatRef<bf16>,
    beta: f32,
    c: MatMut,
    parallel: Parallel,
) {
    let product = Product { m, n, k, alpha, a, b, beta, c };
    match native_loops() {
        Some(loops) => product.run(loops, parallel),
        None => widened(product, parallel),
    }
}

/// The loops for bf16 operands, if this machine can run them.
pub(super) fn native_loops() -> Option<&'static Loops> {
    #[cfg(target_arch = "x86_64")]
    if kernel_avx512_bf16::is_available() {
        return Some(&kernel_avx512_bf16::LOOPS);
    }
    None
}

/// The product of copies in `f32`.
#[track_caller]
pub(super) fn widened(product: Product<bf16>, parallel: Parallel) {
    let (mut a_data, mut b_data) = (Vec::new(), Vec::new());
    if !product.is_trivial() {
        a_data = widen(product.a, product.m, product.k);
        b_data = widen(product.b, product.k, product.n);
    }
    let Product { m, n, k, alpha, a, b, beta, c } = product;
    let a = MatRef { data: &a_data, row_stride: a.row_stride, col_stride: a.col_stride };
    let b = MatRef { data: &b_data, row_stride: b.row_stride, col_stride: b.col_stride };
    gemm_with(Kernel::current(), Product { m, n, k, alpha, a, b, beta, c }, parallel);
}

/// The elements of a non-empty view up to its last.
fn widen(view: MatRef<bf16>, rows: usize, cols: usize) -> Vec<f32> {
    let last = (rows - 1) * view.row_stride + (cols - 1) * view.col_stride;
    view.data[..=last].iter().map(|x| x.to_f32()).collect()
}
