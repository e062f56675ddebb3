//! Looking up many short pre-tokens with AVX-512: all that is done for each pre-token of a text.
//!
//! Everything read from and written to is checked once per call, not once per pre-token.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m128i, _MM_HINT_T0, _mm_and_si128, _mm_cvtsi128_si64, _mm_extract_epi64, _mm_load_si128, _mm_loadu_si128,
    _mm_or_si128, _mm_prefetch, _mm_store_si128, _mm512_broadcast_i32x4, _mm512_cmpeq_epi32_mask,
    _mm512_cmpeq_epi64_mask, _mm512_loadu_si512, _mm512_reduce_min_epu32, _mm512_set1_epi32,
};

use super::cache::{Found, Keys, SEVERAL, SHORT_IDS};
use super::lines::{HASH_HIGH, HASH_LOW, Key, Lines, MASKS, SHORT_BYTES, VALUES};
use crate::pretokenize::MAX_ENDS;

/// What a key takes of 16 bytes for each length, and what it puts in.
const PARTS: [[Key; 2]; SHORT_BYTES + 2] = {
    let mut parts = [[Key([0, 0]); 2]; SHORT_BYTES + 2];
    let mut len = 0;
    while len < parts.len() {
        parts[len] = [Key(MASKS[len]), Key([0, (len as u64) << 56])];
        len += 1;
    }
    parts
};

/// Whether the processor has the instructions.
#[inline(always)]
pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("sse4.1") && is_x86_feature_detected!("bmi2")
}

/// How many keys ahead of the look-up are made: enough for the memory to come.
const AHEAD: usize = 48;

/// How many of the pre-tokens of `text` that end at `ends`, from the first on, have 16 bytes of the text from
/// their start on.
pub(super) fn n_roomy(text: &[u8], ends: &[u32]) -> usize {
    // The last start that counts.
    let Some(last) = text.len().checked_sub(16) else { return 0 };
    ends.len().min(ends.partition_point(|&end| end as usize <= last) + 1)
}

/// See [`super::cache::Cache::find`]. Makes the keys of the first `n_roomy` pre-tokens itself.
pub(super) fn find(lines: &Lines, text: &[u8], ends: &[u32], keys: &mut Keys, found: &mut Found, from: usize) -> usize {
    let (n, n_roomy) = (ends.len(), keys.n_roomy);
    assert!(n <= MAX_ENDS && from <= n && found.n <= from * SHORT_IDS && found.n_later <= from);
    assert!(n_roomy <= n && keys.n_made <= n);
    assert!(
        n_roomy == 0
            || text.len() >= 16 && ends[..n_roomy - 1].last().is_none_or(|&end| end as usize <= text.len() - 16)
    );
    // SAFETY: the instructions are there, or `is_available` was not asked. Ends ascend, the first pre-token
    // starts at 0 and each other one where the one before ends, so 16 bytes can be read where the first
    // `n_roomy` start. Each pre-token adds at most `SHORT_IDS` ids, of which one is written, and one to
    // `later`, so the room suffices. Places have been made by shifting hashes, which are less than the number
    // of lines then.
    unsafe { find_avx512(lines, text.as_ptr(), ends, n_roomy, keys, found, from) }
}

#[target_feature(enable = "avx512f,sse4.1,bmi1,bmi2")]
unsafe fn find_avx512(
    lines: &Lines,
    text: *const u8,
    ends: &[u32],
    n_roomy: usize,
    keys: &mut Keys,
    found: &mut Found,
    from: usize,
) -> usize {
    let (base, shift) = (lines.lines.as_slice().as_ptr(), lines.shift);
    let (mut n, mut n_later, mut n_made) = (found.n, found.n_later, keys.n_made);
    let (ids, later) = (found.ids.as_mut_ptr(), found.later.as_mut_ptr());
    let (key_of, place_of) = (keys.keys.as_mut_ptr(), keys.places.as_mut_ptr());
    let mut start = if n_made == 0 { 0 } else { ends[n_made - 1] };
    let mut make = || {
        // SAFETY: see `find`.
        unsafe {
            let end = *ends.get_unchecked(n_made);
            let len = (end - start).min(SHORT_BYTES as u32 + 1) as usize;
            let [mask, number] = PARTS.get_unchecked(len);
            let bytes: __m128i = _mm_loadu_si128(text.add(start as usize).cast());
            let mask = _mm_load_si128(std::ptr::from_ref(mask).cast());
            let number = _mm_load_si128(std::ptr::from_ref(number).cast());
            let key = _mm_or_si128(_mm_and_si128(bytes, mask), number);
            _mm_store_si128(key_of.add(n_made).cast(), key);
            let (low, high) = (_mm_cvtsi128_si64(key) as u64, _mm_extract_epi64::<1>(key) as u64);
            let hash = low.wrapping_mul(HASH_LOW).wrapping_add(high.wrapping_mul(HASH_HIGH));
            let place = (hash >> shift) as u32;
            *place_of.add(n_made) = place;
            _mm_prefetch::<_MM_HINT_T0>(base.wrapping_add(place as usize).cast());
            start = end;
        }
        n_made += 1;
        n_made
    };
    let mut made = keys.n_made;
    while made < n_roomy && made < from + AHEAD {
        made = make();
    }
    let mut i = from;
    while i < ends.len() {
        if made < n_roomy {
            made = make();
        }
        // SAFETY: see `find`.
        unsafe {
            let place = *place_of.add(i);
            let line = base.add(place as usize);
            let key = _mm512_broadcast_i32x4(_mm_load_si128(key_of.add(i).cast()));
            let equal = u32::from(_mm512_cmpeq_epi64_mask(_mm512_loadu_si512(line.cast()), key));
            // Both halves of one of the three.
            let both = equal & equal >> 1 & 0b01_01_01;
            if both == 0 {
                break;
            }
            // Twice the way, so that two bytes of it are one of a value.
            let bit = both.trailing_zeros() as usize;
            let value = *line.cast::<u32>().add(VALUES).byte_add(2 * bit);
            // No branch: it would often be mispredicted.
            let is_several = value >= SEVERAL;
            *ids.add(n) = value;
            *later.add(n_later) = (n as u32, i as u32);
            n_later += usize::from(is_several);
            n += std::hint::select_unpredictable(is_several, (value & !SEVERAL) as usize, 1);
        }
        i += 1;
    }
    (found.n, found.n_later, keys.n_made) = (n, n_later, made);
    i - from
}

/// Where the lowest rank is first; `None` if there is no merge.
#[inline(always)]
pub(super) fn first_min(ranks: &[u32; 16]) -> Option<usize> {
    // SAFETY: the instructions are there, or `is_available` was not asked.
    unsafe { first_min_avx512(ranks) }
}

#[target_feature(enable = "avx512f,bmi1,bmi2")]
fn first_min_avx512(ranks: &[u32; 16]) -> Option<usize> {
    // SAFETY: the array has 64 bytes; the load needs no alignment.
    let ranks = unsafe { _mm512_loadu_si512(ranks.as_ptr().cast()) };
    let best = _mm512_reduce_min_epu32(ranks);
    let at = _mm512_cmpeq_epi32_mask(ranks, _mm512_set1_epi32(best as i32)).trailing_zeros();
    (best != u32::MAX).then_some(at as usize)
}
