//! Row by row, each row twice: once for its statistic, once for its elements.

use rayon::prelude::*;

use crate::cpu::element::Element;
use crate::cpu::simd::{multiversion, sum_by};
use crate::cpu::threads::{rows_per_task, sum_rows};
use crate::ops::add::cpu::{add_rows, add_rows_with_bias};

/// What backward needs of forward: `x: [n, d]`, `gain: [d]`, `inv_rms: [n]`.
#[derive(Clone, Copy)]
pub(super) struct Saved<'a, T> {
    pub(super) x: &'a [T],
    pub(super) gain: &'a [f32],
    pub(super) inv_rms: &'a [f32],
}

/// Writes `y: [n, d]` and `inv_rms: [n]`.
pub(super) fn forward<T: Element>(y: &mut [T], inv_rms: &mut [f32], x: &[T], gain: &[f32], eps: f32) {
    let d = gain.len();
    if y.is_empty() {
        return;
    }
    let rows = rows_per_task(d);
    y.par_chunks_mut(rows * d)
        .zip(inv_rms.par_chunks_mut(rows))
        .zip(x.par_chunks(rows * d))
        .for_each(|((y, inv_rms), x)| forward_rows(y, inv_rms, x, gain, eps));
}

/// [`forward`] of `sum = x + addend + addend_bias`, while a task's rows of the sum are in the cache.
pub(super) fn add_forward<T: Element>(
    [y, sum]: [&mut [T]; 2],
    inv_rms: &mut [f32],
    [x, addend]: [&[T]; 2],
    addend_bias: Option<&[T]>,
    gain: &[f32],
    eps: f32,
) {
    let d = gain.len();
    if y.is_empty() {
        return;
    }
    let rows = rows_per_task(d);
    y.par_chunks_mut(rows * d)
        .zip(sum.par_chunks_mut(rows * d))
        .zip(inv_rms.par_chunks_mut(rows))
        .zip(x.par_chunks(rows * d).zip(addend.par_chunks(rows * d)))
        .for_each(|(((y, sum), inv_rms), (x, addend))| {
            match addend_bias {
                Some(bias) => add_rows_with_bias(sum, x, addend, bias),
                None => add_rows(sum, x, addend),
            }
            forward_rows(y, inv_rms, sum, gain, eps);
        });
}

multiversion! {
    fn forward_rows<T: Element>(y: &mut [T], inv_rms: &mut [f32], x: &[T], gain: &[f32], eps: f32) {
        let d = gain.len();
        for ((y, x), inv_rms) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(inv_rms) {
            let r = 1.0 / (sum_by(d, |i| x[i].widen() * x[i].widen()) / d as f32 + eps).sqrt();
            *inv_rms = r;
            for ((y, x), gain) in y.iter_mut().zip(x).zip(gain) {
                *y = T::narrow(gain * (x.widen() * r));
            }
        }
    }
}

/// Sets `dx ← beta · dx + the gradient of x` and writes `dgain`; both in one pass over `x` and `dy`.
///
/// With `x̂ = x / rms(x)`: `dgain = Σ_rows dy · x̂` and `dx = (g·dy − x̂ · mean(g·dy·x̂)) / rms(x)`.
pub(super) fn backward<D: Element, T: Element>(
    dx: &mut [D],
    beta: f32,
    dgain: &mut [f32],
    dy: &[T],
    saved: &Saved<'_, T>,
) {
    let d = saved.gain.len();
    if dx.is_empty() {
        dgain.fill(0.0);
        return;
    }
    let rows = backward_rows_per_task(d);
    let mut partial_dgain = vec![0.0; saved.inv_rms.len().div_ceil(rows) * d];
    dx.par_chunks_mut(rows * d)
        .zip(partial_dgain.par_chunks_mut(d))
        .zip(dy.par_chunks(rows * d))
        .zip(saved.x.par_chunks(rows * d).zip(saved.inv_rms.par_chunks(rows)))
        .for_each(|(((dx, dgain), dy), (x, inv_rms))| {
            backward_rows(dx, beta, dgain, dy, Saved { x, gain: saved.gain, inv_rms });
        });
    sum_rows(&partial_dgain, dgain);
}

/// Rows per task of the backward pass of a normalisation: enough that partial sums over them, one row per task, are
/// small beside the input.
pub(in crate::ops) fn backward_rows_per_task(d: usize) -> usize {
    rows_per_task(d).max(16)
}

multiversion! {
    /// Adds to `dgain`.
    fn backward_rows<D: Element, T: Element>(
        dx: &mut [D],
        beta: f32,
        dgain: &mut [f32],
        dy: &[T],
        saved: Saved<'_, T>,
    ) {
        let d = saved.gain.len();
        let gain = saved.gain;
        let rows = dx.chunks_exact_mut(d).zip(dy.chunks_exact(d)).zip(saved.x.chunks_exact(d));
        for (((dx, dy), x), &r) in rows.zip(saved.inv_rms) {
            let mean = sum_by(d, |i| gain[i] * dy[i].widen() * x[i].widen()) * r / d as f32;
            for ((dgain, dy), x) in dgain.iter_mut().zip(dy).zip(x) {
                *dgain += dy.widen() * (x.widen() * r);
            }
            blend(dx, beta, |i| (gain[i] * dy[i].widen() - x[i].widen() * r * mean) * r);
        }
    }
}

/// `y[i] ← beta · y[i] + f(i)`, where with `beta = 0` the old elements may be anything and are not read.
#[inline(always)]
pub(in crate::ops) fn blend<D: Element>(y: &mut [D], beta: f32, f: impl Fn(usize) -> f32) {
    if beta == 0.0 {
        for (i, y) in y.iter_mut().enumerate() {
            *y = D::narrow(f(i));
        }
    } else {
        for (i, y) in y.iter_mut().enumerate() {
            *y = D::narrow(beta * y.widen() + f(i));
        }
    }
}

/// The formulas in f64, one row at a time.
#[cfg(test)]
pub(super) mod reference {
    pub(crate) fn forward(x: &[f32], gain: &[f32], eps: f32) -> Vec<f32> {
        let mut y = Vec::new();
        for x in x.chunks_exact(gain.len()) {
            let rms = rms(x, eps);
            y.extend(x.iter().zip(gain).map(|(&x, &g)| (f64::from(g) * f64::from(x) / rms) as f32));
        }
        y
    }

    /// `dx` and `dgain`.
    pub(crate) fn backward(dy: &[f32], x: &[f32], gain: &[f32], eps: f32) -> (Vec<f32>, Vec<f32>) {
        let d = gain.len();
        let (mut dx, mut dgain) = (Vec::new(), vec![0.0; d]);
        for (dy, x) in dy.chunks_exact(d).zip(x.chunks_exact(d)) {
            let rms = rms(x, eps);
            let x_hat: Vec<f64> = x.iter().map(|&x| f64::from(x) / rms).collect();
            let g_dy: Vec<f64> = dy.iter().zip(gain).map(|(&dy, &g)| f64::from(dy) * f64::from(g)).collect();
            let mean = g_dy.iter().zip(&x_hat).map(|(g_dy, x_hat)| g_dy * x_hat).sum::<f64>() / d as f64;
            for i in 0..d {
                dgain[i] += f64::from(dy[i]) * x_hat[i];
                dx.push(((g_dy[i] - x_hat[i] * mean) / rms) as f32);
            }
        }
        (dx, dgain.into_iter().map(|x| x as f32).collect())
    }

    fn rms(x: &[f32], eps: f32) -> f64 {
        (x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / x.len() as f64 + f64::from(eps)).sqrt()
    }
}
