//! Inner loops for bf16 operands on x86-64 with AVX-512 BF16, which sums the products of two pairs per lane at once.
//!
//! Strips hold pairs of neighbours along `k` in 32 bits each; so packed, the shapes of tiles and strips are those of
//! `f32`, with half the steps. Products and sums are `f32`; subnormal numbers count as zero.

use std::arch::x86_64::*;
use std::mem::transmute;

use super::kernel::{Dots, Lanes, Loops, Tile};
use super::kernel_avx512::{LANES, MAX_ROWS, MAX_VECTORS, first_lanes, transposed, write_back};
use super::kernel_portable;

pub(super) static LOOPS: Loops = Loops {
    max_rows: MAX_ROWS,
    max_cols: MAX_VECTORS * LANES,
    lanes: LANES,
    k_per_step: 2,
    k_block: 1024,
    m_block: 168,
    tile,
    pack,
    rounds: true,
    dots,
};

/// Whether this machine has the instructions.
pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bf16")
}

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
/// See [`Tile`]; the machine has AVX-512 BF16.
unsafe fn tile(t: &Tile) {
    let tile = TILES[t.rows - 1][t.cols.div_ceil(LANES) - 1];
    // SAFETY: the contract is the same.
    unsafe { tile(t) }
}

/// # Safety
/// See [`Tile`]; the machine has AVX-512 BF16, `t` has `ROWS` rows and fits `VECTORS` vectors, and its `A` is packed.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn tile_of<const ROWS: usize, const VECTORS: usize>(t: &Tile) {
    let mut acc = [[_mm512_setzero_ps(); VECTORS]; ROWS];
    let (mut a, mut b) = (t.a.cast::<i32>(), t.b);
    for _ in 0..t.steps {
        // SAFETY: both operands are packed in whole vectors and strips of `ROWS`; behind the last step the pointers
        // are formed but not read, hence wrapping. All vectors are 512 bits, any of which make valid numbers.
        unsafe {
            let mut b_vectors = [transmute::<__m512, __m512bh>(_mm512_setzero_ps()); VECTORS];
            for (v, vector) in b_vectors.iter_mut().enumerate() {
                *vector = transmute::<__m512, __m512bh>(_mm512_loadu_ps(b.add(v * LANES)));
            }
            for (i, acc) in acc.iter_mut().enumerate() {
                let a = transmute::<__m512i, __m512bh>(_mm512_set1_epi32(*a.add(i)));
                for (acc, b) in acc.iter_mut().zip(b_vectors) {
                    *acc = _mm512_dpbf16_ps(*acc, a, b);
                }
            }
            a = a.wrapping_add(ROWS);
            b = b.wrapping_add(t.b_step_stride);
        }
    }
    // SAFETY: the contract is the same.
    unsafe { if t.rounded { write_back_rounded(t, acc) } else { write_back(t, acc) } };
}

/// [`write_back`] to bf16.
///
/// # Safety
/// As for [`tile_of`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn write_back_rounded<const ROWS: usize, const VECTORS: usize>(t: &Tile, acc: [[__m512; VECTORS]; ROWS]) {
    let alpha = _mm512_set1_ps(t.alpha);
    let beta = _mm512_set1_ps(t.beta);
    for (i, acc) in acc.into_iter().enumerate() {
        for (v, sum) in acc.into_iter().enumerate() {
            let mask = first_lanes((t.cols - v * LANES).min(LANES));
            // SAFETY: masked to the columns of `c`; 256 bits of bf16 are as many bits.
            unsafe {
                let c = t.c.cast::<i16>().add(i * t.c_row_stride + v * LANES);
                let sum = if t.beta == 0.0 {
                    _mm512_mul_ps(alpha, sum)
                } else {
                    let old = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, c));
                    let old = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(old));
                    _mm512_fmadd_ps(alpha, sum, _mm512_mul_ps(beta, old))
                };
                _mm256_mask_storeu_epi16(c, mask, transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(sum)));
            }
        }
    }
}

/// # Safety
/// See [`Lanes`]; the machine has AVX-512 BF16, BW and VL.
unsafe fn pack(l: &Lanes) {
    let n_pairs = l.n_k / 2;
    // SAFETY: the contract is the same; a last, single element is what is left behind the pairs.
    unsafe {
        match (l.lane_stride, l.k_stride) {
            (1, _) => interleave(l, n_pairs),
            (_, 1) => transpose(l, n_pairs),
            _ => return gather(l),
        }
        gather(&Lanes {
            src: l.src.wrapping_add(2 * n_pairs * l.k_stride * size_of::<u16>()),
            n_k: l.n_k - 2 * n_pairs,
            dst: l.dst.wrapping_add(n_pairs * l.dst_stride),
            ..*l
        });
    }
}

