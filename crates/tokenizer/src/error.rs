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
    #[error(
        "{} holds neither tokenizer.json nor vocab.json with merges.txt nor tokenizer.model\nhint: name the tokenizer's \
        file, or a folder with one",
        path.display()
    )]
    NoTokenizerInFolder {
        /// The folder.
        path: PathBuf,
    },
    /// A vocabulary cannot be written in a format that does not have what it needs.
    #[error("the vocabulary cannot be written as {format}: {reason}\nhint: tokenizer.json holds every vocabulary")]
    Format {
        /// The format.
        format: &'static str,
        /// What it does not have.
        reason: String,
    },
    /// The name of a rank file does not say how text is cut.
    #[error(
        "{} has ranks of tokens, but its name is that of no known encoding\nhint: name it as its encoding \
        (cl100k_base.tiktoken, o200k_base.tiktoken, r50k_base.tiktoken, p50k_base.tiktoken, llama3.tiktoken)",
        path.display()
    )]
    UnknownEncoding {
        /// The file.
        path: PathBuf,
    },
    /// A tokenizer file is not JSON.
    #[error("{} is not JSON\nhint: it must be a tokenizer.json; copy it again, or train one by `cupola tokenizer train`", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A tokenizer file is consistent, but wants something that this crate does not do.
    #[error(
        "{} needs {part} = {found}, which is not supported\nhint: BPE, unigram and WordPiece can be read, with the parts \
        that GPT-2, Llama, Mistral, Qwen, OLMo, DeepSeek, T5, BERT and BLOOM have",
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
    #[error("{} is not a valid tokenizer: {reason}\nhint: copy it again, or make it again with the program that wrote it", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the offending value.
        reason: String,
    },
    /// A special token cannot be used.
    #[error("special token {token:?} {reason}\nhint: name each special token once, such as <|endoftext|>")]
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
        leave out rare ones by a minimum count (--min-count 2), or train on a sample of the text"
    )]
    TooMuchText {
        /// Bytes in all distinct pre-tokens.
        n_bytes: u64,
    },
    /// The memory that training may use is less than it ever takes.
    #[error("a memory limit of {limit} bytes is too little to train with\nhint: the minimum is {minimum}")]
    MemoryLimit {
        /// As asked for.
        limit: u64,
        /// The least that works.
        minimum: u64,
    },
    /// Counts do not fit in memory and have nowhere to go.
    #[error(
        "the counts of pre-tokens, or a single pre-token, do not fit within {limit} bytes of memory\nhint: give a work \
        folder on a disk with room for the counts, or raise the memory limit"
    )]
    NoRoomForCounts {
        /// The memory limit.
        limit: u64,
    },
    /// Learning merges would take more memory than allowed.
    #[error(
        "learning merges from the pre-tokens that occur at least {min_count} times takes about {needed} bytes of \
        memory, more than the limit of {limit}\nhint: {}",
        match fitting {
            Some(count) => format!("with a minimum count of {count} it fits (--min-count {count})"),
            None => "raise the limit, or train on a sample of the text".to_owned(),
        }
    )]
    MemoryForMerging {
        /// Bytes that it takes.
        needed: u64,
        /// The memory limit.
        limit: u64,
        /// As asked for.
        min_count: u64,
        /// The least minimum count that fits, if there is one.
        fitting: Option<u64>,
    },
    /// A file in the work folder of a training cannot be used.
    #[error("cannot {action} {}", path.display())]
    Work {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A work folder is not what a training with the same text and config has left.
    #[error("the work folder {} {reason}\nhint: choose another, or remove this one to start anew", path.display())]
    WorkFolder {
        /// The folder.
        path: PathBuf,
        /// Why it cannot be used.
        reason: String,
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
    /// A pattern of pre-tokens is no regular expression.
    #[error(
        "the pattern {pattern:?} is no regular expression: {reason}\nhint: write it as in the regex crate, look-around allowed"
    )]
    Pattern {
        /// The expression.
        pattern: String,
        /// What the engine of regular expressions says.
        reason: String,
    },
    /// The engine of regular expressions needs too many steps on a text.
    #[error(
        "the pattern {pattern:?} gives up behind byte {offset} of a text: {reason}\nhint: cut such texts, or use a \
        pattern that cannot go back so far (possessive: `\\p{{L}}++`)"
    )]
    PatternGaveUp {
        /// The expression.
        pattern: String,
        /// Bytes before the place from which on no match was found.
        offset: u64,
        /// What the engine of regular expressions says.
        reason: String,
    },
    /// A text that is not trusted holds a special token.
    #[error(
        "the text holds the special token {token:?} (at byte {offset})\nhint: allow it if the text may say so, \
        or take it for ordinary text"
    )]
    SpecialInText {
        /// The special token.
        token: String,
        /// Bytes before it.
        offset: u64,
    },
    /// It is not known which bytes of a text a token stands for.
    #[error(
        "offsets into the text are not known\nhint: they are for vocabularies over bytes that do not normalise \
        the text, such as those of GPT, Llama 3 and DeepSeek"
    )]
    NoOffsets,
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
    #[error("token id {id} is outside of the vocabulary, whose size is {vocab_size}\nhint: ids go from 0 to {}; these may be of another tokenizer", vocab_size.saturating_sub(1))]
    UnknownId {
        /// The id.
        id: TokenId,
        /// Number of ids.
        vocab_size: usize,
    },
}

impl Error {
    /// A failure in the work folder of a training.
    pub(crate) fn work(action: &'static str, path: &std::path::Path, source: io::Error) -> Self {
        Self::Work { action, path: path.to_owned(), source }
    }
}
