//! Merging the bytes of a pre-token: of all adjacent pairs the one learned first, and of equal ones
//! the leftmost, is merged, until none is left. `reference.rs` says the same in ten lines.
//!
//! A short pre-token scans for the next merge, which is quadratic but fastest; a long one (a
//! megabyte of one letter, say) keeps the possible merges in a heap, which is O(n log n).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::{HashMap, TokenId};

/// Pre-tokens from this many bytes on use the heap.
const HEAP_FROM_BYTES: usize = 64;
/// Texts from this many bytes on use a cache: clearing it costs about as much as encoding these.
const CACHE_FROM_BYTES: usize = 1 << 14;
/// 64 bytes each, so half a megabyte: about what a core's own cache holds.
const CACHE_SLOTS: usize = 1 << 13;
/// The rank of a pair that is not merged, and of the last symbol, which has no pair.
const NO_MERGE: u32 = u32::MAX;
const NONE: usize = usize::MAX;

/// Byte-level byte-pair encoding.
#[derive(Clone, PartialEq)]
pub(crate) struct Bpe {
    byte_ids: [TokenId; 256],
    /// In the order learned; the index is the rank.
    merges: Vec<[TokenId; 2]>,
    by_pair: HashMap<u64, Merge>,
    /// Whether a space is put before text that does not start with one.
    pub(crate) add_prefix_space: bool,
}

#[derive(Clone, Copy, PartialEq)]
struct Merge {
    rank: u32,
    id: TokenId,
}

impl Bpe {
    /// `merges`: left, right and merged token, in the order learned. Of a pair given twice the later
    /// rank counts, as in Hugging Face's `tokenizers`.
    pub(crate) fn new(byte_ids: [TokenId; 256], merges: &[[TokenId; 3]], add_prefix_space: bool) -> Self {
        let by_pair =
            (0..).zip(merges).map(|(rank, &[left, right, id])| (pair(left, right), Merge { rank, id })).collect();
        let merges = merges.iter().map(|&[left, right, _]| [left, right]).collect();
        Self { byte_ids, merges, by_pair, add_prefix_space }
    }

    pub(crate) fn merges(&self) -> &[[TokenId; 2]] {
        &self.merges
    }

    /// Appends the ids of one pre-token.
    #[inline]
    pub(crate) fn encode(&self, piece: &[u8], ids: &mut Vec<TokenId>, scratch: &mut Scratch) {
        if let [byte] = piece {
            return ids.push(self.byte_ids[usize::from(*byte)]);
        }
        let Some((slot, key)) = scratch.slot(piece) else {
            return self.merge(piece, ids, &mut scratch.symbols);
        };
        let cached = &scratch.cache[slot];
        if cached.key == key {
            ids.extend_from_slice(&cached.ids[..cached.n_ids as usize]);
            return;
        }
        let start = ids.len();
        self.merge(piece, ids, &mut scratch.symbols);
        scratch.cache[slot].store(key, &ids[start..]);
    }

    fn merge(&self, piece: &[u8], ids: &mut Vec<TokenId>, symbols: &mut Vec<Symbol>) {
        symbols.clear();
        symbols.extend(
            piece.iter().map(|&byte| Symbol {
                id: self.byte_ids[usize::from(byte)],
                next_merge: Merge { rank: NO_MERGE, id: 0 },
            }),
        );
        for i in 1..symbols.len() {
            symbols[i - 1].next_merge = self.lookup(symbols[i - 1].id, symbols[i].id);
        }
        if symbols.len() < HEAP_FROM_BYTES {
            self.merge_by_scan(symbols);
            ids.extend(symbols.iter().map(|symbol| symbol.id));
        } else {
            self.merge_by_heap(symbols, ids);
        }
    }

    fn merge_by_scan(&self, symbols: &mut Vec<Symbol>) {
        while symbols.len() > 1 {
            let (mut at, mut rank) = (0, NO_MERGE);
            for (i, symbol) in symbols.iter().enumerate() {
                if symbol.next_merge.rank < rank {
                    (at, rank) = (i, symbol.next_merge.rank);
                }
            }
            if rank == NO_MERGE {
                break;
            }
            symbols[at].id = symbols[at].next_merge.id;
            symbols.remove(at + 1);
            symbols[at].next_merge = match symbols.get(at + 1) {
                Some(next) => self.lookup(symbols[at].id, next.id),
                None => Merge { rank: NO_MERGE, id: 0 },
            };
            if at > 0 {
                symbols[at - 1].next_merge = self.lookup(symbols[at - 1].id, symbols[at].id);
            }
        }
    }

