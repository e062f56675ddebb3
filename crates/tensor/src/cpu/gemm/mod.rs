//! Matrix product `C ← beta·C + alpha·A·B` on the CPU, of `f32` or bf16, with sums in `f32`.
//!
//! The blocking follows Goto and van de Geijn, 2008, <https://doi.org/10.1145/1356052.1356053>, as arranged in BLIS
//! (Van Zee and van de Geijn, 2015, <https://doi.org/10.1145/2764454>): panels of `B` and blocks of `A` are copied
//! into contiguous buffers sized to the caches, and a micro-kernel keeps a small tile of `C` in registers.
//! Products with a handful of rows read the larger matrix once, where it lies.
//!
//! Every element of `C` is computed by one thread in an order that depends on the shape and the kernel alone, so the
//! result is the same, bit for bit, on any number of threads.

#[allow(unsafe_code)]
mod blocked;
#[allow(unsafe_code)]
mod skinny;
mod split;
#[allow(unsafe_code)]
mod pack;
mod kernel;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod kernel_avx512;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod kernel_avx512_bf16;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod kernel_avx2;
#[allow(unsafe_code)]
mod kernel_portable;
#[allow(unsafe_code)]
mod scratch;
mod rounded;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub use kernel::{Kernel, SelectError};

use blocked::{Problem, SharedMut};
use kernel::Loops;
use pack::Source;

use super::element::Element;
use crate::DType;

/// A read-only strided view of a matrix: element `(i, j)` is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct MatRef<'a, T = f32> {
    /// The elements; starts at element `(0, 0)`.
    pub data: &'a [T],
    /// Elements between neighbours in a column.
    pub row_stride: usize,
    /// Elements between neighbours in a row.
    pub col_stride: usize,
}

impl<'a, T> MatRef<'a, T> {
    /// A dense row-major matrix of `n_cols` columns.
    pub fn row_major(data: &'a [T], n_cols: usize) -> Self {
        Self { data, row_stride: n_cols, col_stride: 1 }
    }

    /// The same elements with rows and columns exchanged; nothing is copied.
    pub fn transposed(self) -> Self {
        Self { data: self.data, row_stride: self.col_stride, col_stride: self.row_stride }
    }

    /// The view by address: its rows as lanes, summed along their `k_len` elements.
    fn source(self, k_len: usize) -> Source {
        Source {
            start: self.data.as_ptr().cast(),
            element_size: size_of::<T>(),
            lane_stride: self.row_stride,
            k_stride: self.col_stride,
            k_len,
        }
    }
}

/// A writable row-major matrix: element `(i, j)` is `data[i * row_stride + j]`.
#[derive(Debug)]
pub struct MatMut<'a, T = f32> {
    /// The elements; starts at element `(0, 0)`.
    pub data: &'a mut [T],
    /// Elements between the starts of neighbouring rows, at least the number of columns.
    pub row_stride: usize,
}

impl<'a, T> MatMut<'a, T> {
    /// A dense row-major matrix of `n_cols` columns.
    pub fn row_major(data: &'a mut [T], n_cols: usize) -> Self {
        Self { data, row_stride: n_cols }
    }
}

/// Who computes a product; the result is the same, bit for bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parallel {
    /// The calling thread alone: for small products inside a task that is itself one of many.
    Serial,
    /// The current rayon pool, where the product is large enough to gain from it.
    Rayon,
}

/// `C ← beta·C + alpha·A·B` with the fastest kernel of this machine.
///
/// Products and sums are in `f32`, and rounded once if `C` is of bf16. `beta = 0` never reads `C`, and `alpha = 0` never
/// reads `A` or `B`. With AVX-512 BF16 subnormal numbers in bf16 operands count as zero.
///
/// # Shapes
/// `a: [m, k]`, `b: [k, n]`, `c: [m, n]`.
///
/// # Panics
/// If a view does not hold its matrix, or rows of `c` overlap.
#[track_caller]
#[expect(clippy::too_many_arguments, reason = "the signature of BLAS, known to every reader")]
pub fn gemm<T: Element, C: Element>(
    m: usize,
    n: usize,
    k: usize,
    alpha: f32,
    a: MatRef<T>,
    b: MatRef<T>,
    beta: f32,
    c: MatMut<C>,
    parallel: Parallel,
) {
    gemm_with(Kernel::current(), Product { m, n, k, alpha, a, b, beta, c }, parallel);
}

