//! One pass.

use crate::cuda::{Arch, ELEMENT, Source};
use crate::ops::flat_kernel::{self, FLAT};
use crate::{DType, Tensor};

const FILE: (&str, &str) = ("cast.cu", include_str!("cast.cu"));
/// Elements of an access: 16 bytes of bf16, 32 of f32.
const WIDTH: usize = 8;

fn source(from: DType, to: DType) -> Source {
    flat_kernel::source("cast", &[ELEMENT, FLAT, FILE], [from, to], WIDTH, &[])
}

/// Sources for CI, with the architectures they must compile for.
pub(in crate::ops) fn sources() -> Vec<(Source, &'static [Arch])> {
    [[DType::F32, DType::Bf16], [DType::Bf16, DType::F32]].map(|[from, to]| (source(from, to), Arch::PORTABLE)).to_vec()
}

/// `y = x`, rounded to the dtype of `y`.
pub(super) fn cast(y: &mut Tensor, x: &Tensor) {
    let (source, n) = (source(x.dtype(), y.dtype()), x.len());
    // SAFETY: both have n elements; others are left out.
    unsafe {
        flat_kernel::run(x.cuda(), &source, "cast", n.div_ceil(WIDTH), &[y.into(), x.into(), (n as u64).into()]);
    }
}
