//! Products in which one side has a handful of rows: dot products that read the large matrix once, where it lies.
//!
//! Generating text multiplies a row or a few by every weight, `y = x·Wᵀ`: memory bandwidth is all that counts, and a
//! packed copy of `W` would triple the traffic.

use std::ops::Range;

use rayon::prelude::*;

use super::blocked::SharedMut;
use super::kernel::{Dots, Kernel, MAX_DOT_ROWS};
use super::scratch::{Scratch, Slot};
use super::split::Split;
use super::{MatRef, Parallel, Product};

/// Multiply-adds below which a product stays on one thread.
const PARALLEL_WORK: usize = 1 << 20;
/// Tasks per thread, so that a thread which the system holds up does not hold up the others.
const TASKS_PER_THREAD: usize = 4;

/// Computes the product if it is of this kind, else returns false.
///
/// Bounds of all views were checked.
pub(super) fn run(kernel: Kernel, product: &mut Product, parallel: Parallel) -> bool {
    let &mut Product { m, n, k, alpha, a, b, beta, ref mut c } = product;
    let stride = c.row_stride;
    // Few rows of A against the columns of B, or few columns of B against the rows of A.
    let (n_few, few, n_many, many, c_few_stride, c_many_stride) =
        if m <= MAX_DOT_ROWS && b.row_stride == 1 && m <= n {
            (m, a, n, b.transposed(), stride, 1)
        } else if n <= MAX_DOT_ROWS && a.col_stride == 1 && n < m {
            (n, b.transposed(), m, a, 1, stride)
        } else {
            return false;
        };

    let mut copy;
    let (x, x_stride) = if few.col_stride == 1 || k == 1 {
        (few.data.as_ptr(), few.row_stride)
    } else {
        copy = contiguous_rows(few, n_few, k);
        (copy.as_mut_ptr().cast_const(), k)
    };
    let c = SharedMut(c.data.as_mut_ptr());
    let x = SharedMut(x.cast_mut());
    let dots = |js: Range<usize>| {
        // SAFETY: the views hold `n_few × k`, `n_many × k` and all of `c`, which was checked at entry; tasks write to
        // disjoint parts of `c`. The kernel is available.
        unsafe {
            (kernel.loops().dots)(&Dots {
                m: n_few,
                n: js.len(),
                k,
                alpha,
                x: x.get(),
                x_stride,
                w: many.data.as_ptr().add(js.start * many.row_stride),
                w_stride: many.row_stride,
                beta,
                c: c.get().add(js.start * c_many_stride),
                c_i_stride: c_few_stride,
                c_j_stride: c_many_stride,
            });
        }
    };
    let n_threads = rayon::current_num_threads();
    if parallel == Parallel::Serial
        || n_threads == 1
        || n_few.saturating_mul(n_many).saturating_mul(k) < PARALLEL_WORK
    {
        dots(0..n_many);
    } else {
        let split = Split::into_parts(n_many, n_threads * TASKS_PER_THREAD, 8);
        (0..split.n_parts()).into_par_iter().with_max_len(1).for_each(|idx| dots(split.part(idx)));
    }
    true
}

/// A copy of a small matrix in row-major order.
fn contiguous_rows(view: MatRef, rows: usize, k: usize) -> Scratch {
    let mut copy = Scratch::take(Slot::RowBlock, rows * k);
    let dst = copy.as_mut_ptr();
    for i in 0..rows {
        for p in 0..k {
            // SAFETY: the scratch has room for `rows · k` floats.
            unsafe { *dst.add(i * k + p) = view.data[i * view.row_stride + p * view.col_stride] };
        }
    }
    copy
}
