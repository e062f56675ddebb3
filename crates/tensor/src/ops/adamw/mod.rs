//! Adam with decoupled weight decay, and clipping by the norm of all gradients.
//!
//! With step `t`, counted from 1:
//!
//! ```text
//! g ← g · min(1, clip / (norm + 1e-6))
//! θ ← (1 − learning_rate·weight_decay)·θ
//! m ← β₁·m + (1 − β₁)·g        m̂ = m / (1 − β₁ᵗ)
//! v ← β₂·v + (1 − β₂)·g²       v̂ = v / (1 − β₂ᵗ)
//! θ ← θ − learning_rate · m̂ / (√v̂ + eps)
//! ```
//!
//! Loshchilov and Hutter, 2019, <https://arxiv.org/abs/1711.05101>, algorithm 2, with the decay scaled by the learning
//! rate as in PyTorch; Adam is of Kingma and Ba, 2015, <https://arxiv.org/abs/1412.6980>, algorithm 1; clipping of Pascanu
//! et al., 2013, <https://arxiv.org/abs/1211.5063>, with PyTorch's 1e-6.

mod cpu;
#[allow(unsafe_code)]
pub(in crate::ops) mod cuda;
#[cfg(test)]
mod tests;

use crate::{DType, Device, Tensor};

/// How many [`adamw_step_numbers`] there are.
pub const ADAMW_STEP_NUMBERS: usize = 3;

/// The settings that all tensors and steps of a training share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Decay per step of the running mean of gradients.
    pub beta1: f32,
    /// Decay per step of the running mean of squared gradients.
    pub beta2: f32,
    /// Added to the root of the mean square.
    pub eps: f32,
    /// Longer gradients are scaled to this norm; 0: none are.
    pub clip: f32,
}

impl AdamW {
    fn one_minus_beta1(&self) -> f32 {
        (1.0 - f64::from(self.beta1)) as f32
    }

    fn one_minus_beta2(&self) -> f32 {
        (1.0 - f64::from(self.beta2)) as f32
    }
}

/// A parameter with all that its update reads and writes, of one shape on one device.
#[derive(Debug)]
pub struct AdamWTensors<'a> {
    /// Of f32, updated.
    pub parameter: &'a mut Tensor,
    /// Of f32.
    pub gradient: &'a Tensor,
    /// Running mean of gradients, of f32; zeros before the first step.
    pub first_moment: &'a mut Tensor,
    /// Running mean of squared gradients, of f32; zeros before the first step.
    pub second_moment: &'a mut Tensor,
    /// A copy to compute with, in bf16 or f32: the updated parameter is rounded into it.
    pub compute: Option<&'a mut Tensor>,
    /// Share of the parameter removed per step and unit of learning rate; 0 is plain Adam.
    pub weight_decay: f32,
}

/// What changes from one step to the next: `[learning_rate, learning_rate / (1 − β₁ᵗ), 1 / √(1 − β₂ᵗ)]`, computed in f64.
///
/// [`adamw`] reads them from a tensor, so that a recorded graph can be replayed with those of another step. Steps count
/// from 1.
///
/// # Panics
/// If `step` is 0.
#[track_caller]
pub fn adamw_step_numbers(settings: &AdamW, learning_rate: f32, step: u64) -> [f32; ADAMW_STEP_NUMBERS] {
    assert!(step >= 1, "adamw: steps count from 1, not from 0");
    let (beta1, beta2) = (f64::from(settings.beta1), f64::from(settings.beta2));
    let t = step as f64;
    let step_size = f64::from(learning_rate) / (1.0 - beta1.powf(t));
    [learning_rate, step_size as f32, (1.0 / (1.0 - beta2.powf(t)).sqrt()) as f32]
}

/// Updates parameters and their moments in place, in one pass over memory.
///
/// If `norm` is not finite, nothing is changed. On a GPU nothing waits for the device: the norm is read there.
///
/// # Shapes
/// `numbers: [3]` of f32, see [`adamw_step_numbers`]; `norm: []`, see [`global_norm`](super::global_norm).
///
/// # Panics
/// If shapes, dtypes or devices do not fit, or an updated tensor shares its elements.
#[track_caller]
pub fn adamw(tensors: &mut [AdamWTensors<'_>], settings: &AdamW, numbers: &Tensor, norm: &Tensor) {
    let device = numbers.device();
    for (name, x, len) in [("numbers", numbers, ADAMW_STEP_NUMBERS), ("norm", norm, 1)] {
        assert!(
            x.len() == len && x.dtype() == DType::F32 && x.device() == device,
            "adamw: the {name} must be {len} elements of f32 on {device}, not {x:?}"
        );
    }
    tensors.iter().for_each(|tensors| check(tensors, device));
    match device {
        Device::Cpu => {
            let norm = norm.f32s()[0];
            if norm.is_finite() {
                tensors.iter_mut().for_each(|x| cpu::update(x, settings, numbers.f32s(), norm));
            }
        }
        Device::Cuda(_) => cuda::update(tensors, settings, numbers, norm),
    }
}

#[track_caller]
fn check(tensors: &AdamWTensors<'_>, device: Device) {
    let shape = tensors.parameter.shape();
    let others = [
        ("gradient", tensors.gradient),
        ("first moment", &*tensors.first_moment),
        ("second moment", &*tensors.second_moment),
    ];
    let compute = tensors.compute.as_deref().map(|x| ("copy to compute with", x));
    for (name, other) in others.into_iter().chain(compute) {
        assert!(
            other.shape() == shape,
            "adamw: the parameter is {shape:?}, so the {name} must be too, not {:?}",
            other.shape()
        );
        assert!(other.device() == device, "adamw: expected the {name} on {device}, not {other:?}");
    }
    assert!(tensors.parameter.device() == device, "adamw: expected the parameter on {device}");
    for (name, x) in others.into_iter().chain([("parameter", &*tensors.parameter)]) {
        assert!(x.dtype() == DType::F32, "adamw: the {name} must be of f32, not {}", x.dtype());
    }
    assert!(compute.is_none_or(|(_, x)| x.dtype() != DType::U32), "adamw: a copy to compute with cannot be of u32");
}
