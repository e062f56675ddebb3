//! Opening an input file: format by extension, a count of the bytes consumed, and zstd with its
//! errors told apart.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Error;

/// zstd's own default limit: 128 MiB of window memory, whatever a frame header asks for.
const MAX_WINDOW_LOG: u32 = 27;
const BUFFER_BYTES: usize = 1 << 20;

/// How the bytes of a file are cut into documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Text,
    JsonLines,
}

/// The layout and whether it is compressed, by the file's name.
pub(super) fn format_of(path: &Path) -> Result<(Layout, bool), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let (stem, compressed) = match name.strip_suffix(".zst") {
        Some(stem) => (stem, true),
        None => (name.as_str(), false),
    };
    match stem {
        _ if stem.ends_with(".txt") => Ok((Layout::Text, compressed)),
        _ if stem.ends_with(".jsonl") => Ok((Layout::JsonLines, compressed)),
        _ => Err(Error::UnknownFormat { path: path.to_owned() }),
    }
}

/// The size of an input file on disk, after the checks that need no reading.
pub(super) fn checked_len(path: &Path) -> Result<u64, Error> {
    let metadata = std::fs::metadata(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Error::MissingFile { path: path.to_owned() },
        _ => Error::read(path, source),
    })?;
    if !metadata.is_file() {
        return Err(Error::NotAFile { path: path.to_owned() });
    }
    format_of(path)?;
    match metadata.len() {
        0 => Err(Error::EmptyFile { path: path.to_owned() }),
        len => Ok(len),
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
    pub(super) fn open(path: &Path, bytes_read: &Arc<AtomicU64>) -> Result<Input, Error> {
        let (layout, compressed) = format_of(path)?;
        let file = File::open(path).map_err(|source| Error::read(path, source))?;
        let file = BufReader::with_capacity(BUFFER_BYTES, Counted { file, bytes_read: Arc::clone(bytes_read) });
        let bytes: Box<dyn BufRead + Send> = match compressed {
            false => Box::new(file),
            true => {
                let mut decoder = zstd::Decoder::with_buffer(file).map_err(|source| Error::read(path, source))?;
                decoder.window_log_max(MAX_WINDOW_LOG).map_err(|source| Error::read(path, source))?;
                Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder))
            }
        };
        Ok(Input { path: Arc::new(path.to_owned()), layout, compressed, line: 1, offset: 0, bytes })
    }

    /// Appends bytes to `out` up to and including `end` (the whole rest without one, or where `out`
    /// exceeds `max_bytes`), and returns how many.
    pub(super) fn read_until(&mut self, end: Option<u8>, max_bytes: u64, out: &mut Vec<u8>) -> Result<usize, Error> {
        let room = max_bytes.saturating_add(1).saturating_sub(out.len() as u64);
        let before = out.len();
        let mut limited = (&mut self.bytes).take(room);
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
            (true, io::ErrorKind::UnexpectedEof) => Error::TruncatedZstd { path, n_bytes: self.offset },
            (true, _) => Error::Decompress { path, n_bytes: self.offset, source },
        }
    }
}

/// A file that counts what was read of it.
struct Counted {
    file: File,
    bytes_read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.bytes_read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}
