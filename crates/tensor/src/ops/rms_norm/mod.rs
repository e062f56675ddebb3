//! Root-mean-square normalisation: `y = gain · x / rms(x)`, `rms(x) = √(mean(x²) + eps)`.
//!
//! Zhang and Sennrich, 2019, <https://arxiv.org/abs/1910.07467>, equation 4; `eps` as in PyTorch.

pub(in crate::ops) mod cpu;
#[allow(unsafe_code)]
pub(in crate::ops) mod cuda;
#[cfg(test)]
mod tests;

use std::sync::PoisonError;

use crate::cpu::element::{Element, for_dtype};
use crate::ops::add::{SumsOfColumns, summing, with_bias_on_tape};
use crate::tensor::OnTape;
use crate::{DType, Device, Tensor};

/// Scales every row of `x` to unit root mean square, then by `gain`.
///
/// # Shapes
/// `x: [..., d]`, `gain: [d]` → `[..., d]`.
///
/// # Panics
/// If `gain` is not `[d]` of f32.
#[track_caller]
pub fn rms_norm(x: &Tensor, gain: &Tensor, eps: f32) -> Tensor {
    let (n, d) = x.rows();
    assert!(gain.shape() == [d], "rms_norm: x is {:?}, so gain must be [{d}], not {:?}", x.shape(), gain.shape());

    assert!(gain.dtype() == DType::F32, "rms_norm: gain must be of f32, not of {}", gain.dtype());

    let mut y = Tensor::unspecified_on(x.device(), x.shape(), x.dtype());
    let mut inv_rms = Tensor::unspecified_on(x.device(), &[n], DType::F32);
    match x.device() {
        Device::Cpu => for_dtype!(x.dtype(), T => {
            cpu::forward(T::of_mut(&mut y), inv_rms.f32s_mut(), T::of(x), gain.f32s(), eps);
        }),
        Device::Cuda(_) => cuda::forward(&mut y, &mut inv_rms, x, gain, eps),
    }
    on_tape(y, inv_rms, x, gain, None)
}

/// `x + addend + addend_bias`, and the norm of it, in one pass, of the shapes that [`rms_norm`] wants.
pub(in crate::ops) fn add_and_norm(
    x: &Tensor,
    addend: &Tensor,
    addend_bias: Option<&Tensor>,
    gain: &Tensor,
    eps: f32,
) -> (Tensor, Tensor) {
    let [mut y, mut sum] = [(); 2].map(|()| Tensor::unspecified_on(x.device(), x.shape(), x.dtype()));
    let mut inv_rms = Tensor::unspecified_on(x.device(), &[x.rows().0], DType::F32);
    match x.device() {
        Device::Cpu => for_dtype!(x.dtype(), T => {
            let (outputs, terms) = ([T::of_mut(&mut y), T::of_mut(&mut sum)], [T::of(x), T::of(addend)]);
            cpu::add_forward(outputs, inv_rms.f32s_mut(), terms, addend_bias.map(T::of), gain.f32s(), eps);
        }),
        Device::Cuda(_) => {
            cuda::add_forward([&mut y, &mut inv_rms, &mut sum], [x, addend], addend_bias, gain, eps);
        }
    }
    let sums = SumsOfColumns::default();
    let sum = with_bias_on_tape(sum, x, addend, addend_bias, sums.clone());
    let y = on_tape(y, inv_rms, &sum, gain, summing(addend_bias, sums));
    (sum, y)
}

/// Backward also leaves the sums of the columns of `dx` in `sums`, if there are any: for the node just before this one,
/// whose gradient is complete once this one has run.
fn on_tape(y: Tensor, inv_rms: Tensor, x: &Tensor, gain: &Tensor, sums: Option<SumsOfColumns>) -> Tensor {
    let (x_, gain_) = (x.clone(), gain.clone());
    Tensor::from_op(y, &[x, gain], move |dy, sink| {
        let mut dgain = gain_.new_gradient();
        let mut of_columns = sums.as_ref().map(|_| gain_.new_gradient());
        let mut backward = |dx: &mut Tensor, beta| match x_.device() {
            Device::Cpu => for_dtype!(dx.dtype(), D => for_dtype!(x_.dtype(), T => {
                let saved = cpu::Saved { x: T::of(&x_), gain: gain_.f32s(), inv_rms: inv_rms.f32s() };
                cpu::backward(D::of_mut(dx), beta, dgain.f32s_mut(), T::of(&dy), &saved);
            })),
            Device::Cuda(_) => {
                let saved = cuda::Saved { x: &x_, gain: &gain_, inv_rms: &inv_rms };
                let mut outputs: Vec<&mut Tensor> = [&mut dgain].into_iter().chain(&mut of_columns).collect();
                cuda::backward(dx, beta, &mut outputs, &dy, &saved);
            }
        };
        if sink.wants(&x_) {
            sink.accumulate(&x_, backward);
        } else {
            backward(&mut Tensor::unspecified_on(x_.device(), x_.shape(), x_.dtype()), 0.0);
        }
        if let Some(sums) = sums {
            *sums.lock().unwrap_or_else(PoisonError::into_inner) = of_columns;
        }
        sink.add(&gain_, dgain);
    })
}
