//! Pre-tokens that are one token.

use super::lines::{Key, Lines, SHORT_BYTES, Which};
use crate::{HashMap, TokenId};

/// Bits of the filter for each token, at least.
const FILTER_BITS: usize = 12;

/// The ids of pre-tokens that are one token.
#[derive(Clone, Default)]
pub(super) struct Whole {
    /// All of them.
    ids: HashMap<Box<[u8]>, TokenId>,
    /// Nearly all short ones.
    short: Option<std::sync::Arc<Short>>,
}

struct Short {
    lines: Lines,
    /// A bit for each hash of a short one: it says of most others that they are none, and is small enough to stay
    /// in the processor's caches.
    filter: Box<[u64]>,
}

impl Whole {
    pub(super) fn extend(&mut self, tokens: impl Iterator<Item = (Box<[u8]>, TokenId)>) {
        self.ids.extend(tokens);
        self.short = Short::new(&self.ids).map(Into::into);
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], TokenId)> {
        self.ids.iter().map(|(bytes, &id)| (&**bytes, id))
    }

    /// The id of a pre-token.
    #[inline]
    pub(super) fn get(&self, pretoken: &[u8], key: Key) -> Option<TokenId> {
        if let (Some(short), true) = (&self.short, pretoken.len() <= SHORT_BYTES) {
            if !short.may_have(key) {
                return None;
            }
            for which in [Which::First, Which::Second] {
                if let Some(([id, ..], _)) = short.lines.find(key, which) {
                    return Some(id);
                }
            }
        }
        self.ids.get(pretoken).copied()
    }
}

impl PartialEq for Whole {
    fn eq(&self, other: &Self) -> bool {
        self.ids == other.ids
    }
}

impl Short {
    /// `None` if there is no memory.
    fn new(ids: &HashMap<Box<[u8]>, TokenId>) -> Option<Self> {
        let lines = Lines::new((ids.len() + 2).next_power_of_two())?;
        let n_bits = (ids.len() * FILTER_BITS).next_power_of_two().max(64);
        let mut short = Self { lines, filter: vec![0; n_bits / 64].into() };
        for (bytes, &id) in ids.iter().filter(|(bytes, _)| bytes.len() <= SHORT_BYTES) {
            let key = Key::of(bytes);
            let (word, bit) = short.filter_bit(key);
            short.filter[word] |= bit;
            let free = |which: Which| short.lines.find_free(key, which);
            if let Some(place) = free(Which::First).or_else(|| free(Which::Second)) {
                short.lines.set(place, key, &[id]);
            }
        }
        Some(short)
    }

    #[inline]
    fn may_have(&self, key: Key) -> bool {
        let (word, bit) = self.filter_bit(key);
        self.filter[word] & bit != 0
    }

    #[inline]
    fn filter_bit(&self, key: Key) -> (usize, u64) {
        // Only high bits depend on the whole key.
        let hash = key.hash() >> 38;
        ((hash >> 6) as usize & (self.filter.len() - 1), 1 << (hash & 63))
    }
}
