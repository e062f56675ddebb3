//! Opening an input file: format by extension, a count of the bytes consumed, and decompression with its errors told
//! apart.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

use super::{ReadOptions, StdinFormat, is_stdin};
use crate::Error;

/// zstd's own default limit: 128 MiB of window memory, whatever a frame header asks for.
const MAX_WINDOW_LOG: u32 = 27;
const BUFFER_BYTES: usize = 1 << 20;

/// How the bytes of a file are cut into documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Text,
    JsonLines,
    Parquet,
}

/// How a file is compressed as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// The layout and the compression by the file's name; what is no other format is text, such as `README.md`.
pub(super) fn format_of(path: &Path) -> Result<(Layout, Compression), Error> {
    let as_text = || {
        let (stem, compression) = stem_and_compression(path);
        let is_structured = [".json", ".csv", ".tsv", ".parquet"].iter().any(|extension| stem.ends_with(extension));
        (!is_structured).then_some((Layout::Text, compression))
    };
    known_format(path).or_else(as_text).ok_or_else(|| Error::UnknownFormat { path: path.to_owned() })
}

/// The same if the name says what it is: what is taken from a folder.
pub(super) fn known_format(path: &Path) -> Option<(Layout, Compression)> {
    let (stem, compression) = stem_and_compression(path);
    match stem {
        _ if stem.ends_with(".txt") => Some((Layout::Text, compression)),
        _ if stem.ends_with(".jsonl") => Some((Layout::JsonLines, compression)),
        _ if stem.ends_with(".parquet") && compression == Compression::None => Some((Layout::Parquet, compression)),
        _ => None,
    }
}

/// The name in small letters without what says that it is compressed, and that.
fn stem_and_compression(path: &Path) -> (String, Compression) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    match name.rsplit_once('.') {
        Some((stem, "zst")) => (stem.to_owned(), Compression::Zstd),
        Some((stem, "gz")) => (stem.to_owned(), Compression::Gzip),
        _ => (name, Compression::None),
    }
}

/// The size of an input file on disk, after the checks that need no reading; 0 for standard input.
pub(super) fn checked_len(path: &Path) -> Result<u64, Error> {
    if is_stdin(path) {
        return Ok(0);
    }
    let len = regular_len(path)?;
    format_of(path)?;
    match len {
        0 => Err(Error::EmptyFile { path: path.to_owned() }),
        len => Ok(len),
    }
}

fn regular_len(path: &Path) -> Result<u64, Error> {
    let metadata = std::fs::metadata(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Error::MissingFile { path: path.to_owned() },
        _ => Error::read(path, source),
    })?;
    match metadata.is_file() {
        true => Ok(metadata.len()),
        false => Err(Error::NotAFile { path: path.to_owned() }),
    }
}

/// One input file as a stream of text bytes that knows where it is.
pub(super) struct Input {
    pub(super) path: Arc<PathBuf>,
    pub(super) layout: Layout,
    pub(super) compressed: bool,
    /// Line of the next byte, from 1.
    pub(super) line: u64,
    /// Offset of the next byte, in the decompressed text.
    pub(super) offset: u64,
    bytes: Box<dyn BufRead + Send>,
}

impl Input {
    /// Opens `path`; every byte taken from the disk is added to `bytes_read`.
    pub(super) fn open(path: &Path, options: &ReadOptions, bytes_read: &Arc<AtomicU64>) -> Result<Input, Error> {
        let failed = |source| Error::read(path, source);
        let (source, layout, compression): (Box<dyn Read + Send>, _, _) = match is_stdin(path) {
            true => {
                let layout = match options.stdin_format {
                    StdinFormat::Text => Layout::Text,
                    StdinFormat::JsonLines => Layout::JsonLines,
                };
                (Box::new(io::stdin()), layout, None)
            }
            false => {
                let (layout, compression) = format_of(path)?;
                (Box::new(File::open(path).map_err(failed)?), layout, Some(compression))
            }
        };
        Input::new(path, source, layout, compression, bytes_read)
    }

