//! Merging the bytes of a pre-token of at most 64 with AVX-512: what is to be merged next stays in registers,
//! and the merge of a pair is found by one comparison of vectors.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m128i, __m512i, _mm_insert_epi8, _mm_loadu_si128, _mm_srli_si128, _mm512_cmpeq_epi64_mask, _mm512_cvtepu8_epi32,
    _mm512_loadu_si512, _mm512_mask_i32gather_epi32, _mm512_mask_set1_epi32, _mm512_min_epu32, _mm512_or_si512,
    _mm512_reduce_min_epu32, _mm512_set1_epi32, _mm512_set1_epi64, _mm512_setr_epi32, _mm512_slli_epi32,
    _mm512_srlv_epi64,
};
use std::sync::Arc;

use super::lines::Key;
use super::pairs::{NO_MERGE, Pairs};
use super::table::Table;
use crate::TokenId;

/// Entries of a bucket.
const ENTRIES: usize = 8;
const FREE: u64 = u64::MAX;
/// A rank that no merge has.
const NONE: u32 = u32::MAX / PLACES;
/// Places that are told apart in one number with the rank.
const PLACES: u32 = 64;
/// Bytes of a pre-token that is merged here, at most.
pub(super) const MAX_BYTES: usize = PLACES as usize;
/// Places of a vector.
const LANES: usize = 16;

/// The merges of a vocabulary, in buckets of eight.
///
/// The key of a pair is both ids, mixed. Its high bits choose the bucket, and all others are in the
/// entry, so that no key is taken for another one.
#[derive(Clone)]
pub(super) struct Packed {
    /// Rest of the key, rank, and merged id; a bucket whose last entry is taken may be too small for all that
    /// belong there.
    buckets: Arc<Table<[u64; ENTRIES]>>,
    bits: Bits,
    /// The rank for each two bytes: the first times 256 plus the second.
    byte_ranks: Box<[u32; 1 << 16]>,
    /// The merged id for each two bytes.
    byte_merges: Box<[TokenId; 1 << 16]>,
    byte_ids: [TokenId; 256],
}

/// How many bits each part takes.
#[derive(Clone, Copy)]
struct Bits {
    id: u32,
    rank: u32,
    bucket: u32,
}

impl Bits {
    /// Bits of a key that are in an entry.
    fn rest(self) -> u32 {
        2 * self.id - self.bucket
    }

    /// Bucket and rest of the key of a pair.
    #[inline(always)]
    fn place(self, left: TokenId, right: TokenId) -> (usize, u64) {
        let pair = u64::from(left) << self.id | u64::from(right);
        // Odd, so that no two keys become one.
        let key = pair.wrapping_mul(0x9E37_79B9_7F4A_7C15) & ((1 << (2 * self.id)) - 1);
        ((key >> self.rest()) as usize, key & ((1 << self.rest()) - 1))
    }
}

impl Packed {
    /// `None` if the processor has no AVX-512, or there are too many tokens.
    pub(super) fn new(byte_ids: &[TokenId; 256], merges: &[[TokenId; 3]], pairs: &Pairs) -> Option<Self> {
        if !super::kernel::is_available() {
            return None;
        }
        let largest = byte_ids.iter().chain(merges.iter().flatten()).max().copied().unwrap_or(0);
        // One id more than there are, for what is not there.
        let id_bits = u32::BITS - largest.checked_add(1)?.leading_zeros();
        let rank_bits = usize::BITS - merges.len().leading_zeros();
        let bucket_bits = (merges.len() / 4).next_power_of_two().trailing_zeros();
        let bits = Bits { id: id_bits, rank: rank_bits, bucket: bucket_bits };
        if id_bits > 24 || rank_bits > 25 || bits.bucket > bits.id || bits.rest() + rank_bits + id_bits >= 64 {
            return None;
        }
        // Two megabytes at least: a large page.
        let mut table = Table::new((1 << bucket_bits).max(1 << 15))?;
        let buckets: &mut [[u64; ENTRIES]] = table.as_mut_slice();
        buckets.fill([FREE; ENTRIES]);
        for (rank, &[left, right, id]) in merges.iter().enumerate() {
            if pairs.get(left, right).rank == rank as u32 {
                let (bucket, rest) = bits.place(left, right);
                if let Some(free) = buckets[bucket].iter_mut().find(|entry| **entry == FREE) {
                    *free = (rest << rank_bits | rank as u64) << id_bits | u64::from(id);
                }
            }
        }
        let merges = || (0..=u16::MAX).map(|both| pairs.of_bytes((both >> 8) as u8, both as u8));
        Some(Self {
            buckets: Arc::new(table),
            bits,
            byte_ranks: merges().map(|merge| merge.rank).collect::<Box<[u32]>>().try_into().ok()?,
            byte_merges: merges().map(|merge| merge.id).collect::<Box<[TokenId]>>().try_into().ok()?,
            byte_ids: *byte_ids,
        })
    }

