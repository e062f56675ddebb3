//! Text files as a stream of documents, one in memory at a time.
//!
//! Formats go by extension: `.txt` is one document (or several, cut at a separator), `.jsonl` has one JSON object with a
//! string `text` per line, either may be followed by `.zst` or `.gz`; `.parquet` has a column `text`. The path `-` is
//! standard input.

mod inputs;
mod reader;
mod parquet;
mod parts;
mod read_ahead;
#[cfg(test)]
mod tests;

pub use inputs::{expand, inputs_key};
pub use parts::{Part, Parts, read_parts};
pub use read_ahead::{ReadAhead, read_ahead};
pub use reader::{TextReader, open_text};

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;
use serde::de::{Deserializer, Visitor};

use self::parquet::ParquetInput;
use crate::Error;
use reader::{Input, Layout, checked_len, format_of};

/// The separator between documents of a text file that the field uses.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// One piece of text that was written as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// UTF-8, unless raw bytes were asked for. Never empty.
    pub text: Vec<u8>,
    /// Where it came from.
    pub source: Source,
    /// Bytes of the input files, as they lie on disk, that were consumed to get here.
    pub input_bytes: u64,
}

/// The place of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file, shared by its documents.
    pub path: Arc<PathBuf>,
    /// The line on which it starts, from 1.
    pub line: u64,
}

/// How to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// Accept bytes that are not UTF-8.
    pub raw_bytes: bool,
    /// Cut `.txt` files at this string, which belongs to no document; usually [`END_OF_TEXT`].
    pub separator: Option<String>,
    /// What standard input holds; compression is found out.
    pub stdin_format: StdinFormat,
    /// A longer line (`.jsonl`) or document (`.txt`) is an error: it would have to fit in memory.
    pub max_document_bytes: u64,
}

impl Default for ReadOptions {
    fn default() -> ReadOptions {
        ReadOptions { raw_bytes: false, separator: None, stdin_format: StdinFormat::Text, max_document_bytes: 1 << 30 }
    }
}

/// What standard input holds, which has no extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StdinFormat {
    /// One document, or several cut at a separator.
    Text,
    /// A JSON object with a string `text` per line.
    JsonLines,
}

/// Whether a path stands for standard input.
pub fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// The bytes that the files have on disk together, for a progress bar over
/// [`Document::input_bytes`]; standard input counts as 0.
///
/// **Errors**: a path is missing, empty, not a file, or of no known format.
pub fn total_bytes(paths: &[PathBuf]) -> Result<u64, Error> {
    if paths.is_empty() {
        return Err(Error::NoInput);
    }
    paths.iter().map(|path| checked_len(path)).sum()
}

/// The documents of `paths`, in order.
///
/// **Errors**: as [`total_bytes`], for all paths before the first is read. The iterator yields what
/// else is wrong with a file, and ends after its first error.
pub fn read_documents(paths: &[PathBuf], options: ReadOptions) -> Result<Documents, Error> {
    total_bytes(paths)?;
    Ok(Documents {
        options,
        paths: paths.iter().cloned().collect(),
        input: None,
        bytes_read: Arc::new(AtomicU64::new(0)),
        n_documents: 0,
        n_empty: 0,
        n_documents_of_file: 0,
        n_empty_of_file: 0,
    })
}

/// The file that is being read.
enum Open {
    Bytes(Input),
    Rows(Box<ParquetInput>),
}

impl Open {
    fn path(&self) -> &Arc<PathBuf> {
        match self {
            Open::Bytes(input) => &input.path,
            Open::Rows(input) => &input.path,
        }
    }
}

/// Iterator over the documents of some files; see [`read_documents`].
pub struct Documents {
    options: ReadOptions,
    paths: VecDeque<PathBuf>,
    input: Option<Open>,
    bytes_read: Arc<AtomicU64>,
    n_documents: u64,
    n_empty: u64,
    n_documents_of_file: u64,
    n_empty_of_file: u64,
}

impl Documents {
    /// Bytes taken from the disk so far, out of [`total_bytes`].
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// Documents yielded so far.
    pub fn n_documents(&self) -> u64 {
        self.n_documents
    }

    /// Documents without a byte of text, which are skipped.
    pub fn n_empty(&self) -> u64 {
        self.n_empty
    }

    fn next_document(&mut self) -> Result<Option<Document>, Error> {
        loop {
            let Some(input) = &mut self.input else {
                if !self.open_next()? {
                    return Ok(None);
                }
                continue;
            };
            let (line, piece) = match input {
                Open::Bytes(input) => (input.line, next_piece(input, &self.options)?),
                Open::Rows(input) => {
                    let text = next_row(input, &self.options)?;
                    (input.row, text.map(Piece::Text))
                }
            };
            let source = Source { path: Arc::clone(input.path()), line };
            match piece {
                None => self.close()?,
                Some(Piece::Blank) => {}
                Some(Piece::Text(text)) => {
                    if self.note(text.is_empty()) {
                        return Ok(Some(Document { text, source, input_bytes: self.bytes_read() }));
                    }
                }
            }
        }
    }

    /// Opens the next file; `false` if there is none.
    fn open_next(&mut self) -> Result<bool, Error> {
        let Some(path) = self.paths.pop_front() else { return Ok(false) };
        let is_parquet = !is_stdin(&path) && format_of(&path)?.0 == Layout::Parquet;
        self.input = Some(match is_parquet {
            true => Open::Rows(Box::new(ParquetInput::open(&path, &self.bytes_read)?)),
            false => Open::Bytes(Input::open(&path, &self.options, &self.bytes_read)?),
        });
        (self.n_documents_of_file, self.n_empty_of_file) = (0, 0);
        Ok(true)
    }