    /// Reads `source`, compressed as told or as its first bytes say.
    fn new(
        path: &Path,
        source: Box<dyn Read + Send>,
        layout: Layout,
        compression: Option<Compression>,
        bytes_read: &Arc<AtomicU64>,
    ) -> Result<Input, Error> {
        let failed = |source| Error::read(path, source);
        let counted = Counted { source, bytes_read: Arc::clone(bytes_read) };
        let mut file = BufReader::with_capacity(BUFFER_BYTES, counted);
        let compression = match compression {
            Some(compression) => compression,
            None => sniff(file.fill_buf().map_err(failed)?),
        };
        let bytes: Box<dyn BufRead + Send> = match compression {
            Compression::None => Box::new(file),
            Compression::Gzip => Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(file))),
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(file).map_err(failed)?;
                decoder.window_log_max(MAX_WINDOW_LOG).map_err(failed)?;
                Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder))
            }
        };
        let compressed = compression != Compression::None;
        Ok(Input { path: Arc::new(path.to_owned()), layout, compressed, line: 1, offset: 0, bytes })
    }

    /// Appends bytes to `out` up to and including `end` (the whole rest without one, or where `out`
    /// exceeds `max_bytes`), and returns how many.
    pub(super) fn read_until(&mut self, end: Option<u8>, max_bytes: u64, out: &mut Vec<u8>) -> Result<usize, Error> {
        let room = max_bytes.saturating_add(1).saturating_sub(out.len() as u64);
        self.read_up_to(end, room, out)
    }

    /// Appends up to `n` bytes to `out`, or up to and including `end`, and returns how many.
    pub(super) fn read_up_to(&mut self, end: Option<u8>, n: u64, out: &mut Vec<u8>) -> Result<usize, Error> {
        let before = out.len();
        let mut limited = (&mut self.bytes).take(n);
        let result = match end {
            Some(end) => limited.read_until(end, out),
            None => limited.read_to_end(out),
        };
        self.offset += (out.len() - before) as u64;
        result.map_err(|source| self.read_error(source))
    }

    fn read_error(&self, source: io::Error) -> Error {
        let path = self.path.to_path_buf();
        match (self.compressed, source.kind()) {
            (false, _) => Error::Read { path, source },
            (true, io::ErrorKind::UnexpectedEof) => Error::Truncated { path, n_bytes: self.offset },
            (true, _) => Error::Decompress { path, n_bytes: self.offset, source },
        }
    }
}

/// A whole file as one text, whatever its name; `.zst` and `.gz` are decompressed.
///
/// # Errors
/// If it is missing, empty or no regular file, or cannot be opened.
pub fn open_text(path: &Path) -> Result<TextReader, Error> {
    if regular_len(path)? == 0 {
        return Err(Error::EmptyFile { path: path.to_owned() });
    }
    let (_, compression) = stem_and_compression(path);
    let source = Box::new(File::open(path).map_err(|source| Error::read(path, source))?);
    Ok(TextReader(Input::new(path, source, Layout::Text, Some(compression), &Arc::default())?))
}

/// The bytes of [`open_text`]. Where reading fails, the error is [`Error`] within that of the standard library.
pub struct TextReader(Input);

impl Read for TextReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.0.bytes.read(buffer).map_err(|source| io::Error::other(self.0.read_error(source)))?;
        self.0.offset += n as u64;
        Ok(n)
    }
}

/// The compression by the first bytes, where there is no name.
fn sniff(bytes: &[u8]) -> Compression {
    match bytes {
        [0x1F, 0x8B, ..] => Compression::Gzip,
        [0x28, 0xB5, 0x2F, 0xFD, ..] => Compression::Zstd,
        _ => Compression::None,
    }
}

/// A source that counts what was read of it.
struct Counted {
    source: Box<dyn Read + Send>,
    bytes_read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(buffer)?;
        self.bytes_read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}
