//! How often each distinct pre-token occurs: an open hash table within a given memory.
//!
//! A pre-token of up to 15 bytes is a number and lies in its slot; a longer one lies in a heap of
//! bytes. The hash is seeded, so no text can be made to collide on purpose.

use std::cmp::Ordering;
use std::hash::BuildHasher;

/// A pre-token of at most so many bytes lies in its slot.
const MAX_SHORT: usize = 15;
/// Stands where a short pre-token has its length, in the top byte of the key.
const LONG: u64 = 0xFF << 56;
/// Bytes before a long pre-token in the heap: its length.
const LEN_BYTES: usize = 8;
/// Three numbers: the low and the high half of the key, and the count, 0 in a free slot.
type Slot = [u64; 3];
const SLOT_BYTES: usize = size_of::<Slot>();
const MIN_SLOTS: usize = 1 << 10;

/// Counts by pre-token.
pub(super) struct Table {
    /// As many as a power of two, at most 5/8 of them taken.
    slots: Vec<Slot>,
    n_words: usize,
    /// Long pre-tokens, each behind its length.
    heap: Vec<u8>,
    seed: [u64; 2],
    max_bytes: usize,
}

/// Words whose slots are asked for together.
const BATCH: usize = 64;

/// A word that is to be added.
#[derive(Clone, Copy)]
struct Word {
    key: (u64, u64),
    hash: usize,
    start: usize,
    len: usize,
}

