//! Matrix products by cuBLASLt, which is loaded when the first product is asked for.
//!
//! Everything here is row-major. cuBLASLt thinks in columns: it sees a row-major matrix as its transpose, so
//! `out = a·b` is asked for as `outᵀ = bᵀ·aᵀ`, with the operands swapped, and what it calls rows of the output are our
//! columns. Invariants:
//!
//! - Sums are in f32, and products of f32 are products of f32, not of TF32.
//! - The same product gives the same bits: one algorithm for a `Key`, chosen once, without atomic sums.
//! - Any size works: what cuBLASLt refuses, a simple kernel of ours does (`plain`).
//! - On Hopper our own products (`cuda::gemm`) are among the algorithms that are measured, and alone have SwiGLU.

mod fp8;
pub(super) mod key;
mod library;
mod plain;
mod plan;
mod tune;
#[cfg(test)]
mod tests;

pub use fp8::{Fp8Matrix, Fp8Product, matmul_fp8};
pub use plain::column_sums;
pub(crate) use plain::join_column_sums;
pub(crate) use plain::sources;
pub(super) use plain::write_column_sums;

use std::sync::Arc;

use super::{Arch, Context, gemm, or_unwind};
use crate::{DType, Device, Tensor};
use key::Key;
pub(super) use library::Blas;
pub use library::WORKSPACE_BYTES;

/// A matrix inside a tensor: rows of consecutive elements, `stride` elements from one row to the next.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    /// The tensor, whatever its shape.
    pub tensor: &'a Tensor,
    /// The first element.
    pub offset: usize,
    /// Elements from one row to the next.
    pub stride: usize,
    /// Whether the product takes the transpose.
    pub transposed: bool,
}

impl<'a> Matrix<'a> {
    /// All leading dimensions of `x` as rows.
    #[track_caller]
    pub fn of(x: &'a Tensor) -> Self {
        Self { tensor: x, offset: 0, stride: x.rows().1, transposed: false }
    }

    /// The same from row `row` on.
    pub fn from_row(self, row: usize) -> Self {
        Self { offset: self.offset + row * self.stride, ..self }
    }

    /// The transpose.
    pub fn transposed(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }
}

/// Where a product is written; see [`Matrix`].
pub struct MatrixMut<'a> {
    /// The tensor, which nothing else shares.
    pub tensor: &'a mut Tensor,
    /// The first element.
    pub offset: usize,
    /// Elements from one row to the next.
    pub stride: usize,
}

impl<'a> MatrixMut<'a> {
    /// All leading dimensions of `x` as rows.
    #[track_caller]
    pub fn of(x: &'a mut Tensor) -> Self {
        let stride = x.rows().1;
        Self { tensor: x, offset: 0, stride }
    }

    /// The same from row `row` on.
    pub fn from_row(self, row: usize) -> Self {
        Self { offset: self.offset + row * self.stride, ..self }
    }
}

