//! Root-mean-square normalisation: `y = gain · x / rms(x)`, `rms(x) = √(mean(x²) + eps)`.
//!
//! Zhang and Sennrich, 2019, <https://arxiv.org/abs/1910.07467>, equation 4; `eps` as in PyTorch.

pub(in crate::ops) mod cpu;
#[cfg(test)]
mod tests;

use crate::{DType, Tensor};

/// Scales every row of `x` to unit root mean square, then by `gain`.
///
/// # Shapes
/// `x: [..., d]`, `gain: [d]` → `[..., d]`.
///
/// # Panics
/// If `gain` is not `[d]`.
#[track_caller]
pub fn rms_norm(x: &Tensor, gain: &Tensor, eps: f32) -> Tensor {
    let (n, d) = x.rows();
    assert!(gain.shape() == [d], "rms_norm: x is {:?}, so gain must be [{d}], not {:?}", x.shape(), gain.shape());

    let mut y = Tensor::unspecified(x.shape(), DType::F32);
    let mut inv_rms = Tensor::unspecified(&[n], DType::F32);
    cpu::forward(y.f32s_mut(), inv_rms.f32s_mut(), x.f32s(), gain.f32s(), eps);

    let (x_, gain_) = (x.clone(), gain.clone());
    Tensor::from_op(y, &[x, gain], move |dy, sink| {
        let mut dgain = Tensor::unspecified(&[d], DType::F32);
        let saved = cpu::Saved { x: x_.f32s(), gain: gain_.f32s(), inv_rms: inv_rms.f32s() };
        let mut backward = |dx: &mut Tensor, beta| {
            cpu::backward(dx.f32s_mut(), beta, dgain.f32s_mut(), dy.f32s(), &saved);
        };
        if sink.wants(&x_) {
            sink.accumulate(&x_, backward);
        } else {
            backward(&mut Tensor::unspecified(x_.shape(), DType::F32), 0.0);
        }
        sink.add(&gain_, dgain);
    })
}
