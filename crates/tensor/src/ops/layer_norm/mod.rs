//! Layer normalisation: `y = gain · (x − mean(x)) / √(var(x) + eps) + bias`, with the variance over `d`, not `d − 1`.
//!
//! Ba, Kiros and Hinton, 2016, <https://arxiv.org/abs/1607.06450>, equation 4; `eps` as in PyTorch.

mod cpu;
#[cfg(test)]
mod tests;

use crate::{DType, Tensor};

/// Shifts and scales every row of `x` to mean 0 and variance 1, then multiplies by `gain` and adds `bias`.
///
/// # Shapes
/// `x: [..., d]`, `gain: [d]`, `bias: [d]` → `[..., d]`.
///
/// # Panics
/// If `gain` or `bias` is not `[d]`.
#[track_caller]
pub fn layer_norm(x: &Tensor, gain: &Tensor, bias: Option<&Tensor>, eps: f32) -> Tensor {
    let (n, d) = x.rows();
    for (name, tensor) in [("gain", Some(gain)), ("bias", bias)] {
        let Some(shape) = tensor.map(Tensor::shape) else { continue };
        assert!(shape == [d], "layer_norm: x is {:?}, so {name} must be [{d}], not {shape:?}", x.shape());
    }

    let mut y = Tensor::unspecified(x.shape(), DType::F32);
    let (mut mean, mut inv_std) = (Tensor::unspecified(&[n], DType::F32), Tensor::unspecified(&[n], DType::F32));
    let outputs = cpu::Outputs { y: y.f32s_mut(), mean: mean.f32s_mut(), inv_std: inv_std.f32s_mut() };
    cpu::forward(outputs, x.f32s(), gain.f32s(), bias.map(Tensor::f32s), eps);

    let (x_, gain_, bias_) = (x.clone(), gain.clone(), bias.map(Tensor::place));
    let inputs: Vec<&Tensor> = [x, gain].into_iter().chain(bias).collect();
    Tensor::from_op(y, &inputs, move |dy, sink| {
        let (mut dgain, mut dbias) = (Tensor::unspecified(&[d], DType::F32), Tensor::unspecified(&[d], DType::F32));
        let saved = cpu::Saved { x: x_.f32s(), gain: gain_.f32s(), mean: mean.f32s(), inv_std: inv_std.f32s() };
        let mut backward = |dx: &mut Tensor, beta| {
            cpu::backward(dx.f32s_mut(), beta, dgain.f32s_mut(), dbias.f32s_mut(), dy.f32s(), &saved);
        };
        if sink.wants(&x_) {
            sink.accumulate(&x_, backward);
        } else {
            backward(&mut Tensor::unspecified(x_.shape(), DType::F32), 0.0);
        }
        sink.add(&gain_, dgain);
        if let Some(bias) = bias_ {
            sink.add(&bias, dbias);
        }
    })
}