/// What else a product computes, on numbers that are at hand anyway. Vectors have the dtype of the output.
pub enum Epilogue<'a> {
    /// Nothing.
    None,
    /// Adds `bias: [n]` to every row.
    Bias(&'a Tensor),
    /// `out = gelu_tanh(a·b + bias)`.
    Gelu {
        /// `[n]`
        bias: Option<&'a Tensor>,
        /// `[m, n]`: the argument of GELU is written there.
        pre_activation: Option<&'a mut Tensor>,
    },
    /// `out = (a·b) · gelu_tanh′(pre_activation)`.
    GeluGradient {
        /// `[m, n]`
        pre_activation: &'a Tensor,
        /// `[n]`: the sums of the columns of `out`, the gradient of a bias, are written there.
        column_sums: Option<&'a mut Tensor>,
    },
    /// Writes the sums over k of the left operand, `[m]`: with `a = dyᵀ` that is the gradient of a bias.
    RowSums(&'a mut Tensor),
    /// `out[m, n/2] = silu(gate) · up`, the halves of `a·b`, where [`has_swiglu`] says so.
    SwiGlu {
        /// `[m, n]`: gate and up are written there.
        gate_up: Option<&'a mut Tensor>,
    },
    /// `out[m, 2n]`: the gradients of gate and up, if `a·b` is that of `silu(gate) · up`; where [`has_swiglu`] says so.
    SwiGluGradient {
        /// `[m, 2n]`
        gate_up: &'a Tensor,
    },
}

/// Whether products can be asked for SwiGLU, forward and backward, over `d` model and `f` feed-forward columns of `x`'s
/// device and dtype.
pub fn has_swiglu(x: &Tensor, d: usize, f: usize) -> bool {
    let aligned = d > 0 && f > 0 && d.is_multiple_of(8) && f.is_multiple_of(16) && x.rows().0 > 0;
    aligned && x.device() != Device::Cpu && x.dtype() == DType::Bf16 && x.cuda().arch() == Arch::Sm90a
}

/// `out ← beta · out + op(a)·op(b)`, where with `beta = 0` the old elements are not read.
pub struct Product<'a> {
    /// Rows of the output.
    pub m: usize,
    /// Columns of the product, and of the output but for SwiGLU.
    pub n: usize,
    /// Terms of each sum.
    pub k: usize,
    /// `[m, k]` once transposed, if it is. f32 or bf16.
    pub a: Matrix<'a>,
    /// `[k, n]` once transposed, if it is. Of the dtype of `a`.
    pub b: Matrix<'a>,
    /// `[m, n]` unless SwiGLU says otherwise, f32 or the dtype of `a`.
    pub out: MatrixMut<'a>,
    /// Factor of the old elements: with a GELU or SwiGLU only 0.
    pub beta: f32,
    /// What else is done.
    pub epilogue: Epilogue<'a>,
}

/// The numbers that a product needs on the device.
#[derive(Clone, Copy)]
pub(super) struct Pointers {
    pub(super) a: u64,
    pub(super) b: u64,
    pub(super) out: u64,
    /// Of the bias or of row sums; 0 if there is none.
    pub(super) vector: u64,
    pub(super) pre_activation: u64,
    /// Of one f32 each: factors of 8-bit operands; 0 for others.
    pub(super) scale_a: u64,
    pub(super) scale_b: u64,
}

/// Asks for a product, after all work asked for before. Does not wait, and may be recorded in a graph.
///
/// # Panics
/// If a matrix does not fit in its tensor, dtypes do not go together, or the output is shared.
#[track_caller]
pub fn matmul(mut product: Product<'_>) {
    let context = product.a.tensor.cuda().clone();
    let key = Key::of(&product);
    let pointers = check(&mut product);
    let beta = product.beta;
    if !key.is_empty() && or_unwind(run(&context, &key, &pointers, beta)) {
        return;
    }
    assert!(!key.epilogue.is_gated(), "matmul: no such product here, ask `has_swiglu` first: {key}");
    let alone = key.without_sums();
    let two_steps = alone != key;
    if !two_steps || alone.is_empty() || !or_unwind(run(&context, &alone, &pointers, beta)) {
        plain::matmul(&context, &alone, &pointers, beta);
    }
    if two_steps {
        plain::sums_of_epilogue(&context, &key, &pointers);
    }
}

/// The product by our own kernel in a given tiling. With `bounded_waits` a kernel that would hang is ended after about two
/// seconds, and with it all of this process's work on the device. Returns whether there is such a kernel for it.
///
/// # Panics
/// As [`matmul`].
#[track_caller]
pub fn matmul_tiled(mut product: Product<'_>, tiling: &gemm::Tiling, bounded_waits: bool) -> bool {
    let context = product.a.tensor.cuda().clone();
    let key = Key::of(&product);
    let pointers = check(&mut product);
    let fits = !key.is_empty() && gemm::fits(&context, &key, product.beta);
    if fits {
        gemm::launch(&context, &key, &pointers, product.beta, tiling, bounded_waits);
    }
    fits
}

/// `false` if cuBLASLt cannot do it, or does it slower than in two steps.
fn run(context: &Arc<Context>, key: &Key, pointers: &Pointers, beta: f32) -> Result<bool, crate::Error> {
    context.enter()?;
    context.blas().run(context, key, pointers, beta)
}

