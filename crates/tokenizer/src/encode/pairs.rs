//! The merge of each pair of tokens.

use crate::TokenId;

/// The rank of a pair that is not merged.
pub(super) const NO_MERGE: u32 = u32::MAX;

/// What becomes of a pair.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Merge {
    pub(super) rank: u32,
    pub(super) id: TokenId,
}

/// Pairs in open addressing with at least half of the slots free: a look-up takes one cache line.
#[derive(Clone)]
pub(super) struct Pairs {
    slots: Box<[Slot]>,
    /// The merges of all pairs of bytes, which most look-ups are for: the first byte times 256 plus the
    /// second.
    of_bytes: Box<[Merge]>,
    /// A bit for each hash of a pair that is merged: most pairs are not, which this says without a look at
    /// the slots.
    filter: Box<[u64]>,
}

#[derive(Clone, Copy)]
struct Slot {
    pair: u64,
    merge: Merge,
}

const EMPTY: Slot = Slot { pair: 0, merge: Merge { rank: NO_MERGE, id: 0 } };

impl Pairs {
    /// `merges`: left, right and merged token; the index is the rank. Of a pair given twice the later rank
    /// counts.
    pub(super) fn new(byte_ids: &[TokenId; 256], merges: &[[TokenId; 3]]) -> Self {
        let n_slots = (merges.len() * 2 + 2).next_power_of_two();
        let filter = vec![0; (merges.len() / 4 + 1).next_power_of_two()].into();
        let mut pairs = Self { slots: vec![EMPTY; n_slots].into(), of_bytes: Box::default(), filter };
        for (rank, &[left, right, id]) in (0..).zip(merges) {
            let (word, bit) = pairs.filter_bit(pair(left, right));
            pairs.filter[word] |= bit;
            let at = pairs.slot(pair(left, right));
            pairs.slots[at] = Slot { pair: pair(left, right), merge: Merge { rank, id } };
        }
        let of_byte = |left: &TokenId| byte_ids.map(|right| pairs.get(*left, right));
        pairs.of_bytes = byte_ids.iter().flat_map(of_byte).collect();
        pairs
    }

    /// The merge of the tokens of two bytes.
    #[inline]
    pub(super) fn of_bytes(&self, left: u8, right: u8) -> Merge {
        self.of_bytes[usize::from(left) << 8 | usize::from(right)]
    }

    /// The merge of two tokens, of the rank `NO_MERGE` if there is none.
    #[inline]
    pub(super) fn get(&self, left: TokenId, right: TokenId) -> Merge {
        let pair = pair(left, right);
        let (word, bit) = self.filter_bit(pair);
        if self.filter[word] & bit == 0 {
            return EMPTY.merge;
        }
        self.slots[self.slot(pair)].merge
    }

    #[inline]
    fn filter_bit(&self, pair: u64) -> (usize, u64) {
        let hash = pair.wrapping_mul(0xD1B5_4A32_D192_ED03) >> 32;
        (hash as usize >> 6 & (self.filter.len() - 1), 1 << (hash & 63))
    }

    /// Where a pair is, or the free slot where it would be.
    #[inline]
    fn slot(&self, pair: u64) -> usize {
        let mask = self.slots.len() - 1;
        let product = pair.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut at = (product ^ product >> 32) as usize & mask;
        loop {
            let slot = &self.slots[at];
            if slot.pair == pair || slot.merge.rank == NO_MERGE {
                return at;
            }
            at = (at + 1) & mask;
        }
    }
}

fn pair(left: TokenId, right: TokenId) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}
