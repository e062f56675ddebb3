//! Gated linear unit with SiLU as the gate: `y = silu(gate) · up`, `silu(x) = x/(1 + e^−x)`.
//!
//! Shazeer, 2020, <https://arxiv.org/abs/2002.05202>, equation 6; the two projections come fused from one matrix.

mod cpu;
#[allow(unsafe_code)]
pub(in crate::ops) mod cuda;
#[cfg(test)]
mod tests;

use crate::cpu::element::{Element, for_dtype};
use crate::tensor::OnTape;
use crate::{Device, Tensor};

// Dims: f feed-forward

/// Multiplies the second half of every row by SiLU of the first.
///
/// # Shapes
/// `gate_up: [..., 2f]`, gate then up → `[..., f]`.
///
/// # Panics
/// If the last dimension is odd.
#[track_caller]
pub fn swiglu(gate_up: &Tensor) -> Tensor {
    let (_, width) = gate_up.rows();
    assert!(width.is_multiple_of(2), "swiglu: gate_up must be [..., 2f], not {:?}", gate_up.shape());
    let f = width / 2;

    let leading = &gate_up.shape()[..gate_up.shape().len() - 1];
    let shape: Vec<usize> = leading.iter().copied().chain([f]).collect();
    let mut y = Tensor::unspecified_on(gate_up.device(), &shape, gate_up.dtype());
    match gate_up.device() {
        Device::Cpu => for_dtype!(y.dtype(), T => cpu::forward(T::of_mut(&mut y), T::of(gate_up), f)),
        Device::Cuda(_) => cuda::forward(&mut y, gate_up, f),
    }

    let gate_up_ = gate_up.clone();
    Tensor::from_op(y, &[gate_up], move |dy, sink| {
        let mut dgate_up = gate_up_.new_gradient();
        match gate_up_.device() {
            Device::Cpu => for_dtype!(dgate_up.dtype(), D => for_dtype!(gate_up_.dtype(), T => {
                cpu::backward(D::of_mut(&mut dgate_up), T::of(&dy), T::of(&gate_up_), f);
            })),
            Device::Cuda(_) => cuda::backward(&mut dgate_up, &dy, &gate_up_, f),
        }
        sink.add(&gate_up_, dgate_up);
    })
}