/// The addresses, once everything is known to fit.
#[track_caller]
fn check(product: &mut Product<'_>) -> Pointers {
    let Product { m, n, k, a, b, out, beta, epilogue } = product;
    let (m, n, k) = (*m, *n, *k);
    let input = a.tensor.dtype();
    assert!(
        matches!(input, DType::F32 | DType::Bf16) && b.tensor.dtype() == input,
        "matmul: operands of {input} and {}",
        b.tensor.dtype()
    );
    let output = out.tensor.dtype();
    assert!(output == DType::F32 || output == input, "matmul: a product of {input} cannot be {output}");
    let transposed = a.transposed;
    let of = |what: &str, matrix: &Matrix<'_>, (rows, columns): (usize, usize)| {
        let (rows, columns) = if matrix.transposed { (columns, rows) } else { (rows, columns) };
        check_bounds(what, matrix.tensor.len(), matrix.offset, matrix.stride, rows, columns);
        matrix.tensor.device_pointer() + (matrix.offset * input.bytes()) as u64
    };
    let (a, b) = (of("a", a, (m, k)), of("b", b, (k, n)));
    let out_columns = match epilogue {
        Epilogue::SwiGlu { .. } => n / 2,
        Epilogue::SwiGluGradient { .. } => 2 * n,
        _ => n,
    };
    check_bounds("out", out.tensor.len(), out.offset, out.stride, m, out_columns);
    assert!(out.tensor.is_unique(), "matmul: the output of shape {:?} is shared", out.tensor.shape());
    let out = out.tensor.device_pointer() + (out.offset * output.bytes()) as u64;

    let vector = |x: &Tensor, len: usize| {
        assert!(
            x.len() == len && x.dtype() == output,
            "matmul: beside an output of {output} expected a vector of {len}, not {x:?}"
        );
        x.device_pointer()
    };
    let matrix = |x: &Tensor, columns: usize| {
        assert!(
            x.len() == m * columns && x.dtype() == output && *beta == 0.0,
            "matmul: beside an output of {output} without beta expected [{m}, {columns}], not {x:?}"
        );
        x.device_pointer()
    };
    let matrix_mut = |x: &mut Tensor| {
        assert!(x.is_unique(), "matmul: the pre-activation is shared");
        matrix(x, n)
    };
    let (vector, pre_activation) = match epilogue {
        Epilogue::None => (0, 0),
        Epilogue::Bias(bias) => (vector(bias, n), 0),
        Epilogue::Gelu { bias, pre_activation } => {
            let kept = pre_activation.as_mut().map_or(0, |x| matrix_mut(x));
            (bias.map_or(0, |bias| vector(bias, n)), kept)
        }
        Epilogue::GeluGradient { pre_activation, column_sums } => {
            let sums = column_sums.as_mut().map_or(0, |sums| {
                assert!(sums.is_unique(), "matmul: the column sums are shared");
                vector(sums, n)
            });
            (sums, matrix(pre_activation, n))
        }
        Epilogue::RowSums(sums) => {
            assert!(sums.is_unique() && transposed, "matmul: row sums are of an unshared transposed operand");
            (vector(sums, m), 0)
        }
        Epilogue::SwiGlu { gate_up } => (0, gate_up.as_mut().map_or(0, |x| matrix_mut(x))),
        Epilogue::SwiGluGradient { gate_up } => (0, matrix(gate_up, 2 * n)),
    };
    Pointers { a, b, out, vector, pre_activation, scale_a: 0, scale_b: 0 }
}

#[track_caller]
fn check_bounds(what: &str, len: usize, offset: usize, stride: usize, rows: usize, columns: usize) {
    let end = match (rows, columns) {
        (0, _) | (_, 0) => Some(0),
        _ => (rows - 1).checked_mul(stride).and_then(|x| x.checked_add(offset)?.checked_add(columns)),
    };
    assert!(
        (rows <= 1 || columns <= stride) && end.is_some_and(|end| end <= len),
        "matmul: {what} is [{rows}, {columns}] with stride {stride} from element {offset}, in a tensor of {len}"
    );
}
