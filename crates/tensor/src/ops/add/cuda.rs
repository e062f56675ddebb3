//! One pass.

use crate::cuda::{Arch, Arg, ELEMENT, Source};
use crate::ops::flat_kernel::{self, FLAT, full_width};
use crate::{DType, Tensor};

const FILE: (&str, &str) = ("add.cu", include_str!("add.cu"));

fn source(dtype: DType) -> Source {
    flat_kernel::source("add", &[ELEMENT, FLAT, FILE], [dtype; 2], full_width(dtype), &[])
}

/// Sources for CI, with the architectures they must compile for.
pub(in crate::ops) fn sources() -> Vec<(Source, &'static [Arch])> {
    [DType::F32, DType::Bf16].map(|dtype| (source(dtype), Arch::PORTABLE)).to_vec()
}

/// `sum = x + y`.
pub(super) fn add(sum: &mut Tensor, x: &Tensor, y: &Tensor) {
    run(sum.into(), x, y);
}

/// `sum ← sum + x`.
pub(super) fn add_into(sum: &mut Tensor, x: &Tensor) {
    run(Arg::from(&mut *sum), sum, x);
}

/// `sum = x + y + bias`, with one bias for all rows.
pub(super) fn add_with_bias(sum: &mut Tensor, x: &Tensor, y: &Tensor, bias: &Tensor) {
    let n_vectors = x.len().div_ceil(full_width(x.dtype()));
    let (d, n) = (Arg::U64(bias.len() as u64), Arg::U64(x.len() as u64));
    let arguments = [sum.into(), x.into(), y.into(), bias.into(), d, n];
    // SAFETY: sum, x and y have the length and dtype of x, elements from there on are left out; the bias has d elements.
    unsafe { flat_kernel::run(x.cuda(), &source(x.dtype()), "add_with_bias", n_vectors, &arguments) };
}

fn run(sum: Arg, x: &Tensor, y: &Tensor) {
    let n_vectors = x.len().div_ceil(full_width(x.dtype()));
    let arguments = [sum, x.into(), y.into(), Arg::U64(x.len() as u64)];
    // SAFETY: all have the length and dtype of x; elements from there on are left out. Each is read before it is written,
    // by one thread.
    unsafe { flat_kernel::run(x.cuda(), &source(x.dtype()), "add", n_vectors, &arguments) };
}