    /// Appends the ids of a pre-token of at most [`MAX_BYTES`] bytes.
    pub(super) fn merge(&self, pairs: &Pairs, pretoken: &[u8], key: Key, ids: &mut Vec<TokenId>) {
        let n = pretoken.len();
        assert!((1..=MAX_BYTES).contains(&n));
        if n <= LANES {
            let bytes: [u8; LANES] = pretoken.first_chunk().copied().unwrap_or_else(|| bytemuck::cast(key.0));
            // SAFETY: `new` has made sure of the instructions.
            return unsafe { self.merge_avx512::<1, { LANES + 2 }>(pairs, &[bytes], n, ids) };
        }
        let mut bytes = [[0; LANES]; MAX_BYTES / LANES];
        bytes.as_flattened_mut()[..n].copy_from_slice(pretoken);
        if n <= 2 * LANES {
            // SAFETY: `new` has made sure of the instructions.
            return unsafe { self.merge_avx512::<2, { 2 * LANES + 2 }>(pairs, &[bytes[0], bytes[1]], n, ids) };
        }
        // SAFETY: `new` has made sure of the instructions.
        unsafe { self.merge_avx512::<4, { 4 * LANES + 2 }>(pairs, &bytes, n, ids) }
    }

    /// `PLUS_TWO`: two more than the bytes.
    #[target_feature(enable = "avx512f,sse4.1,bmi1,bmi2,lzcnt")]
    fn merge_avx512<const N: usize, const PLUS_TWO: usize>(
        &self,
        pairs: &Pairs,
        bytes: &[[u8; LANES]; N],
        n: usize,
        ids: &mut Vec<TokenId>,
    ) {
        let text = bytes.as_flattened();
        // The token that starts at each byte, and what it becomes with the one behind; both count only at
        // starts. One more place at both ends is for what is not there.
        let no_id = (1 << self.bits.id) - 1;
        let (mut tokens, mut merged) = ([no_id; PLUS_TWO], [no_id; PLUS_TWO]);
        for i in 0..n {
            tokens[i + 1] = self.byte_ids[usize::from(text[i])];
            // The last one has none.
            let next = text[(i + 1) % (N * LANES)];
            merged[i + 1] = self.byte_merges[usize::from(text[i]) << 8 | usize::from(next)];
        }
        // Rank and place of the merge at each start, as one number.
        let mut merges = self.first_merges(bytes, n);
        let mut is_start: u64 = u64::MAX >> (64 - n);
        loop {
            let lowest = merges.iter().skip(1).fold(merges[0], |lowest, &more| _mm512_min_epu32(lowest, more));
            let best = _mm512_reduce_min_epu32(lowest);
            if best / PLACES == NONE {
                break;
            }
            let at = best % PLACES;
            let id = merged[at as usize + 1];
            // The starts from here on: this one, that of what is merged with it, and of what comes behind.
            let behind = is_start & (u64::MAX << at << 1);
            let gone = behind & behind.wrapping_neg();
            is_start ^= gone;
            let next = ((behind ^ gone).trailing_zeros() as usize).min(N * LANES);
            let before = is_start & ((1 << at) - 1);
            // One more than the place: 0 if there is none.
            let previous = 64 - before.leading_zeros();
            let (right, right_id) = self.get(pairs, id, tokens[next + 1]);
            let (left, left_id) = self.get(pairs, tokens[previous as usize], id);
            tokens[at as usize + 1] = id;
            (merged[at as usize + 1], merged[previous as usize]) = (right_id, left_id);
            let right = right * PLACES + at;
            let left = left * PLACES + (previous.wrapping_sub(1) % PLACES);
            let (at, previous) = (1_u64 << at, if previous == 0 { 0 } else { 1_u64 << (previous - 1) });
            for (i, merges) in merges.iter_mut().enumerate() {
                let mask = |bits: u64| (bits >> (i * LANES)) as u16;
                *merges = _mm512_mask_set1_epi32(*merges, mask(gone), -1);
                *merges = _mm512_mask_set1_epi32(*merges, mask(at), right as i32);
                *merges = _mm512_mask_set1_epi32(*merges, mask(previous), left as i32);
            }
        }
        while is_start != 0 {
            ids.push(tokens[is_start.trailing_zeros() as usize + 1]);
            is_start &= is_start - 1;
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,sse4.1,bmi1,bmi2,lzcnt")]
    fn first_merges<const N: usize>(&self, bytes: &[[u8; LANES]; N], n: usize) -> [__m512i; N] {
        let has_next = u64::MAX >> (64 - n) >> 1;
        let mut merges = [_mm512_set1_epi32(NO_MERGE as i32); N];
        for (i, merges) in merges.iter_mut().enumerate() {
            // SAFETY: the array has 16 bytes; the load needs no alignment.
            let first: __m128i = unsafe { _mm_loadu_si128(bytes[i].as_ptr().cast()) };
            let behind = bytes.get(i + 1).map_or(0, |behind| behind[0]);
            let second = _mm_insert_epi8::<15>(_mm_srli_si128::<1>(first), i32::from(behind));
            let (first, second) = (_mm512_cvtepu8_epi32(first), _mm512_cvtepu8_epi32(second));
            let both = _mm512_or_si512(_mm512_slli_epi32::<8>(first), second);
            let mask = (has_next >> (i * LANES)) as u16;
            // SAFETY: two bytes are less than the number of ranks.
            let ranks =
                unsafe { _mm512_mask_i32gather_epi32::<4>(*merges, mask, both, self.byte_ranks.as_ptr().cast()) };
            let places = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
            let places = _mm512_or_si512(places, _mm512_set1_epi32((i * LANES) as i32));
            *merges = _mm512_or_si512(_mm512_slli_epi32::<6>(ranks), places);
        }
        merges
    }

    /// Rank and id of the merge of two tokens.
    #[inline]
    #[target_feature(enable = "avx512f,sse4.1,bmi1,bmi2,lzcnt")]
    fn get(&self, pairs: &Pairs, left: TokenId, right: TokenId) -> (u32, TokenId) {
        let Bits { id: id_bits, rank: rank_bits, .. } = self.bits;
        let (place, rest) = self.bits.place(left, right);
        let bucket = &self.buckets.as_slice()[place];
        // SAFETY: a bucket has 64 bytes; the load needs no alignment.
        let entries = unsafe { _mm512_loadu_si512(bucket.as_ptr().cast()) };
        let keys = _mm512_srlv_epi64(entries, _mm512_set1_epi64(i64::from(rank_bits + id_bits)));
        let found = u32::from(_mm512_cmpeq_epi64_mask(keys, _mm512_set1_epi64(rest as i64)));
        if found == 0 && bucket[ENTRIES - 1] != FREE {
            let merge = pairs.get(left, right);
            return (merge.rank.min(NONE), merge.id);
        }
        let entry = bucket[found.trailing_zeros() as usize % ENTRIES];
        let rank = (entry >> id_bits) as u32 & ((1 << rank_bits) - 1);
        (std::hint::select_unpredictable(found == 0, NONE, rank), entry as u32 & ((1 << id_bits) - 1))
    }
}
