//! Products in which one side has a handful of rows: dot products that read the large matrix once, where it lies.
//!
//! Generating text multiplies a row or a few by every weight, `y = x·Wᵀ`: memory bandwidth is all that counts, and a
//! packed copy of `W` would triple the traffic.

use std::ops::Range;

use rayon::prelude::*;

use super::Parallel;
use super::blocked::{Problem, SharedMut};
use super::kernel::{Dots, Loops, MAX_DOT_ROWS};
use super::pack::Source;
use super::scratch::{Scratch, Slot};
use super::split::Split;
use crate::DType;
use crate::cpu::element::Element;

/// Multiply-adds below which a product stays on one thread.
const PARALLEL_WORK: usize = 1 << 20;
/// Tasks per thread, so that a thread which the system holds up does not hold up the others.
const TASKS_PER_THREAD: usize = 4;

/// The two sides of a product of this kind.
struct Sides {
    n_few: usize,
    few: Source,
    n_many: usize,
    many: Source,
    c_few_stride: usize,
    c_many_stride: usize,
}

impl Sides {
    /// Few rows of A against the columns of B, or few columns of B against the rows of A.
    fn of<C>(loops: &Loops, problem: &Problem<C>) -> Option<Self> {
        let &Problem { m, n, a, b, c_row_stride, .. } = problem;
        let sides = if m <= MAX_DOT_ROWS && b.k_stride == 1 && m <= n {
            Sides { n_few: m, few: a, n_many: n, many: b, c_few_stride: c_row_stride, c_many_stride: 1 }
        } else if n <= MAX_DOT_ROWS && a.k_stride == 1 && n < m {
            Sides { n_few: n, few: b, n_many: m, many: a, c_few_stride: 1, c_many_stride: c_row_stride }
        } else {
            return None;
        };
        let can_copy = sides.few.k_stride == 1 || sides.few.element_size == size_of::<f32>();
        (can_copy && sides.many.element_size == loops.element_size()).then_some(sides)
    }
}

/// Whether [`run`] would compute the product if `C` were of `f32`.
pub(super) fn takes<C>(loops: &Loops, problem: &Problem<C>) -> bool {
    Sides::of(loops, problem).is_some()
}

/// Computes the product, with loops that this machine can run, if it is of this kind and `C` of `f32`, else returns
/// false.
pub(super) fn run<C: Element>(loops: &'static Loops, problem: &Problem<C>, parallel: Parallel) -> bool {
    let &Problem { k, alpha, beta, c, .. } = problem;
    let Some(sides) = Sides::of(loops, problem).filter(|_| C::DTYPE == DType::F32) else { return false };
    let Sides { n_few, few, n_many, many, c_few_stride, c_many_stride } = sides;
    let c = SharedMut(c.get().cast::<f32>());

    let mut copy;
    let x = if few.k_stride == 1 {
        few
    } else {
        copy = Scratch::take(Slot::RowBlock, n_few * k);
        // SAFETY: the views hold `n_few × k` of `f32`, which was checked at entry, and the scratch has room for them.
        unsafe { contiguous_lanes(few, n_few, copy.as_mut_ptr()) }
    };
    let dots = |js: Range<usize>| {
        // SAFETY: the views hold `n_few × k`, `n_many × k` and all of `c`, which was checked at entry; tasks write to
        // disjoint parts of `c`. The loops can run.
        unsafe {
            (loops.dots)(&Dots {
                m: n_few,
                n: js.len(),
                k,
                alpha,
                x: x.at(0, 0),
                x_stride: x.lane_stride,
                w: many.at(js.start, 0),
                w_stride: many.lane_stride,
                beta,
                c: c.get().add(js.start * c_many_stride),
                c_i_stride: c_few_stride,
                c_j_stride: c_many_stride,
            });
        }
    };
    let n_threads = rayon::current_num_threads();
    if parallel == Parallel::Serial || n_threads == 1 || problem.work() < PARALLEL_WORK {
        dots(0..n_many);
    } else {
        let split = Split::into_parts(n_many, n_threads * TASKS_PER_THREAD, 8);
        (0..split.n_parts()).into_par_iter().with_max_len(1).for_each(|idx| dots(split.part(idx)));
    }
    true
}

/// A copy in `dst` of all lanes, each contiguous.
///
/// # Safety
/// `source` holds `n_lanes` lanes of `f32`, and `dst` has room for them.
unsafe fn contiguous_lanes(source: Source, n_lanes: usize, dst: *mut f32) -> Source {
    let k_len = source.k_len;
    for lane in 0..n_lanes {
        for p in 0..k_len {
            // SAFETY: by contract.
            unsafe { *dst.add(lane * k_len + p) = *source.at(lane, p).cast::<f32>() };
        }
    }
    Source { start: dst.cast_const().cast(), lane_stride: k_len, k_stride: 1, ..source }
}
