//! How tokens come about, and whether two of them may stand side by side.
//!
//! If every merge makes its token from tokens whose own merges all come before it, byte-pair encoding is a
//! matter of neighbours: tokens are the encoding of a text if and only if each token is the encoding of its
//! own bytes, and each two neighbours are that of theirs together. For merges are then done in order, each
//! in all places at once, and where a merge would cross the border of two tokens is decided by what stands
//! at this border. (Of equal merges that overlap the leftmost is done first; so in a run of one token they
//! cross a border only if an odd number of it stands before, and then already do so for the two neighbours.)
//!
//! Merges made of ranks, as tiktoken's are, list all ways to halve a token, also such whose halves come about
//! later than the token. These never happen if the token is the encoding of its bytes: as long as nothing
//! crosses the token's borders, its bytes are merged as if they stood alone, and so have become the token by
//! the time at which the halves would come about.

use super::merge::{self, Symbol};
use super::pairs::{Merge, NO_MERGE, Pairs};
use crate::{HashMap, TokenId};

/// How one token is merged in the end when its own bytes are encoded.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Derivation {
    /// Of the merge; for a byte `BYTE`, and `UNREACHABLE` if its bytes are encoded as something else.
    rank: u32,
    left: TokenId,
    right: TokenId,
}

/// Before all merges.
const BYTE: u32 = u32::MAX - 1;
const UNREACHABLE: u32 = u32::MAX;
/// Bytes of a token for [`merges_to`], at most.
const MAX_TRIED_BYTES: usize = 1 << 10;

/// The derivations of all tokens, by id.
#[derive(Clone)]
pub(super) struct Derivations {
    derivations: Vec<Derivation>,
    /// Tokens that come about by late merges only. Where their bytes are nowhere in a text, these merges never
    /// happen, and all the above holds for that text.
    late: Late,
}

/// Byte strings of four bytes or more.
#[derive(Clone)]
struct Late {
    strings: HashMap<[u8; 4], Vec<Box<[u8]>>>,
    /// A bit for each hash of the first four bytes.
    filter: Box<[u64; 1 << 8]>,
}

impl Late {
    /// `None` if there is one that is shorter.
    fn new(strings: impl IntoIterator<Item = Box<[u8]>>) -> Option<Self> {
        let mut late = Self { strings: HashMap::default(), filter: Box::new([0; 1 << 8]) };
        for string in strings {
            let first = *string.first_chunk()?;
            let (word, bit) = filter_bit(first);
            late.filter[word] |= bit;
            late.strings.entry(first).or_default().push(string);
        }
        Some(late)
    }

    /// Whether any of them is part of `text`.
    fn is_in(&self, text: &[u8]) -> bool {
        !self.strings.is_empty()
            && text.windows(4).enumerate().any(|(i, first)| {
                let first = [first[0], first[1], first[2], first[3]];
                let (word, bit) = filter_bit(first);
                self.filter[word] & bit != 0
                    && self
                        .strings
                        .get(&first)
                        .is_some_and(|all| all.iter().any(|string| text[i..].starts_with(string)))
            })
    }
}

#[inline]
fn filter_bit(first: [u8; 4]) -> (usize, u64) {
    let hash = u32::from_le_bytes(first).wrapping_mul(0x9E37_79B9) >> 18;
    (hash as usize >> 6, 1 << (hash & 63))
}

impl Derivations {
    /// `None` if a merge needs the result of a later one, and its token does not come about without it and is short
    /// or unusually long.
    pub(super) fn new(byte_ids: &[TokenId; 256], merges: &[[TokenId; 3]], pairs: &Pairs) -> Option<Self> {
        let n_ids = byte_ids.iter().chain(merges.iter().flatten()).max().map_or(0, |&id| id as usize + 1);
        let is_current = |rank: usize, merge: &[TokenId; 3]| pairs.get(merge[0], merge[1]).rank == rank as u32;
        // Where the last merge is that makes a token, plus one.
        let mut last_made = vec![0; n_ids];
        for (rank, merge) in merges.iter().enumerate().filter(|(rank, merge)| is_current(*rank, merge)) {
            last_made[merge[2] as usize] = rank + 1;
        }
        if byte_ids.iter().any(|&id| last_made[id as usize] > 0) {
            return None;
        }
        let unreachable = Derivation { rank: UNREACHABLE, left: 0, right: 0 };
        let late = Late::new([])?;
        let mut derivations = Self { derivations: vec![unreachable; n_ids], late };
        let mut is_late = vec![false; n_ids];
        for &id in byte_ids {
            derivations.derivations[id as usize].rank = BYTE;
        }
        for (rank, merge) in merges.iter().enumerate().filter(|(rank, merge)| is_current(*rank, merge)) {
            let [left, right, id] = *merge;
            if last_made[left as usize].max(last_made[right as usize]) > rank {
                is_late[id as usize] = true;
                continue;
            }
            let is_new = derivations.derivations[id as usize].rank == UNREACHABLE;
            let from_known = derivations.is_reachable(left) && derivations.is_reachable(right);
            if is_new && from_known && !derivations.merge_crosses(left, right, rank as u32, pairs) {
                derivations.derivations[id as usize] = Derivation { rank: rank as u32, left, right };
            }
        }
        // Some way to halve each token.
        let mut halves = vec![None; n_ids];
        for merge in merges.iter().rev() {
            halves[merge[2] as usize] = Some([merge[0], merge[1]]);
        }
        // Tokens that do not come about without late merges, but may do so with them.
        let comes_late =
            |id: &TokenId| !derivations.is_reachable(*id) && bytes_merge_to(*id, &halves, pairs) != Some(false);
        let late = (0..).zip(&is_late).filter(|(_, is_late)| **is_late).map(|(id, _)| id).filter(comes_late);
        let late: Option<Vec<Box<[u8]>>> = late.map(|id| bytes_of(id, byte_ids, &halves)).collect();
        derivations.late = Late::new(late?)?;
        Some(derivations)
    }

