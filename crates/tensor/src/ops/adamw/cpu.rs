//! One loop over four arrays; what is the same for all elements is computed before it, in f64.

use rayon::prelude::*;

use super::{AdamW, AdamWTensors};
use crate::cpu::element::{Element, convert, for_dtype};
use crate::cpu::simd::multiversion;
use crate::cpu::threads::rows_per_task;

/// The update's formula with everything that does not depend on the element folded:
/// `θ ← keep·θ − step_size · m / (√v · inv_root_correction + eps)`.
#[derive(Clone, Copy)]
struct Factors {
    gradient_scale: f32,
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    keep: f32,
    step_size: f32,
    inv_root_correction: f32,
    eps: f32,
}

impl Factors {
    fn new(settings: &AdamW, numbers: &[f32], norm: f32, weight_decay: f32) -> Self {
        let &[learning_rate, step_size, inv_root_correction] = numbers else { panic!("three numbers of the step") };
        Factors {
            gradient_scale: clip_scale(f64::from(norm), f64::from(settings.clip)) as f32,
            beta1: settings.beta1,
            one_minus_beta1: settings.one_minus_beta1(),
            beta2: settings.beta2,
            one_minus_beta2: settings.one_minus_beta2(),
            keep: (1.0 - f64::from(learning_rate) * f64::from(weight_decay)) as f32,
            step_size,
            inv_root_correction,
            eps: settings.eps,
        }
    }
}

/// By what to scale a gradient of norm `norm` so that it is no longer than `limit` (0: no limit).
pub(super) fn clip_scale(norm: f64, limit: f64) -> f64 {
    if limit > 0.0 { (limit / (norm + 1e-6)).min(1.0) } else { 1.0 }
}

/// Updates one parameter; `norm` is finite.
pub(super) fn update(tensors: &mut AdamWTensors<'_>, settings: &AdamW, numbers: &[f32], norm: f32) {
    let factors = Factors::new(settings, numbers, norm, tensors.weight_decay);
    match tensors.compute.take() {
        Some(compute) => for_dtype!(compute.dtype(), T => update_in_chunks(tensors, T::of_mut(compute), factors)),
        None => update_in_chunks::<f32>(tensors, &mut [], factors),
    }
}

/// Updates one parameter, and the copy of it if that is not empty.
fn update_in_chunks<T: Element>(tensors: &mut AdamWTensors<'_>, compute: &mut [T], factors: Factors) {
    let chunk = rows_per_task(1);
    let n_tasks = tensors.parameter.len().div_ceil(chunk);
    let mut copies: Vec<&mut [T]> = compute.chunks_mut(chunk).collect();
    copies.resize_with(n_tasks, Default::default);
    tensors
        .parameter
        .f32s_mut()
        .par_chunks_mut(chunk)
        .zip(tensors.gradient.f32s().par_chunks(chunk))
        .zip(tensors.first_moment.f32s_mut().par_chunks_mut(chunk))
        .zip(tensors.second_moment.f32s_mut().par_chunks_mut(chunk))
        .zip(copies)
        .for_each(|((((theta, g), m), v), copy)| {
            update_task(theta, g, m, v, factors);
            // While the chunk is in the cache.
            convert(copy, theta);
        });
}

multiversion! {
    fn update_task(theta: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], factors: Factors) {
        let f = factors;
        for ((theta, g), (m, v)) in theta.iter_mut().zip(g).zip(m.iter_mut().zip(v)) {
            let g = g * f.gradient_scale;
            *m = f.beta1 * *m + f.one_minus_beta1 * g;
            *v = f.beta2 * *v + f.one_minus_beta2 * (g * g);
            *theta = f.keep * *theta - f.step_size * *m / (v.sqrt() * f.inv_root_correction + f.eps);
        }
    }
}
