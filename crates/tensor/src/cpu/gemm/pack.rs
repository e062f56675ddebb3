//! Copies of operand blocks into the order in which the micro-kernel reads them.

use std::ops::Range;

use half::bf16;

use super::kernel::{Lanes, Loops};
use crate::cpu::element::Element;

/// Strided access to an operand in terms of *lanes* (rows of `A`, columns of `B`) and the summation index.
#[derive(Clone, Copy)]
pub(super) struct Source {
    pub(super) start: *const u8,
    /// Bytes of an element.
    pub(super) element_size: usize,
    /// Elements from lane to lane.
    pub(super) lane_stride: usize,
    /// Elements along the summation.
    pub(super) k_stride: usize,
    /// Length of the summation.
    pub(super) k_len: usize,
}

// SAFETY: an address of elements that nobody writes while the product is computed.
unsafe impl Send for Source {}
// SAFETY: as above.
unsafe impl Sync for Source {}

impl Source {
    /// The address of an element; inside the operand if lane and `k` are.
    pub(super) fn at(&self, lane: usize, k: usize) -> *const u8 {
        self.start.wrapping_add((lane * self.lane_stride + k * self.k_stride) * self.element_size)
    }
}

/// Writes the strip `lanes × steps` of `source` to `dst`: for each step in order, `width` floats, one per lane.
///
/// `width` is the number of lanes for `A`, whose strips vary in height, or the full width of a tile for `B`, padded
/// with zeros.
///
/// # Safety
/// The machine can run `loops`; `source` holds all of `lanes × steps`; `dst` has room for `width` floats per step and
/// one vector behind them; no other thread touches that memory.
pub(super) unsafe fn strip(
    loops: &Loops,
    source: Source,
    lanes: Range<usize>,
    steps: Range<usize>,
    width: usize,
    dst: *mut f32,
) {
    let ks = steps.start * loops.k_per_step..(steps.end * loops.k_per_step).min(source.k_len);
    for offset in (0..width).step_by(loops.lanes) {
        // SAFETY: lanes and ks are inside the source (with no lanes left, nothing is read); `offset` is inside the
        // strip.
        unsafe {
            (loops.pack)(&Lanes {
                src: source.at(lanes.start + offset, ks.start),
                lane_stride: source.lane_stride,
                k_stride: source.k_stride,
                n_lanes: lanes.len().saturating_sub(offset).min(loops.lanes),
                n_k: ks.len(),
                dst: dst.add(offset),
                dst_stride: width,
            });
        }
    }
}

/// Packs bf16 as `f32`, for vectors of `WIDTH` lanes.
///
/// # Safety
/// See [`Lanes`].
pub(super) unsafe fn widening<const WIDTH: usize>(l: &Lanes) {
    let src = l.src.cast::<bf16>();
    for p in 0..l.n_k {
        let mut step = [0.0; WIDTH];
        for (lane, x) in step.iter_mut().enumerate().take(l.n_lanes) {
            // SAFETY: inside the source.
            *x = unsafe { *src.add(lane * l.lane_stride + p * l.k_stride) }.widen();
        }
        // SAFETY: `dst` has room for a whole vector at each step.
        unsafe { l.dst.add(p * l.dst_stride).cast::<[f32; WIDTH]>().write_unaligned(step) };
    }
}
