//! Ids of pre-tokens that are long or have many, in a ring: what is new takes the place of what is oldest.

use super::table::{self, Table};
use crate::TokenId;

/// Cache lines of slots: 2 MiB.
const LINES: usize = 1 << 15;
/// Words of records: 16 MiB.
pub(super) const WORDS: usize = 1 << 22;
/// Words behind the ring that are never used, so that a few more can be read than a record has.
pub(super) const MARGIN: usize = 16;
/// Bytes of a pre-token that is remembered, at most: it has no more ids.
pub(super) const MAX_BYTES: usize = 1 << 10;

/// Records: how many ids and bytes there are, ids, bytes.
pub(super) struct Ring {
    slots: Table<[Slot; 4]>,
    pub(super) words: Table<u32>,
    /// Where the next record goes; places are counted on and on, and are taken modulo `WORDS`.
    pub(super) head: u64,
}

/// Hash of a pre-token and place of its record.
type Slot = [u64; 2];

impl Ring {
    /// `None` if there is no memory.
    pub(super) fn new() -> Option<Self> {
        // No record is at 0, which is what unused slots say.
        Some(Self { slots: Table::new(LINES)?, words: Table::new(WORDS + MARGIN)?, head: WORDS as u64 })
    }

    /// Has the memory come in which a hash is looked up.
    pub(super) fn fetch_slots(&self, hash: u64) {
        table::fetch(self.slots(hash));
    }

    /// Has the memory come in which the pre-token of a hash is.
    pub(super) fn fetch_record(&self, hash: u64) {
        for &[_, record] in self.slots(hash).iter().filter(|slot| slot[0] == hash) {
            table::fetch(&self.words.as_slice()[record as usize % WORDS]);
            table::fetch(&self.words.as_slice()[(record as usize + 16) % WORDS]);
        }
    }

    #[inline(always)]
    fn slots(&self, hash: u64) -> &[Slot; 4] {
        &self.slots.as_slice()[hash as usize % LINES]
    }

    /// The ids of a pre-token.
    pub(super) fn find(&self, hash: u64, pretoken: &[u8]) -> Option<&[TokenId]> {
        if pretoken.len() > MAX_BYTES {
            return None;
        }
        let slots = self.slots(hash).iter().filter(|slot| slot[0] == hash);
        let mut records = slots.filter_map(|slot| self.record(slot[1]));
        records.find(|(_, bytes)| *bytes == pretoken).map(|(ids, _)| ids)
    }

    /// Remembers a pre-token that can be found.
    pub(super) fn insert(&mut self, hash: u64, pretoken: &[u8], ids: &[TokenId]) {
        if pretoken.len() <= MAX_BYTES && ids.len() <= MAX_BYTES {
            let record = self.push(pretoken, ids);
            let slots = &mut self.slots.as_mut_slice()[hash as usize % LINES];
            let oldest = slots.iter_mut().min_by_key(|slot| slot[1]).expect("there are four");
            *oldest = [hash, record];
        }
    }

    /// Adds a record and says where it is.
    pub(super) fn push(&mut self, bytes: &[u8], ids: &[TokenId]) -> u64 {
        let n_words = 1 + ids.len() + bytes.len().div_ceil(4);
        let left = WORDS - self.head as usize % WORDS;
        if n_words > left {
            self.head += left as u64;
        }
        let record = self.head;
        self.head += n_words as u64;
        let words = &mut self.words.as_mut_slice()[record as usize % WORDS..][..n_words];
        words[0] = (ids.len() << 16 | bytes.len()) as u32;
        words[1..=ids.len()].copy_from_slice(ids);
        bytemuck::cast_slice_mut(&mut words[1 + ids.len()..])[..bytes.len()].copy_from_slice(bytes);
        record
    }

    /// Ids and bytes of a record, if they are still there.
    pub(super) fn record(&self, record: u64) -> Option<(&[TokenId], &[u8])> {
        if self.head - record > WORDS as u64 {
            return None;
        }
        let words = &self.words.as_slice()[record as usize % WORDS..];
        let (n_ids, n_bytes) = ((words[0] >> 16) as usize, (words[0] & 0xFFFF) as usize);
        let bytes: &[u8] = bytemuck::cast_slice(&words[1 + n_ids..]);
        Some((&words[1..=n_ids], &bytes[..n_bytes]))
    }
}

/// A hash of all bytes.
pub(super) fn hash(pretoken: &[u8]) -> u64 {
    let mix = |hash: u64, [low, high]: [u64; 2]| {
        let product = u128::from(hash ^ low ^ 0x9E37_79B9_7F4A_7C15) * u128::from(high ^ 0xD1B5_4A32_D192_ED03);
        product as u64 ^ (product >> 64) as u64
    };
    let halves = |chunk: &[u8; 16]| {
        let (low, high) = chunk.split_at(8);
        [low, high].map(|half| u64::from_le_bytes(half.try_into().expect("half of 16 bytes")))
    };
    let (chunks, rest) = pretoken.as_chunks::<16>();
    let mut last = [0; 16];
    last[..rest.len()].copy_from_slice(rest);
    chunks.iter().chain([&last]).fold(pretoken.len() as u64, |hash, chunk| mix(hash, halves(chunk)))
}
