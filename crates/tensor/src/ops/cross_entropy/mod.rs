//! Cross-entropy of logits with target classes: `loss = Σ_n (log Σ_v exp(logits_nv) − logits_n[target_n]) / divisor`.
//!
//! The gradient is `dlogits = (softmax(logits) − one_hot(target)) / divisor`. A loss that is not finite has a gradient
//! that is not finite: who looks at the gradient sees both.

mod cpu;
#[allow(unsafe_code)]
pub(in crate::ops) mod cuda;
#[cfg(test)]
mod tests;

use crate::cpu::element::{Element, for_dtype};
use crate::ops::sum_of_squares::cuda::sum;
use crate::tensor::OnTape;
use crate::{DType, Device, Tensor};

pub(super) use cpu::{check_targets, loss_and_gradient, loss_of_row};

/// A target that does not count.
pub const IGNORED: u32 = u32::MAX;

/// The sum of the rows' negative log-likelihoods (nats) over `divisor`, usually the number of targets that count.
///
/// Rows whose target is [`IGNORED`] add nothing to the loss and get no gradient. On a GPU, where targets are not looked at
/// beforehand, one that is `v` or larger makes the loss and its row of the gradient NaN.
///
/// # Shapes
/// `logits_nv: [..., v]`, `targets_n`: u32 of the leading dimensions (or as many in one) → `[]`.
///
/// # Panics
/// If the shapes do not fit, a target on the CPU is `v` or larger and not [`IGNORED`], or the divisor is not positive.
#[track_caller]
pub fn cross_entropy(logits_nv: &Tensor, targets_n: &Tensor, divisor: f32) -> Tensor {
    let (n, v) = logits_nv.rows();
    check_targets("cross_entropy", logits_nv, targets_n, n, v, divisor);
    let rows = cuda::Rows { n, first: 0, v, stride: v };
    let loss = match logits_nv.device() {
        Device::Cpu => {
            let loss = for_dtype!(logits_nv.dtype(), T => cpu::loss(T::of(logits_nv), targets_n.u32s(), v));
            let loss = loss / f64::from(divisor);
            Tensor::from_f32(&[], vec![loss as f32])
        }
        Device::Cuda(_) => {
            let mut losses = Tensor::unspecified_on(logits_nv.device(), &[n], DType::F32);
            cuda::losses(&mut losses, logits_nv, targets_n, &rows);
            sum(&losses, divisor)
        }
    };

    let (logits_, targets) = (logits_nv.clone(), targets_n.clone());
    Tensor::from_op(loss, &[logits_nv], move |dloss, sink| {
        let mut dlogits = logits_.new_gradient();
        let scale = dloss.item() / divisor;
        match logits_.device() {
            Device::Cpu => for_dtype!(dlogits.dtype(), D => for_dtype!(logits_.dtype(), T => {
                cpu::gradient(D::of_mut(&mut dlogits), T::of(&logits_), targets.u32s(), v, scale);
            })),
            Device::Cuda(_) => cuda::gradient(&mut dlogits, &logits_, &targets, &rows, scale),
        }
        sink.add(&logits_, dlogits);
    })
}

/// [`cross_entropy`] whose logits become their gradient, in one pass over memory: the losses of the rows, `[n]`, which are
/// not divided.
///
/// # Panics
/// As there; also if the logits are shared or tracked.
#[track_caller]
pub fn cross_entropy_in_place(logits_nv: &mut Tensor, targets_n: &Tensor, divisor: f32) -> Tensor {
    let (n, v) = logits_nv.rows();
    check_targets("cross_entropy_in_place", logits_nv, targets_n, n, v, divisor);
    assert!(!logits_nv.is_tracked(), "cross_entropy_in_place: tracked logits cannot be overwritten");
    let mut losses = Tensor::unspecified_on(logits_nv.device(), &[n], DType::F32);
    match logits_nv.device() {
        Device::Cpu => for_dtype!(logits_nv.dtype(), T => {
            let mut row = Vec::new();
            let rows = T::of_mut(logits_nv).chunks_exact_mut(v.max(1)).zip(targets_n.u32s());
            for (loss, (logits, &target)) in losses.f32s_mut().iter_mut().zip(rows) {
                *loss = loss_and_gradient(logits, target, 1.0 / divisor, &mut row) as f32;
            }
        }),
        Device::Cuda(_) => {
            let rows = cuda::Rows { n, first: 0, v, stride: v };
            cuda::losses_and_gradient(&mut losses, logits_nv, targets_n, &rows, 1.0 / divisor);
        }
    }
    losses
}
