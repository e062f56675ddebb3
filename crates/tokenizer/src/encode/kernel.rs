//! Looking up many short pre-tokens with AVX-512: all that is done for each pre-token of a text.
//!
//! Everything read from and written to is checked once per call, not once per pre-token.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m128i, _MM_HINT_T0, _mm_and_si128, _mm_cvtsi128_si64, _mm_extract_epi64, _mm_load_si128, _mm_loadu_si128,
    _mm_or_si128, _mm_prefetch, _mm_set_epi64x, _mm_store_si128, _mm_storeu_si128, _mm512_broadcast_i32x4,
    _mm512_cmpeq_epi64_mask, _mm512_loadu_si512, _mm512_or_si512, _mm512_storeu_si512,
};

use super::cache::Keys;
use super::lines::{HASH_HIGH, HASH_LOW, IDS, Key, Lines, MASKS, N_IDS, SHORT_BYTES};
use super::ring::{MARGIN, Ring, WORDS};
use crate::TokenId;
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
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("sse4.1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
}

/// How many of the pre-tokens of `text` that end at `ends`, from the first on, have 16 bytes of the text from
/// their start on.
fn n_roomy(text: &[u8], ends: &[u32]) -> usize {
    // The last start that counts.
    let Some(last) = text.len().checked_sub(16) else { return 0 };
    match ends.last() {
        Some(&end) if end as usize <= last => ends.len(),
        _ => ends.len().min(ends.partition_point(|&end| end as usize <= last) + 1),
    }
}

/// The keys of the first pre-tokens of `text`, which end at `ends`, and the start of fetching their lines;
/// says how many these are: all but those at the very end of the text.
pub(super) fn make_keys(lines: &Lines, text: &[u8], ends: &[u32], keys: &mut Keys) -> usize {
    let n = n_roomy(text, ends);
    assert!(n <= MAX_ENDS);
    // SAFETY: the instructions are there, or `is_available` was not asked. Ends ascend, the first pre-token
    // starts at 0 and each other one where the one before ends, so 16 bytes can be read where the first `n`
    // start. There are so many keys and places.
    unsafe { make_keys_avx512(lines, text.as_ptr(), &ends[..n], keys) }
    n
}

#[target_feature(enable = "avx512f,sse4.1,bmi1,bmi2")]
unsafe fn make_keys_avx512(lines: &Lines, text: *const u8, ends: &[u32], keys: &mut Keys) {
    let (base, shift) = (lines.lines.as_slice().as_ptr(), lines.shift);
    let (key_of, place_of) = (keys.keys.as_mut_ptr(), keys.places.as_mut_ptr());
    let (mut start, mut n_long) = (0, 0);
    for (i, &end) in ends.iter().enumerate() {
        let len = (end - start).min(SHORT_BYTES as u32 + 1) as usize;
        // SAFETY: see `make_keys`; fetching ahead reads nothing.
        unsafe {
            let [mask, number] = PARTS.get_unchecked(len);
            let bytes: __m128i = _mm_loadu_si128(text.add(start as usize).cast());
            let mask = _mm_load_si128(std::ptr::from_ref(mask).cast());
            let number = _mm_load_si128(std::ptr::from_ref(number).cast());
            let key = _mm_or_si128(_mm_and_si128(bytes, mask), number);
            _mm_store_si128(key_of.add(i).cast(), key);
            let (low, high) = (_mm_cvtsi128_si64(key) as u64, _mm_extract_epi64::<1>(key) as u64);
            let hash = low.wrapping_mul(HASH_LOW).wrapping_add(high.wrapping_mul(HASH_HIGH));
            let place = (hash >> shift) as u32;
            *place_of.add(i) = place;
            _mm_prefetch::<_MM_HINT_T0>(base.wrapping_add(place as usize).cast());
        }
        n_long += len / (SHORT_BYTES + 1);
        start = end;
    }
    keys.n_long = n_long;
}

/// See [`super::cache::Cache::find`].
pub(super) fn find(lines: &Lines, ring: &Ring, keys: &Keys, from: usize, to: usize, ids: &mut Vec<TokenId>) -> usize {
    assert!(from <= to && to <= MAX_ENDS);
    // More because ids are written sixteen at a time.
    ids.reserve((to - from) * SHORT_BYTES + MARGIN);
    // SAFETY: the instructions are there, or `is_available` was not asked. A short pre-token has at most
    // `SHORT_BYTES` ids, see `Cache::insert`, so there is room. Places have been made by shifting hashes, which are
    // less than the number of lines then.
    unsafe { find_avx512(lines, ring, keys, from, to, ids) }
}

#[target_feature(enable = "avx512f,sse4.1,bmi1,bmi2")]
unsafe fn find_avx512(
    lines: &Lines,
    ring: &Ring,
    keys: &Keys,
    from: usize,
    to: usize,
    ids: &mut Vec<TokenId>,
) -> usize {
    let base = lines.lines.as_slice().as_ptr();
    let (key_of, place_of) = (keys.keys.as_ptr(), keys.places.as_ptr());
    let mark = _mm512_broadcast_i32x4(_mm_set_epi64x(i64::MIN, 0));
    let words = ring.words.as_slice().as_ptr();
    let start = ids.as_mut_ptr();
    let mut n = ids.len();
    let mut i = from;
    while i < to {
        // SAFETY: see `find`. An entry has `Line`'s layout; a record has its head and ids, and there are `MARGIN`
        // words behind all records.
        unsafe {
            let line = base.add(*place_of.add(i) as usize);
            let key = _mm512_broadcast_i32x4(_mm_load_si128(key_of.add(i).cast()));
            let line_512 = _mm512_loadu_si512(line.cast());
            // Both halves of one of the two keys.
            let both_of = |equal: u8| u32::from(equal) & u32::from(equal) >> 1 & 0b1_0001;
            let entry_of = |both: u32| line.cast::<u32>().add(2 * both.trailing_zeros() as usize);
            let both = both_of(_mm512_cmpeq_epi64_mask(line_512, key));
            if both != 0 {
                let entry = entry_of(both);
                _mm_storeu_si128(start.add(n).cast(), _mm_load_si128(entry.add(IDS).cast()));
                n += *entry.add(N_IDS) as usize;
            } else {
                let both = both_of(_mm512_cmpeq_epi64_mask(line_512, _mm512_or_si512(key, mark)));
                if both == 0 {
                    break;
                }
                let record = entry_of(both).add(IDS).cast::<u64>().read_unaligned();
                if ring.head - record > WORDS as u64 {
                    break;
                }
                let record = words.add(record as usize % WORDS);
                _mm512_storeu_si512(start.add(n).cast(), _mm512_loadu_si512(record.add(1).cast()));
                n += (*record >> 16) as usize;
            }
        }
        i += 1;
    }
    // SAFETY: see `find`: so many have been written.
    unsafe { ids.set_len(n) };
    i - from
}
