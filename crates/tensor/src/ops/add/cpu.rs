//! One pass, in parallel.

use rayon::prelude::*;

use crate::cpu::element::Element;
use crate::cpu::simd::multiversion;
use crate::cpu::threads::{for_rows, rows_per_task};

/// `sum = x + y`.
pub(super) fn add<T: Element>(sum: &mut [T], x: &[T], y: &[T]) {
    let chunk = rows_per_task(1);
    sum.par_chunks_mut(chunk).enumerate().for_each(|(task, sum)| {
        let at = task * chunk;
        let part = at..at + sum.len();
        add_rows(sum, &x[part.clone()], &y[part]);
    });
}

/// `sum = x + y + bias`, with one bias for all rows.
pub(super) fn add_with_bias<T: Element>(sum: &mut [T], x: &[T], y: &[T], bias: &[T]) {
    let d = bias.len().max(1);
    let chunk = rows_per_task(d) * d;
    sum.par_chunks_mut(chunk).zip(x.par_chunks(chunk).zip(y.par_chunks(chunk))).for_each(|(sum, (x, y))| {
        add_rows_with_bias(sum, x, y, bias);
    });
}

/// `sum ← sum + x`.
pub(super) fn add_into<T: Element>(sum: &mut [T], x: &[T]) {
    for_rows(sum, x, 1, |sum, x| add_into_task(sum, x));
}

multiversion! {
    /// `sum = x + y`.
    pub(in crate::ops) fn add_rows<T: Element>(sum: &mut [T], x: &[T], y: &[T]) {
        for ((sum, x), y) in sum.iter_mut().zip(x).zip(y) {
            *sum = T::narrow(x.widen() + y.widen());
        }
    }
}

multiversion! {
    /// `sum = x + y + bias`, rounded once, with one bias for all rows.
    pub(in crate::ops) fn add_rows_with_bias<T: Element>(sum: &mut [T], x: &[T], y: &[T], bias: &[T]) {
        let d = bias.len().max(1);
        for ((sum, x), y) in sum.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(y.chunks_exact(d)) {
            for (((sum, x), y), bias) in sum.iter_mut().zip(x).zip(y).zip(bias) {
                *sum = T::narrow(x.widen() + y.widen() + bias.widen());
            }
        }
    }
}

multiversion! {
    fn add_into_task<T: Element>(sum: &mut [T], x: &[T]) {
        for (sum, x) in sum.iter_mut().zip(x) {
            *sum = T::narrow(sum.widen() + x.widen());
        }
    }
}
