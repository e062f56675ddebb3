//! The loops around the micro-kernel: which block is packed when, and who works on it.
//!
//! ```text
//! for columns of B that fit the last-level cache
//!   for steps of k that fit the L2 cache together with a block of A
//!     pack B[ks, columns] in strips, shared by all threads, unless C is a single block of rows
//!     for blocks of C, in parallel
//!       pack A[rows, ks] in strips
//!       for strips of B (packed now, if they were not before), for strips of A: micro-kernel
//! ```

use std::ops::Range;

use rayon::prelude::*;

use super::Parallel;
use super::kernel::{Loops, Tile};
use super::pack::{self, Source};
use super::scratch::{Scratch, Slot};
use super::split::Split;
use crate::DType;
use crate::cpu::element::{Element, convert};

/// Most columns of `B` packed at a time.
const N_BLOCK: usize = 4096;
/// Multiply-adds below which a product stays on one thread.
const PARALLEL_WORK: usize = 1 << 22;
/// Tasks per thread, so that a thread which the system holds up does not hold up the others.
const TASKS_PER_THREAD: usize = 4;
/// Rows of `C` up to which `B` is read where it lies if its rows are contiguous: a packed copy would not pay.
const IN_PLACE_B_ROWS: usize = 64;
/// Columns from which on `B`, where it lies, is read in short blocks of `k`.
const WIDE_B_COLS: usize = 512;
/// Columns of `C` up to which `A` is read where it lies.
const IN_PLACE_A_COLS: usize = 64;
/// Elements of the largest tile of any kernel.
const MAX_TILE: usize = 448;

/// A pointer that tasks share; they write to disjoint elements.
#[derive(Debug)]
pub(super) struct SharedMut<C>(pub(super) *mut C);

impl<C> Clone for SharedMut<C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for SharedMut<C> {}

// SAFETY: a pointer is only an address; each use says why the elements behind it are free to touch.
unsafe impl<C> Send for SharedMut<C> {}
// SAFETY: as above.
unsafe impl<C> Sync for SharedMut<C> {}

impl<C> SharedMut<C> {
    /// The pointer (a method, so that closures capture the wrapper and not its field).
    pub(super) fn get(self) -> *mut C {
        self.0
    }
}

/// A product of non-zero dimensions in terms of addresses, whose bounds were checked.
pub(super) struct Problem<C> {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) alpha: f32,
    /// Lanes are rows.
    pub(super) a: Source,
    /// Lanes are columns.
    pub(super) b: Source,
    pub(super) beta: f32,
    pub(super) c: SharedMut<C>,
    pub(super) c_row_stride: usize,
}

impl<C> Problem<C> {
    /// Multiply-adds.
    pub(super) fn work(&self) -> usize {
        self.m.saturating_mul(self.n).saturating_mul(self.k)
    }
}

/// How many blocks a sum over `k` elements is cut into, if `B` is packed.
pub(super) fn n_step_blocks(loops: &Loops, k: usize) -> usize {
    Split::at_most(k.div_ceil(loops.k_per_step), loops.k_block, 1).n_parts()
}

/// Computes a product with loops that this machine can run.
pub(super) fn run<C: Element>(loops: &'static Loops, problem: &Problem<C>, parallel: Parallel) {
    let n_threads =
        if parallel == Parallel::Serial || problem.work() < PARALLEL_WORK { 1 } else { rayon::current_num_threads() };
    let plan = Plan::new(loops, problem, n_threads);
    if n_threads == 1 {
        plan.run();
    } else {
        // One hand-over to the pool for the whole product instead of one per loop.
        rayon::scope(|_| plan.run());
    }
}

/// A product and how it is cut.
struct Plan<'a, C> {
    loops: &'static Loops,
    problem: &'a Problem<C>,
    n_threads: usize,
    /// Blocks of `A`.
    row_blocks: Split,
    /// Whether strips of `B` are packed once for several blocks of `A`.
    shares_b: bool,
    /// Whether strips of `B` are read where they lie, as far as they are whole vectors.
    b_in_place: bool,
    a_in_place: bool,
}

/// Part of `B`: `steps × columns`.
struct Panel {
    steps: Range<usize>,
    columns: Range<usize>,
    /// Its strips, if they are shared.
    packed: SharedMut<f32>,
}

