//! Gather copies rows; its gradient adds them up by id, each task for a range of the vocabulary.

use rayon::prelude::*;

use crate::cpu::element::Element;
use crate::cpu::simd::multiversion;
use crate::cpu::threads::rows_per_task;

/// `y[i] = table[ids[i]]`.
pub(super) fn gather<T: Element>(y: &mut [T], ids: &[u32], table: &[T], d: usize) {
    if y.is_empty() {
        return;
    }
    let rows = rows_per_task(d);
    y.par_chunks_mut(rows * d).zip(ids.par_chunks(rows)).for_each(|(y, ids)| {
        for (y, &id) in y.chunks_exact_mut(d).zip(ids) {
            let start = id as usize * d;
            y.copy_from_slice(&table[start..start + d]);
        }
    });
}

/// `dtable ← beta · dtable`, then `dtable[ids[i]] += dy[i]` for every `i` in order.
pub(super) fn scatter_add<T: Element>(dtable: &mut [f32], beta: f32, ids: &[u32], dy: &[T], d: usize) {
    if dtable.is_empty() {
        return;
    }
    // Sorted by id, each task finds the occurrences of its range of ids next to each other.
    let mut occurrences: Vec<(u32, usize)> = ids.iter().enumerate().map(|(i, &id)| (id, i)).collect();
    occurrences.par_sort_unstable();

    let rows = rows_per_task(d);
    dtable.par_chunks_mut(rows * d).enumerate().for_each(|(task, dtable)| {
        scale(dtable, beta);
        let first_id = task * rows;
        let before = |end: usize| occurrences.partition_point(|&(id, _)| (id as usize) < end);
        add_rows(dtable, first_id, &occurrences[before(first_id)..before(first_id + rows)], dy, d);
    });
}

/// `x ← beta · x`, where with `beta = 0` the old elements may be anything.
fn scale(x: &mut [f32], beta: f32) {
    if beta == 0.0 {
        x.fill(0.0);
    } else if beta != 1.0 {
        x.iter_mut().for_each(|x| *x *= beta);
    }
}

multiversion! {
    /// `dtable` starts with the row of `first_id`.
    fn add_rows<T: Element>(dtable: &mut [f32], first_id: usize, occurrences: &[(u32, usize)], dy: &[T], d: usize) {
        for &(id, i) in occurrences {
            let start = (id as usize - first_id) * d;
            for (dtable, dy) in dtable[start..start + d].iter_mut().zip(&dy[i * d..(i + 1) * d]) {
                *dtable += dy.widen();
            }
        }
    }
}