    /// Whether the encoding of `text` is a matter of neighbours.
    pub(super) fn hold_for(&self, text: &[u8]) -> bool {
        !self.late.is_in(text)
    }

    /// Whether the bytes of a token are encoded as that token.
    pub(super) fn is_reachable(&self, id: TokenId) -> bool {
        self.derivations.get(id as usize).is_some_and(|derivation| derivation.rank != UNREACHABLE)
    }

    /// The rank of the merge that makes a token; `None` for bytes and what is not reachable.
    pub(super) fn rank(&self, id: TokenId) -> Option<u32> {
        self.derivations.get(id as usize).map(|derivation| derivation.rank).filter(|&rank| rank < BYTE)
    }

    /// Whether `left` and `right`, side by side, stay as they are.
    pub(super) fn may_follow(&self, left: TokenId, right: TokenId, pairs: &Pairs) -> bool {
        !self.merge_crosses(left, right, NO_MERGE, pairs)
    }

    /// Whether a merge of a rank below `before` crosses the border of two reachable tokens.
    ///
    /// Goes back in time: the token at the border that was merged last is taken apart, and what stands at
    /// the border then must not have been merged until that happened.
    fn merge_crosses(&self, mut left: TokenId, mut right: TokenId, mut before: u32, pairs: &Pairs) -> bool {
        loop {
            if pairs.get(left, right).rank < before {
                return true;
            }
            let (made_left, made_right) = (self.derivations[left as usize], self.derivations[right as usize]);
            // A byte has always been there.
            let rank = |made: Derivation| if made.rank == BYTE { 0 } else { made.rank + 1 };
            match rank(made_left).cmp(&rank(made_right)) {
                // The leftmost of equal merges is done first: the one within `left` ...
                std::cmp::Ordering::Greater => {
                    before = made_left.rank;
                    left = made_left.right;
                }
                // ... but not the one within `right`.
                std::cmp::Ordering::Less => {
                    before = made_right.rank + 1;
                    right = made_right.left;
                }
                std::cmp::Ordering::Equal if made_left.rank == BYTE => return false,
                std::cmp::Ordering::Equal => {
                    before = made_left.rank;
                    (left, right) = (made_left.right, made_right.left);
                }
            }
        }
    }
}

/// The tokens of the bytes of a token; `None` if there are too many.
fn byte_tokens(id: TokenId, halves: &[Option<[TokenId; 2]>]) -> Option<Vec<TokenId>> {
    let (mut rest, mut bytes) = (vec![id], Vec::new());
    while let Some(part) = rest.pop() {
        match halves[part as usize] {
            Some([left, right]) => rest.extend([right, left]),
            None => bytes.push(part),
        }
        if bytes.len() + rest.len() > MAX_TRIED_BYTES {
            return None;
        }
    }
    Some(bytes)
}

fn bytes_of(id: TokenId, byte_ids: &[TokenId; 256], halves: &[Option<[TokenId; 2]>]) -> Option<Box<[u8]>> {
    let byte_of = |token: TokenId| byte_ids.iter().position(|&id| id == token).map(|byte| byte as u8);
    byte_tokens(id, halves)?.into_iter().map(byte_of).collect()
}

/// Whether merging the bytes of a token gives the token; `None` if it is too long to try.
fn bytes_merge_to(id: TokenId, halves: &[Option<[TokenId; 2]>], pairs: &Pairs) -> Option<bool> {
    let bytes = byte_tokens(id, halves)?;
    let no_merge = Merge { rank: NO_MERGE, id: 0 };
    let next_merge = |i: usize| bytes.get(i + 1).map_or(no_merge, |&next| pairs.get(bytes[i], next));
    let mut symbols = (0..bytes.len()).map(|i| Symbol { id: bytes[i], next_merge: next_merge(i) }).collect();
    merge::by_scan(pairs, &mut symbols);
    Some(symbols.len() == 1 && symbols[0].id == id)
}