impl<'a, C: Element> Plan<'a, C> {
    fn new(loops: &'static Loops, problem: &'a Problem<C>, n_threads: usize) -> Self {
        let Problem { m, n, a, b, .. } = *problem;
        // Elements of the kernel's own type, one per step, and sums that need no rounding in between.
        let can_stay =
            |x: Source| C::DTYPE == DType::F32 && loops.k_per_step == 1 && x.element_size == loops.element_size();
        let n_blocks = m.div_ceil(loops.m_block);
        let n_blocks = if n_threads == 1 || (n_blocks == 1 && m <= n) {
            n_blocks
        } else {
            let n_tasks = (n_threads * TASKS_PER_THREAD).min(m.div_ceil(4 * loops.max_rows));
            n_blocks.max(n_tasks).next_multiple_of(n_threads)
        };
        let row_blocks = Split::into_parts(m, n_blocks, 1);
        Self {
            loops,
            problem,
            n_threads,
            row_blocks,
            shares_b: row_blocks.n_parts() > 1,
            b_in_place: can_stay(b) && b.lane_stride == 1 && m <= IN_PLACE_B_ROWS,
            a_in_place: can_stay(a) && n <= IN_PLACE_A_COLS,
        }
    }

    fn run(&self) {
        let width = self.loops.max_cols;
        let step_split = Split::at_most(self.problem.k.div_ceil(self.loops.k_per_step), self.step_block(), 1);
        let n_split = Split::at_most(self.problem.n, N_BLOCK, width);
        let most_columns = n_split.part(0).len().next_multiple_of(width);
        let mut packed = self.shares_b.then(|| Scratch::take(Slot::Panel, step_split.part(0).len() * most_columns));
        let packed = SharedMut(packed.as_mut().map_or(std::ptr::null_mut(), Scratch::as_mut_ptr));
        for columns in n_split.parts() {
            for steps in step_split.parts() {
                let panel = Panel { steps, columns: columns.clone(), packed };
                if self.shares_b {
                    self.pack_panel(&panel);
                }
                self.multiply_panel(&panel);
            }
        }
    }

    /// Most steps at a time; depends on the shape alone.
    fn step_block(&self) -> usize {
        let Problem { m, n, .. } = *self.problem;
        if self.b_in_place && n > WIDE_B_COLS {
            // Walking down a strip of a wide `B` touches a page per step: so walk along its rows as far as revisiting
            // `C` allows.
            if m <= 8 { 16 } else { 128 }
        } else {
            self.loops.k_block
        }
    }

    /// Runs `task` for all of `0..n_tasks`.
    fn for_each(&self, n_tasks: usize, task: impl Fn(usize) + Sync + Send) {
        if self.n_threads == 1 || n_tasks == 1 {
            (0..n_tasks).for_each(task);
        } else {
            (0..n_tasks).into_par_iter().with_max_len(1).for_each(task);
        }
    }

    /// Packs all strips of a panel.
    fn pack_panel(&self, panel: &Panel) {
        let width = self.loops.max_cols;
        let n_strips = panel.columns.len().div_ceil(width);
        let tasks = Split::into_parts(n_strips, self.n_threads * TASKS_PER_THREAD, 1);
        self.for_each(tasks.n_parts(), |idx| {
            for strip in tasks.part(idx) {
                let offset = strip * width;
                // SAFETY: the buffer holds all strips of the panel, and each belongs to one task.
                unsafe {
                    let dst = panel.packed.get().add(offset * panel.steps.len());
                    self.pack_b_strip(panel, panel.columns.start + offset, dst);
                }
            }
        });
    }

    /// Packs the strip of `B` that starts at `column`.
    ///
    /// # Safety
    /// `dst` has room for `max_cols` floats per step of `k`, and nobody else uses it.
    unsafe fn pack_b_strip(&self, panel: &Panel, column: usize, dst: *mut f32) {
        let width = self.loops.max_cols;
        let lanes = column..(column + width).min(panel.columns.end);
        // SAFETY: lanes and steps are inside `B`, a strip is a whole number of vectors wide, the kernel is available.
        unsafe { pack::strip(self.loops, self.problem.b, lanes, panel.steps.clone(), width, dst) };
    }

    fn multiply_panel(&self, panel: &Panel) {
        let width = self.loops.max_cols;
        let n_down = self.row_blocks.n_parts();
        let n_tasks = if self.n_threads == 1 { 1 } else { self.n_threads * TASKS_PER_THREAD };
        // Each task packs its rows of A, which must pay.
        let n_across = n_tasks.div_ceil(n_down).min(panel.columns.len().div_ceil(4 * width));
        let across = Split::into_parts(panel.columns.len(), n_across, width);
        self.for_each(n_down * across.n_parts(), |idx| {
            let columns = across.part(idx % across.n_parts());
            let columns = panel.columns.start + columns.start..panel.columns.start + columns.end;
            self.multiply_block(panel, self.row_blocks.part(idx / across.n_parts()), columns);
        });
    }

