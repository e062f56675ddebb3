//! Cross-entropy of logits with target classes: `loss = Σ_n (log Σ_v exp(logits_nv) − logits_n[target_n]) / divisor`.
//!
//! The gradient is `dlogits = (softmax(logits) − one_hot(target)) / divisor`.

mod cpu;
#[cfg(test)]
mod tests;

use crate::{DType, Tensor};

pub(super) use cpu::{check_targets, loss_and_gradient, loss_of_row};

/// A target that does not count.
pub const IGNORED: u32 = u32::MAX;

/// The sum of the rows' negative log-likelihoods (nats) over `divisor`, usually the number of targets that count.
///
/// Rows whose target is [`IGNORED`] add nothing to the loss and get no gradient.
///
/// # Shapes
/// `logits_nv: [..., v]`, `targets_n`: u32 of the leading dimensions (or as many in one) → `[]`.
///
/// # Panics
/// If the shapes do not fit, a target is `v` or larger and not [`IGNORED`], or the divisor is not positive.
#[track_caller]
pub fn cross_entropy(logits_nv: &Tensor, targets_n: &Tensor, divisor: f32) -> Tensor {
    let (n, v) = logits_nv.rows();
    check_targets("cross_entropy", logits_nv, targets_n, n, v, divisor);
    let loss = cpu::loss(logits_nv.f32s(), targets_n.u32s(), v) / f64::from(divisor);

    let (logits_, targets) = (logits_nv.clone(), targets_n.clone());
    Tensor::from_op(Tensor::from_f32(&[], vec![loss as f32]), &[logits_nv], move |dloss, sink| {
        let mut dlogits = Tensor::unspecified(logits_.shape(), DType::F32);
        let scale = dloss.item() / divisor;
        cpu::gradient(dlogits.f32s_mut(), logits_.f32s(), targets.u32s(), v, scale);
        sink.add(&logits_, dlogits);
    })
}
