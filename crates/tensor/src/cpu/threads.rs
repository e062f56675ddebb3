//! How work is cut for threads.
//!
//! The cuts depend on the shapes alone, never on the number of threads, and partial sums are added in a fixed order: a
//! result has the same bits whatever the machine's number of cores.

use rayon::prelude::*;

use super::element::Element;
use super::simd::multiversion;

/// Rows per task such that a task has about `ELEMENTS_PER_TASK` elements.
pub(crate) fn rows_per_task(d: usize) -> usize {
    const ELEMENTS_PER_TASK: usize = 1 << 14;
    (ELEMENTS_PER_TASK / d.max(1)).max(1)
}

/// Runs `f(task, y chunk, x chunk)` over equal chunks of rows of `y` and `x` in parallel.
pub(crate) fn for_rows<Y: Send, X: Sync>(y: &mut [Y], x: &[X], d: usize, f: impl Fn(&mut [Y], &[X]) + Sync) {
    let chunk = rows_per_task(d) * d;
    if chunk == 0 {
        return;
    }
    y.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).for_each(|(y, x)| f(y, x));
}

/// Sums the rows of a matrix of partial sums, `[n, d]` → `[d]`, from the first to the last.
pub(crate) fn sum_rows<T: Element>(partial: &[T], y: &mut [f32]) {
    y.fill(0.0);
    for row in partial.chunks_exact(y.len().max(1)) {
        add_row(y, row);
    }
}

multiversion! {
    fn add_row<T: Element>(y: &mut [f32], row: &[T]) {
        for (y, x) in y.iter_mut().zip(row) {
            *y += x.widen();
        }
    }
}
