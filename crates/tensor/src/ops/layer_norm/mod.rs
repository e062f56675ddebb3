//! Layer normalisation: `y = gain · (x − mean(x)) / √(var(x) + eps) + bias`, with the variance over `d`, not `d − 1`.
//!
//! Ba, Kiros and Hinton, 2016, <https://arxiv.org/abs/1607.06450>, equation 4; `eps` as in PyTorch.

mod cpu;
#[allow(unsafe_code)]
pub(in crate::ops) mod cuda;
#[cfg(test)]
mod tests;

use std::sync::PoisonError;

use crate::cpu::element::{Element, for_dtype};
use crate::ops::add::{SumsOfColumns, summing, with_bias_on_tape};
use crate::tensor::OnTape;
use crate::{DType, Device, Tensor};

/// Shifts and scales every row of `x` to mean 0 and variance 1, then multiplies by `gain` and adds `bias`.
///
/// # Shapes
/// `x: [..., d]`, `gain: [d]`, `bias: [d]` → `[..., d]`.
///
/// # Panics
/// If `gain` or `bias` is not `[d]` of f32.
#[track_caller]
pub fn layer_norm(x: &Tensor, gain: &Tensor, bias: Option<&Tensor>, eps: f32) -> Tensor {
    let (n, d) = x.rows();
    for (name, tensor) in [("gain", Some(gain)), ("bias", bias)] {
        let Some(tensor) = tensor else { continue };
        let shape = tensor.shape();
        assert!(shape == [d], "layer_norm: x is {:?}, so {name} must be [{d}], not {shape:?}", x.shape());
        assert!(tensor.dtype() == DType::F32, "layer_norm: {name} must be of f32, not of {}", tensor.dtype());
    }

    let [mut mean, mut inv_std] = [(); 2].map(|()| Tensor::unspecified_on(x.device(), &[n], DType::F32));
    let mut y = Tensor::unspecified_on(x.device(), x.shape(), x.dtype());
    match x.device() {
        Device::Cpu => for_dtype!(x.dtype(), T => {
            let outputs = cpu::Outputs { y: T::of_mut(&mut y), mean: mean.f32s_mut(), inv_std: inv_std.f32s_mut() };
            cpu::forward(outputs, T::of(x), gain.f32s(), bias.map(Tensor::f32s), eps);
        }),
        Device::Cuda(_) => {
            let outputs = cuda::Outputs { y: &mut y, mean: &mut mean, inv_std: &mut inv_std };
            cuda::forward(outputs, x, gain, bias, eps);
        }
    }
    on_tape(y, [mean, inv_std], x, gain, bias, None)
}

/// `x + addend + addend_bias`, and the norm of it, in one pass, of the shapes that [`layer_norm`] wants.
pub(in crate::ops) fn add_and_norm(
    x: &Tensor,
    addend: &Tensor,
    addend_bias: Option<&Tensor>,
    gain: &Tensor,
    bias: Option<&Tensor>,
    eps: f32,
) -> (Tensor, Tensor) {
    let [mut y, mut sum] = [(); 2].map(|()| Tensor::unspecified_on(x.device(), x.shape(), x.dtype()));
    let [mut mean, mut inv_std] = [(); 2].map(|()| Tensor::unspecified_on(x.device(), &[x.rows().0], DType::F32));
    match x.device() {
        Device::Cpu => for_dtype!(x.dtype(), T => {
            let outputs = cpu::Outputs { y: T::of_mut(&mut y), mean: mean.f32s_mut(), inv_std: inv_std.f32s_mut() };
            let (sum, terms) = (T::of_mut(&mut sum), [T::of(x), T::of(addend)]);
            cpu::add_forward(outputs, sum, terms, addend_bias.map(T::of), gain.f32s(), bias.map(Tensor::f32s), eps);
        }),
        Device::Cuda(_) => {
            let outputs = cuda::Outputs { y: &mut y, mean: &mut mean, inv_std: &mut inv_std };
            cuda::add_forward(outputs, &mut sum, [x, addend], addend_bias, gain, bias, eps);
        }
    }
    let sums = SumsOfColumns::default();
    let sum = with_bias_on_tape(sum, x, addend, addend_bias, sums.clone());
    let y = on_tape(y, [mean, inv_std], &sum, gain, bias, summing(addend_bias, sums));
    (sum, y)
}

/// Backward also leaves the sums of the columns of `dx` in `sums`, if there are any: for the node just before this one,
/// whose gradient is complete once this one has run.
fn on_tape(
    y: Tensor,
    statistics: [Tensor; 2],
    x: &Tensor,
    gain: &Tensor,
    bias: Option<&Tensor>,
    sums: Option<SumsOfColumns>,
) -> Tensor {
    let (x_, gain_, bias_) = (x.clone(), gain.clone(), bias.map(Tensor::place));
    let inputs: Vec<&Tensor> = [x, gain].into_iter().chain(bias).collect();
    Tensor::from_op(y, &inputs, move |dy, sink| {
        let [mean, inv_std] = &statistics;
        let [mut dgain, mut dbias] = [(); 2].map(|()| gain_.new_gradient());
        let mut of_columns = sums.as_ref().map(|_| gain_.new_gradient());
        let mut backward = |dx: &mut Tensor, beta| match x_.device() {
            Device::Cpu => for_dtype!(dx.dtype(), D => for_dtype!(x_.dtype(), T => {
                let (mean, inv_std) = (mean.f32s(), inv_std.f32s());
                let saved = cpu::Saved { x: T::of(&x_), gain: gain_.f32s(), mean, inv_std };
                cpu::backward(D::of_mut(dx), beta, dgain.f32s_mut(), dbias.f32s_mut(), T::of(&dy), &saved);
            })),
            Device::Cuda(_) => {
                let saved = cuda::Saved { x: &x_, gain: &gain_, mean, inv_std };
                let mut outputs: Vec<&mut Tensor> =
                    [&mut dgain, &mut dbias].into_iter().chain(&mut of_columns).collect();
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
        if let Some(bias) = bias_ {
            sink.add(&bias, dbias);
        }
    })
}
