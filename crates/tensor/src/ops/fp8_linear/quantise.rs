//! Rounding to 8 bits, on a GPU: a pass for the largest magnitude, one for the codes.

use std::sync::Arc;

use crate::cuda::blas::Fp8Matrix;
use crate::cuda::{Arch, Arg, Buffer, Context, ELEMENT, Source, or_unwind};
use crate::fp8::Fp8Format;
use crate::{DType, Tensor};

/// As in the kernels.
const THREADS: usize = 256;
const TILE: usize = 128;
/// Blocks of a multiprocessor, of both kernels.
const RESIDENT: usize = 4;

fn source(format: Fp8Format) -> Source {
    let parts = &[ELEMENT, ("quantise.cu", include_str!("quantise.cu"))];
    let name = match format {
        Fp8Format::E4m3 => "quantise_e4m3",
        Fp8Format::E5m2 => "quantise_e5m2",
    };
    Source { name, parts, options: vec![format!("-DE5M2={}", u32::from(format == Fp8Format::E5m2))] }
}

/// Sources for CI, with the architectures they must compile for.
pub(in crate::ops) fn sources() -> Vec<(Source, &'static [Arch])> {
    [Fp8Format::E4m3, Fp8Format::E5m2].map(|format| (source(format), Arch::FP8)).to_vec()
}

/// A matrix rounded to 8 bits, in the orders that were asked for, with one factor.
pub struct Fp8Quantised {
    /// As it lies.
    pub plain: Option<Fp8Matrix>,
    /// Its transpose.
    pub transposed: Option<Fp8Matrix>,
}

/// In which orders a matrix is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Fp8Orders {
    /// As it lies.
    pub plain: bool,
    /// Its transpose.
    pub transposed: bool,
}

impl Fp8Orders {
    /// Both.
    pub const BOTH: Self = Self { plain: true, transposed: true };
}

/// Rounds the rows of `x` to `format`, scaled so that the largest magnitude becomes the largest number. If one is not
/// finite, the factor is not either. Does not wait for the device.
///
/// # Panics
/// If `x` is not of bf16 on a GPU, or its rows or columns are no multiples of 16.
#[track_caller]
pub fn fp8_quantise(x: &Tensor, format: Fp8Format, orders: Fp8Orders) -> Fp8Quantised {
    let (rows, columns) = x.rows();
    assert!(
        Fp8Matrix::fits(rows, columns) && x.dtype() == DType::Bf16,
        "fp8_quantise: expected bf16 with rows and columns in multiples of 16, not {x:?}"
    );
    let (context, source, device) = (x.cuda(), source(format), x.device());
    let n_vectors = x.len() / 8;
    let most = RESIDENT * context.n_multiprocessors();
    let n_partials = n_vectors.div_ceil(THREADS).min(most);
    let mut partials = Tensor::unspecified_on(device, &[n_partials], DType::U32);
    let arguments = [(&mut partials).into(), x.into(), (n_vectors as u64).into()];
    // SAFETY: x has as many vectors of 8 elements as is said, and each block writes one of the partial results.
    unsafe { context.kernel(&source, "partial_magnitudes", 0).run([n_partials, 1, 1], THREADS, &arguments) };

    let codes = |wanted: bool| wanted.then(|| codes(context, x.len()));
    let (plain, transposed) = (codes(orders.plain), codes(orders.transposed));
    let mut scale = Tensor::unspecified_on(device, &[], DType::F32);
    let pointer = |codes: &Option<Arc<Buffer<u8>>>| Arg::Pointer(codes.as_ref().map_or(0, |codes| codes.pointer()));
    let arguments = [
        pointer(&plain),
        pointer(&transposed),
        (&mut scale).into(),
        x.into(),
        (&partials).into(),
        n_partials.into(),
        (rows as u64).into(),
        (columns as u64).into(),
    ];
    let tiles = rows.div_ceil(TILE) * columns.div_ceil(TILE);
    // SAFETY: x is [rows, columns], and so are the codes, which are new, or their transpose; parts of tiles beyond are left
    // out. Rows and columns are multiples of 16.
    unsafe { context.kernel(&source, "quantise", 0).run([tiles.min(most), 1, 1], THREADS, &arguments) };
    let matrix = |rows, columns| {
        let scale = scale.clone();
        move |codes| Fp8Matrix { format, rows, columns, codes, scale }
    };
    Fp8Quantised { plain: plain.map(matrix(rows, columns)), transposed: transposed.map(matrix(columns, rows)) }
}

fn codes(context: &Arc<Context>, len: usize) -> Arc<Buffer<u8>> {
    Arc::new(or_unwind(Buffer::unspecified(context, len)))
}
