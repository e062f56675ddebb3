//! One loop over four arrays; what is the same for all elements is computed before it, in f64.

use rayon::prelude::*;

use super::AdamW;
use crate::cpu::simd::multiversion;
use crate::cpu::threads::rows_per_task;

/// The update's formula with everything that does not depend on the element folded:
/// `θ ← keep·θ − step_size · m / (√v · inv_root_correction + eps)`.
#[derive(Clone, Copy)]
pub(super) struct Factors {
    grad_scale: f32,
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
    pub(super) fn new(settings: &AdamW) -> Self {
        let (beta1, beta2) = (f64::from(settings.beta1), f64::from(settings.beta2));
        let learning_rate = f64::from(settings.learning_rate);
        let step = settings.step as f64;
        Factors {
            grad_scale: settings.grad_scale,
            beta1: settings.beta1,
            one_minus_beta1: (1.0 - beta1) as f32,
            beta2: settings.beta2,
            one_minus_beta2: (1.0 - beta2) as f32,
            keep: (1.0 - learning_rate * f64::from(settings.weight_decay)) as f32,
            step_size: (learning_rate / (1.0 - beta1.powf(step))) as f32,
            inv_root_correction: (1.0 / (1.0 - beta2.powf(step)).sqrt()) as f32,
            eps: settings.eps,
        }
    }
}

/// Updates `theta`, `m` and `v` for the gradient `g`.
pub(super) fn update(theta: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], factors: Factors) {
    let chunk = rows_per_task(1);
    theta
        .par_chunks_mut(chunk)
        .zip(g.par_chunks(chunk))
        .zip(m.par_chunks_mut(chunk).zip(v.par_chunks_mut(chunk)))
        .for_each(|((theta, g), (m, v))| update_task(theta, g, m, v, factors));
}

multiversion! {
    fn update_task(theta: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], factors: Factors) {
        let f = factors;
        for ((theta, g), (m, v)) in theta.iter_mut().zip(g).zip(m.iter_mut().zip(v)) {
            let g = g * f.grad_scale;
            *m = f.beta1 * *m + f.one_minus_beta1 * g;
            *v = f.beta2 * *v + f.one_minus_beta2 * (g * g);
            *theta = f.keep * *theta - f.step_size * *m / (v.sqrt() * f.inv_root_correction + f.eps);
        }
    }
}
