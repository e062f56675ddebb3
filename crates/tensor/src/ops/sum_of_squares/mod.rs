//! Sum of squares, for the norm of gradients, and scaling in place, for clipping them.

mod cpu;
#[cfg(test)]
mod tests;

use crate::Tensor;

/// `Σ x²`, summed in f64. Not differentiable.
pub fn sum_of_squares(x: &Tensor) -> f64 {
    cpu::sum_of_squares(x.f32s())
}

/// `x ← factor · x`. Not differentiable.
///
/// # Panics
/// If the elements of `x` are shared.
#[track_caller]
pub fn scale_in_place(x: &mut Tensor, factor: f32) {
    cpu::scale(x.f32s_mut(), factor);
}
