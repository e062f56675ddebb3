//! Row by row; the variance in a second pass over the row, around its mean, so that a large mean cancels exactly.

use rayon::prelude::*;

use crate::cpu::element::Element;
use crate::cpu::simd::{multiversion, sum_by};
use crate::cpu::threads::{rows_per_task, sum_rows};
use crate::ops::add::cpu::{add_rows, add_rows_with_bias};
use crate::ops::rms_norm::cpu::{backward_rows_per_task, blend};

/// What forward writes: `y: [n, d]`, `mean: [n]`, `inv_std: [n]`.
pub(super) struct Outputs<'a, T> {
    pub(super) y: &'a mut [T],
    pub(super) mean: &'a mut [f32],
    pub(super) inv_std: &'a mut [f32],
}

/// What backward needs of forward: `x: [n, d]`, `gain: [d]`, `mean: [n]`, `inv_std: [n]`.
#[derive(Clone, Copy)]
pub(super) struct Saved<'a, T> {
    pub(super) x: &'a [T],
    pub(super) gain: &'a [f32],
    pub(super) mean: &'a [f32],
    pub(super) inv_std: &'a [f32],
}

/// Writes all outputs.
pub(super) fn forward<T: Element>(outputs: Outputs<'_, T>, x: &[T], gain: &[f32], bias: Option<&[f32]>, eps: f32) {
    let d = gain.len();
    if x.is_empty() {
        return;
    }
    let rows = rows_per_task(d);
    outputs
        .y
        .par_chunks_mut(rows * d)
        .zip(outputs.mean.par_chunks_mut(rows).zip(outputs.inv_std.par_chunks_mut(rows)))
        .zip(x.par_chunks(rows * d))
        .for_each(|((y, (mean, inv_std)), x)| forward_rows(Outputs { y, mean, inv_std }, x, gain, bias, eps));
}

/// [`forward`] of `sum = x + addend + addend_bias`, while a task's rows of the sum are in the cache.
pub(super) fn add_forward<T: Element>(
    outputs: Outputs<'_, T>,
    sum: &mut [T],
    [x, addend]: [&[T]; 2],
    addend_bias: Option<&[T]>,
    gain: &[f32],
    bias: Option<&[f32]>,
    eps: f32,
) {
    let d = gain.len();
    if x.is_empty() {
        return;
    }
    let rows = rows_per_task(d);
    outputs
        .y
        .par_chunks_mut(rows * d)
        .zip(outputs.mean.par_chunks_mut(rows).zip(outputs.inv_std.par_chunks_mut(rows)))
        .zip(sum.par_chunks_mut(rows * d))
        .zip(x.par_chunks(rows * d).zip(addend.par_chunks(rows * d)))
        .for_each(|(((y, (mean, inv_std)), sum), (x, addend))| {
            match addend_bias {
                Some(bias) => add_rows_with_bias(sum, x, addend, bias),
                None => add_rows(sum, x, addend),
            }
            forward_rows(Outputs { y, mean, inv_std }, sum, gain, bias, eps);
        });
}

multiversion! {
    fn forward_rows<T: Element>(outputs: Outputs<'_, T>, x: &[T], gain: &[f32], bias: Option<&[f32]>, eps: f32) {
        let d = gain.len();
        let rows = outputs.y.chunks_exact_mut(d).zip(x.chunks_exact(d));
        for (((y, x), mean), inv_std) in rows.zip(outputs.mean).zip(outputs.inv_std) {
            let m = sum_by(d, |i| x[i].widen()) / d as f32;
            let variance = sum_by(d, |i| (x[i].widen() - m) * (x[i].widen() - m)) / d as f32;
            let r = 1.0 / (variance + eps).sqrt();
            (*mean, *inv_std) = (m, r);
            match bias {
                Some(bias) => blend(y, 0.0, |i| gain[i] * ((x[i].widen() - m) * r) + bias[i]),
                None => blend(y, 0.0, |i| gain[i] * ((x[i].widen() - m) * r)),
            }
        }
    }
}

