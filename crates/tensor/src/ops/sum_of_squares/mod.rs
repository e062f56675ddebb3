//! Sums of squares, for the norm of gradients, and scaling in place.

mod cpu;
#[allow(unsafe_code)]
pub(in crate::ops) mod cuda;
#[cfg(test)]
mod tests;

use crate::cpu::element::{Element, for_dtype};
use crate::{DType, Device, Tensor};

/// `Σ x²`, summed in f64 on the CPU. On a GPU this waits for all work asked for, and has the precision of f32. Not
/// differentiable.
///
/// # Panics
/// If `x` is not of f32.
#[track_caller]
pub fn sum_of_squares(x: &Tensor) -> f64 {
    match x.device() {
        Device::Cpu => cpu::sum_of_squares(x.f32s()),
        Device::Cuda(_) => f64::from(global_norm(&[x]).item()).powi(2),
    }
}

/// The Euclidean norm over all elements of `tensors`, on their device, without waiting for it: `√(Σ x²)`.
///
/// Summed in a fixed order, on the CPU in f64. On a GPU squares are summed in f32 over at most 8192 elements, then in f64;
/// elements beyond 1.8e19 give an infinite norm. What is not finite gives a norm that is not. Not differentiable.
///
/// # Shapes
/// Any → `[]` of f32.
///
/// # Panics
/// If a tensor is not of f32, or they are on several devices.
#[track_caller]
pub fn global_norm(tensors: &[&Tensor]) -> Tensor {
    let device = tensors.first().map_or(Device::Cpu, |x| x.device());
    for x in tensors {
        assert!(
            x.dtype() == DType::F32 && x.device() == device,
            "global_norm: expected tensors of f32 on {device}, not {x:?}"
        );
    }
    match device {
        Device::Cpu => {
            let squares: f64 = tensors.iter().map(|x| cpu::sum_of_squares(x.f32s())).sum();
            Tensor::from_f32(&[], vec![squares.sqrt() as f32])
        }
        Device::Cuda(_) => {
            let tensors: Vec<&Tensor> = tensors.iter().copied().filter(|x| !x.is_empty()).collect();
            if tensors.is_empty() { Tensor::zeros_on(device, &[], DType::F32) } else { cuda::norm(&tensors) }
        }
    }
}

/// `x ← factor · x`, for f32 or bf16. Not differentiable.
///
/// # Panics
/// If the elements of `x` are shared.
#[track_caller]
pub fn scale_in_place(x: &mut Tensor, factor: f32) {
    match x.device() {
        Device::Cpu => for_dtype!(x.dtype(), T => cpu::scale(T::of_mut(x), factor)),
        Device::Cuda(_) => cuda::scale(x, factor),
    }
}
