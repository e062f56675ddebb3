//! Short pre-tokens with their ids in cache lines: two of them share one, and which of the two it is, if any,
//! is found by one comparison of vectors.

use super::ring;
use super::table::Table;
use crate::TokenId;

/// Bytes of a pre-token that fits a [`Key`], at most.
pub(super) const SHORT_BYTES: usize = 15;
/// Ids of an entry, at most.
pub(super) const SHORT_IDS: usize = 3;
/// Entries of a line.
pub(super) const WAYS: usize = 2;

/// A pre-token of at most 15 bytes: the bytes, and their number in the last one. Longer ones have a hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C, align(16))]
pub(super) struct Key(pub(super) [u64; 2]);

/// What is in lines where no pre-token is.
const FREE: Key = Key([0, 0]);

/// The bytes of a key that belong to a pre-token of each length; 16 stands for all that is longer.
pub(super) const MASKS: [[u64; 2]; SHORT_BYTES + 2] = masks();

/// The second half of the key of a pre-token that is too long; the first half is a hash.
const LONG: u64 = (SHORT_BYTES as u64 + 1) << 56;

impl Key {
    /// Of pre-tokens that are too long; nothing is ever remembered for it.
    pub(super) const NONE: Self = Self([0, LONG]);

    /// The key of the first `len` of `bytes`.
    #[inline(always)]
    pub(super) fn new(bytes: &[u8; 16], len: usize) -> Self {
        let len = len.min(SHORT_BYTES + 1);
        let ([low, high], bytes) = (MASKS[len], u128::from_le_bytes(*bytes));
        Self([bytes as u64 & low, ((bytes >> 64) as u64 & high) | (len as u64) << 56])
    }

    /// The key of a pre-token.
    pub(super) fn of(pretoken: &[u8]) -> Self {
        if pretoken.len() > SHORT_BYTES {
            return Self([ring::hash(pretoken), LONG]);
        }
        let mut bytes = [0; 16];
        bytes[..pretoken.len()].copy_from_slice(pretoken);
        Self::new(&bytes, pretoken.len())
    }

    /// Whether the pre-token is too long.
    #[inline(always)]
    pub(super) fn is_long(self) -> bool {
        self.0[1] == LONG
    }

    /// The hash of a pre-token that is too long.
    pub(super) fn long_hash(self) -> u64 {
        self.0[0]
    }

    /// Another key for the same pre-token, equal to no key of [`Key::new`].
    pub(super) fn marked(self) -> Self {
        Self([self.0[0], self.0[1] | 1 << 63])
    }

    /// Its high bits depend on the whole key.
    #[inline(always)]
    pub(super) fn hash(self) -> u64 {
        let [low, high] = self.0;
        low.wrapping_mul(HASH_LOW).wrapping_add(high.wrapping_mul(HASH_HIGH))
    }
}

pub(super) const HASH_LOW: u64 = 0x9E37_79B9_7F4A_7C15;
pub(super) const HASH_HIGH: u64 = 0xD1B5_4A32_D192_ED03;

/// Two entries.
pub(super) type Line = [u32; 16];

/// Words of an entry: four of the key, three ids, and how many of them there are.
const ENTRY: usize = 8;
/// Where in an entry the ids begin.
pub(super) const IDS: usize = 4;
/// Where in an entry their number is.
pub(super) const N_IDS: usize = 7;

/// What an entry holds besides the key: three ids and their number, or anything else for a marked key.
pub(super) type Value = [u32; ENTRY - IDS];

/// Which of the entries of a line has the key.
#[inline(always)]
fn find_in(line: &Line, key: Key) -> Option<usize> {
    let half = |word: usize| u64::from(line[word]) | u64::from(line[word + 1]) << 32;
    (0..WAYS).find(|way| [half(ENTRY * way), half(ENTRY * way + 2)] == key.0)
}

/// The lines of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    First = 0,
    /// The neighbour of the first, which takes what has no room there. Entries are never taken out: while there is
    /// room in the first, nothing has gone to the second.
    Second = 1,
}

/// A hash table of lines; each key has two lines where it may be.
pub(super) struct Lines {
    pub(super) lines: Table<Line>,
    /// By how much to shift a hash to get its line.
    pub(super) shift: u32,
}

impl Lines {
    /// `None` if there is no memory; `n_lines` is a power of 2, and not 1.
    pub(super) fn new(n_lines: usize) -> Option<Self> {
        Some(Self { lines: Table::new(n_lines)?, shift: 64 - n_lines.trailing_zeros() })
    }

    /// The line where the key is looked for first.
    #[inline(always)]
    pub(super) fn place(&self, key: Key) -> usize {
        (key.hash() >> self.shift) as usize
    }

    /// The value of a key in one of its lines, or else that of the key marked, and whether it is the latter.
    #[inline]
    pub(super) fn find(&self, key: Key, which: Which) -> Option<(Value, bool)> {
        let line = &self.lines.as_slice()[self.place(key) ^ which as usize];
        let marked = || find_in(line, key.marked()).map(|way| (value(line, way), true));
        find_in(line, key).map(|way| (value(line, way), false)).or_else(marked)
    }

    /// Line and way of a marked key.
    pub(super) fn find_marked(&self, key: Key, which: Which) -> Option<(usize, usize)> {
        let place = self.place(key) ^ which as usize;
        find_in(&self.lines.as_slice()[place], key.marked()).map(|way| (place, way))
    }

    /// Line and way of a free entry.
    pub(super) fn find_free(&self, key: Key, which: Which) -> Option<(usize, usize)> {
        let place = self.place(key) ^ which as usize;
        find_in(&self.lines.as_slice()[place], FREE).map(|way| (place, way))
    }

    /// Puts in a key with at most `SHORT_IDS` ids.
    pub(super) fn set(&mut self, (place, way): (usize, usize), key: Key, ids: &[TokenId]) {
        let mut value = [0; ENTRY - IDS];
        value[..ids.len()].copy_from_slice(ids);
        value[N_IDS - IDS] = ids.len() as u32;
        self.set_value((place, way), key, value);
    }

    /// Puts in a key with any value, if it is a marked one.
    pub(super) fn set_value(&mut self, (place, way): (usize, usize), key: Key, value: Value) {
        let entry = &mut self.lines.as_mut_slice()[place][ENTRY * way..][..ENTRY];
        for (half, words) in key.0.into_iter().zip(entry.chunks_exact_mut(2)) {
            (words[0], words[1]) = (half as u32, (half >> 32) as u32);
        }
        entry[IDS..].copy_from_slice(&value);
    }
}

#[inline(always)]
fn value(line: &Line, way: usize) -> Value {
    *line[ENTRY * way + IDS..].first_chunk().expect("a line has two entries")
}

const fn masks() -> [[u64; 2]; SHORT_BYTES + 2] {
    let mut masks = [[0, 0]; SHORT_BYTES + 2];
    let mut len = 1;
    while len <= SHORT_BYTES {
        let mask = u128::MAX >> (128 - 8 * len);
        masks[len] = [mask as u64, (mask >> 64) as u64];
        len += 1;
    }
    masks
}
