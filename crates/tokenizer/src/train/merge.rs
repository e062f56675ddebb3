//! Learning merges from counted pre-tokens: the most frequent pair, again and again.
//!
//! `reference.rs` counts all pairs anew at each step; here a pair knows where it stands (`text.rs`)
//! and the next one is found in a queue (`queue.rs`), so a merge costs what it changes.

use std::rc::Rc;

use super::queue::{Queue, Ties};
use super::text::{Pair, Text};
use crate::{HashMap, TokenId};

/// How two tokens become one, and which goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) ties: Ties,
    /// What marks a token that continues a word; a merged token drops that of its right half.
    pub(super) continuation: &'static [u8],
    /// Pairs that occur more rarely are not merged.
    pub(super) min_count: u64,
}

/// Byte-level BPE.
pub(super) const BPE: Rules = Rules { ties: Ties::GreatestBytes, continuation: b"", min_count: 1 };

/// What is learned so far.
pub(super) struct Merger {
    rules: Rules,
    pub(super) text: Text,
    /// By token id.
    pub(super) bytes: Vec<Rc<[u8]>>,
    /// Tokens that a merge may spell again.
    ids: HashMap<Rc<[u8]>, TokenId>,
    /// Tokens that were there at the start.
    pub(super) n_given: usize,
    /// Left, right and merged token, in the order learned.
    pub(super) merges: Vec<[TokenId; 3]>,
    is_merged: HashMap<Pair, ()>,
    queue: Queue,
}

impl Merger {
    /// `tokens` by id: first those given, of which the first `n_special` are spelt by no merge, then those learned with
    /// `merges` before, if `text` is as they left it.
    pub(super) fn new(
        mut text: Text,
        tokens: &[Box<[u8]>],
        n_given: usize,
        n_special: usize,
        merges: Vec<[TokenId; 3]>,
        rules: Rules,
    ) -> Self {
        text.find_pairs();
        let bytes: Vec<Rc<[u8]>> = tokens.iter().map(|token| (&**token).into()).collect();
        let ids = (0..).zip(&bytes).skip(n_special).map(|(id, bytes)| (bytes.clone(), id)).collect();
        let is_merged = merges.iter().map(|&[left, right, _]| ((left, right), ())).collect();
        let mut queue = Queue::new(rules.ties);
        for (pair, count) in text.pairs() {
            queue.push(pair, count, &bytes);
        }
        Self { rules, text, bytes, ids, n_given, merges, is_merged, queue }
    }

    /// Tokens learned.
    pub(super) fn n_learned(&self) -> usize {
        self.bytes.len() - self.n_given
    }

    /// The tokens learned, in the order of their ids.
    pub(super) fn learned(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes[self.n_given..].iter().map(|bytes| &**bytes)
    }

    /// Merges the next pair, which adds a token unless it spells one known; `None` if no pair is left.
    pub(super) fn step(&mut self) -> Option<()> {
        let (pair, count) = self.queue.pop(|pair| self.text.count(pair), &self.bytes)?;
        if count < self.rules.min_count {
            return None;
        }
        let right = &self.bytes[pair.1 as usize];
        let right = right.strip_prefix(self.rules.continuation).unwrap_or(right);
        let merged: Rc<[u8]> = [&*self.bytes[pair.0 as usize], right].concat().into();
        let id = *self.ids.entry(merged.clone()).or_insert_with(|| {
            self.bytes.push(merged);
            self.text.push_token(pair);
            (self.bytes.len() - 1) as TokenId
        });
        if self.is_merged.insert(pair, ()).is_none() {
            self.merges.push([pair.0, pair.1, id]);
        }
        let (queue, bytes) = (&mut self.queue, &self.bytes);
        self.text.merge(pair, id, &mut |pair, count| queue.push(pair, count, bytes));
        Some(())
    }
}
