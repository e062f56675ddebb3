//! Inner loops in 256-bit vectors with fused multiply-add.
//!
//! The widest tile is 6 × 16: 12 accumulators, two vectors of `B` and one broadcast element of `A` fill 15 of the 16
//! registers.

use std::arch::x86_64::*;

use super::kernel::{Dots, Lanes, Loops, Tile};
use super::{kernel_portable, pack};

const LANES: usize = 8;
const MAX_ROWS: usize = 6;
const MAX_VECTORS: usize = 2;

pub(super) static LOOPS: Loops = F32_LOOPS;
/// For bf16 operands, which are widened where they are packed.
pub(super) static WIDENING_LOOPS: Loops = Loops { pack: pack::widening::<LANES>, ..F32_LOOPS };

const F32_LOOPS: Loops = Loops {
    max_rows: MAX_ROWS,
    max_cols: MAX_VECTORS * LANES,
    lanes: LANES,
    k_per_step: 1,
    k_block: 384,
    m_block: 120,
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
];

/// # Safety
/// See [`Tile`]; the machine has AVX2 and FMA.
unsafe fn tile(t: &Tile) {
    let tile = TILES[t.rows - 1][t.cols.div_ceil(LANES) - 1];
    // SAFETY: the contract is the same.
    unsafe { tile(t) }
}

/// # Safety
/// See [`Tile`]; the machine has AVX2 and FMA, `t` has `ROWS` rows and fits `VECTORS` vectors.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile_of<const ROWS: usize, const VECTORS: usize>(t: &Tile) {
    // Packed strips get a copy of the loop in which all offsets are constants.
    // SAFETY: the contract is the same.
    let acc = unsafe {
        if t.a_row_stride == 1 && t.a_step_stride == ROWS {
            accumulate::<ROWS, VECTORS>(t, 1, ROWS)
        } else {
            accumulate::<ROWS, VECTORS>(t, t.a_row_stride, t.a_step_stride)
        }
    };
    let alpha = _mm256_set1_ps(t.alpha);
    let beta = _mm256_set1_ps(t.beta);
    for (i, acc) in acc.into_iter().enumerate() {
        for (v, sum) in acc.into_iter().enumerate() {
            let mask = first_lanes(t.cols - v * LANES);
            // SAFETY: masked to the columns of `c`.
            unsafe {
                let c = t.c.add(i * t.c_row_stride + v * LANES);
                let sum = if t.beta == 0.0 {
                    _mm256_mul_ps(alpha, sum)
                } else {
                    _mm256_fmadd_ps(alpha, sum, _mm256_mul_ps(beta, _mm256_maskload_ps(c, mask)))
                };
                if t.cols >= (v + 1) * LANES {
                    _mm256_storeu_ps(c, sum); // masked stores are slow on some processors
                } else {
                    _mm256_maskstore_ps(c, mask, sum);
                }
            }
        }
    }
}

/// `Σ_p a[i, p]·b[p, j]` in registers.
///
/// # Safety
/// As for [`tile_of`].
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn accumulate<const ROWS: usize, const VECTORS: usize>(
    t: &Tile,
    a_row_stride: usize,
    a_step_stride: usize,
) -> [[__m256; VECTORS]; ROWS] {
    let mut acc = [[_mm256_setzero_ps(); VECTORS]; ROWS];
    let (mut a, mut b) = (t.a, t.b);
    for _ in 0..t.steps {
        // SAFETY: `b` is readable in whole vectors, `a` for all rows; behind the last step the pointers are formed
        // but not read, hence wrapping.
        unsafe {
            let mut b_vectors = [_mm256_setzero_ps(); VECTORS];
            for (v, vector) in b_vectors.iter_mut().enumerate() {
                *vector = _mm256_loadu_ps(b.add(v * LANES));
            }
            for (i, acc) in acc.iter_mut().enumerate() {
                let a = _mm256_broadcast_ss(&*a.add(i * a_row_stride));
                for (acc, b) in acc.iter_mut().zip(b_vectors) {
                    *acc = _mm256_fmadd_ps(a, b, *acc);
                }
            }
            a = a.wrapping_add(a_step_stride);
            b = b.wrapping_add(t.b_step_stride);
        }
    }
    acc
}

/// A mask of the first `n` lanes, all if there are more.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn first_lanes(n: usize) -> __m256i {
    let n = _mm256_set1_epi32(n.min(LANES) as i32);
    _mm256_cmpgt_epi32(n, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
}

/// # Safety
/// See [`Lanes`]; the machine has AVX2.
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
/// See [`Lanes`]; the machine has AVX2.
#[target_feature(enable = "avx2,fma")]
unsafe fn copy(l: &Lanes) {
    let src = l.src.cast::<f32>();
    let mask = first_lanes(l.n_lanes);
    for p in 0..l.n_k {
        // SAFETY: masked to the lanes of the source; `dst` has room for a whole vector at each step.
        unsafe {
            let step = _mm256_maskload_ps(src.wrapping_add(p * l.k_stride), mask);
            _mm256_storeu_ps(l.dst.add(p * l.dst_stride), step);
        }
    }
}

