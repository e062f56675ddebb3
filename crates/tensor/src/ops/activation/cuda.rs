//! One pass; which function is an option of the source.

use super::Activation;
use crate::cuda::{Arch, Arg, ELEMENT, Source};
use crate::ops::flat_kernel::{self, FLAT, full_width};
use crate::{DType, Tensor};

/// The functions on one element.
pub(crate) const FUNCTIONS: (&str, &str) = ("functions.cuh", include_str!("functions.cuh"));
const FILE: (&str, &str) = ("activation.cu", include_str!("activation.cu"));

fn source(activation: Activation, dtype: DType, gradient: DType) -> Source {
    let function = match activation {
        Activation::GeluTanh => "gelu_tanh",
        Activation::GeluErf => "gelu_erf",
        Activation::Silu => "silu",
        Activation::Relu => "relu",
    };
    let options = [format!("-DFUNCTION={function}"), format!("-DDERIVATIVE={function}_derivative")];
    let parts = &[ELEMENT, FLAT, FUNCTIONS, FILE];
    flat_kernel::source("activation", parts, [dtype, gradient], full_width(dtype), &options)
}

/// Sources for CI, with the architectures they must compile for.
pub(in crate::ops) fn sources() -> Vec<(Source, &'static [Arch])> {
    let (f32, bf16) = (DType::F32, DType::Bf16);
    let kinds =
        [(Activation::GeluTanh, bf16), (Activation::GeluErf, bf16), (Activation::Silu, f32), (Activation::Relu, f32)];
    kinds.map(|(kind, dtype)| (source(kind, dtype, dtype), Arch::PORTABLE)).to_vec()
}

/// `y = f(x)`.
pub(super) fn forward(y: &mut Tensor, x: &Tensor, activation: Activation) {
    let (n, dtype) = (x.len(), x.dtype());
    let arguments = [y.into(), x.into(), (n as u64).into()];
    let source = source(activation, dtype, dtype);
    // SAFETY: both have n elements; others are left out.
    unsafe {
        flat_kernel::run(x.cuda(), &source, "activation_forward", n.div_ceil(full_width(dtype)), &arguments);
    }
}

/// `dx = dy · f′(x)`.
pub(super) fn backward(dx: &mut Tensor, dy: &Tensor, x: &Tensor, activation: Activation) {
    run_backward(dx.into(), dx.dtype(), dy, x, activation);
}

/// `dy ← dy · f′(x)`.
pub(super) fn backward_in_place(dy: &mut Tensor, x: &Tensor, activation: Activation) {
    run_backward(Arg::from(&mut *dy), dy.dtype(), dy, x, activation);
}

fn run_backward(dx: Arg, gradient: DType, dy: &Tensor, x: &Tensor, activation: Activation) {
    let (n, dtype) = (x.len(), x.dtype());
    let arguments = [dx, dy.into(), x.into(), (n as u64).into()];
    let source = source(activation, dtype, gradient);
    // SAFETY: all have n elements, dy the dtype of x and dx that of the gradient; others are left out. Where dx is dy,
    // each element is read before it is written, by one thread.
    unsafe {
        flat_kernel::run(x.cuda(), &source, "activation_backward", n.div_ceil(full_width(dtype)), &arguments);
    }
}
