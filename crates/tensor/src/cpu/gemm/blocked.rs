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
    let n_threads = if product.m * product.n * product.k < PARALLEL_WORK || parallel == Parallel::Serial {
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
        let mut packed = Scratch::take(Slot::B, if self.pack_b { most_k * most_columns } else { most_k * width });
        for columns in n_split.parts() {
            for ks in k_split.parts() {
                let panel = Panel { ks, columns: columns.clone(), packed: SharedMut(packed.as_mut_ptr()) };
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
        self.pack_b || (panel.columns.end - column < self.loops.max_cols && panel.columns.len() % self.loops.lanes != 0)
    }

    /// Where a packed strip of `B` lies.
    fn packed_strip(&self, panel: &Panel, column: usize) -> *mut f32 {
        let offset = if self.pack_b { (column - panel.columns.start) * panel.ks.len() } else { 0 };
        panel.packed.get().wrapping_add(offset)
    }

    fn pack_panel(&self, panel: &Panel) {
        let width = self.loops.max_cols;
        let n_strips = panel.columns.len().div_ceil(width);
        let source =
            Source { start: self.b.data.as_ptr(), lane_stride: self.b.col_stride, k_stride: self.b.row_stride };
        let source = SharedSource(source);
        let pack = |strip: usize| {
            let column = panel.columns.start + strip * width;
            if self.packs_strip(panel, column) {
                let lanes = column..(column + width).min(panel.columns.end);
                // SAFETY: lanes and ks are inside `B`; the strip has its own part of the buffer, a whole number of
                // vectors wide; the kernel is available.
                unsafe {
                    let dst = self.packed_strip(panel, column);
                    pack::strip(self.loops, source.get(), lanes, panel.ks.clone(), width, dst);
                }
            }
        };
        let tasks = Split::into_parts(n_strips, if self.pack_b { 4 * self.n_threads } else { 1 }, 1);
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
            n_wanted.div_ceil(rows.n_parts()).min(panel.columns.len().div_ceil(8 * self.loops.max_cols)),
            self.loops.max_cols,
        );
        self.for_each(rows.n_parts() * columns.n_parts(), |idx| {
            let columns = columns.part(idx % columns.n_parts());
            let columns = panel.columns.start + columns.start..panel.columns.start + columns.end;
            self.multiply_block(panel, rows.part(idx / columns_per_row(columns.len(), idx)), columns);
        });
    }
}
