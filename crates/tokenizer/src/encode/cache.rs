//! Pre-tokens seen before, with their ids. The size is fixed: a new entry takes the place of an old one,
//! so no text makes it grow or slow.

#[cfg(test)]
mod tests;

#[cfg(target_arch = "x86_64")]
use super::kernel;
use super::lines::{Key, Lines, SHORT_BYTES, WAYS};
use super::table::Table;
use crate::TokenId;
use crate::pretokenize::MAX_ENDS;

/// Cache lines of three entries: 8 MiB, and 12 MiB for those that have several ids.
const LINES: usize = 1 << 17;
/// Entries of some 130 bytes: 1 MiB.
const LONG_ENTRIES: usize = 1 << 13;
/// Bytes and ids of a long entry, at most.
const LONG_BYTES: usize = 46;
const LONG_IDS: usize = 18;

/// Ids of an entry for a [`Key`], at most.
pub(super) const SHORT_IDS: usize = 8;

/// A value from here on says how many ids there are instead of the one.
pub(super) const SEVERAL: u32 = 1 << 31;

/// What one thread remembers.
pub(super) struct Cache {
    lines: Lines,
    /// The ids of entries that have several.
    several: Table<[[TokenId; SHORT_IDS]; WAYS]>,
    long: Box<[LongEntry]>,
    /// Chooses what has to go.
    n_evicted: usize,
}

#[derive(Clone, Copy)]
struct LongEntry {
    hash: u64,
    n_bytes: u8,
    n_ids: u8,
    bytes: [u8; LONG_BYTES],
    ids: [TokenId; LONG_IDS],
}

/// Pre-tokens that are looked up together.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) keys: Keys,
    pub(super) found: Found,
}

/// Keys and the lines where they are looked for first.
pub(super) struct Keys {
    pub(super) keys: [Key; MAX_ENDS],
    pub(super) places: [u32; MAX_ENDS],
    /// Those made so far, where they are made along the way.
    pub(super) n_made: usize,
    /// See [`kernel::n_roomy`].
    pub(super) n_roomy: usize,
}

impl Default for Keys {
    fn default() -> Self {
        Self { keys: [Key::NONE; MAX_ENDS], places: [0; MAX_ENDS], n_made: 0, n_roomy: 0 }
    }
}

/// Room for the ids of so many pre-tokens.
pub(super) struct Found {
    pub(super) ids: [TokenId; MAX_ENDS * SHORT_IDS + 1],
    pub(super) n: usize,
    /// Where ids are still to be written, and of which pre-token.
    pub(super) later: [(u32, u32); MAX_ENDS + 1],
    pub(super) n_later: usize,
}

impl Default for Found {
    fn default() -> Self {
        Self { ids: [0; MAX_ENDS * SHORT_IDS + 1], n: 0, later: [(0, 0); MAX_ENDS + 1], n_later: 0 }
    }
}

impl Cache {
    /// `None` if there is no memory.
    pub(super) fn new() -> Option<Self> {
        let no_long = LongEntry { hash: 0, n_bytes: 0, n_ids: 0, bytes: [0; LONG_BYTES], ids: [0; LONG_IDS] };
        Some(Self {
            lines: Lines::new(LINES)?,
            several: Table::new(LINES)?,
            long: vec![no_long; LONG_ENTRIES].into_boxed_slice(),
            n_evicted: 0,
        })
    }

    /// Finds the pre-tokens of `text` that end at `ends` from the one of index `from` on, up to the first that
    /// is not known, and appends their ids to `found`; those of entries that have several come with
    /// [`Cache::find_several`]. Says how many pre-tokens these are.
    pub(super) fn find(&self, text: &[u8], ends: &[u32], from: usize, batch: &mut Batch) -> usize {
        let Batch { keys, found } = batch;
        #[cfg(target_arch = "x86_64")]
        if kernel::is_available() {
            if from == 0 {
                (keys.n_made, keys.n_roomy) = (0, kernel::n_roomy(text, ends));
                self.make_keys(text, ends, keys.n_roomy, keys);
            }
            return kernel::find(&self.lines, text, ends, keys, found, from);
        }
        if from == 0 {
            self.make_keys(text, ends, 0, keys);
        }
        self.find_portably(keys, from, ends.len(), found)
    }

    /// The keys of all but the first `n` pre-tokens.
    fn make_keys(&self, text: &[u8], ends: &[u32], n: usize, keys: &mut Keys) {
        let mut start = if n == 0 { 0 } else { ends[n - 1] as usize };
        for (i, &end) in ends.iter().enumerate().skip(n) {
            let end = end as usize;
            keys.keys[i] = match text[start..].first_chunk::<16>() {
                Some(bytes) => Key::new(bytes, end - start),
                None => Key::of(&text[start..end]),
            };
            keys.places[i] = self.lines.place(keys.keys[i]) as u32;
            start = end;
        }
    }

