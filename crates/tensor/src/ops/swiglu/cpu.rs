//! Row by row, both halves of a row together.

use rayon::prelude::*;

use crate::cpu::element::Element;
use crate::cpu::simd::multiversion;
use crate::cpu::threads::rows_per_task;
use crate::ops::activation::cpu::{silu, silu_derivative};

/// `y = silu(gate) · up`.
pub(super) fn forward<T: Element>(y: &mut [T], gate_up: &[T], f: usize) {
    if y.is_empty() {
        return;
    }
    let rows = rows_per_task(2 * f);
    y.par_chunks_mut(rows * f)
        .zip(gate_up.par_chunks(rows * 2 * f))
        .for_each(|(y, gate_up)| forward_rows(y, gate_up, f));
}

multiversion! {
    fn forward_rows<T: Element>(y: &mut [T], gate_up: &[T], f: usize) {
        for (y, gate_up) in y.chunks_exact_mut(f).zip(gate_up.chunks_exact(2 * f)) {
            let (gate, up) = gate_up.split_at(f);
            for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
                *y = T::narrow(silu(gate.widen()) * up.widen());
            }
        }
    }
}

/// `dgate = dy · up · silu′(gate)`, `dup = dy · silu(gate)`.
pub(super) fn backward<D: Element, T: Element>(dgate_up: &mut [D], dy: &[T], gate_up: &[T], f: usize) {
    if dy.is_empty() {
        return;
    }
    let rows = rows_per_task(2 * f);
    dgate_up
        .par_chunks_mut(rows * 2 * f)
        .zip(dy.par_chunks(rows * f))
        .zip(gate_up.par_chunks(rows * 2 * f))
        .for_each(|((dgate_up, dy), gate_up)| backward_rows(dgate_up, dy, gate_up, f));
}

multiversion! {
    fn backward_rows<D: Element, T: Element>(dgate_up: &mut [D], dy: &[T], gate_up: &[T], f: usize) {
        let rows = dgate_up.chunks_exact_mut(2 * f).zip(dy.chunks_exact(f)).zip(gate_up.chunks_exact(2 * f));
        for ((dgate_up, dy), gate_up) in rows {
            let (gate, up) = gate_up.split_at(f);
            let (dgate, dup) = dgate_up.split_at_mut(f);
            for (((dgate, dup), (gate, up)), dy) in dgate.iter_mut().zip(dup).zip(gate.iter().zip(up)).zip(dy) {
                let (gate, up, dy) = (gate.widen(), up.widen(), dy.widen());
                *dgate = D::narrow(dy * up * silu_derivative(gate));
                *dup = D::narrow(dy * silu(gate));
            }
        }
    }
}
