//! Inner loops in plain Rust over small arrays, which the compiler turns into vectors of whatever width it may assume.

use super::kernel::{Dots, Lanes, Loops, Tile};
use super::pack;

const MAX_ROWS: usize = 4;
const MAX_COLS: usize = 8;

pub(super) static LOOPS: Loops = F32_LOOPS;
/// For bf16 operands, which are widened where they are packed.
pub(super) static WIDENING_LOOPS: Loops = Loops { pack: pack::widening::<MAX_COLS>, ..F32_LOOPS };

const F32_LOOPS: Loops = Loops {
    max_rows: MAX_ROWS,
    max_cols: MAX_COLS,
    lanes: MAX_COLS,
    k_per_step: 1,
    k_block: 384,
    m_block: 120,
    tile,
    pack: pack_lanes,
    rounds: false,
    dots,
};

/// # Safety
/// See [`Tile`].
unsafe fn tile(t: &Tile) {
    // SAFETY: the contract is the same.
    unsafe {
        match t.rows {
            1 => tile_of::<1>(t),
            2 => tile_of::<2>(t),
            3 => tile_of::<3>(t),
            4 => tile_of::<4>(t),
            _ => unreachable!("a tile has 1 to {MAX_ROWS} rows"),
        }
    }
}

/// # Safety
/// See [`Tile`]; `t.rows` is `ROWS`.
unsafe fn tile_of<const ROWS: usize>(t: &Tile) {
    // SAFETY: the contract is the same.
    let acc = unsafe { accumulate::<ROWS>(t) };
    for (i, acc) in acc.iter().enumerate() {
        for (j, &sum) in acc.iter().enumerate().take(t.cols) {
            // SAFETY: inside `rows × cols` of `c`.
            unsafe { update(t.c.add(i * t.c_row_stride + j), t.alpha, sum, t.beta) };
        }
    }
}

/// `Σ_p a[i, p]·b[p, j]`.
///
/// Not inlined: next to the scalar code that uses the sums, the compiler shuffles single elements instead of keeping
/// each row in vectors, and runs at a quarter of the speed.
///
/// # Safety
/// As for [`tile_of`].
#[inline(never)]
unsafe fn accumulate<const ROWS: usize>(t: &Tile) -> [[f32; MAX_COLS]; ROWS] {
    let mut acc = [[0.0f32; MAX_COLS]; ROWS];
    for p in 0..t.steps {
        // SAFETY: `b` is readable in whole vectors, `a` for all rows.
        let b = unsafe { t.b.add(p * t.b_step_stride).cast::<[f32; MAX_COLS]>().read() };
        for (i, acc) in acc.iter_mut().enumerate() {
            // SAFETY: as above.
            let a = unsafe { *t.a.add(i * t.a_row_stride + p * t.a_step_stride) };
            for j in 0..MAX_COLS {
                acc[j] += a * b[j]; // not `mul_add`, a library call where the target has no such instruction
            }
        }
    }
    acc
}

/// `c ← beta·c + alpha·sum`, without reading `c` if `beta` is zero.
///
/// # Safety
/// `c` may be read and written.
pub(super) unsafe fn update(c: *mut f32, alpha: f32, sum: f32, beta: f32) {
    // SAFETY: by contract.
    unsafe { *c = if beta == 0.0 { alpha * sum } else { beta * *c + alpha * sum } };
}

/// # Safety
/// See [`Lanes`].
unsafe fn pack_lanes(l: &Lanes) {
    // SAFETY: the contract is the same.
    unsafe { gather::<MAX_COLS>(l) };
}

/// Packs element by element, whatever the strides.
///
/// # Safety
/// See [`Lanes`], for vectors of `LANES` floats.
pub(super) unsafe fn gather<const LANES: usize>(l: &Lanes) {
    let src = l.src.cast::<f32>();
    for p in 0..l.n_k {
        let mut step = [0.0; LANES];
        for (lane, x) in step.iter_mut().enumerate().take(l.n_lanes) {
            // SAFETY: inside the source.
            *x = unsafe { *src.add(lane * l.lane_stride + p * l.k_stride) };
        }
        // SAFETY: `dst` has room for a whole vector at each step.
        unsafe { l.dst.add(p * l.dst_stride).cast::<[f32; LANES]>().write(step) };
    }
}

/// # Safety
/// See [`Dots`].
unsafe fn dots(d: &Dots) {
    const LANES: usize = 16; // partial sums, so that the compiler may use vectors without reordering a sum
    for j in 0..d.n {
        for i in 0..d.m {
            // SAFETY: row `i` of `x` and row `j` of `w` have `k` contiguous elements; `c` has element (i, j).
            unsafe {
                let x = std::slice::from_raw_parts(d.x.cast::<f32>().add(i * d.x_stride), d.k).as_chunks::<LANES>();
                let w = std::slice::from_raw_parts(d.w.cast::<f32>().add(j * d.w_stride), d.k).as_chunks::<LANES>();
                let mut sums = [0.0f32; LANES];
                for (x, w) in x.0.iter().zip(w.0) {
                    for lane in 0..LANES {
                        sums[lane] += x[lane] * w[lane];
                    }
                }
                for (sum, (x, w)) in sums.iter_mut().zip(x.1.iter().zip(w.1)) {
                    *sum += x * w;
                }
                update(d.c.add(i * d.c_i_stride + j * d.c_j_stride), d.alpha, sums.iter().sum(), d.beta);
            }
        }
    }
}