    /// Adds the panel's part to `C[rows, columns]`.
    fn multiply_block(&self, panel: &Panel, rows: Range<usize>, columns: Range<usize>) {
        let (loops, n_steps) = (self.loops, panel.steps.len());
        let Problem { alpha, a, b, beta, c, c_row_stride, .. } = *self.problem;
        let strips = Split::at_most(rows.len(), loops.max_rows, 1);
        let mut packed_a = None;
        if !self.a_in_place {
            let dst = packed_a.insert(Scratch::take(Slot::RowBlock, rows.len() * n_steps + loops.lanes)).as_mut_ptr();
            for strip in strips.parts() {
                let lanes = rows.start + strip.start..rows.start + strip.end;
                // SAFETY: lanes and steps are inside `A`; the scratch holds a strip after the other and one vector more;
                // the kernel is available.
                unsafe {
                    pack::strip(loops, a, lanes, panel.steps.clone(), strip.len(), dst.add(strip.start * n_steps))
                };
            }
        }
        let packed_a = packed_a.as_mut().map(|scratch| scratch.as_mut_ptr().cast_const());
        let mut packed_b = None;
        let mut sums = [0.0; MAX_TILE];

        for column in columns.clone().step_by(loops.max_cols) {
            let n_columns = (columns.end - column).min(loops.max_cols);
            let (b, b_step_stride) = if self.shares_b {
                let strip = panel.packed.get().wrapping_add((column - panel.columns.start) * n_steps);
                (strip.cast_const(), loops.max_cols)
            } else if self.b_in_place && n_columns.is_multiple_of(loops.lanes) {
                (b.at(column, panel.steps.start).cast(), b.k_stride)
            } else {
                let strip = packed_b
                    .get_or_insert_with(|| Scratch::take(Slot::ColumnStrip, n_steps * loops.max_cols))
                    .as_mut_ptr();
                // SAFETY: the scratch holds a strip and is this task's own.
                unsafe { self.pack_b_strip(panel, column, strip) };
                (strip.cast_const(), loops.max_cols)
            };
            for strip in strips.parts() {
                let row = rows.start + strip.start;
                let (a, a_row_stride, a_step_stride) = match packed_a {
                    Some(packed) => (packed.wrapping_add(strip.start * n_steps), 1, strip.len()),
                    None => (a.at(row, panel.steps.start).cast(), a.lane_stride, a.k_stride),
                };
                let beta = if panel.steps.start == 0 { beta } else { 1.0 };
                // SAFETY: the strips were packed above or lie inside `A` and `B`, in whole vectors; the tile is inside
                // `C` and belongs to this task, or is the task's own; the kernel is available.
                unsafe {
                    let c = c.get().add(row * c_row_stride + column);
                    let at = Corner { c, row_stride: c_row_stride, rows: strip.len(), cols: n_columns };
                    let in_place = C::DTYPE == DType::F32 || loops.rounds;
                    if !in_place && beta != 0.0 {
                        at.widen_into(&mut sums);
                    }
                    (loops.tile)(&Tile {
                        rows: strip.len(),
                        cols: n_columns,
                        steps: n_steps,
                        alpha,
                        a,
                        a_row_stride,
                        a_step_stride,
                        b,
                        b_step_stride,
                        beta,
                        c: if in_place { c.cast() } else { sums.as_mut_ptr() },
                        c_row_stride: if in_place { c_row_stride } else { n_columns },
                        rounded: in_place && C::DTYPE != DType::F32,
                    });
                    if !in_place {
                        at.round_from(&sums);
                    }
                }
            }
        }
    }
}

/// A tile of `C` that is rounded where the kernel leaves its sums.
struct Corner<C> {
    c: *mut C,
    row_stride: usize,
    rows: usize,
    cols: usize,
}

impl<C: Element> Corner<C> {
    /// # Safety
    /// The tile is inside `C`, and nobody else uses it.
    unsafe fn widen_into(&self, sums: &mut [f32]) {
        for (i, sums) in sums.chunks_exact_mut(self.cols).take(self.rows).enumerate() {
            // SAFETY: a row of the tile.
            convert(sums, unsafe { std::slice::from_raw_parts(self.c.add(i * self.row_stride), self.cols) });
        }
    }

    /// # Safety
    /// As for [`Corner::widen_into`].
    unsafe fn round_from(&self, sums: &[f32]) {
        for (i, sums) in sums.chunks_exact(self.cols).take(self.rows).enumerate() {
            // SAFETY: a row of the tile.
            convert(unsafe { std::slice::from_raw_parts_mut(self.c.add(i * self.row_stride), self.cols) }, sums);
        }
    }
}
