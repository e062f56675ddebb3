//! `index.json`: what a dataset's folder holds, read with suspicion.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{FORMAT_VERSION, INDEX_FILE, tokens_file};
use crate::Error;

/// An index takes about 200 bytes per shard; this is room for 300,000 shards, and no memory bomb.
const MAX_INDEX_BYTES: u64 = 64 << 20;

/// How a token id lies on disk, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// For vocabularies of up to 65,536 ids.
    U16,
    /// For larger ones.
    U32,
}

impl Dtype {
    /// The smallest that holds every id of a vocabulary.
    pub fn for_vocab_size(vocab_size: usize) -> Dtype {
        match vocab_size <= 1 << 16 {
            true => Dtype::U16,
            false => Dtype::U32,
        }
    }

    /// Bytes per token.
    pub fn n_bytes(self) -> u64 {
        match self {
            Dtype::U16 => 2,
            Dtype::U32 => 4,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Index {
    pub(super) format_version: u64,
    pub(super) dtype: Dtype,
    pub(super) vocab_size: usize,
    /// Of the tokenizer's `tokenizer.json`.
    pub(super) tokenizer_xxh3: String,
    pub(super) n_tokens: u64,
    pub(super) n_documents: u64,
    /// Bytes of the text that the tokens stand for.
    pub(super) n_text_bytes: u64,
    pub(super) shards: Vec<ShardEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShardEntry {
    pub(super) file: String,
    pub(super) n_tokens: u64,
    /// Those that end in this shard.
    pub(super) n_documents: u64,
    pub(super) xxh3: String,
    pub(super) documents_xxh3: String,
}

/// What every version of the format has.
#[derive(Deserialize)]
struct Version {
    format_version: u64,
}

impl Index {
    /// Reads and checks the index of the dataset in `folder`; also returns its bytes.
    pub(super) fn read(folder: &Path) -> Result<(Index, Vec<u8>), Error> {
        let path = folder.join(INDEX_FILE);
        let file = File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::NotADataset { path: folder.to_owned() },
            _ => Error::read(&path, source),
        })?;
        let mut json = Vec::new();
        file.take(MAX_INDEX_BYTES + 1).read_to_end(&mut json).map_err(|source| Error::read(&path, source))?;
        if json.len() as u64 > MAX_INDEX_BYTES {
            return Err(contradiction(&path, format!("it has more than {MAX_INDEX_BYTES} bytes")));
        }
        // The version comes first: another version may well have other fields.
        let version: Version = serde_json::from_slice(&json).map_err(|error| malformed(&path, &error))?;
        if version.format_version != FORMAT_VERSION {
            let (found, expected) = (version.format_version, FORMAT_VERSION);
            return Err(Error::UnsupportedVersion { path, found, expected });
        }
        let index: Index = serde_json::from_slice(&json).map_err(|error| malformed(&path, &error))?;
        index.check().map_err(|reason| contradiction(&path, reason))?;
        Ok((index, json))
    }

    fn check(&self) -> Result<(), String> {
        if self.vocab_size == 0 || u32::try_from(self.vocab_size).is_err() {
            return Err(format!("vocab_size is {}", self.vocab_size));
        }
        if self.dtype == Dtype::U16 && Dtype::for_vocab_size(self.vocab_size) == Dtype::U32 {
            return Err(format!("dtype u16 cannot hold a vocabulary of {}", self.vocab_size));
        }
        let (mut n_tokens, mut n_documents) = (0_u64, 0_u64);
        for (i, shard) in self.shards.iter().enumerate() {
            // A name of any other form could point out of the folder.
            if shard.file != tokens_file(i) {
                return Err(format!("shards[{i}].file is `{}`, expected `{}`", shard.file, tokens_file(i)));
            }
            if shard.n_tokens == 0 {
                return Err(format!("shards[{i}] has no tokens"));
            }
            n_tokens = n_tokens.saturating_add(shard.n_tokens);
            n_documents = n_documents.saturating_add(shard.n_documents);
        }
        if (n_tokens, n_documents) != (self.n_tokens, self.n_documents) {
            return Err(format!(
                "n_tokens = {} and n_documents = {}, but the shards add up to {n_tokens} and {n_documents}",
                self.n_tokens, self.n_documents
            ));
        }
        // Far beyond any disk, and small enough that no arithmetic on byte offsets overflows.
        if n_tokens == 0 || n_tokens >= 1 << 58 || n_documents >= 1 << 58 {
            return Err(format!("n_tokens is {n_tokens}, n_documents is {n_documents}"));
        }
        Ok(())
    }
}

fn malformed(path: &Path, error: &serde_json::Error) -> Error {
    let words = error.to_string();
    let reason = words.rsplit_once(" at line ").map_or(words.as_str(), |(reason, _)| reason).to_owned();
    Error::MalformedIndex { path: path.to_owned(), line: error.line(), column: error.column(), reason }
}

fn contradiction(path: &Path, reason: String) -> Error {
    Error::MalformedIndex { path: path.to_owned(), line: 0, column: 0, reason }
}
