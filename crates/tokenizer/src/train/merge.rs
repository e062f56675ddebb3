//! Learning merges from counted pre-tokens.
//!
//! All distinct pre-tokens lie in one array of symbols, doubly linked within each pre-token. A pair
//! knows its count and where it occurs, so a merge costs what it changes and not what there is; a
//! heap finds the next one. `reference.rs` counts all pairs anew at each step instead.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::rc::Rc;

use super::Progress;
use super::count::Counts;
use crate::{Error, HashMap, TokenId};

const NONE: u32 = u32::MAX;
/// The id of a symbol that was merged into the one before it.
const GONE: TokenId = TokenId::MAX;
/// Report progress after this many merges.
const REPORT_MERGES: usize = 64;

/// What was learned.
pub(super) struct Learned {
    /// The bytes of the added tokens, in the order of their ids.
    pub(super) tokens: Vec<Box<[u8]>>,
    /// Left, right and merged token.
    pub(super) merges: Vec<[TokenId; 3]>,
}

/// Learns `n_wanted` tokens, or fewer if no pair is left; the first gets the id `tokens.len()`.
pub(super) fn learn(
    counts: &Counts,
    byte_ids: &[TokenId; 256],
    tokens: &[Box<[u8]>],
    n_wanted: usize,
    progress: &dyn Fn(Progress),
) -> Result<Learned, Error> {
    let mut text = Text::new(counts, byte_ids)?;
    let mut bytes: Vec<Rc<[u8]>> = tokens.iter().map(|token| (&**token).into()).collect();
    // Special tokens are left out: one that spells the same is another token.
    let mut ids: HashMap<Rc<[u8]>, TokenId> = byte_ids.iter().map(|&id| (bytes[id as usize].clone(), id)).collect();
    let mut is_merged: HashMap<Pair, ()> = HashMap::default();
    let mut merges = Vec::new();

    let candidate = |bytes: &[Rc<[u8]>], pair: Pair, count| Candidate {
        count,
        left: bytes[pair.0 as usize].clone(),
        right: bytes[pair.1 as usize].clone(),
        pair,
    };
    let mut heap: BinaryHeap<Candidate> =
        text.pairs.iter().map(|(&pair, of)| candidate(&bytes, pair, of.count)).collect();
    while bytes.len() - tokens.len() < n_wanted {
        let Some(best) = heap.pop() else { break };
        // Counts that fell are not looked for in the heap; they are corrected when they come up.
        match text.pairs.get(&best.pair).map_or(0, |of| of.count) {
            0 => continue,
            count if count != best.count => {
                heap.push(Candidate { count, ..best });
                continue;
            }
            _ => {}
        }
        let merged: Rc<[u8]> = [&*best.left, &*best.right].concat().into();
        let id = *ids.entry(merged.clone()).or_insert_with(|| {
            bytes.push(merged);
            (bytes.len() - 1) as TokenId
        });
        if is_merged.insert(best.pair, ()).is_none() {
            merges.push([best.pair.0, best.pair.1, id]);
        }
        for pair in text.merge(best.pair, id) {
            if let Some(of) = text.pairs.get(&pair) {
                heap.push(candidate(&bytes, pair, of.count));
            }
        }
        let n_done = bytes.len() - tokens.len();
        if n_done.is_multiple_of(REPORT_MERGES) || n_done == n_wanted {
            progress(Progress::Merging { n_done, n_total: n_wanted });
        }
    }
    let tokens = bytes[tokens.len()..].iter().map(|token| (&**token).into()).collect();
    Ok(Learned { tokens, merges })
}

type Pair = (TokenId, TokenId);

/// A pair that may be the next to be merged, ordered by count, then by its bytes.
#[derive(PartialEq, Eq)]
struct Candidate {
    count: u64,
    left: Rc<[u8]>,
    right: Rc<[u8]>,
    pair: Pair,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_count = self.count.cmp(&other.count);
        by_count.then_with(|| self.left.cmp(&other.left)).then_with(|| self.right.cmp(&other.right))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// All distinct pre-tokens as linked symbols.
struct Text {
    symbols: Vec<Symbol>,
    /// How often the pre-token occurs, by [`Symbol::word`].
    word_counts: Vec<u64>,
    pairs: HashMap<Pair, Occurrences>,
}

struct Symbol {
    id: TokenId,
    word: u32,
    previous: u32,
    next: u32,
}

#[derive(Default)]
struct Occurrences {
    count: u64,
    /// Symbols at which the pair starts, or has started: entries are checked when used.
    positions: Vec<u32>,
}

impl Text {
    fn new(counts: &Counts, byte_ids: &[TokenId; 256]) -> Result<Self, Error> {
        let n_bytes = counts.keys().map(|word| word.len()).sum();
        if n_bytes >= NONE as usize {
            return Err(Error::TooMuchText { n_bytes });
        }
        let mut text = Self {
            symbols: Vec::with_capacity(n_bytes),
            word_counts: Vec::with_capacity(counts.len()),
            pairs: HashMap::default(),
        };
        for (word, &count) in counts {
            let first = text.symbols.len() as u32;
            let last = first + word.len() as u32 - 1;
            for (at, &byte) in (first..).zip(word) {
                text.symbols.push(Symbol {
                    id: byte_ids[usize::from(byte)],
                    word: text.word_counts.len() as u32,
                    previous: if at == first { NONE } else { at - 1 },
                    next: if at == last { NONE } else { at + 1 },
                });
            }
            text.word_counts.push(count);
            for at in first..last {
                let pair = (text.symbols[at as usize].id, text.symbols[at as usize + 1].id);
                text.add(pair, at, count);
            }
        }
        Ok(text)
    }

    fn add(&mut self, pair: Pair, at: u32, count: u64) {
        let of = self.pairs.entry(pair).or_default();
        of.count += count;
        of.positions.push(at);
    }

    fn subtract(&mut self, pair: Pair, count: u64) {
        if let Some(of) = self.pairs.get_mut(&pair) {
            of.count -= count;
            if of.count == 0 {
                self.pairs.remove(&pair);
            }
        }
    }

    /// Merges all occurrences of `pair`, from left to right in each pre-token; returns the pairs
    /// that became more frequent.
    fn merge(&mut self, pair: Pair, id: TokenId) -> Vec<Pair> {
        // The pair itself leaves the map at once, so that subtracting from it (as `aaa` does when
        // `aa` is merged) is of no matter.
        let mut positions = self.pairs.remove(&pair).map_or(Vec::new(), |of| of.positions);
        positions.sort_unstable();
        positions.dedup();
        let mut grown = Vec::new();
        for at in positions {
            let Symbol { id: left, word, previous, next } = self.symbols[at as usize];
            if next == NONE || (left, self.symbols[next as usize].id) != pair {
                continue;
            }
            let count = self.word_counts[word as usize];
            let after = self.symbols[next as usize].next;
            self.symbols[next as usize].id = GONE;
            self.symbols[at as usize].id = id;
            self.symbols[at as usize].next = after;
            if previous != NONE {
                let before = self.symbols[previous as usize].id;
                self.subtract((before, pair.0), count);
                self.add((before, id), previous, count);
                grown.push((before, id));
            }
            if after != NONE {
                self.symbols[after as usize].previous = at;
                let behind = self.symbols[after as usize].id;
                self.subtract((pair.1, behind), count);
                self.add((id, behind), at, count);
                grown.push((id, behind));
            }
        }
        grown.sort_unstable();
        grown.dedup();
        grown
    }
}
