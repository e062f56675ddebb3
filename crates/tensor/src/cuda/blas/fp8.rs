//! Products of 8-bit floating-point numbers.
//!
//! On Ada and Hopper cuBLASLt has them in one order only: both operands with the terms of a sum side by side, so a
//! transposed operand must lie in memory so. Sizes are multiples of 16. Each operand has one factor, in device memory; the
//! output is bf16 or f32 and may be added to.

use std::sync::Arc;

use super::key::{Fp8, Key, Kind, Operand, alignment};
use super::{MatrixMut, Pointers, check_bounds, run};
use crate::cuda::{Buffer, Context, or_unwind};
use crate::fp8::Fp8Format;
use crate::{DType, Error, Tensor};

/// What sizes and strides must be multiples of.
const MULTIPLE: usize = 16;

/// A row-major matrix `[rows, columns]` of 8-bit codes. What it stands for is `scale` times the numbers of the codes.
#[derive(Clone)]
pub struct Fp8Matrix {
    /// Of all codes.
    pub format: Fp8Format,
    /// Rows.
    pub rows: usize,
    /// Codes of a row.
    pub columns: usize,
    /// `rows · columns` of them.
    pub codes: Arc<Buffer<u8>>,
    /// `[]` of f32.
    pub scale: Tensor,
}

impl Fp8Matrix {
    /// Whether a matrix of this shape can be an operand.
    pub fn fits(rows: usize, columns: usize) -> bool {
        rows > 0 && columns > 0 && rows.is_multiple_of(MULTIPLE) && columns.is_multiple_of(MULTIPLE)
    }
}

/// `out ← beta · out + a·bᵀ + bias`, where with `beta = 0` the old elements are not read.
pub struct Fp8Product<'a> {
    /// `[m, k]`
    pub a: &'a Fp8Matrix,
    /// `[n, k]`
    pub b: &'a Fp8Matrix,
    /// `[m, n]`, bf16 or f32.
    pub out: &'a mut Tensor,
    /// Factor of the old elements.
    pub beta: f32,
    /// `[n]`, of the dtype of a bf16 output.
    pub bias: Option<&'a Tensor>,
    /// Whether sums may be kept in fewer bits than f32, as the tensor cores of Hopper do at full speed.
    pub fast_sums: bool,
}

/// Asks for a product, after all work asked for before. Does not wait, and may be recorded in a graph. The same operands
/// give the same bits.
///
/// # Panics
/// If sizes do not go together or are no multiples of 16, both operands are [`Fp8Format::E5m2`], or the output is shared.
/// Unwinds to [`crate::cuda::catch`] if cuBLASLt has no such product on this device.
#[track_caller]
pub fn matmul_fp8(product: Fp8Product<'_>) {
    let Fp8Product { a, b, out, beta, bias, fast_sums } = product;
    let (m, n, k) = (a.rows, b.rows, a.columns);
    assert!(b.columns == k, "matmul_fp8: sums of {k} terms on one side and of {} on the other", b.columns);
    assert!(Fp8Matrix::fits(m, k) && Fp8Matrix::fits(n, k), "matmul_fp8: {m}x{n}x{k} are no multiples of {MULTIPLE}");
    assert!(a.format == Fp8Format::E4m3 || b.format == Fp8Format::E4m3, "matmul_fp8: no products of e5m2 with e5m2");
    for x in [a, b] {
        assert!(x.codes.len() == x.rows * x.columns && x.scale.len() == 1, "matmul_fp8: an operand of another size");
    }
    let output = out.dtype();
    assert!(matches!(output, DType::Bf16 | DType::F32), "matmul_fp8: a product of {output}");
    let context = a.codes.context().clone();
    if let Some(bias) = bias {
        let good = bias.len() == n && bias.dtype() == output && output == DType::Bf16;
        assert!(good, "matmul_fp8: beside an output of {output} expected a bias of {n} in bf16, not {bias:?}");
    }
    let MatrixMut { tensor: out, stride, .. } = MatrixMut::of(out);
    check_bounds("out", out.len(), 0, stride, m, n);
    assert!(out.is_unique(), "matmul_fp8: the output of shape {:?} is shared", out.shape());
    let pointers = Pointers {
        a: a.codes.pointer(),
        b: b.codes.pointer(),
        out: out.device_pointer(),
        vector: bias.map_or(0, Tensor::device_pointer),
        pre_activation: 0,
        scale_a: a.scale.device_pointer(),
        scale_b: b.scale.device_pointer(),
    };
    let operand = |pointer: u64, stride, transposed| Operand { stride, transposed, alignment: alignment(pointer) };
    let key = Key {
        m,
        n,
        k,
        input: DType::Bf16, // not read beside `fp8`
        fp8: Some(Fp8 { a: a.format, b: b.format, fast_sums }),
        output,
        a: operand(pointers.a, k, false),
        b: operand(pointers.b, k, true),
        out: operand(pointers.out, stride, false),
        epilogue: if bias.is_some() { Kind::Bias } else { Kind::None },
    };
    if !or_unwind(run(&context, &key, &pointers, beta)) {
        or_unwind(Err(unsupported(&context, &key)))
    }
}

fn unsupported(context: &Context, key: &Key) -> Error {
    let reason = format!(
        "cuBLASLt has none for {key} on {} ({})\nhint: set training.matmul = \"bf16\"",
        context.name(),
        context.arch()
    );
    Error::Cuda { action: "multiply matrices in fp8", reason }
}

impl Context {
    /// Whether this device has products of 8-bit floating-point numbers that Cupola knows how to ask for.
    pub fn has_fp8(&self) -> bool {
        crate::cuda::Arch::FP8.contains(&self.arch())
    }
}