/// Packs pairs whose lanes are contiguous.
///
/// # Safety
/// As for [`pack`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn interleave(l: &Lanes, n_pairs: usize) {
    let src = l.src.cast::<i16>();
    let mask = first_lanes(l.n_lanes);
    for p in 0..n_pairs {
        // SAFETY: masked to the lanes of the source; `dst` has room for a whole vector at each step.
        unsafe {
            let low = _mm256_maskz_loadu_epi16(mask, src.wrapping_add(2 * p * l.k_stride));
            let high = _mm256_maskz_loadu_epi16(mask, src.wrapping_add((2 * p + 1) * l.k_stride));
            let high = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(high));
            let pairs = _mm512_or_si512(_mm512_cvtepu16_epi32(low), high);
            _mm512_storeu_ps(l.dst.add(p * l.dst_stride), _mm512_castsi512_ps(pairs));
        }
    }
}

/// Packs pairs that are contiguous along `k`.
///
/// # Safety
/// As for [`pack`].
#[target_feature(enable = "avx512f")]
unsafe fn transpose(l: &Lanes, n_pairs: usize) {
    let src = l.src.cast::<i16>();
    for start in (0..n_pairs).step_by(LANES) {
        let n_steps = (n_pairs - start).min(LANES);
        let mask = first_lanes(n_steps);
        let mut rows = [_mm512_setzero_ps(); LANES];
        for (lane, row) in rows.iter_mut().enumerate() {
            if lane < l.n_lanes {
                // SAFETY: a lane of the source, masked to its pairs.
                let pairs = unsafe { _mm512_maskz_loadu_epi32(mask, src.add(lane * l.lane_stride + 2 * start).cast()) };
                *row = _mm512_castsi512_ps(pairs);
            }
        }
        for (p, step) in transposed(rows).into_iter().enumerate() {
            if p < n_steps {
                // SAFETY: `dst` has room for a whole vector at each step.
                unsafe { _mm512_storeu_ps(l.dst.add((start + p) * l.dst_stride), step) };
            }
        }
    }
}

/// Packs element by element, whatever the strides.
///
/// # Safety
/// As for [`pack`].
unsafe fn gather(l: &Lanes) {
    let src = l.src.cast::<u16>();
    for p in 0..l.n_k.div_ceil(2) {
        let mut step = [0u32; LANES];
        for (lane, pair) in step.iter_mut().enumerate().take(l.n_lanes) {
            // SAFETY: inside the source.
            let at = |k: usize| unsafe { u32::from(*src.add(lane * l.lane_stride + k * l.k_stride)) };
            *pair = at(2 * p) | if 2 * p + 1 < l.n_k { at(2 * p + 1) << 16 } else { 0 };
        }
        // SAFETY: `dst` has room for a whole vector at each step.
        unsafe { l.dst.add(p * l.dst_stride).cast::<[u32; LANES]>().write(step) };
    }
}

/// # Safety
/// See [`Dots`]; the machine has AVX-512 BF16 and BW.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
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
/// See [`Dots`]; the machine has AVX-512 BF16 and BW, and `d.m` is `M`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
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
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn dots_at<const M: usize, const N: usize>(d: &Dots, j: usize) {
    const PAIRED_LANES: usize = 2 * LANES;
    let mut acc = [[_mm512_setzero_ps(); N]; M];
    // SAFETY: rows of `x` and `w` are contiguous over `k`, and each vector is masked to them; (i, j + jj) is in `c`.
    unsafe {
        let x = d.x.cast::<i16>();
        let w = d.w.cast::<i16>().add(j * d.w_stride);
        for p in (0..d.k).step_by(PAIRED_LANES) {
            let mask = u32::MAX >> (PAIRED_LANES - (d.k - p).min(PAIRED_LANES));
            let load = |row: *const i16| transmute::<__m512i, __m512bh>(_mm512_maskz_loadu_epi16(mask, row.add(p)));
            let mut w_vectors = [load(w); N];
            for (jj, vector) in w_vectors.iter_mut().enumerate().skip(1) {
                *vector = load(w.add(jj * d.w_stride));
            }
            for (i, acc) in acc.iter_mut().enumerate() {
                let x = load(x.add(i * d.x_stride));
                for (acc, w) in acc.iter_mut().zip(w_vectors) {
                    *acc = _mm512_dpbf16_ps(*acc, x, w);
                }
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
