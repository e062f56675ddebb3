//! Pre-tokens seen before, with their ids. The size is fixed: a new entry takes the place of an old one,
//! so no text makes it grow or slow.

#[cfg(test)]
mod tests;

#[cfg(target_arch = "x86_64")]
use super::kernel;
use super::lines::{IDS, Key, Lines, N_IDS, SHORT_BYTES, SHORT_IDS, Value, WAYS, Which};
use super::ring::Ring;
use crate::TokenId;
use crate::pretokenize::MAX_ENDS;

/// Cache lines of two entries: 16 MiB.
const LINES: usize = 1 << 18;

/// What a find in a second line counts against a look that finds nothing.
const GAIN: i32 = 8;
const MAX_CREDIT: i32 = 1 << 10;

/// What one thread remembers: 34 MiB.
pub(super) struct Cache {
    lines: Lines,
    /// What does not fit there; if the pre-token is short, a marked key says where.
    ring: Ring,
    /// Chooses what has to go.
    n_evicted: usize,
    /// Whether looking at second lines has been worth it lately: it has if this is more than 0.
    credit: i32,
    /// How often there was a choice.
    n_full: usize,
}

/// Keys of pre-tokens and the lines where they are looked for.
pub(super) struct Keys {
    pub(super) keys: [Key; MAX_ENDS],
    pub(super) places: [u32; MAX_ENDS],
    /// How many are of pre-tokens that are too long.
    pub(super) n_long: usize,
}

impl Default for Keys {
    fn default() -> Self {
        Self { keys: [Key::NONE; MAX_ENDS], places: [0; MAX_ENDS], n_long: 0 }
    }
}

impl Cache {
    /// `None` if there is no memory.
    pub(super) fn new() -> Option<Self> {
        Some(Self { lines: Lines::new(LINES)?, ring: Ring::new()?, n_evicted: 0, credit: MAX_CREDIT, n_full: 0 })
    }

    /// Makes the keys of the pre-tokens of `text` that end at `ends`.
    #[inline(always)]
    pub(super) fn make_keys(&self, text: &[u8], ends: &[u32], keys: &mut Keys) {
        #[cfg(target_arch = "x86_64")]
        let n = if kernel::is_available() { kernel::make_keys(&self.lines, text, ends, keys) } else { 0 };
        #[cfg(not(target_arch = "x86_64"))]
        let n = 0;
        self.make_keys_portably(text, ends, n, keys);
        if keys.n_long > 0 {
            self.hash_long(text, ends, keys);
        }
    }

    /// Makes the keys of the pre-tokens that are too long, and has the memory come in which they are looked up.
    #[inline(never)]
    fn hash_long(&self, text: &[u8], ends: &[u32], keys: &mut Keys) {
        let mut start = 0;
        for (key, &end) in keys.keys.iter_mut().zip(ends) {
            if key.is_long() {
                *key = Key::of(&text[start..end as usize]);
                self.ring.fetch_slots(key.long_hash());
            }
            start = end as usize;
        }
        keys.keys[..ends.len()]
            .iter()
            .filter(|key| key.is_long())
            .for_each(|key| self.ring.fetch_record(key.long_hash()));
    }

    /// The keys of all but the first `n` pre-tokens.
    fn make_keys_portably(&self, text: &[u8], ends: &[u32], n: usize, keys: &mut Keys) {
        if n == 0 {
            keys.n_long = 0;
        }
        let mut start = if n == 0 { 0 } else { ends[n - 1] as usize };
        for (i, &end) in ends.iter().enumerate().skip(n) {
            let end = end as usize;
            keys.keys[i] = match text[start..].first_chunk::<16>() {
                Some(bytes) => Key::new(bytes, end - start),
                None => Key::of(&text[start..end]),
            };
            keys.places[i] = self.lines.place(keys.keys[i]) as u32;
            keys.n_long += usize::from(keys.keys[i].is_long());
            start = end;
        }
    }

    /// Appends the ids of the pre-tokens of the indices `from` to `to`, up to the first that is not found at
    /// once, and says how many pre-tokens these are.
    #[inline(always)]
    pub(super) fn find(&self, keys: &Keys, from: usize, to: usize, ids: &mut Vec<TokenId>) -> usize {
        #[cfg(target_arch = "x86_64")]
        if kernel::is_available() {
            return kernel::find(&self.lines, &self.ring, keys, from, to, ids);
        }
        self.find_portably(keys, from, to, ids)
    }

    fn find_portably(&self, keys: &Keys, from: usize, to: usize, ids: &mut Vec<TokenId>) -> usize {
        for i in from..to {
            let found = self.lines.find(keys.keys[i], Which::First);
            if !self.append(found, ids) {
                return i - from;
            }
        }
        to - from
    }

    /// Appends the ids of an entry; says whether there are any.
    fn append(&self, found: Option<(Value, bool)>, ids: &mut Vec<TokenId>) -> bool {
        match found {
            None => false,
            Some((value, false)) => {
                ids.extend_from_slice(&value[..value[N_IDS - IDS] as usize]);
                true
            }
            Some(([low, high, ..], true)) => {
                let record = self.ring.record(u64::from(low) | u64::from(high) << 32);
                ids.extend_from_slice(record.map_or(&[], |(ids, _)| ids));
                record.is_some()
            }
        }
    }

    /// Appends the ids of one pre-token, wherever it is; says whether it is known.
    pub(super) fn find_one(&mut self, pretoken: &[u8], key: Key, ids: &mut Vec<TokenId>) -> bool {
        if pretoken.len() > SHORT_BYTES {
            let found = self.ring.find(key.long_hash(), pretoken);
            ids.extend_from_slice(found.unwrap_or_default());
            return found.is_some();
        }
        let mut found = self.lines.find(key, Which::First);
        if found.is_none() && self.lines.find_free(key, Which::First).is_none() && self.tries_second() {
            found = self.lines.find(key, Which::Second);
            let gain = if found.is_some() { GAIN } else { -1 };
            self.credit = (self.credit + gain).min(MAX_CREDIT);
        }
        self.append(found, ids)
    }

    /// Whether to look at second lines: in a flood of ever new words, nothing that is there is ever found,
    /// and the memory takes longer to answer than merging does.
    fn tries_second(&mut self) -> bool {
        self.n_full = self.n_full.wrapping_add(1);
        self.credit > 0 || self.n_full.is_multiple_of(16)
    }

    /// Remembers the ids of a pre-token that is not known, in the place of an old entry if there is no free one.
    pub(super) fn insert(&mut self, pretoken: &[u8], key: Key, ids: &[TokenId]) {
        if pretoken.len() > SHORT_BYTES {
            return self.ring.insert(key.long_hash(), pretoken, ids);
        }
        if ids.len() > SHORT_BYTES {
            // No token has less than a byte.
            return;
        }
        // What a marked key points to may have been forgotten.
        let is_several = ids.len() > SHORT_IDS;
        let lines = &self.lines;
        let place = |which: Which| {
            let known = if is_several { lines.find_marked(key, which) } else { None };
            known.or_else(|| lines.find_free(key, which))
        };
        let second = || if self.credit > 0 { place(Which::Second) } else { None };
        let place = place(Which::First).or_else(second).unwrap_or_else(|| {
            self.n_evicted = self.n_evicted.wrapping_add(1);
            (lines.place(key), self.n_evicted % WAYS)
        });
        if !is_several {
            return self.lines.set(place, key, ids);
        }
        let record = self.ring.push(&[], ids);
        self.lines.set_value(place, key.marked(), [record as u32, (record >> 32) as u32, 0, 0]);
    }
}
