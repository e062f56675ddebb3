//! Everything that can go wrong between a text file and a batch.

use std::io;
use std::path::{Path, PathBuf};

/// What was tried, on which file, what was expected, and on a `hint:` line what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No path was given.
    #[error(
        "no input files\nhint: name at least one .txt, .jsonl or .parquet file; .txt and .jsonl may be compressed (.zst, .gz)"
    )]
    NoInput,
    /// An input path leads nowhere.
    #[error("{} does not exist\nhint: check the path and the folder that it is relative to", path.display())]
    MissingFile {
        /// As given by the caller.
        path: PathBuf,
    },
    /// An input path is a folder, a pipe or a device.
    #[error("{} is not a regular file\nhint: name the text files themselves", path.display())]
    NotAFile {
        /// As given by the caller.
        path: PathBuf,
    },
    /// An input file has no bytes.
    #[error("{} is empty\nhint: leave it out, or check the step that should have written it", path.display())]
    EmptyFile {
        /// As given by the caller.
        path: PathBuf,
    },
    /// The extension names no format.
    #[error(
        "{} has a format that is not read\nhint: formats go by extension: .txt, .jsonl (either with .zst or .gz), .parquet; any other name is text, but for .json, .csv and .tsv: turn these into .jsonl",
        path.display()
    )]
    UnknownFormat {
        /// As given by the caller.
        path: PathBuf,
    },
    /// A file was read to its end without a single document.
    #[error(
        "{} holds no documents ({n_empty} empty ones were skipped)\nhint: leave it out, or check what it should hold",
        path.display()
    )]
    NoDocuments {
        /// The file.
        path: PathBuf,
        /// Documents without a byte of text.
        n_empty: u64,
    },
    /// A line is not JSON.
    #[error(
        "{}, line {line}, column {column}: not valid JSON: {reason}\n\
         hint: a .jsonl file has one JSON object per line; correct or remove this line",
        path.display()
    )]
    MalformedJson {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// From 1, in bytes.
        column: usize,
        /// The parser's words.
        reason: String,
    },
    /// A line is JSON, but not an object with a string `text`.
    #[error(
        "{}, line {line}: no text in this JSON: {reason}\n\
         hint: each line must be an object with a string field `text`",
        path.display()
    )]
    MissingText {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// The parser's words.
        reason: String,
    },
    /// A line or a document is larger than the reader may hold in memory.
    #[error(
        "{}, line {line}: a document of more than {max_bytes} bytes starts here\n\
         hint: split it into several, or raise the limit if memory allows",
        path.display()
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Where it starts, from 1.
        line: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// Bytes that are not UTF-8.
    #[error(
        "{}, line {line}: invalid UTF-8 at byte offset {offset}{}\n\
         hint: convert the file to UTF-8, or pass raw bytes on purpose (--raw-bytes)",
        path.display(), if *compressed { " of the decompressed text" } else { "" }
    )]
    InvalidUtf8 {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// From 0, in the text after decompression.
        offset: u64,
        /// Whether the file is compressed.
        compressed: bool,
    },
    /// A compressed file ends within a frame.
    #[error(
        "{} is cut short: it ends after {n_bytes} decompressed bytes, within a frame\n\
         hint: copy or download the file again; `zstd -t` or `gzip -t` checks it",
        path.display()
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Text that could be read before.
        n_bytes: u64,
    },
    /// A compressed file is not what its name says, is damaged, or asks for too much memory.
    #[error(
        "cannot decompress {} after {n_bytes} decompressed bytes\n\
         hint: `zstd -t` or `gzip -t` checks the file; zstd windows beyond 2^27 bytes (`zstd --long=28` and up) are refused",
        path.display()
    )]
    Decompress {
        /// The file.
        path: PathBuf,
        /// Text that could be read before.
        n_bytes: u64,
        /// The decompressor's words.
        source: io::Error,
    },
    /// A .parquet file is none, is damaged, or lacks a column of texts.
    #[error(
        "cannot read {} as Parquet: {reason}\nhint: it must have a column `text` of strings at the top level",
        path.display()
    )]
    MalformedParquet {
        /// The file.
        path: PathBuf,
        /// The reader's words.
        reason: String,
    },
    /// A pattern for file names matches nothing.
    #[error("{pattern} matches no input file\nhint: check the pattern and the folder that it is relative to")]
    NoMatch {
        /// The pattern, or the folder in which there is no file of a known format.
        pattern: String,
    },
    /// A pattern for file names is none.
    #[error("{pattern} is not a pattern for file names: {reason}\nhint: write a literal * as [*]")]
    BadPattern {
        /// As given by the caller.
        pattern: String,
        /// What is wrong.
        reason: String,
    },
    /// The system refused to read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The system refused to write.
    #[error("cannot write {what} {}\nhint: {hint}", path.display())]
    Write {
        /// What was being written.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What to do, by the kind of failure.
        hint: &'static str,
        /// The system's words.
        source: io::Error,
    },
    /// The output folder of a dataset is in use by another dataset.
    #[error("{} already holds a dataset\nhint: choose another folder, or replace it on purpose (--overwrite)", path.display())]
    DatasetExists {
        /// The output folder.
        path: PathBuf,
    },
    /// The output folder holds something that is not a dataset, which is never overwritten.
    #[error(
        "{} exists and is not a dataset, so it is left alone\nhint: choose another folder, or remove this one yourself",
        path.display()
    )]
    OutputInUse {
        /// The output path.
        path: PathBuf,
    },
    /// Another process writes the same dataset.
    #[error(
        "another process is writing {}\nhint: wait for it to end, or choose another output folder",
        path.display()
    )]
    WriterBusy {
        /// The output folder.
        path: PathBuf,
    },
    /// A token id that the vocabulary does not have.
    #[error(
        "document {document_idx} has token id {token} but the vocabulary has {vocab_size} ids\n\
         hint: use the tokenizer that the vocabulary size belongs to"
    )]
    TokenOutOfVocabulary {
        /// From 0, in the order written.
        document_idx: u64,
        /// The id.
        token: u32,
        /// Ids are below this.
        vocab_size: usize,
    },
    /// A character vocabulary lacks a character of the text.
    #[error(
        "{}: the vocabulary has no character {found:?} (byte {offset} of the document that starts on line {line})\n\
         hint: make the character vocabulary from all of the text, or use a byte-level tokenizer",
        path.display()
    )]
    UnknownCharacter {
        /// The file.
        path: PathBuf,
        /// Where the document starts, from 1.
        line: u64,
        /// From 0, within the document's text.
        offset: u64,
        /// The character, U+FFFD if it is not UTF-8.
        found: char,
    },
    /// A dataset without tokens was about to be written.
    #[error("the documents for {} gave no tokens\nhint: check that the input holds text", path.display())]
    NoTokens {
        /// The output folder.
        path: PathBuf,
    },
    /// A folder without an index.
    #[error(
        "{} is not a dataset: it has no index.json\nhint: make one with `cupola data prepare --output {}`",
        path.display(), path.display()
    )]
    NotADataset {
        /// The folder.
        path: PathBuf,
    },
    /// `index.json` is not what this version writes.
    #[error(
        "{}, line {line}, column {column}: not a dataset index: {reason}\n\
         hint: prepare the dataset again; the file is not meant to be edited",
        path.display()
    )]
    MalformedIndex {
        /// The file.
        path: PathBuf,
        /// From 1; 0 if the file is well formed but contradicts itself.
        line: usize,
        /// From 1; 0 if the file is well formed but contradicts itself.
        column: usize,
        /// What is wrong.
        reason: String,
    },
    /// A dataset of another format version.
    #[error(
        "{} has dataset format version {found}, this program reads version {expected}\n\
         hint: prepare the dataset again with this program",
        path.display()
    )]
    UnsupportedVersion {
        /// The index.
        path: PathBuf,
        /// The version in the file.
        found: u64,
        /// The version of this program.
        expected: u64,
    },
    /// A file of a dataset is gone.
    #[error(
        "{} is missing, though index.json lists it\nhint: copy the dataset again, or prepare it again",
        path.display()
    )]
    MissingShard {
        /// The file.
        path: PathBuf,
    },
    /// A file of a dataset is shorter or longer than its index says.
    #[error(
        "{} has {found} bytes, index.json says {expected}\n\
         hint: the file was cut short or changed; copy the dataset again, or prepare it again",
        path.display()
    )]
    WrongSize {
        /// The file.
        path: PathBuf,
        /// In bytes.
        expected: u64,
        /// In bytes.
        found: u64,
    },
    /// A file of a dataset has the right size and other bytes.
    #[error(
        "{} has checksum {found}, index.json says {expected}\n\
         hint: the file was damaged or changed; copy the dataset again, or prepare it again",
        path.display()
    )]
    WrongChecksum {
        /// The file.
        path: PathBuf,
        /// xxh3-64 as 16 hexadecimal digits.
        expected: String,
        /// xxh3-64 as 16 hexadecimal digits.
        found: String,
    },
    /// A file of a dataset has content that no writer of this program produces.
    #[error("{} is inconsistent: {reason}\nhint: prepare the dataset again", path.display())]
    InconsistentShard {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Not one window fits.
    #[error(
        "{} has {found} tokens, a context length of {context_length} needs at least {needed}\n\
         hint: prepare more text, or lower the context length",
        path.display()
    )]
    TooFewTokens {
        /// The dataset.
        path: PathBuf,
        /// Tokens that one window needs.
        needed: u64,
        /// Tokens there are.
        found: u64,
        /// In tokens.
        context_length: usize,
    },
    /// A setting that cannot be.
    #[error("{name} = {value} must be {expected}\nhint: correct this setting")]
    InvalidOption {
        /// The setting.
        name: &'static str,
        /// What was given.
        value: u64,
        /// What is possible.
        expected: String,
    },
    /// A saved position that lies within a step of a multi-rank run.
    #[error(
        "cannot resume {world_size} ranks at sequence {sequences_consumed}, within a global batch of {global_batch}\n\
         hint: resume from a state saved at the end of a step, with the global batch it was saved with"
    )]
    UnalignedState {
        /// The saved position.
        sequences_consumed: u64,
        /// Sequences per step over all ranks.
        global_batch: usize,
        /// Number of ranks.
        world_size: usize,
    },
}

impl Error {
    /// A failed write, with the hint that fits the system's reason.
    pub(crate) fn write(what: &'static str, path: &Path, source: io::Error) -> Error {
        let hint = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "the disk is full: free space, or choose an output folder on another disk"
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "no write permission there: choose a folder that you may write to"
            }
            _ => "check that the parent folder exists and can be written to",
        };
        Error::Write { what, path: path.to_owned(), hint, source }
    }

    /// A failed read.
    pub(crate) fn read(path: &Path, source: io::Error) -> Error {
        Error::Read { path: path.to_owned(), source }
    }
}
