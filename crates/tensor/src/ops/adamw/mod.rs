//! Adam with decoupled weight decay.
//!
//! With gradient `g` and step `t`, counted from 1:
//!
//! ```text
//! θ ← (1 − learning_rate·weight_decay)·θ
//! m ← β₁·m + (1 − β₁)·g        m̂ = m / (1 − β₁ᵗ)
//! v ← β₂·v + (1 − β₂)·g²       v̂ = v / (1 − β₂ᵗ)
//! θ ← θ − learning_rate · m̂ / (√v̂ + eps)
//! ```
//!
//! Loshchilov and Hutter, 2019, <https://arxiv.org/abs/1711.05101>, algorithm 2, with the decay scaled by the learning
//! rate as in PyTorch; Adam is of Kingma and Ba, 2015, <https://arxiv.org/abs/1412.6980>, algorithm 1.

mod cpu;
#[cfg(test)]
mod tests;

use crate::Tensor;

/// The settings of one update of one parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// The size of the update: about how far an element moves.
    pub learning_rate: f32,
    /// Decay per step of the running mean of gradients.
    pub beta1: f32,
    /// Decay per step of the running mean of squared gradients.
    pub beta2: f32,
    /// Added to the root of the mean square.
    pub eps: f32,
    /// Share of the parameter removed per step and unit of learning rate; 0 is plain Adam.
    pub weight_decay: f32,
    /// The number of this step, counted from 1.
    pub step: u64,
    /// Multiplied into the gradient before all else: the factor of clipping, otherwise 1.
    pub grad_scale: f32,
}

/// Updates a parameter and its two moments in place, in one pass over memory.
///
/// # Shapes
/// All four of one shape. Before the first step the moments are zeros.
///
/// # Panics
/// If the shapes differ, an updated tensor shares its elements, or `step` is 0.
#[track_caller]
pub fn adamw(
    parameter: &mut Tensor,
    gradient: &Tensor,
    first_moment: &mut Tensor,
    second_moment: &mut Tensor,
    settings: &AdamW,
) {
    let shape = parameter.shape();
    let others = [("gradient", gradient), ("first moment", &*first_moment), ("second moment", &*second_moment)];
    for (name, other) in others {
        assert!(
            other.shape() == shape,
            "adamw: the parameter is {shape:?}, so the {name} must be too, not {:?}",
            other.shape()
        );
    }
    assert!(settings.step >= 1, "adamw: steps count from 1, not from 0");
    let (m, v) = (first_moment.f32s_mut(), second_moment.f32s_mut());
    cpu::update(parameter.f32s_mut(), gradient.f32s(), m, v, cpu::Factors::new(settings));
}
