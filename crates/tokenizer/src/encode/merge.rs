//! Merging the bytes of a pre-token: of all adjacent pairs the one learned first, and of equal ones
//! the leftmost, is merged, until none is left. `reference.rs` says the same in ten lines.
//!
//! A short pre-token scans for the next merge, which is quadratic but fastest. A long one (a megabyte of
//! one letter, say) is cut into tokens from left to right, the longest first, and goes back where two
//! tokens may not stand side by side; see `derivation.rs`. No place is come back to twice, so this is
//! linear. It needs merges that build on earlier ones; all others keep the possible merges in a heap, which
//! is O(n log n).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::derivation::Derivations;
use super::pairs::{Merge, NO_MERGE, Pairs};
use super::prefixes::Prefixes;
use crate::TokenId;

const NONE: usize = usize::MAX;

pub(super) struct Symbol {
    pub(super) id: TokenId,
    /// The merge with the symbol after it.
    pub(super) next_merge: Merge,
}

/// Bytes of a pre-token for [`few`], at most.
pub(super) const FEW: usize = 16;

/// Merges the bytes of a very short pre-token, all of it in registers and a few cache lines.
pub(super) fn few(pairs: &Pairs, byte_ids: &[TokenId; 256], pretoken: &[u8], ids: &mut Vec<TokenId>) {
    let n = pretoken.len();
    // The token that starts at each byte, and the merge with the one behind; both count only at starts.
    let (mut tokens, mut ranks, mut merged) = ([0; FEW], [NO_MERGE; FEW], [0; FEW]);
    let mut is_start: u32 = (1 << n) - 1;
    for (token, &byte) in tokens.iter_mut().zip(pretoken) {
        *token = byte_ids[usize::from(byte)];
    }
    for i in 1..n {
        let merge = pairs.of_bytes(pretoken[i - 1], pretoken[i]);
        (ranks[i - 1], merged[i - 1]) = (merge.rank, merge.id);
    }
    while let Some(at) = first_min(&ranks) {
        let behind = |i: usize| (is_start >> i >> 1).trailing_zeros() as usize + i + 1;
        let gone = behind(at);
        tokens[at] = merged[at];
        is_start &= !(1 << gone);
        ranks[gone] = NO_MERGE;
        let next = (is_start >> at >> 1).trailing_zeros() as usize + at + 1;
        ranks[at] = NO_MERGE;
        if next < n {
            let merge = pairs.get(tokens[at], tokens[next]);
            (ranks[at], merged[at]) = (merge.rank, merge.id);
        }
        let before = is_start & ((1 << at) - 1);
        if before != 0 {
            let i = 31 - before.leading_zeros() as usize;
            let merge = pairs.get(tokens[i], tokens[at]);
            (ranks[i], merged[i]) = (merge.rank, merge.id);
        }
    }
    ids.extend((0..n).filter(|i| is_start >> i & 1 == 1).map(|i| tokens[i]));
}

/// Where the lowest rank is first; `None` if there is no merge.
#[inline(always)]
fn first_min(ranks: &[u32; FEW]) -> Option<usize> {
    let best = *ranks.iter().min().expect("there are 16");
    if best == NO_MERGE { None } else { ranks.iter().position(|&rank| rank == best) }
}

/// Merges the symbols of a short pre-token.
pub(super) fn by_scan(pairs: &Pairs, symbols: &mut Vec<Symbol>) {
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
            Some(next) => pairs.get(symbols[at].id, next.id),
            None => Merge { rank: NO_MERGE, id: 0 },
        };
        if at > 0 {
            symbols[at - 1].next_merge = pairs.get(symbols[at - 1].id, symbols[at].id);
        }
    }
}

/// Merges the symbols of a pre-token of any length.
pub(super) fn by_heap(pairs: &Pairs, symbols: &mut [Symbol], ids: &mut Vec<TokenId>) {
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
            let merge = pairs.get(symbols[left].id, symbols[next[left]].id);
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

/// Pairs of tokens of which is remembered whether they may stand side by side.
const REMEMBERED: usize = 1 << 8;

/// Cuts a pre-token of any length into the tokens that merging would give.
///
/// `tokens` has all tokens that are the encoding of their bytes.
pub(super) fn by_neighbours(
    pretoken: &[u8],
    tokens: &Prefixes,
    derivations: &Derivations,
    pairs: &Pairs,
    ids: &mut Vec<TokenId>,
) {
    let start = ids.len();
    let mut lens: Vec<u32> = Vec::new();
    // From where no way leads to the end, a bit each. There is one way at most to get to any place.
    let mut is_dead = vec![0_u64; pretoken.len() / 64 + 1];
    let (mut at, mut below) = (0, u32::MAX);
    let mut candidates = Vec::new();
    // In a text of few letters it is the same pairs again and again.
    let mut remembered = [(TokenId::MAX, TokenId::MAX, false); REMEMBERED];
    let mut may_follow = |left: TokenId, right: TokenId| {
        let slot = &mut remembered[(left.wrapping_mul(31) ^ right) as usize % REMEMBERED];
        if (slot.0, slot.1) != (left, right) {
            *slot = (left, right, derivations.may_follow(left, right, pairs));
        }
        slot.2
    };
    while at < pretoken.len() {
        tokens.find(&pretoken[at..], &mut candidates);
        let last = ids[start..].last().copied();
        let next = candidates.iter().rev().find(|&&(len, id)| {
            let end = at + len as usize;
            len < below && is_dead[end / 64] >> (end % 64) & 1 == 0 && last.is_none_or(|last| may_follow(last, id))
        });
        if let Some(&(len, id)) = next {
            ids.push(id);
            lens.push(len);
            at += len as usize;
            below = u32::MAX;
            continue;
        }
        is_dead[at / 64] |= 1 << (at % 64);
        ids.pop();
        below = lens.pop().expect("every text has an encoding");
        at -= below as usize;
    }
}
