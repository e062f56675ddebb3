//! Reading a dataset: checks at the door, then tokens by position across shard borders.

use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::index::{Dtype, Index};
use super::map::map;
use super::{checksum, documents_file, tokens_file};
use crate::Error;

/// Up to this many bytes of shards, `open` reads them all (about 0.3 s) to compare checksums.
const MAX_BYTES_VERIFIED_AT_OPEN: u64 = 1 << 30;

/// The tokens of a prepared text, memory-mapped, in the order written.
#[derive(Debug)]
pub struct Dataset {
    path: PathBuf,
    index: Index,
    checksum: String,
    shards: Vec<Shard>,
}

#[derive(Debug)]
struct Shard {
    /// Position of its first token in the dataset.
    start: u64,
    tokens: Mmap,
    document_ends: Mmap,
}

impl Dataset {
    /// Opens the dataset in a folder: checks version, index and the size of every file, and, up to
    /// 1 GiB in all, their content as [`Dataset::verify`] does. Beyond that only `verify` rules out
    /// changed bytes, and with them ids that the vocabulary does not have.
    ///
    /// **Errors**: no dataset there, a malformed index, another version, a file missing, cut short
    /// or changed.
    pub fn open(path: &Path) -> Result<Dataset, Error> {
        let (index, json) = Index::read(path)?;
        let mut start = 0;
        let mut shards = Vec::new();
        for (i, entry) in index.shards.iter().enumerate() {
            let tokens = map(&path.join(tokens_file(i)), entry.n_tokens * index.dtype.n_bytes())?;
            let document_ends = map(&path.join(documents_file(i)), entry.n_documents * size_of::<u64>() as u64)?;
            shards.push(Shard { start, tokens, document_ends });
            start += entry.n_tokens;
        }
        let dataset = Dataset { path: path.to_owned(), index, checksum: checksum(&json), shards };
        let n_bytes: usize = dataset.shards.iter().map(|shard| shard.tokens.len() + shard.document_ends.len()).sum();
        if n_bytes as u64 <= MAX_BYTES_VERIFIED_AT_OPEN {
            dataset.verify()?;
        }
        Ok(dataset)
    }

    /// Reads every byte: checksums, token ids below the vocabulary size, document ends in order.
    ///
    /// **Errors**: the first file that differs from the index or from what a writer produces.
    pub fn verify(&self) -> Result<(), Error> {
        for (i, (entry, shard)) in self.index.shards.iter().zip(&self.shards).enumerate() {
            let tokens_path = self.path.join(tokens_file(i));
            compare_checksum(&tokens_path, &shard.tokens, &entry.xxh3)?;
            let vocab_size = self.index.vocab_size;
            let ids = TokenIds { bytes: &shard.tokens, dtype: self.index.dtype };
            if let Some(token) = ids.iter().find(|&token| token as usize >= vocab_size) {
                let reason = format!("it has token id {token} of a vocabulary of {vocab_size}");
                return Err(Error::InconsistentShard { path: tokens_path, reason });
            }

            let documents_path = self.path.join(documents_file(i));
            compare_checksum(&documents_path, &shard.document_ends, &entry.documents_xxh3)?;
            let mut previous = 0;
            for end in shard.ends() {
                if end < previous || end > entry.n_tokens {
                    let reason = format!("a document ends at {end}, after {previous}, in {} tokens", entry.n_tokens);
                    return Err(Error::InconsistentShard { path: documents_path, reason });
                }
                previous = end;
            }
        }
        Ok(())
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of tokens, end-of-text ids included.
    pub fn n_tokens(&self) -> u64 {
        self.index.n_tokens
    }

    /// Number of documents.
    pub fn n_documents(&self) -> u64 {
        self.index.n_documents
    }

    /// Bytes of the text that the tokens stand for, the denominator of bits per byte.
    pub fn n_text_bytes(&self) -> u64 {
        self.index.n_text_bytes
    }

    /// Every token id is below this.
    pub fn vocab_size(&self) -> usize {
        self.index.vocab_size
    }

    /// How the tokens lie on disk.
    pub fn dtype(&self) -> Dtype {
        self.index.dtype
    }

    /// [`checksum`] of the tokenizer's file, as given when the dataset was prepared.
    pub fn tokenizer_xxh3(&self) -> &str {
        &self.index.tokenizer_xxh3
    }

    /// [`checksum`] of `index.json`, and thereby of the whole dataset: equal for equal datasets
    /// wherever they lie.
    pub fn checksum(&self) -> &str {
        &self.checksum
    }

    /// Fills `out` with the tokens from position `start` on.
    ///
    /// **Panics** if the dataset ends before.
    pub fn copy_tokens(&self, start: u64, out: &mut [u32]) {
        let end = start.checked_add(out.len() as u64);
        assert!(
            end.is_some_and(|end| end <= self.n_tokens()),
            "copy_tokens: {} tokens from {start} on, of {}",
            out.len(),
            self.n_tokens()
        );
        let first = self.shards.partition_point(|shard| shard.start <= start).saturating_sub(1);
        let (mut skip, mut rest) = ((start - self.shards[first].start) as usize, out);
        for shard in &self.shards[first..] {
            let ids = TokenIds { bytes: &shard.tokens, dtype: self.index.dtype };
            let (filled, remaining) = rest.split_at_mut(rest.len().min(ids.len() - skip));
            ids.copy(skip, filled);
            if remaining.is_empty() {
                return;
            }
            (skip, rest) = (0, remaining);
        }
    }

    /// The token range of each document, in order; together they are `0..n_tokens` without gaps.
    pub fn documents(&self) -> impl Iterator<Item = Range<u64>> {
        let ends = self.shards.iter().flat_map(|shard| shard.ends().map(|end| shard.start + end));
        ends.scan(0, |start, end| Some(std::mem::replace(start, end)..end))
    }
}

impl Shard {
    /// Document ends in tokens from the start of the shard.
    fn ends(&self) -> impl Iterator<Item = u64> {
        self.document_ends.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes))
    }
}

/// Token ids as they lie on disk.
#[derive(Clone, Copy)]
struct TokenIds<'a> {
    bytes: &'a [u8],
    dtype: Dtype,
}

impl<'a> TokenIds<'a> {
    fn len(self) -> usize {
        self.bytes.len() / self.dtype.n_bytes() as usize
    }

    fn copy(self, start: usize, out: &mut [u32]) {
        let n_bytes = self.dtype.n_bytes() as usize;
        let bytes = &self.bytes[start * n_bytes..(start + out.len()) * n_bytes];
        match self.dtype {
            Dtype::U16 => {
                out.iter_mut().zip(bytes.as_chunks().0).for_each(|(id, b)| *id = u16::from_le_bytes(*b).into());
            }
            Dtype::U32 => {
                out.iter_mut().zip(bytes.as_chunks().0).for_each(|(id, b)| *id = u32::from_le_bytes(*b));
            }
        }
    }

    fn iter(self) -> Box<dyn Iterator<Item = u32> + 'a> {
        match self.dtype {
            Dtype::U16 => Box::new(self.bytes.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b).into())),
            Dtype::U32 => Box::new(self.bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b))),
        }
    }
}

fn compare_checksum(path: &Path, bytes: &[u8], expected: &str) -> Result<(), Error> {
    let found = checksum(bytes);
    match found == expected {
        true => Ok(()),
        false => Err(Error::WrongChecksum { path: path.to_owned(), expected: expected.to_owned(), found }),
    }
}
