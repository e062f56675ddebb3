//! Rotation in place, row by row.

use rayon::prelude::*;

use super::{Direction, RopeLayout, Turn};
use crate::cpu::element::Element;
use crate::cpu::simd::multiversion;
use crate::cpu::threads::rows_per_task;

/// Turns the query and key heads of all rows.
pub(super) fn rotate<T: Element>(rows: &mut [T], turn: &Turn<'_>) {
    let Turn { heads, table, positions, direction } = turn;
    let width = heads.qkv_width();
    if rows.is_empty() || table.rotated_dims() == 0 {
        return;
    }
    let turned = heads.q_width() + heads.k_width();
    let rows_per_task = rows_per_task(width);
    rows.par_chunks_mut(rows_per_task * width).enumerate().for_each(|(task, rows)| {
        for (i, row) in rows.chunks_exact_mut(width).enumerate() {
            let position = positions.start + (task * rows_per_task + i) % positions.len();
            let (cos, sin) = table.at(position);
            let sign = if *direction == Direction::Forward { 1.0 } else { -1.0 };
            match table.layout() {
                RopeLayout::HalfSplit => rotate_halves(&mut row[..turned], heads.head_dim, cos, sin, sign),
                RopeLayout::Interleaved => rotate_neighbours(&mut row[..turned], heads.head_dim, cos, sin, sign),
            }
        }
    });
}

multiversion! {
    fn rotate_halves<T: Element>(row: &mut [T], head_dim: usize, cos: &[f32], sin: &[f32], sign: f32) {
        let n = cos.len();
        let sin = &sin[..n];
        for head in row.chunks_exact_mut(head_dim) {
            let (first, second) = head[..2 * n].split_at_mut(n);
            for i in 0..n {
                let (x1, x2, sin) = (first[i].widen(), second[i].widen(), sign * sin[i]);
                first[i] = T::narrow(x1 * cos[i] - x2 * sin);
                second[i] = T::narrow(x2 * cos[i] + x1 * sin);
            }
        }
    }
}

multiversion! {
    fn rotate_neighbours<T: Element>(row: &mut [T], head_dim: usize, cos: &[f32], sin: &[f32], sign: f32) {
        for head in row.chunks_exact_mut(head_dim) {
            let (pairs, _) = head.as_chunks_mut::<2>();
            for (([x1, x2], &cos), &sin) in pairs.iter_mut().zip(cos).zip(sin) {
                let sin = sign * sin;
                let (a, b) = (x1.widen(), x2.widen());
                (*x1, *x2) = (T::narrow(a * cos - b * sin), T::narrow(b * cos + a * sin));
            }
        }
    }
}
