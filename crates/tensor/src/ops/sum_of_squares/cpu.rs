//! Partial sums over tasks of fixed size, added from the first to the last.

use rayon::prelude::*;

use crate::cpu::element::Element;
use crate::cpu::simd::{LANES, multiversion};
use crate::cpu::threads::rows_per_task;

/// `Σ x²`.
pub(super) fn sum_of_squares(x: &[f32]) -> f64 {
    let partial: Vec<f64> = x.par_chunks(rows_per_task(1)).map(sum_of_squares_of_task).collect();
    partial.iter().sum()
}

multiversion! {
    fn sum_of_squares_of_task(x: &[f32]) -> f64 {
        let mut lanes = [0.0f64; LANES];
        let (chunks, rest) = x.as_chunks::<LANES>();
        for chunk in chunks {
            for (sum, &x) in lanes.iter_mut().zip(chunk) {
                *sum += f64::from(x) * f64::from(x);
            }
        }
        for (sum, &x) in lanes.iter_mut().zip(rest) {
            *sum += f64::from(x) * f64::from(x);
        }
        lanes.iter().sum()
    }
}

/// `x ← factor · x`.
pub(super) fn scale<T: Element>(x: &mut [T], factor: f32) {
    x.par_chunks_mut(rows_per_task(1)).for_each(|x| scale_task(x, factor));
}

multiversion! {
    fn scale_task<T: Element>(x: &mut [T], factor: f32) {
        for x in x {
            *x = T::narrow(x.widen() * factor);
        }
    }
}