    /// Leaves the file, all of which is read.
    fn close(&mut self) -> Result<(), Error> {
        let Some(input) = self.input.take() else { return Ok(()) };
        match self.n_documents_of_file {
            0 => Err(Error::NoDocuments { path: input.path().to_path_buf(), n_empty: self.n_empty_of_file }),
            _ => Ok(()),
        }
    }

    /// Counts a document; says whether it is to be yielded.
    fn note(&mut self, is_empty: bool) -> bool {
        match is_empty {
            true => {
                self.n_empty += 1;
                self.n_empty_of_file += 1;
            }
            false => {
                self.n_documents += 1;
                self.n_documents_of_file += 1;
            }
        }
        !is_empty
    }
}

impl Iterator for Documents {
    type Item = Result<Document, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let document = self.next_document().transpose();
        if matches!(document, Some(Err(_))) {
            self.input = None;
            self.paths.clear();
        }
        document
    }
}

enum Piece {
    Text(Vec<u8>),
    /// A line of white space between JSON lines.
    Blank,
}

fn next_piece(input: &mut Input, options: &ReadOptions) -> Result<Option<Piece>, Error> {
    match input.layout {
        Layout::JsonLines => next_json_line(input, options),
        Layout::Text | Layout::Parquet => next_text(input, options),
    }
}

fn next_row(input: &mut ParquetInput, options: &ReadOptions) -> Result<Option<Vec<u8>>, Error> {
    let Some(text) = input.next()? else { return Ok(None) };
    let (path, line) = (&input.path, input.row);
    if text.len() as u64 > options.max_document_bytes {
        return Err(Error::TooLong { path: path.to_path_buf(), line, max_bytes: options.max_document_bytes });
    }
    match std::str::from_utf8(&text) {
        Err(error) if !options.raw_bytes => {
            let (path, offset) = (path.to_path_buf(), error.valid_up_to() as u64);
            Err(Error::InvalidUtf8 { path, line, offset, compressed: true })
        }
        _ => Ok(Some(text)),
    }
}

/// The text up to the next separator, or all of it.
fn next_text(input: &mut Input, options: &ReadOptions) -> Result<Option<Piece>, Error> {
    let (line, offset) = (input.line, input.offset);
    let separator = options.separator.as_deref().unwrap_or_default().as_bytes();
    let mut text = Vec::new();
    let mut n_read = 0;
    let mut at_separator = false;
    while !at_separator {
        match input.read_until(separator.last().copied(), options.max_document_bytes, &mut text)? {
            0 => break,
            n => n_read += n,
        }
        check_length(input, line, text.len(), options)?;
        at_separator = !separator.is_empty() && text.ends_with(separator);
    }
    if n_read == 0 {
        return Ok(None);
    }
    input.line += count_newlines(&text);
    if at_separator {
        text.truncate(text.len() - separator.len());
    }
    if !options.raw_bytes {
        check_utf8(input, line, offset, &text)?;
    }
    Ok(Some(Piece::Text(text)))
}

/// The field `text` of the next line.
fn next_json_line(input: &mut Input, options: &ReadOptions) -> Result<Option<Piece>, Error> {
    let (line, offset) = (input.line, input.offset);
    let mut json = Vec::new();
    if input.read_until(Some(b'\n'), options.max_document_bytes, &mut json)? == 0 {
        return Ok(None);
    }
    check_length(input, line, json.len(), options)?;
    input.line += 1;
    if json.trim_ascii().is_empty() {
        return Ok(Some(Piece::Blank));
    }
    let text = if options.raw_bytes {
        serde_json::from_slice::<Row<RawText>>(&json).map(|row| row.text.0)
    } else {
        check_utf8(input, line, offset, &json)?;
        serde_json::from_slice::<Row<String>>(&json).map(|row| row.text.into_bytes())
    };
    text.map(|text| Some(Piece::Text(text))).map_err(|error| json_error(input, line, &error))
}

fn check_length(input: &Input, line: u64, len: usize, options: &ReadOptions) -> Result<(), Error> {
    let max_bytes = options.max_document_bytes;
    match len as u64 > max_bytes {
        true => Err(Error::TooLong { path: input.path.to_path_buf(), line, max_bytes }),
        false => Ok(()),
    }
}

fn check_utf8(input: &Input, first_line: u64, first_offset: u64, text: &[u8]) -> Result<(), Error> {
    match std::str::from_utf8(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::InvalidUtf8 {
            path: input.path.to_path_buf(),
            line: first_line + count_newlines(&text[..error.valid_up_to()]),
            offset: first_offset + error.valid_up_to() as u64,
            compressed: input.compressed,
        }),
    }
}

fn count_newlines(text: &[u8]) -> u64 {
    text.iter().filter(|&&byte| byte == b'\n').count() as u64
}

fn json_error(input: &Input, line: u64, error: &serde_json::Error) -> Error {
    let path = input.path.to_path_buf();
    let words = error.to_string();
    // serde_json counts from the start of this line: its line number would mislead.
    let reason = words.rsplit_once(" at line ").map_or(words.as_str(), |(reason, _)| reason).to_owned();
    match error.is_data() {
        true => Error::MissingText { path, line, reason },
        false => Error::MalformedJson { path, line, column: error.column(), reason },
    }
}

#[derive(Deserialize)]
struct Row<T> {
    text: T,
}

/// A JSON string whose bytes need not be UTF-8.
struct RawText(Vec<u8>);

impl<'de> Deserialize<'de> for RawText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawText, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = RawText;
            fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
                formatter.write_str("a string")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<RawText, E> {
                Ok(RawText(bytes.to_owned()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}
