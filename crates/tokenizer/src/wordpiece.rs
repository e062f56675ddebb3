//! WordPiece: of each word the longest piece at its start, then the longest at the start of the rest.
//!
//! Wu et al., 2016, <https://arxiv.org/abs/1609.08144>, section 4.1, in the form of BERT, where a
//! piece within a word is written with a prefix (`##ing`) and a word that cannot be cut is unknown
//! as a whole.

#[cfg(test)]
mod tests;

use crate::TokenId;
use crate::trie::Trie;

/// A vocabulary of pieces of words.
#[derive(Clone, PartialEq)]
pub(crate) struct WordPiece {
    /// The pieces that start a word.
    starts: Trie<TokenId>,
    /// The pieces within a word, without the prefix.
    continuations: Trie<TokenId>,
    prefix: Box<str>,
    unknown: TokenId,
    /// A word of more characters is unknown.
    max_chars: usize,
}

impl WordPiece {
    /// `pieces`: as they are written, those within a word with `prefix`.
    pub(crate) fn new<'a>(
        pieces: impl Iterator<Item = (&'a str, TokenId)>,
        prefix: &str,
        unknown: TokenId,
        max_chars: usize,
    ) -> Self {
        let (mut starts, mut continuations) = (Trie::default(), Trie::default());
        for (piece, id) in pieces {
            starts.insert(piece.as_bytes(), id);
            if let Some(continuation) = piece.strip_prefix(prefix) {
                continuations.insert(continuation.as_bytes(), id);
            }
        }
        Self { starts, continuations, prefix: prefix.into(), unknown, max_chars }
    }

    /// Appends the ids of a word.
    pub(crate) fn encode(&self, word: &str, ids: &mut Vec<TokenId>) {
        let before = ids.len();
        if self.try_encode(word.as_bytes(), word.chars().count(), ids).is_none() {
            ids.truncate(before);
            ids.push(self.unknown);
        }
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn unknown(&self) -> TokenId {
        self.unknown
    }

    pub(crate) fn max_chars(&self) -> usize {
        self.max_chars
    }

    fn try_encode(&self, word: &[u8], n_chars: usize, ids: &mut Vec<TokenId>) -> Option<()> {
        if n_chars > self.max_chars {
            return None;
        }
        let mut rest = word;
        while !rest.is_empty() {
            let pieces = if rest.len() == word.len() { &self.starts } else { &self.continuations };
            // Pieces are UTF-8, so the longest one ends where a character ends.
            let (len, id) = pieces.prefixes(rest).last()?;
            ids.push(id);
            rest = &rest[len..];
        }
        Some(())
    }
}