/// # Safety
/// See [`Lanes`]; the machine has AVX2.
#[target_feature(enable = "avx2,fma")]
unsafe fn transpose(l: &Lanes) {
    let src = l.src.cast::<f32>();
    let n_whole = l.n_k - l.n_k % LANES;
    for start in (0..n_whole).step_by(LANES) {
        let mut rows = [_mm256_setzero_ps(); LANES];
        for (lane, row) in rows.iter_mut().enumerate() {
            if lane < l.n_lanes {
                // SAFETY: a lane of the source has `n_k` contiguous steps.
                *row = unsafe { _mm256_loadu_ps(src.add(lane * l.lane_stride + start)) };
            }
        }
        for (p, step) in transposed(rows).into_iter().enumerate() {
            // SAFETY: `dst` has room for a whole vector at each step.
            unsafe { _mm256_storeu_ps(l.dst.add((start + p) * l.dst_stride), step) };
        }
    }
    // SAFETY: the contract is the same, for the steps that are left.
    unsafe {
        kernel_portable::gather::<LANES>(&Lanes {
            src: src.wrapping_add(n_whole).cast(),
            n_k: l.n_k - n_whole,
            dst: l.dst.wrapping_add(n_whole * l.dst_stride),
            ..*l
        });
    }
}

/// The transpose of an 8 × 8 matrix in registers.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn transposed(r: [__m256; LANES]) -> [__m256; LANES] {
    // First 4 × 4 blocks inside each half: quads[4·g + c] holds column 4·h + c of rows 4·g..4·g + 4 in half h.
    let mut quads = [_mm256_setzero_ps(); LANES];
    for g in 0..2 {
        let [r0, r1, r2, r3] = [r[4 * g], r[4 * g + 1], r[4 * g + 2], r[4 * g + 3]];
        let low01 = _mm256_castps_pd(_mm256_unpacklo_ps(r0, r1));
        let high01 = _mm256_castps_pd(_mm256_unpackhi_ps(r0, r1));
        let low23 = _mm256_castps_pd(_mm256_unpacklo_ps(r2, r3));
        let high23 = _mm256_castps_pd(_mm256_unpackhi_ps(r2, r3));
        quads[4 * g] = _mm256_castpd_ps(_mm256_unpacklo_pd(low01, low23));
        quads[4 * g + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low01, low23));
        quads[4 * g + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(high01, high23));
        quads[4 * g + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(high01, high23));
    }
    // Then the halves.
    let mut columns = [_mm256_setzero_ps(); LANES];
    for c in 0..4 {
        columns[c] = _mm256_permute2f128_ps::<0x20>(quads[c], quads[4 + c]);
        columns[4 + c] = _mm256_permute2f128_ps::<0x31>(quads[c], quads[4 + c]);
    }
    columns
}

/// # Safety
/// See [`Dots`]; the machine has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
unsafe fn dots(d: &Dots) {
    // SAFETY: the contract is the same.
    unsafe {
        match d.m {
            1 => dots_of::<1, 8>(d),
            2 => dots_of::<2, 4>(d),
            3 => dots_of::<3, 3>(d),
            4 => dots_of::<4, 2>(d),
            5 => dots_of::<5, 2>(d),
            6 => dots_of::<6, 1>(d),
            7 => dots_of::<7, 1>(d),
            8 => dots_of::<8, 1>(d),
            _ => unreachable!("dots take few rows"),
        }
    }
}

/// `M` rows of `x` against `N` rows of `w` at a time.
///
/// # Safety
/// See [`Dots`]; the machine has AVX2 and FMA, and `d.m` is `M`.
#[inline]
#[target_feature(enable = "avx2,fma")]
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
#[target_feature(enable = "avx2,fma")]
unsafe fn dots_at<const M: usize, const N: usize>(d: &Dots, j: usize) {
    let mut acc = [[_mm256_setzero_ps(); N]; M];
    let n_whole = d.k - d.k % LANES;
    // SAFETY: rows of `x` and `w` are contiguous over `k`; the last, partial vector is masked; (i, j + jj) is in `c`.
    unsafe {
        let x = d.x.cast::<f32>();
        let w = d.w.cast::<f32>().add(j * d.w_stride);
        for p in (0..n_whole).step_by(LANES) {
            let mut w_vectors = [_mm256_setzero_ps(); N];
            for (jj, vector) in w_vectors.iter_mut().enumerate() {
                *vector = _mm256_loadu_ps(w.add(jj * d.w_stride + p));
            }
            for (i, acc) in acc.iter_mut().enumerate() {
                let x = _mm256_loadu_ps(x.add(i * d.x_stride + p));
                for (acc, w) in acc.iter_mut().zip(w_vectors) {
                    *acc = _mm256_fmadd_ps(x, w, *acc);
                }
            }
        }
        let mask = first_lanes(d.k - n_whole);
        for (i, acc) in acc.iter_mut().enumerate() {
            let x = _mm256_maskload_ps(x.add(i * d.x_stride + n_whole), mask);
            for (jj, acc) in acc.iter_mut().enumerate() {
                let w = _mm256_maskload_ps(w.add(jj * d.w_stride + n_whole), mask);
                *acc = _mm256_fmadd_ps(x, w, *acc);
            }
        }
        for (i, acc) in acc.into_iter().enumerate() {
            for (jj, acc) in acc.into_iter().enumerate() {
                let c = d.c.add(i * d.c_i_stride + (j + jj) * d.c_j_stride);
                let mut lanes = [0.0f32; LANES];
                _mm256_storeu_ps(lanes.as_mut_ptr(), acc);
                kernel_portable::update(c, d.alpha, lanes.iter().sum(), d.beta);
            }
        }
    }
}
