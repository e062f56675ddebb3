//! The loops around the micro-kernel: which block is packed when, and who works on it.
//!
//! ```text
//! for columns of B that fit the last-level cache        (n_block)
//!   for steps of k that fit a strip into the L1 cache   (k_block)
//!     pack B[k_block, n_block] in strips, shared by all threads
//!     for tiles of C, in parallel                       (m_block × columns)
//!       pack A[m_block, k_block] in strips, fits the L2 cache
//!       for strips of B, for strips of A: micro-kernel
//! ```

use std::ops::Range;

use rayon::prelude::*;

use super::kernel::{Kernel, Loops, Tile};
use super::pack::{self, Source};
use super::scratch::{Scratch, Slot};
use super::split::Split;
use super::{MatRef, Parallel, Product};

/// Most steps of `k` in a block. It sets the order of summation, so it must not depend on the number of threads.
const K_BLOCK: usize = 512;
/// Most rows of `A` in a block.
const M_BLOCK: usize = 168;
/// Most columns of `B` packed at a time.
const N_BLOCK: usize = 4096;
/// Multiply-adds below which a product stays on one thread.
const PARALLEL_WORK: usize = 1 << 19;
/// Rows of `C` up to which `B` is read where it lies if its rows are contiguous: a packed copy would not pay.
const DIRECT_B_ROWS: usize = 64;
/// Columns of `C` up to which `A` is read where it lies.
const DIRECT_A_COLS: usize = 64;

/// A pointer that tasks share; they write to disjoint elements.
#[derive(Clone, Copy)]
pub(super) struct SharedMut(pub(super) *mut f32);

// SAFETY: a pointer is only an address; each use says why the elements behind it are free to touch.
unsafe impl Send for SharedMut {}
// SAFETY: as above.
unsafe impl Sync for SharedMut {}

impl SharedMut {
    /// The pointer (a method, so that closures capture the wrapper and not its field).
    pub(super) fn get(self) -> *mut f32 {
        self.0
    }
}

/// Computes a product of non-zero dimensions whose views were checked, on a kernel that is available.
pub(super) fn run(kernel: Kernel, product: &mut Product, parallel: Parallel) {
    let n_threads =
        if product.m * product.n * product.k < PARALLEL_WORK || parallel == Parallel::Serial {
            1
        } else {
            rayon::current_num_threads()
        };
    let plan = Plan {
        loops: kernel.loops(),
        m: product.m,
        alpha: product.alpha,
        a: product.a,
        b: product.b,
        beta: product.beta,
        c: SharedMut(product.c.data.as_mut_ptr()),
        c_row_stride: product.c.row_stride,
        pack_a: product.n > DIRECT_A_COLS,
        pack_b: product.b.col_stride != 1 || product.m > DIRECT_B_ROWS,
        n_threads,
    };
    if n_threads == 1 {
        plan.run(product.n, product.k);
    } else {
        // One hand-over to the pool for the whole product instead of one per loop.
        rayon::scope(|_| plan.run(product.n, product.k));
    }
}

/// A product with all that its loops have in common.
struct Plan<'a> {
    loops: &'static Loops,
    m: usize,
    alpha: f32,
    a: MatRef<'a>,
    b: MatRef<'a>,
    beta: f32,
    c: SharedMut,
    c_row_stride: usize,
    pack_a: bool,
    pack_b: bool,
    n_threads: usize,
}

/// One panel of `B`: `ks × columns`, packed as far as [`Plan::packs_strip`] says.
struct Panel {
    ks: Range<usize>,
    columns: Range<usize>,
    packed: SharedMut,
}

