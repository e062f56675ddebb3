//! Inner loops in 512-bit vectors.
//!
//! The widest tile is 14 × 32: 28 accumulators, two vectors of `B` and one broadcast element of `A` fill 31 of the 32
//! registers. Per step of `k` it makes 16 loads for 28 fused multiply-adds, so the arithmetic is what limits it.

use std::arch::x86_64::*;

use super::kernel::{Dots, Lanes, Loops, Tile};
use super::{kernel_portable, pack};

pub(super) const LANES: usize = 16;
pub(super) const MAX_ROWS: usize = 14;
pub(super) const MAX_VECTORS: usize = 2;

pub(super) static LOOPS: Loops = F32_LOOPS;
/// For bf16 operands, which are widened where they are packed.
pub(super) static WIDENING_LOOPS: Loops = Loops { pack: pack::widening::<LANES>, ..F32_LOOPS };

const F32_LOOPS: Loops = Loops {
    max_rows: MAX_ROWS,
    max_cols: MAX_VECTORS * LANES,
    lanes: LANES,
    k_per_step: 1,
    k_block: 1024,
    m_block: 168,
    tile,
    pack: pack_lanes,
    rounds: false,
    dots,
};

type TileFn = unsafe fn(&Tile);

/// Tiles by number of rows less one and number of vectors less one.
static TILES: [[TileFn; MAX_VECTORS]; MAX_ROWS] = [
    [tile_of::<1, 1>, tile_of::<1, 2>],
    [tile_of::<2, 1>, tile_of::<2, 2>],
    [tile_of::<3, 1>, tile_of::<3, 2>],
    [tile_of::<4, 1>, tile_of::<4, 2>],
    [tile_of::<5, 1>, tile_of::<5, 2>],
    [tile_of::<6, 1>, tile_of::<6, 2>],
    [tile_of::<7, 1>, tile_of::<7, 2>],
    [tile_of::<8, 1>, tile_of::<8, 2>],
    [tile_of::<9, 1>, tile_of::<9, 2>],
    [tile_of::<10, 1>, tile_of::<10, 2>],
    [tile_of::<11, 1>, tile_of::<11, 2>],
    [tile_of::<12, 1>, tile_of::<12, 2>],
    [tile_of::<13, 1>, tile_of::<13, 2>],
    [tile_of::<14, 1>, tile_of::<14, 2>],
];

/// # Safety
/// See [`Tile`]; the machine has AVX-512F.
unsafe fn tile(t: &Tile) {
    let tile = TILES[t.rows - 1][t.cols.div_ceil(LANES) - 1];
    // SAFETY: the contract is the same.
    unsafe { tile(t) }
}

/// # Safety
/// See [`Tile`]; the machine has AVX-512F, `t` has `ROWS` rows and fits `VECTORS` vectors.
#[target_feature(enable = "avx512f")]
unsafe fn tile_of<const ROWS: usize, const VECTORS: usize>(t: &Tile) {
    for i in 0..ROWS {
        for v in 0..VECTORS {
            // The loads of `C` at the end would stall otherwise.
            _mm_prefetch::<_MM_HINT_T0>(t.c.wrapping_add(i * t.c_row_stride + v * LANES).cast());
        }
    }
    // Packed strips get a copy of the loop in which all offsets are constants.
    // SAFETY: the contract is the same.
    let acc = unsafe {
        if t.a_row_stride == 1 && t.a_step_stride == ROWS {
            accumulate::<ROWS, VECTORS>(t, 1, ROWS)
        } else {
            accumulate::<ROWS, VECTORS>(t, t.a_row_stride, t.a_step_stride)
        }
    };
    // SAFETY: the contract is the same.
    unsafe { write_back(t, acc) };
}

/// `C ← beta·C + alpha·acc`.
///
/// # Safety
/// As for [`tile_of`].
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn write_back<const ROWS: usize, const VECTORS: usize>(t: &Tile, acc: [[__m512; VECTORS]; ROWS]) {
    let alpha = _mm512_set1_ps(t.alpha);
    let beta = _mm512_set1_ps(t.beta);
    for (i, acc) in acc.into_iter().enumerate() {
        for (v, sum) in acc.into_iter().enumerate() {
            let n_lanes = (t.cols - v * LANES).min(LANES);
            let mask = first_lanes(n_lanes);
            // SAFETY: masked to the columns of `c`.
            unsafe {
                let c = t.c.add(i * t.c_row_stride + v * LANES);
                let sum = if t.beta == 0.0 {
                    _mm512_mul_ps(alpha, sum)
                } else {
                    _mm512_fmadd_ps(alpha, sum, _mm512_mul_ps(beta, _mm512_maskz_loadu_ps(mask, c)))
                };
                _mm512_mask_storeu_ps(c, mask, sum);
            }
        }
    }
}

