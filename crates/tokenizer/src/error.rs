//! All that can go wrong with a tokenizer.

use std::io;
use std::path::PathBuf;

use crate::TokenId;

/// What failed, on what, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tokenizer file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A tokenizer file cannot be written; what stood there before is unchanged.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A folder holds no tokenizer.
    #[error("{} holds neither tokenizer.json nor vocab.json with merges.txt", path.display())]
    NoTokenizerInFolder {
        /// The folder.
        path: PathBuf,
    },
    /// A tokenizer file is not JSON.
    #[error("{} is not JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A tokenizer file is consistent, but wants something that this crate does not do.
    #[error(
        "{} needs {part} = {found}, which is not supported\nhint: \
        byte-level BPE with the pattern of GPT-2 and no normalizer can be read",
        path.display()
    )]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The key within the file.
        part: String,
        /// Its value, shortened.
        found: String,
    },
    /// A tokenizer file contradicts itself.
    #[error("{} is not a valid tokenizer: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the offending value.
        reason: String,
    },
    /// A special token cannot be used.
    #[error("special token {token:?} {reason}")]
    SpecialToken {
        /// The special token.
        token: String,
        /// Why not.
        reason: String,
    },
    /// The vocabulary does not even hold the bytes and the special tokens.
    #[error(
        "vocab_size = {vocab_size} is too small for 256 bytes and {n_special_tokens} special \
        tokens\nhint: the minimum is {minimum}"
    )]
    VocabTooSmall {
        /// As asked for.
        vocab_size: usize,
        /// Number of special tokens.
        n_special_tokens: usize,
        /// The least vocabulary size that works.
        minimum: usize,
    },
    /// The text has too few distinct pairs for the vocabulary asked for.
    #[error(
        "vocab_size = {vocab_size} needs {n_wanted} new tokens, but the text supports only \
        {n_possible}\nhint: lower vocab_size to {}, or give more text",
        vocab_size - (n_wanted - n_possible)
    )]
    TooFewPairs {
        /// As asked for.
        vocab_size: usize,
        /// Merges needed to reach `vocab_size`.
        n_wanted: usize,
        /// Merges after which no pair was left.
        n_possible: usize,
    },
    /// The text has more distinct pre-tokens than the trainer can address.
    #[error(
        "the distinct pre-tokens of the text have {n_bytes} bytes, more than 4294967295\nhint: \
        train on a sample of the text"
    )]
    TooMuchText {
        /// Bytes in all distinct pre-tokens.
        n_bytes: usize,
    },
    /// A document could not be had from the caller's iterator.
    #[error("cannot read document {index} of the training text")]
    Document {
        /// Counted from 0.
        index: usize,
        /// The iterator's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The reader given to [`crate::Tokenizer::encode_stream`] failed.
    #[error("cannot read the text to encode")]
    Stream {
        /// The reader's error.
        source: io::Error,
    },
    /// A character vocabulary meets a character that it does not have.
    #[error(
        "the character vocabulary has no {found} (at byte {offset})\nhint: build the vocabulary \
        from all of the text, or use a byte or BPE vocabulary, which encode everything"
    )]
    UnknownCharacter {
        /// The character, or the byte where the text is not UTF-8.
        found: String,
        /// Bytes before it.
        offset: u64,
    },
    /// An id outside of the vocabulary.
    #[error("token id {id} is outside of the vocabulary, whose size is {vocab_size}")]
    UnknownId {
        /// The id.
        id: TokenId,
        /// Number of ids.
        vocab_size: usize,
    },
}
