//! Buffers for packed panels, reused from product to product.

use std::cell::Cell;

/// One cache line of floats, so that packed panels start on a line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE_LEN]);

const LINE_LEN: usize = 16;

/// What a buffer holds; a thread keeps one idle buffer of each kind.
#[derive(Clone, Copy)]
pub(super) enum Slot {
    /// Strips of `B` that all threads share.
    Panel,
    /// Strips of `A` for one task.
    RowBlock,
    /// One strip of `B` for one task.
    ColumnStrip,
    /// Sums that are rounded later.
    Sums,
}

thread_local! {
    // An attention layer makes thousands of products of microseconds each: allocating and faulting in fresh pages
    // for every one would cost more than the arithmetic. The contents never outlive a call.
    static IDLE: [Cell<Vec<Line>>; 4] = const { [const { Cell::new(Vec::new()) }; 4] };
}

/// A buffer on loan from its thread; given back when dropped.
///
/// It is taken out of its slot, not borrowed in place: a thread that waits for its rayon tasks may run another
/// product meanwhile, which then finds the slot empty and makes a buffer of its own.
pub(super) struct Scratch {
    lines: Vec<Line>,
    slot: Slot,
}

impl Scratch {
    /// A buffer of at least `len` floats of unspecified value.
    pub(super) fn take(slot: Slot, len: usize) -> Self {
        let mut lines = IDLE.with(|idle| idle[slot as usize].take());
        let n_lines = len.div_ceil(LINE_LEN);
        if lines.len() < n_lines {
            lines.clear(); // nothing worth copying while it grows
            lines.resize(n_lines, Line([0.0; LINE_LEN]));
        }
        Self { lines, slot }
    }

    /// The floats, at least as many as were asked for.
    pub(super) fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: lines are floats without gaps.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.lines.len() * LINE_LEN) }
    }

    /// The start of the buffer, aligned to a cache line.
    pub(super) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.lines.as_mut_ptr().cast()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // While the thread itself ends there is no slot to return to, and the buffer is simply freed.
        let _ = IDLE.try_with(|idle| idle[self.slot as usize].set(std::mem::take(&mut self.lines)));
    }
}
