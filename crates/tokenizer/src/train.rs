//! Learning a BPE vocabulary: count pre-tokens, then merge the most frequent pair again and again.
//!
//! Sennrich et al., 2016, <https://arxiv.org/abs/1508.07909>, algorithm 1. Of equally frequent pairs
//! the greatest is merged: by the bytes of its left token, then of its right. The result depends on
//! the multiset of pre-tokens alone, so not on threads nor on the order of documents.
//!
//! Ids: special tokens first, in the order given; then the 256 bytes in the order of their printable
//! characters (see `alphabet.rs`; `!` first); then the merged tokens as they are learned.

mod count;
mod merge;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::alphabet::BYTES_IN_ORDER;
use crate::encode::Bpe;
use crate::special::SpecialTokens;
use crate::vocab::{check_no_byte, cutter};
use crate::{Error, TokenId, Tokenizer};

/// What a BPE vocabulary is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BpeConfig {
    /// Number of ids: special tokens, 256 bytes, and the rest learned.
    pub vocab_size: usize,
    /// Strings that are one id each and at which training text is cut, such as `<|endoftext|>`.
    #[serde(default)]
    pub special_tokens: Vec<String>,
}

/// How far training is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Counting pre-tokens; how many there will be, only the caller may know.
    Counting {
        /// Bytes of text counted, special tokens included.
        n_bytes: u64,
    },
    /// Learning merges.
    Merging {
        /// Tokens learned.
        n_done: usize,
        /// Tokens to learn.
        n_total: usize,
    },
}

/// Learns the merges of `documents` until the vocabulary is full.
///
/// Pre-tokens do not cross documents. Memory holds the distinct pre-tokens, and at one time some 64
/// MB of text or one document if that is larger. A merge that spells a token known already adds no
/// id, but is learned as well.
///
/// # Errors
/// If the vocabulary size is below 256 and the special tokens, if the text has fewer pairs than it
/// takes ([`Error::TooFewPairs`]), if a special token is empty, given twice or a single byte, or if
/// `documents` yields an error.
pub fn train_bpe<E>(
    documents: impl IntoIterator<Item = Result<Vec<u8>, E>>,
    config: &BpeConfig,
    progress: &dyn Fn(Progress),
) -> Result<Tokenizer, Error>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let BpeConfig { vocab_size, special_tokens } = config;
    check_no_byte(special_tokens)?;
    let minimum = 256 + special_tokens.len();
    if *vocab_size < minimum {
        return Err(Error::VocabTooSmall { vocab_size: *vocab_size, n_special_tokens: special_tokens.len(), minimum });
    }

    let pretokens = count::count(documents, &cutter(special_tokens)?, progress)?;

    let mut tokens: Vec<Box<[u8]>> = special_tokens.iter().map(|token| token.as_bytes().into()).collect();
    let mut byte_ids = [0; 256];
    for byte in BYTES_IN_ORDER {
        byte_ids[usize::from(byte)] = tokens.len() as TokenId;
        tokens.push(Box::from([byte]));
    }
    let n_wanted = vocab_size - minimum;
    let learned = merge::learn(&pretokens, &byte_ids, &tokens, n_wanted, progress)?;
    tokens.extend(learned.tokens);
    if tokens.len() < *vocab_size {
        let n_possible = tokens.len() - minimum;
        return Err(Error::TooFewPairs { vocab_size: *vocab_size, n_wanted, n_possible });
    }

    let specials = SpecialTokens::new(special_tokens.iter().cloned().zip(0..).collect())?;
    Tokenizer::bpe(tokens, specials, Bpe::new(byte_ids, &learned.merges, false))
}
