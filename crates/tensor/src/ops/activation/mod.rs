//! Non-linearities, element by element.

pub(in crate::ops) mod cpu;
#[allow(unsafe_code)]
pub(in crate::ops) mod cuda;
#[cfg(test)]
mod tests;

use crate::cpu::element::{Element, for_dtype};
use crate::tensor::OnTape;
use crate::{Device, Tensor};

/// Which non-linearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `½·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))`: GPT-2's approximation of [`Activation::GeluErf`].
    ///
    /// Hendrycks and Gimpel, 2016, <https://arxiv.org/abs/1606.08415>, section 2.
    GeluTanh,
    /// `x·Φ(x)`, `Φ` the distribution function of N(0, 1); exact to 5e-7 absolute.
    ///
    /// Hendrycks and Gimpel, 2016, <https://arxiv.org/abs/1606.08415>, section 2.
    GeluErf,
    /// `x·σ(x)`, `σ(x) = 1/(1 + e^−x)`; also called swish.
    ///
    /// Ramachandran et al., 2017, <https://arxiv.org/abs/1710.05941>.
    Silu,
    /// `max(x, 0)`, with derivative 0 at 0.
    Relu,
}

/// Applies `activation` to every element of `x`.
///
/// # Shapes
/// `x` of any shape → that shape.
pub fn activation(x: &Tensor, activation: Activation) -> Tensor {
    let mut y = Tensor::unspecified_on(x.device(), x.shape(), x.dtype());
    match x.device() {
        Device::Cpu => for_dtype!(x.dtype(), T => cpu::forward(T::of_mut(&mut y), T::of(x), activation)),
        Device::Cuda(_) => cuda::forward(&mut y, x, activation),
    }

    let x_ = x.clone();
    Tensor::from_op(y, &[x], move |mut dy, sink| {
        let in_place = dy.is_unique() && dy.dtype() == x_.gradient_dtype();
        let dx = match (x_.device(), in_place) {
            (Device::Cpu, true) => {
                for_dtype!(x_.dtype(), T => cpu::backward_in_place(T::of_mut(&mut dy), T::of(&x_), activation));
                dy
            }
            (Device::Cpu, false) => {
                let mut dx = x_.new_gradient();
                for_dtype!(dx.dtype(), D => for_dtype!(x_.dtype(), T => {
                    cpu::backward(D::of_mut(&mut dx), T::of(&dy), T::of(&x_), activation);
                }));
                dx
            }
            (Device::Cuda(_), true) => {
                cuda::backward_in_place(&mut dy, &x_, activation);
                dy
            }
            (Device::Cuda(_), false) => {
                let mut dx = x_.new_gradient();
                cuda::backward(&mut dx, &dy, &x_, activation);
                dx
            }
        };
        sink.add(&x_, dx);
    })
}
