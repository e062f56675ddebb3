//! Classifying 64 bytes of ASCII with vector instructions.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256i, __m512i, _MM_HINT_T0, _mm_prefetch, _mm256_add_epi8, _mm256_cmpeq_epi8, _mm256_loadu_si256,
    _mm256_min_epu8, _mm256_movemask_epi8, _mm256_or_si256, _mm256_set1_epi8, _mm512_add_epi8, _mm512_add_epi32,
    _mm512_castsi512_si128, _mm512_cmpeq_epi8_mask, _mm512_cmplt_epu8_mask, _mm512_cvtepu8_epi32,
    _mm512_extracti32x4_epi32, _mm512_loadu_si512, _mm512_maskz_compress_epi8, _mm512_movepi8_mask, _mm512_or_si512,
    _mm512_set1_epi8, _mm512_set1_epi32, _mm512_storeu_si512,
};

use super::window::{Classify, Masks, WINDOW};

/// 64 bytes at once. To be called where the processor is known to have AVX-512 F, BW and VBMI2.
pub(super) struct Avx512;

impl Classify for Avx512 {
    #[inline(always)]
    fn masks(text: &[u8; WINDOW]) -> Masks {
        // SAFETY: only `cut_avx512` names this type, which runs where these instructions are there.
        unsafe { masks_avx512(text) }
    }

    #[inline(always)]
    fn fetch(byte: *const u8) {
        // SAFETY: this reads nothing, so any place will do.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(byte.cast()) };
    }

    #[inline(always)]
    fn write_places(places: &mut [u32; WINDOW], at: u32, bits: u64) {
        // SAFETY: only `cut_avx512` names this type, which runs where these instructions are there.
        unsafe { write_places_avx512(places, at, bits) }
    }
}

/// Whether the processor has what [`Avx512`] needs.
pub(super) fn has_avx512() -> bool {
    // Each caches: this is a load and a test.
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vbmi2")
        && is_x86_feature_detected!("bmi2")
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2")]
fn write_places_avx512(places: &mut [u32; WINDOW], at: u32, bits: u64) {
    const PLACES: [u8; WINDOW] = {
        let mut places = [0; WINDOW];
        let mut i = 0;
        while i < WINDOW {
            places[i] = i as u8;
            i += 1;
        }
        places
    };
    // SAFETY: the array has 64 bytes; the load needs no alignment.
    let all = unsafe { _mm512_loadu_si512(PLACES.as_ptr().cast()) };
    let some = _mm512_maskz_compress_epi8(bits, all);
    let at = _mm512_set1_epi32(at as i32);
    let quarters = [
        _mm512_castsi512_si128(some),
        _mm512_extracti32x4_epi32::<1>(some),
        _mm512_extracti32x4_epi32::<2>(some),
        _mm512_extracti32x4_epi32::<3>(some),
    ];
    // Seldom more than two; which of one and two it is would be mispredicted.
    let n_quarters = if bits.count_ones() <= 32 { 2 } else { 4 };
    for (places, quarter) in places.chunks_exact_mut(16).zip(quarters).take(n_quarters) {
        let found = _mm512_add_epi32(_mm512_cvtepu8_epi32(quarter), at);
        // SAFETY: the chunk has 64 bytes; the store needs no alignment.
        unsafe { _mm512_storeu_si512(places.as_mut_ptr().cast(), found) };
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn masks_avx512(text: &[u8; WINDOW]) -> Masks {
    // SAFETY: the array has 64 bytes; the load needs no alignment.
    let bytes: __m512i = unsafe { _mm512_loadu_si512(text.as_ptr().cast()) };
    let is = |byte: u8| _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(byte as i8));
    let within = |bytes: __m512i, first: u8, n: u8| {
        let from_first = _mm512_add_epi8(bytes, _mm512_set1_epi8(first.wrapping_neg() as i8));
        _mm512_cmplt_epu8_mask(from_first, _mm512_set1_epi8(n as i8))
    };
    let lower = _mm512_or_si512(bytes, _mm512_set1_epi8(0x20));
    let blank = is(b' ');
    Masks {
        letters: within(lower, b'a', 26),
        upper: within(bytes, b'A', 26),
        numbers: within(bytes, b'0', 10),
        spaces: blank | within(bytes, b'\t', 5),
        newlines: is(b'\n') | is(b'\r'),
        blank,
        apostrophes: is(b'\''),
        wide: _mm512_movepi8_mask(bytes),
    }
}

/// 32 bytes at once. To be called where the processor is known to have AVX2.
pub(super) struct Avx2;

impl Classify for Avx2 {
    #[inline(always)]
    fn masks(text: &[u8; WINDOW]) -> Masks {
        // SAFETY: only `cut_avx2` names this type, which runs where these instructions are there.
        unsafe { masks_avx2(text) }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn masks_avx2(text: &[u8; WINDOW]) -> Masks {
    let halves: [__m256i; 2] = [0, 32].map(|at| {
        let half: &[u8; 32] = text[at..at + 32].try_into().expect("half of the window");
        // SAFETY: the array has 32 bytes; the load needs no alignment.
        unsafe { _mm256_loadu_si256(half.as_ptr().cast()) }
    });
    let both = |f: &dyn Fn(__m256i) -> __m256i| {
        let [low, high] = halves.map(|half| u64::from(_mm256_movemask_epi8(f(half)) as u32));
        low | high << 32
    };
    let equal = |bytes: __m256i, byte: u8| _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(byte as i8));
    let within = |bytes: __m256i, first: u8, n: u8| {
        let from_first = _mm256_add_epi8(bytes, _mm256_set1_epi8(first.wrapping_neg() as i8));
        _mm256_cmpeq_epi8(_mm256_min_epu8(from_first, _mm256_set1_epi8(n as i8 - 1)), from_first)
    };
    let blank = both(&|bytes| equal(bytes, b' '));
    Masks {
        letters: both(&|bytes| within(_mm256_or_si256(bytes, _mm256_set1_epi8(0x20)), b'a', 26)),
        upper: both(&|bytes| within(bytes, b'A', 26)),
        numbers: both(&|bytes| within(bytes, b'0', 10)),
        spaces: blank | both(&|bytes| within(bytes, b'\t', 5)),
        newlines: both(&|bytes| _mm256_or_si256(equal(bytes, b'\n'), equal(bytes, b'\r'))),
        blank,
        apostrophes: both(&|bytes| equal(bytes, b'\'')),
        wide: both(&|bytes| bytes),
    }
}
