//! One pass for the maximum, one for the exponentials; sums over rows in f64, in the order of the rows.

use rayon::prelude::*;

use super::IGNORED;
use crate::cpu::element::{Element, convert};
use crate::cpu::simd::{self, multiversion};
use crate::cpu::threads::rows_per_task;
use crate::{DType, Device, Tensor};

/// Exponentials that are summed in f32 before they are added in f64.
const PARTIAL_SUM: usize = 1024;

/// Asserts what both cross-entropies ask of their targets.
#[track_caller]
pub(in crate::ops) fn check_targets(
    operation: &str,
    rows: &Tensor,
    targets: &Tensor,
    n: usize,
    v: usize,
    divisor: f32,
) {
    assert!(
        targets.len() == n,
        "{operation}: {n} rows ({:?}) need as many targets, not {:?}",
        rows.shape(),
        targets.shape()
    );
    assert!(divisor > 0.0, "{operation}: the divisor must be positive, not {divisor}");
    assert!(
        targets.device() == rows.device(),
        "{operation}: the targets must be on {}, not on {}",
        rows.device(),
        targets.device()
    );
    if targets.device() != Device::Cpu {
        return; // they cannot be looked at without waiting for them
    }
    for (row, &target) in targets.u32s().iter().enumerate() {
        assert!(
            target == IGNORED || (target as usize) < v,
            "{operation}: target {target} of row {row} is not one of {v} classes"
        );
    }
}

/// The undivided loss.
pub(super) fn loss<T: Element>(logits: &[T], targets: &[u32], v: usize) -> f64 {
    let losses: Vec<f64> = logits
        .par_chunks_exact(v.max(1))
        .with_min_len(rows_per_task(v))
        .zip(targets)
        .map(|(logits, &target)| loss_of_row(logits, target))
        .collect();
    losses.iter().sum()
}

/// The loss of one row.
pub(in crate::ops) fn loss_of_row<T: Element>(logits: &[T], target: u32) -> f64 {
    if target == IGNORED {
        return 0.0;
    }
    let (max, sum) = max_and_sum(logits);
    sum.ln() + (f64::from(max) - f64::from(logits[target as usize].widen()))
}

/// `dlogits = scale · (softmax(logits) − one_hot(target))`.
pub(super) fn gradient<D: Element, T: Element>(dlogits: &mut [D], logits: &[T], targets: &[u32], v: usize, scale: f32) {
    dlogits
        .par_chunks_exact_mut(v.max(1))
        .zip(logits.par_chunks_exact(v.max(1)))
        .zip(targets)
        .with_min_len(rows_per_task(v))
        .for_each_init(Vec::new, |row, ((dlogits, logits), &target)| {
            row.resize(v, 0.0);
            convert(row, logits);
            loss_and_gradient_of_row(row, target, scale);
            convert(dlogits, row);
        });
}

/// The loss of one row, whose logits become `scale · (softmax(logits) − one_hot(target))`.
/// `row` is memory to compute in.
pub(in crate::ops) fn loss_and_gradient<T: Element>(
    logits: &mut [T],
    target: u32,
    scale: f32,
    row: &mut Vec<f32>,
) -> f64 {
    if T::DTYPE == DType::F32 {
        return loss_and_gradient_of_row(bytemuck::cast_slice_mut(logits), target, scale);
    }
    row.resize(logits.len(), 0.0);
    convert(row, logits);
    let loss = loss_and_gradient_of_row(row, target, scale);
    convert(logits, row);
    loss
}

fn loss_and_gradient_of_row(logits: &mut [f32], target: u32, scale: f32) -> f64 {
    if target == IGNORED {
        logits.fill(0.0);
        return 0.0;
    }
    let logit = logits[target as usize];
    let (max, sum) = exponentiate(logits);
    multiply(logits, (f64::from(scale) / sum) as f32);
    let loss = sum.ln() + (f64::from(max) - f64::from(logit));
    logits[target as usize] = if loss.is_finite() { logits[target as usize] - scale } else { f32::NAN };
    loss
}

multiversion! {
    /// The maximum and `Σ exp(x − max)`.
    fn max_and_sum<T: Element>(x: &[T]) -> (f32, f64) {
        let max = simd::max(x);
        let partial = |x: &[T]| f64::from(simd::sum_by(x.len(), |i| simd::exp(x[i].widen() - max)));
        (max, x.chunks(PARTIAL_SUM).map(partial).sum())
    }
}

multiversion! {
    /// Replaces `x` by `exp(x − max)`; returns the maximum and the sum.
    fn exponentiate(x: &mut [f32]) -> (f32, f64) {
        let max = simd::max(x);
        let mut sum = 0.0;
        for x in x.chunks_mut(PARTIAL_SUM) {
            for x in x.iter_mut() {
                *x = simd::exp(*x - max);
            }
            sum += f64::from(simd::sum_by(x.len(), |i| x[i]));
        }
        (max, sum)
    }
}

multiversion! {
    fn multiply(x: &mut [f32], factor: f32) {
        for x in x {
            *x *= factor;
        }
    }
}
