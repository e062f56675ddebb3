//! Vocabularies on disk: Hugging Face's `tokenizer.json`, and GPT-2's `vocab.json` + `merges.txt`.

mod parse;
mod read_bpe;
mod read_characters;
mod write;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Error, Tokenizer};
use parse::Problem;

/// The pattern by which `tokenizer.json` splits text into characters.
const EVERY_CHARACTER: &str = r"[\s\S]";

impl Tokenizer {
    /// Reads a `tokenizer.json`, or a folder that holds one, or `vocab.json` and `merges.txt`.
    ///
    /// Byte-level BPE with the pattern of GPT-2 is understood, and the character vocabularies that
    /// [`Tokenizer::save`] writes. All added tokens count as special tokens.
    ///
    /// # Errors
    /// If the file cannot be read, contradicts itself (ids with gaps, merges of unknown tokens, ...)
    /// or needs something else, which the error names.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        if !path.is_dir() {
            return parse::tokenizer(&read(path)?).map_err(|problem| problem.of(path));
        }
        let file = path.join("tokenizer.json");
        if file.exists() {
            return Self::from_file(&file);
        }
        let (vocab, merges) = (path.join("vocab.json"), path.join("merges.txt"));
        if vocab.exists() && merges.exists() {
            return Self::from_vocab_and_merges(&vocab, &merges);
        }
        Err(Error::NoTokenizerInFolder { path: path.to_path_buf() })
    }

    /// Reads the two files of GPT-2.
    ///
    /// Entries of the vocabulary that are neither a byte nor the result of a merge are special
    /// tokens: of GPT-2's, that is `<|endoftext|>`.
    ///
    /// # Errors
    /// As [`Tokenizer::from_file`].
    pub fn from_vocab_and_merges(vocab_json: &Path, merges_txt: &Path) -> Result<Self, Error> {
        let (vocab, merges) = (read(vocab_json)?, read(merges_txt)?);
        let merges = read_bpe::merges_of_lines(&merges).map_err(|problem| problem.of(merges_txt))?;
        read_bpe::vocab_and_merges(&vocab, &merges).map_err(|problem| problem.of(vocab_json))
    }

    /// Writes a `tokenizer.json` that Hugging Face's `tokenizers` loads and encodes with
    /// identically; [`Tokenizer::from_file`] gives back an equal vocabulary.
    ///
    /// A byte vocabulary is written as BPE without merges. A character vocabulary is written as
    /// WordLevel over single characters, and like [`Tokenizer::try_encode`] `tokenizers` refuses
    /// text with other characters.
    ///
    /// The file appears whole or not at all; one that existed is replaced.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let text = format!("{:#}\n", write::tokenizer_json(self));
        write::atomically(path, text.as_bytes()).map_err(|source| Error::Write { path: path.to_path_buf(), source })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Read { path: path.to_path_buf(), source })
}

impl Problem {
    fn of(self, path: &Path) -> Error {
        let path = PathBuf::from(path);
        match self {
            Self::Json(source) => Error::Json { path, source },
            Self::Unsupported { part, found } => Error::Unsupported { path, part, found },
            Self::Invalid(reason) => Error::Invalid { path, reason },
            Self::Other(error) => error,
        }
    }
}
