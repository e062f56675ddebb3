//! Vocabularies on disk: Hugging Face's `tokenizer.json`, SentencePiece's `.model`, tiktoken's ranks, and
//! GPT-2's `vocab.json` + `merges.txt`.

mod parse;
mod read_bpe;
mod read_characters;
mod read_unigram;
mod read_wordpiece;
mod protobuf;
mod sentencepiece;
mod tiktoken;
mod write;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Error, Tokenizer};
use parse::Problem;
pub(crate) use sentencepiece::SentencePieceModel;
pub use tiktoken::TiktokenEncoding;

/// The pattern by which `tokenizer.json` splits text into characters.
const EVERY_CHARACTER: &str = r"[\s\S]";

impl Tokenizer {
    /// Reads a vocabulary of any kind of file: `tokenizer.json`, SentencePiece's `.model`, tiktoken's
    /// `.tiktoken` (whose name must say its encoding, as `cl100k_base.tiktoken`), or a folder that holds
    /// `tokenizer.json`, `vocab.json` and `merges.txt`, `tokenizer.model` or `spiece.model`.
    ///
    /// `truncation` and `padding` of a `tokenizer.json` are not read: they make batches, not ids.
    ///
    /// # Errors
    /// If the file cannot be read, contradicts itself (two tokens with one id, merges of unknown
    /// tokens, ...) or needs something that is not supported, which the error names.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        if path.is_dir() {
            return Self::from_folder(path);
        }
        let bytes = read(path)?;
        let extension = path.extension().and_then(|extension| extension.to_str());
        let is_ranks = extension == Some("tiktoken") || extension == Some("model") && looks_like_ranks(&bytes);
        if is_ranks {
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(encoding) = TiktokenEncoding::named(name) else {
                return Err(Error::UnknownEncoding { path: path.to_path_buf() });
            };
            return tiktoken::tokenizer(&bytes, &encoding).map_err(|problem| problem.of(path));
        }
        let tokenizer = match extension {
            Some("model") => sentencepiece::tokenizer(&bytes),
            _ => parse::tokenizer(&bytes),
        };
        tokenizer.map_err(|problem| problem.of(path))
    }

    fn from_folder(folder: &Path) -> Result<Self, Error> {
        let [vocab, merges] = ["vocab.json", "merges.txt"].map(|name| folder.join(name));
        let existing = |name: &str| Some(folder.join(name)).filter(|path| path.exists());
        if let Some(file) = existing("tokenizer.json") {
            return Self::from_file(&file);
        }
        if vocab.exists() && merges.exists() {
            return Self::from_vocab_and_merges(&vocab, &merges);
        }
        match ["tokenizer.model", "spiece.model"].into_iter().find_map(existing) {
            Some(file) => Self::from_file(&file),
            None => Err(Error::NoTokenizerInFolder { path: folder.to_path_buf() }),
        }
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

    /// Reads a rank file of tiktoken.
    ///
    /// # Errors
    /// As [`Tokenizer::from_file`].
    pub fn from_tiktoken(path: &Path, encoding: &TiktokenEncoding) -> Result<Self, Error> {
        tiktoken::tokenizer(&read(path)?, encoding).map_err(|problem| problem.of(path))
    }

    /// Reads a vocabulary of the bytes of a file: of a `tokenizer.json`, of a `.model`, or of ranks if
    /// `encoding` is given. The errors name the file `name`.
    ///
    /// # Errors
    /// As [`Tokenizer::from_file`].
    pub fn from_bytes(bytes: &[u8], name: &Path, encoding: Option<&TiktokenEncoding>) -> Result<Self, Error> {
        let is_json = bytes.trim_ascii_start().starts_with(b"{");
        let tokenizer = match encoding {
            Some(encoding) => tiktoken::tokenizer(bytes, encoding),
            None if is_json => parse::tokenizer(bytes),
            None => sentencepiece::tokenizer(bytes),
        };
        tokenizer.map_err(|problem| problem.of(name))
    }

    /// Writes the vocabulary in the format that the name asks for: SentencePiece's for `.model`,
    /// tiktoken's for `.tiktoken`, and for any other a `tokenizer.json` that Hugging Face's `tokenizers`
    /// loads and encodes with identically; [`Tokenizer::from_file`] gives back an equal vocabulary.
    ///
    /// A byte vocabulary is written as BPE without merges. A character vocabulary is written as
    /// WordLevel over single characters, and like [`Tokenizer::try_encode`] `tokenizers` refuses
    /// text with other characters. A SentencePiece model becomes a `tokenizer.json` as Hugging Face
    /// converts it: its ids are SentencePiece's but for rare sequences of combining characters, the names
    /// of tokens of bytes in text, text behind symbols that the user has defined, and ties that rounding
    /// decides.
    ///
    /// The file appears whole or not at all; one that existed is replaced.
    ///
    /// # Errors
    /// If the file cannot be written, or the format cannot hold the vocabulary.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let content = match path.extension().and_then(|extension| extension.to_str()) {
            Some("model") => match &self.sentencepiece {
                Some(model) => model.to_bytes(),
                None => {
                    let reason = "it was not read from one".to_string();
                    return Err(Error::Format { format: "a SentencePiece model", reason });
                }
            },
            Some("tiktoken") => tiktoken::written(self)?.into_bytes(),
            _ => format!("{:#}\n", self.to_json()).into_bytes(),
        };
        write_file(path, &content)
    }

    /// Writes `vocab.json` and `merges.txt` of byte-level BPE into a folder, as GPT-2 has them.
    ///
    /// What else the vocabulary has (another pattern, a normaliser, flags of added tokens) is not in
    /// these files.
    ///
    /// # Errors
    /// If the files cannot be written, or the vocabulary is none over bytes.
    pub fn save_vocab_and_merges(&self, folder: &Path) -> Result<(), Error> {
        let (vocab, merges) = write::vocab_and_merges(self)?;
        write_file(&folder.join("vocab.json"), vocab.as_bytes())?;
        write_file(&folder.join("merges.txt"), merges.as_bytes())
    }

    fn to_json(&self) -> serde_json::Value {
        match &self.sentencepiece {
            Some(model) => write::tokenizer_json(&model.to_hugging_face(self)),
            None => write::tokenizer_json(self),
        }
    }
}

/// Whether the first line is a token in Base64 with a number, and not a protocol buffer.
fn looks_like_ranks(bytes: &[u8]) -> bool {
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    line.is_ascii() && line.last().is_some_and(u8::is_ascii_digit) && line.contains(&b' ')
}

fn write_file(path: &Path, content: &[u8]) -> Result<(), Error> {
    write::atomically(path, content).map_err(|source| Error::Write { path: path.to_path_buf(), source })
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