    fn merge_by_heap(&self, symbols: &mut [Symbol], ids: &mut Vec<TokenId>) {
        let n = symbols.len();
        let mut next: Vec<usize> = (1..n).chain([NONE]).collect();
        let mut previous: Vec<usize> = std::iter::once(NONE).chain(0..n - 1).collect();
        let mut heap: BinaryHeap<Reverse<(u32, usize)>> = (0..n)
            .filter(|&i| symbols[i].next_merge.rank != NO_MERGE)
            .map(|i| Reverse((symbols[i].next_merge.rank, i)))
            .collect();
        while let Some(Reverse((rank, at))) = heap.pop() {
            // An entry is stale once its pair has changed; a merged-away symbol has no pair.
            if symbols[at].next_merge.rank != rank {
                continue;
            }
            let gone = next[at];
            next[at] = next[gone];
            symbols[gone].next_merge.rank = NO_MERGE;
            symbols[at].id = symbols[at].next_merge.id;
            symbols[at].next_merge.rank = NO_MERGE;
            if next[at] != NONE {
                previous[next[at]] = at;
            }
            for left in [previous[at], at] {
                if left == NONE || next[left] == NONE {
                    continue;
                }
                let merge = self.lookup(symbols[left].id, symbols[next[left]].id);
                symbols[left].next_merge = merge;
                if merge.rank != NO_MERGE {
                    heap.push(Reverse((merge.rank, left)));
                }
            }
        }
        let mut at = 0;
        while at != NONE {
            ids.push(symbols[at].id);
            at = next[at];
        }
    }

    #[inline]
    fn lookup(&self, left: TokenId, right: TokenId) -> Merge {
        self.by_pair.get(&pair(left, right)).copied().unwrap_or(Merge { rank: NO_MERGE, id: 0 })
    }
}

fn pair(left: TokenId, right: TokenId) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

struct Symbol {
    id: TokenId,
    /// The merge with the symbol after it.
    next_merge: Merge,
}

/// Memory reused from piece to piece: the symbols, and the ids of short pre-tokens seen before.
///
/// The cache maps a pre-token to one slot by its hash and forgets what stood there, so its size is
/// fixed and no text can make it slow.
pub(crate) struct Scratch {
    symbols: Vec<Symbol>,
    cache: Vec<Slot>,
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Slot {
    /// The bytes of the pre-token, at most 15, with their number in the top byte; 0 if empty.
    key: u128,
    n_ids: u32,
    ids: [TokenId; 11],
}

impl Scratch {
    pub(crate) fn new(n_bytes: usize) -> Self {
        let n_slots = if n_bytes < CACHE_FROM_BYTES { 0 } else { CACHE_SLOTS };
        Self { symbols: Vec::new(), cache: vec![Slot { key: 0, n_ids: 0, ids: [0; 11] }; n_slots] }
    }

    #[inline]
    fn slot(&self, piece: &[u8]) -> Option<(usize, u128)> {
        if piece.len() > 15 || self.cache.is_empty() {
            return None;
        }
        let mut bytes = [0; 16];
        bytes[..piece.len()].copy_from_slice(piece);
        bytes[15] = piece.len() as u8;
        let key = u128::from_le_bytes(bytes);
        // Folded multiplication: each bit of the product's middle depends on the whole key.
        let product =
            u128::from(key as u64 ^ 0x9E37_79B9_7F4A_7C15) * u128::from((key >> 64) as u64 ^ 0xD1B5_4A32_D192_ED03);
        let hash = product as u64 ^ (product >> 64) as u64;
        Some((hash as usize % CACHE_SLOTS, key))
    }
}

impl Slot {
    fn store(&mut self, key: u128, ids: &[TokenId]) {
        if ids.len() <= self.ids.len() {
            self.key = key;
            self.n_ids = ids.len() as u32;
            self.ids[..ids.len()].copy_from_slice(ids);
        }
    }
}
