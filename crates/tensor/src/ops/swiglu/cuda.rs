//! One pass, a vector of gate and the one of up together.

use crate::cuda::{Arch, ELEMENT, Source};
use crate::ops::activation::cuda::FUNCTIONS;
use crate::ops::flat_kernel::{self, FLAT};
use crate::ops::row_kernel::vector_width;
use crate::{DType, Tensor};

const FILE: (&str, &str) = ("swiglu.cu", include_str!("swiglu.cu"));

fn source(dtype: DType, gradient: DType, f: usize) -> Source {
    let parts = &[ELEMENT, FLAT, FUNCTIONS, FILE];
    flat_kernel::source("swiglu", parts, [dtype, gradient], vector_width(dtype, f), &[format!("-DF={f}u")])
}

/// Sources for CI, with the architectures they must compile for.
pub(in crate::ops) fn sources() -> Vec<(Source, &'static [Arch])> {
    let sizes = [(DType::Bf16, 5632), (DType::F32, 5632), (DType::Bf16, 33)];
    sizes.map(|(dtype, f)| (source(dtype, dtype, f), Arch::PORTABLE)).to_vec()
}

/// `y = silu(gate) · up`.
pub(super) fn forward(y: &mut Tensor, gate_up: &Tensor, f: usize) {
    let dtype = gate_up.dtype();
    let n_vectors = y.len() / vector_width(dtype, f);
    let arguments = [y.into(), gate_up.into(), (n_vectors as u64).into()];
    // SAFETY: y is [n, f] and gate_up [n, 2f]; vectors beyond those of y are left out.
    unsafe { flat_kernel::run(gate_up.cuda(), &source(dtype, dtype, f), "swiglu_forward", n_vectors, &arguments) };
}

/// `dgate = dy · up · silu′(gate)`, `dup = dy · silu(gate)`.
pub(super) fn backward(dgate_up: &mut Tensor, dy: &Tensor, gate_up: &Tensor, f: usize) {
    let source = source(gate_up.dtype(), dgate_up.dtype(), f);
    let n_vectors = dy.len() / vector_width(gate_up.dtype(), f);
    let arguments = [dgate_up.into(), dy.into(), gate_up.into(), (n_vectors as u64).into()];
    // SAFETY: dy is [n, f], gate_up and its gradient are [n, 2f]; vectors beyond those of dy are left out.
    unsafe { flat_kernel::run(gate_up.cuda(), &source, "swiglu_backward", n_vectors, &arguments) };
}