    /// [`Cache::find`] with all keys made.
    fn find_portably(&self, keys: &Keys, from: usize, to: usize, found: &mut Found) -> usize {
        for i in from..to {
            let place = keys.places[i];
            let Some((_, value)) = self.lines.first_value(place as usize, keys.keys[i]) else { return i - from };
            found.ids[found.n] = value;
            found.later[found.n_later] = (found.n as u32, i as u32);
            found.n_later += usize::from(value >= SEVERAL);
            found.n += if value >= SEVERAL { (value - SEVERAL) as usize } else { 1 };
        }
        to - from
    }

    /// Fills in the ids that [`Cache::find`] has left for later.
    pub(super) fn find_several(&self, batch: &mut Batch) {
        let Batch { keys, found } = batch;
        let several = self.several.as_slice();
        for &(at, i) in &found.later[..found.n_later] {
            let (place, key) = (keys.places[i as usize] as usize, keys.keys[i as usize]);
            let (way, value) = self.lines.first_value(place, key).expect("found a moment ago");
            let ids = &several[place][way][..(value - SEVERAL) as usize];
            for (to, &id) in found.ids[at as usize..].iter_mut().zip(ids) {
                *to = id;
            }
        }
        found.n_later = 0;
    }

    /// Appends the ids of one pre-token, wherever it is; says whether it is known.
    pub(super) fn find_one(&self, pretoken: &[u8], ids: &mut Vec<TokenId>) -> bool {
        if pretoken.len() <= SHORT_BYTES {
            if let Some((place, way)) = self.lines.find(Key::of(pretoken)) {
                match self.lines.value(place, way).checked_sub(SEVERAL) {
                    Some(n) => ids.extend_from_slice(&self.several.as_slice()[place][way][..n as usize]),
                    None => ids.push(self.lines.value(place, way)),
                }
                return true;
            }
            // No id has less than a byte.
            if pretoken.len() <= SHORT_IDS {
                return false;
            }
        }
        let found = self.find_long(pretoken);
        ids.extend_from_slice(found.unwrap_or_default());
        found.is_some()
    }

    /// Remembers ids, in the place of an old entry if there is no free one.
    pub(super) fn insert(&mut self, pretoken: &[u8], ids: &[TokenId]) {
        if pretoken.len() > SHORT_BYTES || ids.len() > SHORT_IDS {
            return self.insert_long(pretoken, ids);
        }
        let key = Key::of(pretoken);
        let (place, way) = self.lines.find_free(key).unwrap_or_else(|| {
            self.n_evicted = self.n_evicted.wrapping_add(1);
            (self.lines.place(key), self.n_evicted % WAYS)
        });
        let value = match *ids {
            [id] if id < SEVERAL => id,
            _ => {
                self.several.as_mut_slice()[place][way][..ids.len()].copy_from_slice(ids);
                SEVERAL + ids.len() as u32
            }
        };
        self.lines.set(place, way, key, value);
    }

    /// The ids of a pre-token that is long or has many.
    fn find_long(&self, pretoken: &[u8]) -> Option<&[TokenId]> {
        let hash = hash_long(pretoken);
        let entry = &self.long[hash as usize % LONG_ENTRIES];
        let is_it = entry.hash == hash && entry.bytes.get(..pretoken.len()) == Some(pretoken);
        (is_it && usize::from(entry.n_bytes) == pretoken.len()).then(|| &entry.ids[..usize::from(entry.n_ids)])
    }

    fn insert_long(&mut self, pretoken: &[u8], ids: &[TokenId]) {
        if pretoken.len() > LONG_BYTES || ids.len() > LONG_IDS {
            return;
        }
        let hash = hash_long(pretoken);
        let entry = &mut self.long[hash as usize % LONG_ENTRIES];
        entry.hash = hash;
        (entry.n_bytes, entry.n_ids) = (pretoken.len() as u8, ids.len() as u8);
        entry.bytes[..pretoken.len()].copy_from_slice(pretoken);
        entry.ids[..ids.len()].copy_from_slice(ids);
    }
}

fn hash_long(pretoken: &[u8]) -> u64 {
    let (chunks, rest) = pretoken.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let mut hash = pretoken.len() as u64 ^ 0xD1B5_4A32_D192_ED03;
    for chunk in chunks.iter().chain([&last]) {
        let product = u128::from(hash ^ u64::from_le_bytes(*chunk)) * 0x9E37_79B9_7F4A_7C15;
        hash = product as u64 ^ (product >> 64) as u64;
    }
    hash
}
