//! One pass, in parallel.

use rayon::prelude::*;

use crate::cpu::threads::{for_rows, rows_per_task};

/// `sum = x + y`.
pub(super) fn add(sum: &mut [f32], x: &[f32], y: &[f32]) {
    let chunk = rows_per_task(1);
    sum.par_chunks_mut(chunk).enumerate().for_each(|(task, sum)| {
        let at = task * chunk;
        for ((sum, x), y) in sum.iter_mut().zip(&x[at..]).zip(&y[at..]) {
            *sum = x + y;
        }
    });
}

/// `sum ← sum + x`.
pub(super) fn add_into(sum: &mut [f32], x: &[f32]) {
    for_rows(sum, x, 1, |sum, x| {
        for (sum, x) in sum.iter_mut().zip(x) {
            *sum += x;
        }
    });
}

/// `sum = x + y + bias`, with one bias for all rows.
pub(super) fn add_with_bias(sum: &mut [f32], x: &[f32], y: &[f32], bias: &[f32]) {
    let d = bias.len().max(1);
    let chunk = rows_per_task(d) * d;
    sum.par_chunks_mut(chunk).enumerate().for_each(|(task, sum)| {
        let at = task * chunk;
        let rows = sum.chunks_exact_mut(d).zip(x[at..].chunks_exact(d)).zip(y[at..].chunks_exact(d));
        for ((sum, x), y) in rows {
            for (((sum, x), y), bias) in sum.iter_mut().zip(x).zip(y).zip(bias) {
                *sum = x + y + bias;
            }
        }
    });
}