impl Plan<'_> {
    fn run(&self, n: usize, k: usize) {
        let width = self.loops.max_cols;
        let k_split = Split::at_most(k, K_BLOCK, 1);
        let n_split = Split::at_most(n, N_BLOCK, width);
        let most_k = k_split.part(0).len();
        let most_columns = n_split.part(0).len().next_multiple_of(width);
        let mut packed = Scratch::take(
            Slot::B,
            if self.pack_b { most_k * most_columns } else { most_k * width },
        );
        for columns in n_split.parts() {
            for ks in k_split.parts() {
                let panel =
                    Panel { ks, columns: columns.clone(), packed: SharedMut(packed.as_mut_ptr()) };
                self.pack_panel(&panel);
                self.multiply_panel(&panel);
            }
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

    /// Whether the strip of `B` that starts at a column of the panel is packed: vectors that would reach behind the
    /// last column always are.
    fn packs_strip(&self, panel: &Panel, column: usize) -> bool {
        self.pack_b
            || (panel.columns.end - column < self.loops.max_cols
                && panel.columns.len() % self.loops.lanes != 0)
    }

    /// Where a packed strip of `B` lies.
    fn packed_strip(&self, panel: &Panel, column: usize) -> *mut f32 {
        let offset = if self.pack_b { (column - panel.columns.start) * panel.ks.len() } else { 0 };
        panel.packed.get().wrapping_add(offset)
    }

    fn pack_panel(&self, panel: &Panel) {
        let width = self.loops.max_cols;
        let n_strips = panel.columns.len().div_ceil(width);
        let b = self.b;
        let pack = |strip: usize| {
            let column = panel.columns.start + strip * width;
            if self.packs_strip(panel, column) {
                let lanes = column..(column + width).min(panel.columns.end);
                // SAFETY: lanes and ks are inside `B`; the strip has its own part of the buffer, a whole number of
                // vectors wide; the kernel is available.
                unsafe {
                    let dst = self.packed_strip(panel, column);
                    let source = Source {
                        start: b.data.as_ptr(),
                        lane_stride: b.col_stride,
                        k_stride: b.row_stride,
                    };
                    pack::strip(self.loops, source, lanes, panel.ks.clone(), width, dst);
                }
            }
        };
        let tasks =
            Split::into_parts(n_strips, if self.pack_b { 4 * self.n_threads } else { 1 }, 1);
        self.for_each(tasks.n_parts(), |idx| tasks.part(idx).for_each(&pack));
    }

    fn multiply_panel(&self, panel: &Panel) {
        let max_rows = self.loops.max_rows;
        // Several tasks per thread, so that a thread which the system holds up does not hold up the others.
        let n_wanted = if self.n_threads == 1 { 1 } else { 4 * self.n_threads };
        let rows = Split::at_most(self.m, M_BLOCK, 1);
        let rows = if rows.n_parts() < n_wanted {
            Split::into_parts(self.m, n_wanted.min(self.m.div_ceil(4 * max_rows)), 1)
        } else {
            rows
        };
        let columns = Split::into_parts(
            panel.columns.len(),
            n_wanted
                .div_ceil(rows.n_parts())
                .min(panel.columns.len().div_ceil(8 * self.loops.max_cols)),
            self.loops.max_cols,
        );
        let n_across = columns.n_parts();
        self.for_each(rows.n_parts() * n_across, |idx| {
            let across = columns.part(idx % n_across);
            let across = panel.columns.start + across.start..panel.columns.start + across.end;
            self.multiply_block(panel, rows.part(idx / n_across), across);
        });
    }

    /// Adds the panel's part to `C[rows, columns]`.
    fn multiply_block(&self, panel: &Panel, rows: Range<usize>, columns: Range<usize>) {
        let (loops, k) = (self.loops, panel.ks.len());
        let strips = Split::at_most(rows.len(), loops.max_rows, 1);
        let a = Source {
            start: self.a.data.as_ptr(),
            lane_stride: self.a.row_stride,
            k_stride: self.a.col_stride,
        };
        let mut scratch = None;
        if self.pack_a {
            let packed =
                scratch.insert(Scratch::take(Slot::A, rows.len() * k + loops.lanes)).as_mut_ptr();
            for strip in strips.parts() {
                let lanes = rows.start + strip.start..rows.start + strip.end;
                // SAFETY: lanes and ks are inside `A`; the scratch holds a strip after the other and one vector more;
                // the kernel is available.
                unsafe {
                    pack::strip(
                        loops,
                        a,
                        lanes,
                        panel.ks.clone(),
                        strip.len(),
                        packed.add(strip.start * k),
                    )
                };
            }
        }
        let packed_a = scratch.as_mut().map(|scratch| scratch.as_mut_ptr().cast_const());

        for column in columns.clone().step_by(loops.max_cols) {
            let (b, b_k_stride) = if self.packs_strip(panel, column) {
                (self.packed_strip(panel, column).cast_const(), loops.max_cols)
            } else {
                (
                    self.b.data.as_ptr().wrapping_add(panel.ks.start * self.b.row_stride + column),
                    self.b.row_stride,
                )
            };
            for strip in strips.parts() {
                let row = rows.start + strip.start;
                let (a, a_row_stride, a_k_stride) = match packed_a {
                    Some(packed) => (packed.wrapping_add(strip.start * k), 1, strip.len()),
                    None => (
                        a.start.wrapping_add(row * a.lane_stride + panel.ks.start * a.k_stride),
                        a.lane_stride,
                        a.k_stride,
                    ),
                };
                // SAFETY: the strips were packed above or lie inside `A` and `B`, in whole vectors; the tile is inside
                // `C` and belongs to this task; the kernel is available.
                unsafe {
                    (loops.tile)(&Tile {
                        rows: strip.len(),
                        cols: (columns.end - column).min(loops.max_cols),
                        k,
                        alpha: self.alpha,
                        a,
                        a_row_stride,
                        a_k_stride,
                        b,
                        b_k_stride,
                        beta: if panel.ks.start == 0 { self.beta } else { 1.0 },
                        c: self.c.get().add(row * self.c_row_stride + column),
                        c_row_stride: self.c_row_stride,
                    });
                }
            }
        }
    }
}