/// One product and its operands; checked by [`gemm_with`] before any pointer is formed.
struct Product<'a, T = f32, C = f32> {
    m: usize,
    n: usize,
    k: usize,
    alpha: f32,
    a: MatRef<'a, T>,
    b: MatRef<'a, T>,
    beta: f32,
    c: MatMut<'a, C>,
}

/// [`gemm`] with a kernel of the caller's choice.
#[track_caller]
fn gemm_with<T: Element, C: Element>(kernel: Kernel, product: Product<T, C>, parallel: Parallel) {
    assert!(kernel.is_available(), "gemm: this machine cannot run the {} kernel", kernel.name());
    product.run(kernel.loops(T::DTYPE), parallel);
}

impl<T: Element, C: Element> Product<'_, T, C> {
    /// Checks all bounds and computes, with loops for elements of type `T` that this machine can run.
    #[track_caller]
    fn run(mut self, loops: &'static Loops, parallel: Parallel) {
        if self.is_trivial() {
            return scale(self.m, self.n, self.beta, &mut self.c);
        }
        if C::DTYPE != DType::F32 {
            let is_skinny = skinny::takes(loops, &self.problem(std::ptr::null_mut()));
            // Sums that are not complete in one block must not be rounded in between.
            if is_skinny || blocked::n_step_blocks(loops, self.k) > 1 {
                return rounded::run(self, loops, parallel);
            }
        }
        let c = self.c.data.as_mut_ptr();
        let problem = self.problem(c);
        if !skinny::run(loops, &problem, parallel) {
            blocked::run(loops, &problem, parallel);
        }
    }

    /// The product in terms of addresses; `c` is that of `C`.
    fn problem(&self, c: *mut C) -> Problem<C> {
        let Self { m, n, k, alpha, a, b, beta, c: MatMut { row_stride: c_row_stride, .. } } = *self;
        Problem { m, n, k, alpha, a: a.source(k), b: b.transposed().source(k), beta, c: SharedMut(c), c_row_stride }
    }

    /// Checks all bounds; true if the operands contribute nothing.
    #[track_caller]
    fn is_trivial(&self) -> bool {
        let Self { m, n, k, alpha, a, b, ref c, .. } = *self;
        check_view("c", [m, n], c.data.len(), c.row_stride, 1);
        let stride = c.row_stride;
        assert!(m <= 1 || n <= stride, "gemm: c is [{m}, {n}], its row stride {stride} makes rows overlap");
        if m == 0 || n == 0 || k == 0 || alpha == 0.0 {
            return true;
        }
        check_view("a", [m, k], a.data.len(), a.row_stride, a.col_stride);
        check_view("b", [k, n], b.data.len(), b.row_stride, b.col_stride);
        false
    }
}

/// Asserts that the last element of a view lies inside its slice.
#[track_caller]
fn check_view(name: &str, [rows, cols]: [usize; 2], len: usize, row_stride: usize, col_stride: usize) {
    if rows == 0 || cols == 0 {
        return;
    }
    let last = (rows - 1)
        .checked_mul(row_stride)
        .zip((cols - 1).checked_mul(col_stride))
        .and_then(|(down, right)| down.checked_add(right));
    assert!(
        last.is_some_and(|last| last < len),
        "gemm: {name} is [{rows}, {cols}] with strides [{row_stride}, {col_stride}], more than its {len} elements"
    );
}

/// `C ← beta·C`.
fn scale<C: Element>(m: usize, n: usize, beta: f32, c: &mut MatMut<C>) {
    if n == 0 {
        return;
    }
    for row in c.data.chunks_mut(c.row_stride.max(n)).take(m) {
        if beta == 0.0 {
            row[..n].fill(C::narrow(0.0));
        } else {
            row[..n].iter_mut().for_each(|x| *x = C::narrow(x.widen() * beta));
        }
    }
}