/// `Σ_p a[i, p]·b[p, j]` in registers.
///
/// # Safety
/// As for [`tile_of`].
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn accumulate<const ROWS: usize, const VECTORS: usize>(
    t: &Tile,
    a_row_stride: usize,
    a_step_stride: usize,
) -> [[__m512; VECTORS]; ROWS] {
    let mut acc = [[_mm512_setzero_ps(); VECTORS]; ROWS];
    let (mut a, mut b) = (t.a, t.b);
    for _ in 0..t.steps {
        // SAFETY: `b` is readable in whole vectors, `a` for all rows; behind the last step the pointers are formed
        // but not read, hence wrapping.
        unsafe {
            let mut b_vectors = [_mm512_setzero_ps(); VECTORS];
            for (v, vector) in b_vectors.iter_mut().enumerate() {
                *vector = _mm512_loadu_ps(b.add(v * LANES));
            }
            for (i, acc) in acc.iter_mut().enumerate() {
                let a = _mm512_set1_ps(*a.add(i * a_row_stride));
                for (acc, b) in acc.iter_mut().zip(b_vectors) {
                    *acc = _mm512_fmadd_ps(a, b, *acc);
                }
            }
            a = a.wrapping_add(a_step_stride);
            b = b.wrapping_add(t.b_step_stride);
        }
    }
    acc
}

/// A mask of the first `n <= LANES` lanes.
#[inline]
pub(super) fn first_lanes(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

/// # Safety
/// See [`Lanes`]; the machine has AVX-512F.
unsafe fn pack_lanes(l: &Lanes) {
    // SAFETY: the contract is the same.
    unsafe {
        match (l.lane_stride, l.k_stride) {
            (1, _) => copy(l),
            (_, 1) => transpose(l),
            _ => kernel_portable::gather::<LANES>(l),
        }
    }
}

/// # Safety
/// See [`Lanes`]; the machine has AVX-512F.
#[target_feature(enable = "avx512f")]
unsafe fn copy(l: &Lanes) {
    let src = l.src.cast::<f32>();
    let mask = first_lanes(l.n_lanes);
    for p in 0..l.n_k {
        // SAFETY: masked to the lanes of the source; `dst` has room for a whole vector at each step.
        unsafe {
            let step = _mm512_maskz_loadu_ps(mask, src.wrapping_add(p * l.k_stride));
            _mm512_storeu_ps(l.dst.add(p * l.dst_stride), step);
        }
    }
}

/// # Safety
/// See [`Lanes`]; the machine has AVX-512F.
#[target_feature(enable = "avx512f")]
unsafe fn transpose(l: &Lanes) {
    let src = l.src.cast::<f32>();
    for start in (0..l.n_k).step_by(LANES) {
        let n_k = (l.n_k - start).min(LANES);
        let mask = first_lanes(n_k);
        let mut rows = [_mm512_setzero_ps(); LANES];
        for (lane, row) in rows.iter_mut().enumerate() {
            if lane < l.n_lanes {
                // SAFETY: a lane of the source, masked to its steps.
                *row = unsafe { _mm512_maskz_loadu_ps(mask, src.add(lane * l.lane_stride + start)) };
            }
        }
        let steps = transposed(rows);
        for (p, step) in steps.into_iter().enumerate() {
            if p < n_k {
                // SAFETY: `dst` has room for a whole vector at each step.
                unsafe { _mm512_storeu_ps(l.dst.add((start + p) * l.dst_stride), step) };
            }
        }
    }
}

/// The transpose of a 16 × 16 matrix in registers.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transposed(r: [__m512; LANES]) -> [__m512; LANES] {
    // First 4 × 4 blocks inside each 128-bit quarter: quads[4·g + c] holds column 4·q + c of rows 4·g..4·g + 4 in
    // quarter q.
    let mut quads = [_mm512_setzero_ps(); LANES];
    for g in 0..4 {
        let [r0, r1, r2, r3] = [r[4 * g], r[4 * g + 1], r[4 * g + 2], r[4 * g + 3]];
        let low01 = _mm512_castps_pd(_mm512_unpacklo_ps(r0, r1));
        let high01 = _mm512_castps_pd(_mm512_unpackhi_ps(r0, r1));
        let low23 = _mm512_castps_pd(_mm512_unpacklo_ps(r2, r3));
        let high23 = _mm512_castps_pd(_mm512_unpackhi_ps(r2, r3));
        quads[4 * g] = _mm512_castpd_ps(_mm512_unpacklo_pd(low01, low23));
        quads[4 * g + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low01, low23));
        quads[4 * g + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high01, high23));
        quads[4 * g + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high01, high23));
    }
    // Then the 4 × 4 matrix of quarters: column 4·q + c is quarter q of quads[c], quads[4 + c], quads[8 + c], quads[12 + c].
    let mut columns = [_mm512_setzero_ps(); LANES];
    for c in 0..4 {
        let even01 = _mm512_shuffle_f32x4::<0b10_00_10_00>(quads[c], quads[4 + c]);
        let odd01 = _mm512_shuffle_f32x4::<0b11_01_11_01>(quads[c], quads[4 + c]);
        let even23 = _mm512_shuffle_f32x4::<0b10_00_10_00>(quads[8 + c], quads[12 + c]);
        let odd23 = _mm512_shuffle_f32x4::<0b11_01_11_01>(quads[8 + c], quads[12 + c]);
        columns[c] = _mm512_shuffle_f32x4::<0b10_00_10_00>(even01, even23);
        columns[4 + c] = _mm512_shuffle_f32x4::<0b10_00_10_00>(odd01, odd23);
        columns[8 + c] = _mm512_shuffle_f32x4::<0b11_01_11_01>(even01, even23);
        columns[12 + c] = _mm512_shuffle_f32x4::<0b11_01_11_01>(odd01, odd23);
    }
    columns
}

