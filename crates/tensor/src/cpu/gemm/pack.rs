//! Copies of operand blocks into the order in which the micro-kernel reads them.

use std::ops::Range;

use super::kernel::{Lanes, Loops};

/// Strided access to an operand in terms of *lanes* (rows of `A`, columns of `B`) and the summation index `k`.
#[derive(Clone, Copy)]
pub(super) struct Source {
    pub(super) start: *const f32,
    pub(super) lane_stride: usize,
    pub(super) k_stride: usize,
}

/// Writes the strip `lanes × ks` of `source` to `dst`: for each `k` in order, `width` floats, one per lane.
///
/// `width` is the number of lanes for `A`, whose strips vary in height, or the full width of a tile for `B`, padded
/// with zeros.
///
/// # Safety
/// The machine can run `loops`; `source` holds all of `lanes × ks`; `dst` has room for `width` floats per `k` and one
/// vector behind them; no other thread touches that memory.
pub(super) unsafe fn strip(
    loops: &Loops,
    source: Source,
    lanes: Range<usize>,
    ks: Range<usize>,
    width: usize,
    dst: *mut f32,
) {
    for offset in (0..width).step_by(loops.lanes) {
        let n_lanes = lanes.len().saturating_sub(offset).min(loops.lanes);
        // SAFETY: lane and k are inside the source; with no lanes left, the pointer is formed but not read, hence
        // wrapping. `offset` is inside the strip.
        unsafe {
            let src = source
                .start
                .wrapping_add((lanes.start + offset) * source.lane_stride)
                .wrapping_add(ks.start * source.k_stride);
            let dst = dst.add(offset);
            if source.lane_stride == 1 {
                (loops.copy)(&Lanes {
                    src,
                    src_stride: source.k_stride,
                    n_lanes,
                    n_k: ks.len(),
                    dst,
                    dst_stride: width,
                });
            } else if source.k_stride == 1 {
                (loops.transpose)(&Lanes {
                    src,
                    src_stride: source.lane_stride,
                    n_lanes,
                    n_k: ks.len(),
                    dst,
                    dst_stride: width,
                });
            } else {
                gather(src, source, n_lanes, ks.len(), dst, width, loops.lanes.min(width - offset));
            }
        }
    }
}

/// The copy for strides of which neither is one.
///
/// # Safety
/// As for [`strip`].
unsafe fn gather(
    src: *const f32,
    source: Source,
    n_lanes: usize,
    n_k: usize,
    dst: *mut f32,
    dst_stride: usize,
    width: usize,
) {
    for k in 0..n_k {
        for lane in 0..width {
            // SAFETY: lanes below `n_lanes` are inside the source, all of `width` inside the strip.
            unsafe {
                let value = if lane < n_lanes {
                    *src.add(lane * source.lane_stride + k * source.k_stride)
                } else {
                    0.0
                };
                *dst.add(k * dst_stride + lane) = value;
            }
        }
    }
}