/// Sets `dx ← beta · dx + the gradient of x` and writes `dgain` and `dbias`; all in one pass over `x` and `dy`.
///
/// With `x̂ = (x − mean) · inv_std` and `g = gain · dy`: `dgain = Σ_rows dy · x̂`, `dbias = Σ_rows dy`, and
/// `dx = (g − mean(g) − x̂ · mean(g·x̂)) · inv_std`.
pub(super) fn backward<D: Element, T: Element>(
    dx: &mut [D],
    beta: f32,
    dgain: &mut [f32],
    dbias: &mut [f32],
    dy: &[T],
    saved: &Saved<'_, T>,
) {
    let d = saved.gain.len();
    if dx.is_empty() {
        dgain.fill(0.0);
        dbias.fill(0.0);
        return;
    }
    let rows = backward_rows_per_task(d);
    let n_tasks = saved.mean.len().div_ceil(rows);
    let (mut partial_dgain, mut partial_dbias) = (vec![0.0; n_tasks * d], vec![0.0; n_tasks * d]);
    let statistics = saved.mean.par_chunks(rows).zip(saved.inv_std.par_chunks(rows));
    dx.par_chunks_mut(rows * d)
        .zip(partial_dgain.par_chunks_mut(d).zip(partial_dbias.par_chunks_mut(d)))
        .zip(dy.par_chunks(rows * d))
        .zip(saved.x.par_chunks(rows * d).zip(statistics))
        .for_each(|(((dx, (dgain, dbias)), dy), (x, (mean, inv_std)))| {
            backward_rows(dx, beta, dgain, dbias, dy, Saved { x, gain: saved.gain, mean, inv_std });
        });
    sum_rows(&partial_dgain, dgain);
    sum_rows(&partial_dbias, dbias);
}

multiversion! {
    /// Adds to `dgain` and `dbias`.
    fn backward_rows<D: Element, T: Element>(
        dx: &mut [D],
        beta: f32,
        dgain: &mut [f32],
        dbias: &mut [f32],
        dy: &[T],
        saved: Saved<'_, T>,
    ) {
        let gain = saved.gain;
        let d = gain.len();
        let rows = dx.chunks_exact_mut(d).zip(dy.chunks_exact(d)).zip(saved.x.chunks_exact(d));
        for (((dx, dy), x), (&m, &r)) in rows.zip(saved.mean.iter().zip(saved.inv_std)) {
            let mean_g = sum_by(d, |i| gain[i] * dy[i].widen()) / d as f32;
            let mean_g_x_hat = sum_by(d, |i| gain[i] * dy[i].widen() * (x[i].widen() - m)) * r / d as f32;
            for ((dgain, dbias), (dy, x)) in dgain.iter_mut().zip(&mut *dbias).zip(dy.iter().zip(x)) {
                *dgain += dy.widen() * ((x.widen() - m) * r);
                *dbias += dy.widen();
            }
            blend(dx, beta, |i| {
                (gain[i] * dy[i].widen() - mean_g - (x[i].widen() - m) * r * mean_g_x_hat) * r
            });
        }
    }
}

/// The formulas in f64, one row at a time.
#[cfg(test)]
pub(super) mod reference {
    pub(crate) fn forward(x: &[f32], gain: &[f32], bias: &[f32], eps: f32) -> Vec<f32> {
        let mut y = Vec::new();
        for x in x.chunks_exact(gain.len()) {
            let (x_hat, _) = normalised(x, eps);
            y.extend((0..x.len()).map(|i| (f64::from(gain[i]) * x_hat[i] + f64::from(bias[i])) as f32));
        }
        y
    }

    /// `dx`, `dgain` and `dbias`.
    pub(crate) fn backward(dy: &[f32], x: &[f32], gain: &[f32], eps: f32) -> [Vec<f32>; 3] {
        let d = gain.len();
        let (mut dx, mut dgain, mut dbias) = (Vec::new(), vec![0.0; d], vec![0.0; d]);
        for (dy, x) in dy.chunks_exact(d).zip(x.chunks_exact(d)) {
            let (x_hat, inv_std) = normalised(x, eps);
            let g: Vec<f64> = dy.iter().zip(gain).map(|(&dy, &g)| f64::from(dy) * f64::from(g)).collect();
            let mean_g = g.iter().sum::<f64>() / d as f64;
            let mean_g_x_hat = g.iter().zip(&x_hat).map(|(g, x_hat)| g * x_hat).sum::<f64>() / d as f64;
            for i in 0..d {
                dgain[i] += f64::from(dy[i]) * x_hat[i];
                dbias[i] += f64::from(dy[i]);
                dx.push(((g[i] - mean_g - x_hat[i] * mean_g_x_hat) * inv_std) as f32);
            }
        }
        [dx, dgain.into_iter().map(|x| x as f32).collect(), dbias.into_iter().map(|x| x as f32).collect()]
    }

    /// `x̂` and `1/√(var + eps)`.
    fn normalised(x: &[f32], eps: f32) -> (Vec<f64>, f64) {
        let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / x.len() as f64;
        let inv_std = 1.0 / (variance + f64::from(eps)).sqrt();
        (x.iter().map(|&x| (f64::from(x) - mean) * inv_std).collect(), inv_std)
    }
}