/// # Safety
/// See [`Dots`]; the machine has AVX-512F.
#[target_feature(enable = "avx512f")]
unsafe fn dots(d: &Dots) {
    // SAFETY: the contract is the same.
    unsafe {
        match d.m {
            1 => dots_of::<1, 8>(d),
            2 => dots_of::<2, 8>(d),
            3 => dots_of::<3, 4>(d),
            4 => dots_of::<4, 4>(d),
            5 => dots_of::<5, 4>(d),
            6 => dots_of::<6, 4>(d),
            7 => dots_of::<7, 3>(d),
            8 => dots_of::<8, 3>(d),
            _ => unreachable!("dots take few rows"),
        }
    }
}

/// `M` rows of `x` against `N` rows of `w` at a time.
///
/// # Safety
/// See [`Dots`]; the machine has AVX-512F and `d.m` is `M`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn dots_of<const M: usize, const N: usize>(d: &Dots) {
    let n_whole = d.n - d.n % N;
    // SAFETY: `j` and the `N` (or one) rows behind it are inside `w`.
    unsafe {
        for j in (0..n_whole).step_by(N) {
            dots_at::<M, N>(d, j);
        }
        for j in n_whole..d.n {
            dots_at::<M, 1>(d, j);
        }
    }
}

/// # Safety
/// As for [`dots_of`], and `j + N <= d.n`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn dots_at<const M: usize, const N: usize>(d: &Dots, j: usize) {
    let mut acc = [[_mm512_setzero_ps(); N]; M];
    let n_whole = d.k - d.k % LANES;
    // SAFETY: rows of `x` and `w` are contiguous over `k`; the last, partial vector is masked; (i, j + jj) is in `c`.
    unsafe {
        let x = d.x.cast::<f32>();
        let w = d.w.cast::<f32>().add(j * d.w_stride);
        for p in (0..n_whole).step_by(LANES) {
            let mut w_vectors = [_mm512_setzero_ps(); N];
            for (jj, vector) in w_vectors.iter_mut().enumerate() {
                *vector = _mm512_loadu_ps(w.add(jj * d.w_stride + p));
            }
            for (i, acc) in acc.iter_mut().enumerate() {
                let x = _mm512_loadu_ps(x.add(i * d.x_stride + p));
                for (acc, w) in acc.iter_mut().zip(w_vectors) {
                    *acc = _mm512_fmadd_ps(x, w, *acc);
                }
            }
        }
        let mask = first_lanes(d.k - n_whole);
        for (i, acc) in acc.iter_mut().enumerate() {
            let x = _mm512_maskz_loadu_ps(mask, x.add(i * d.x_stride + n_whole));
            for (jj, acc) in acc.iter_mut().enumerate() {
                let w = _mm512_maskz_loadu_ps(mask, w.add(jj * d.w_stride + n_whole));
                *acc = _mm512_fmadd_ps(x, w, *acc);
            }
        }
        for (i, acc) in acc.into_iter().enumerate() {
            for (jj, acc) in acc.into_iter().enumerate() {
                let c = d.c.add(i * d.c_i_stride + (j + jj) * d.c_j_stride);
                kernel_portable::update(c, d.alpha, _mm512_reduce_add_ps(acc), d.beta);
            }
        }
    }
}