/// There is no room for a pre-token that is not in the table yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Table {
    /// An empty table that takes at most about `max_bytes`.
    pub(super) fn new(max_bytes: usize) -> Self {
        let state = foldhash::fast::RandomState::default();
        let seed = [0_u64, 1].map(|i| state.hash_one(i));
        Self { slots: vec![[0; 3]; MIN_SLOTS], n_words: 0, heap: Vec::new(), seed, max_bytes }
    }

    /// Distinct pre-tokens.
    pub(super) fn n_words(&self) -> usize {
        self.n_words
    }

    /// Bytes of memory that it holds.
    pub(super) fn memory_bytes(&self) -> usize {
        self.slots.len() * SLOT_BYTES + self.heap.capacity()
    }

    /// The most bytes that a table of so many short pre-tokens holds, while it grows.
    pub(super) fn memory_bytes_of(n_words: usize) -> usize {
        (n_words * 8 / 5 + 1).next_power_of_two().max(MIN_SLOTS) * SLOT_BYTES / 2 * 3
    }

    /// From here on the table grows without end.
    pub(super) fn lift_limit(&mut self) {
        self.max_bytes = usize::MAX;
    }

    /// Adds `count` occurrences of `text[start..start + len]`, which is not empty.
    #[inline]
    pub(super) fn add(&mut self, text: &[u8], start: usize, len: usize, count: u64) -> Result<(), Full> {
        let key = match len {
            0..=MAX_SHORT => short_key(text, start, len),
            _ => return self.add_long(&text[start..start + len], count),
        };
        let mut at = self.hash(key) & (self.slots.len() - 1);
        loop {
            let slot = &mut self.slots[at];
            if (slot[0], slot[1]) == key {
                slot[2] += count;
                return Ok(());
            }
            if slot[2] == 0 {
                return self.insert(key, count);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    /// Adds one occurrence of each word of `text`, the first from `start` on and each up to its end and on from the one
    /// before.
    ///
    /// # Errors
    /// If there is no room for a word: how many were added before it.
    pub(super) fn add_all(&mut self, text: &[u8], ends: &[u32], start: u32) -> Result<(), (Full, usize)> {
        let mut start = start as usize;
        let mut n_added = 0;
        for ends in ends.chunks(BATCH) {
            let mut words = [Word { key: (0, 0), hash: 0, start: 0, len: 0 }; BATCH];
            for (word, &end) in words.iter_mut().zip(ends) {
                let len = end as usize - start;
                let key = if len > MAX_SHORT { (0, 0) } else { short_key(text, start, len) };
                *word = Word { key, hash: self.hash(key), start, len };
                start = end as usize;
            }
            // All slots are asked for before one is used, so that memory is waited for once and not for each word.
            let mask = self.slots.len() - 1;
            let asked = words[..ends.len()].iter().fold(0, |all, word| all ^ self.slots[word.hash & mask][2]);
            std::hint::black_box(asked);
            for &Word { key, hash, start, len } in &words[..ends.len()] {
                let at = hash & (self.slots.len() - 1);
                let slot = &mut self.slots[at];
                if (slot[0], slot[1]) == key && slot[2] > 0 {
                    slot[2] += 1;
                } else {
                    self.add(text, start, len, 1).map_err(|full| (full, n_added))?;
                }
                n_added += 1;
            }
        }
        Ok(())
    }

    #[cold]
    fn insert(&mut self, key: (u64, u64), count: u64) -> Result<(), Full> {
        if 8 * (self.n_words + 1) > 5 * self.slots.len() {
            // The old slots and the new ones are there together for a moment.
            if 3 * self.slots.len() * SLOT_BYTES + self.heap.capacity() > self.max_bytes {
                return Err(Full);
            }
            self.grow();
        }
        self.place(key, count);
        self.n_words += 1;
        Ok(())
    }

    #[cold]
    fn add_long(&mut self, word: &[u8], count: u64) -> Result<(), Full> {
        let hash = self.hash_long(word);
        let mut at = self.hash((hash, LONG)) & (self.slots.len() - 1);
        loop {
            let [offset, high, n] = self.slots[at];
            if n == 0 {
                break;
            }
            if high == long_half(hash) && self.long_word(offset) == word {
                self.slots[at][2] += count;
                return Ok(());
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        let needed = self.heap.len() + LEN_BYTES + word.len();
        if needed > self.heap.capacity() {
            // An eighth more at a time: the memory asked for is the memory used.
            let capacity = needed.max(self.heap.capacity() / 8 * 9).max(1 << 12);
            if self.slots.len() * SLOT_BYTES + capacity > self.max_bytes && self.n_words > 0 {
                return Err(Full);
            }
            self.heap.reserve_exact(capacity - self.heap.len());
        }
        let offset = self.heap.len() as u64;
        self.heap.extend_from_slice(&(word.len() as u64).to_le_bytes());
        self.heap.extend_from_slice(word);
        let inserted = self.insert((offset, long_half(hash)), count);
        if inserted.is_err() {
            self.heap.truncate(offset as usize);
        }
        inserted
    }

    /// Puts a key that is not there into a free slot.
    fn place(&mut self, key: (u64, u64), count: u64) {
        let mut at = self.home((key.0, key.1));
        while self.slots[at][2] != 0 {
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.slots[at] = [key.0, key.1, count];
    }

    fn home(&self, (low, high): (u64, u64)) -> usize {
        let hash = match is_long(high) {
            true => self.hash((self.hash_long(self.long_word(low)), LONG)),
            false => self.hash((low, high)),
        };
        hash & (self.slots.len() - 1)
    }

    fn grow(&mut self) {
        let larger = vec![[0; 3]; 2 * self.slots.len()];
        for [low, high, count] in std::mem::replace(&mut self.slots, larger) {
            if count > 0 {
                self.place((low, high), count);
            }
        }
    }

    /// Folded multiplication: each bit of the product's middle depends on the whole key.
    #[inline]
    fn hash(&self, (low, high): (u64, u64)) -> usize {
        let product = u128::from(low ^ self.seed[0]) * u128::from(high ^ self.seed[1]);
        (product as u64 ^ (product >> 64) as u64) as usize
    }

    fn hash_long(&self, word: &[u8]) -> u64 {
        word.chunks(MAX_SHORT).fold(word.len() as u64, |hash, chunk| {
            let (low, high) = short_key(chunk, 0, chunk.len());
            self.hash((low ^ hash, high)) as u64
        })
    }

    fn long_word(&self, offset: u64) -> &[u8] {
        let (len, rest) = self.heap[offset as usize..].split_at(LEN_BYTES);
        &rest[..u64::from_le_bytes(len.try_into().expect("eight bytes")) as usize]
    }

    /// Calls `each` with every pre-token and its count, and forgets them all; the memory is kept.
    ///
    /// They come by length, then by their bytes.
    pub(super) fn drain_sorted<E>(&mut self, mut each: impl FnMut(&[u8], u64) -> Result<(), E>) -> Result<(), E> {
        let mut n = 0;
        for at in 0..self.slots.len() {
            if self.slots[at][2] > 0 {
                self.slots.swap(at, n);
                n += 1;
            }
        }
        let mut slots = std::mem::take(&mut self.slots);
        slots[..n].sort_unstable_by(|a, b| self.compare(a, b));
        let done = slots[..n].iter().try_for_each(|slot| self.with_word(slot, &mut each));
        slots[..n].fill([0; 3]);
        // What there is no room for beside the old slots has room in their place.
        let larger = 2 * slots.len();
        if self.max_bytes < usize::MAX && larger * SLOT_BYTES + self.heap.capacity() <= self.max_bytes {
            drop(slots);
            slots = vec![[0; 3]; larger];
        }
        self.slots = slots;
        self.forget();
        done
    }

    /// Calls `each` with every pre-token and its count, in no order.
    pub(super) fn for_each<E>(&self, mut each: impl FnMut(&[u8], u64) -> Result<(), E>) -> Result<(), E> {
        let taken = self.slots.iter().filter(|slot| slot[2] > 0);
        taken.into_iter().try_for_each(|slot| self.with_word(slot, &mut each))
    }

    fn with_word<E>(
        &self,
        &[low, high, count]: &Slot,
        each: &mut impl FnMut(&[u8], u64) -> Result<(), E>,
    ) -> Result<(), E> {
        if is_long(high) {
            return each(self.long_word(low), count);
        }
        let bytes = key_number(low, high).to_le_bytes();
        each(&bytes[..(high >> 56) as usize], count)
    }

    fn compare(&self, a: &Slot, b: &Slot) -> Ordering {
        if is_long(a[1]) && is_long(b[1]) {
            let [a, b] = [a, b].map(|slot| self.long_word(slot[0]));
            return a.len().cmp(&b.len()).then_with(|| a.cmp(b));
        }
        // The length is the highest byte; below it the bytes are the wrong way round for comparing.
        let order = |&[low, high, _]: &Slot| (high >> 56, (key_number(low, high) << 8).swap_bytes());
        order(a).cmp(&order(b))
    }

    fn forget(&mut self) {
        self.n_words = 0;
        self.heap.clear();
    }
}

fn is_long(high: u64) -> bool {
    high & LONG == LONG
}

fn long_half(hash: u64) -> u64 {
    LONG | hash >> 8
}

fn key_number(low: u64, high: u64) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

/// The bytes and, in the top byte, how many.
#[inline]
fn short_key(text: &[u8], start: usize, len: usize) -> (u64, u64) {
    let number = match text.get(start..start + 16) {
        Some(bytes) => {
            let number = u128::from_le_bytes(bytes.try_into().expect("sixteen bytes"));
            number & ((1 << (8 * len)) - 1)
        }
        None => {
            let mut bytes = [0; 16];
            bytes[..len].copy_from_slice(&text[start..start + len]);
            u128::from_le_bytes(bytes)
        }
    };
    (number as u64, (number >> 64) as u64 | (len as u64) << 56)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn drained(table: &mut Table) -> Vec<(Vec<u8>, u64)> {
        let mut words = Vec::new();
        table
            .drain_sorted(|word, count| -> Result<(), Infallible> {
                words.push((word.to_vec(), count));
                Ok(())
            })
            .unwrap();
        words
    }

    proptest! {
        #[test]
        fn counts_are_those_of_a_map_and_come_by_length_then_bytes(
            words in prop::collection::vec("[ab\0]{1,4}|[a-c]{13,20}|é{1,30}", 0..3000),
        ) {
            let mut table = Table::new(usize::MAX);
            let mut expected: BTreeMap<(usize, Vec<u8>), u64> = BTreeMap::new();
            for (word, count) in words.iter().zip((1..4).cycle()) {
                // Some with bytes around them, as in a text.
                let text = format!("xy{word}{}", "z".repeat(count));
                table.add(text.as_bytes(), 2, word.len(), count as u64).unwrap();
                *expected.entry((word.len(), word.clone().into_bytes())).or_default() += count as u64;
            }
            prop_assert_eq!(table.n_words(), expected.len());
            let expected: Vec<_> = expected.into_iter().map(|((_, word), count)| (word, count)).collect();
            prop_assert_eq!(drained(&mut table), expected);
            prop_assert_eq!(table.n_words(), 0);
            table.add(b"again", 0, 5, 7).unwrap();
            prop_assert_eq!(drained(&mut table), [(b"again".to_vec(), 7)]);
        }
    }

    #[test]
    fn a_full_table_refuses_new_words_and_counts_known_ones() {
        let max_bytes = 1 << 20;
        let mut table = Table::new(max_bytes);
        let words = (0_u64..).map(|i| format!("a word of its own {i}"));
        let n = words.take_while(|word| table.add(word.as_bytes(), 0, word.len(), 1).is_ok()).count();
        assert!(n > 5_000, "{n}");
        assert!(table.slots.len() * SLOT_BYTES + table.heap.capacity() <= max_bytes);
        table.add(b"a word of its own 7", 0, 19, 1 << 40).unwrap();
        let words = drained(&mut table);
        assert_eq!(words.len(), n);
        assert!(words.contains(&(b"a word of its own 7".to_vec(), (1 << 40) + 1)));
    }
}
