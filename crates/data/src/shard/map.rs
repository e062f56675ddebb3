//! The one unsafe act of this crate: a read-only memory map of a shard file.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;

use crate::Error;

/// Maps the file `path`, which must have `expected` bytes.
pub(super) fn map(path: &Path, expected: u64) -> Result<Mmap, Error> {
    let file = File::open(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Error::MissingShard { path: path.to_owned() },
        _ => Error::read(path, source),
    })?;
    let found = file.metadata().map_err(|source| Error::read(path, source))?.len();
    if found != expected {
        return Err(Error::WrongSize { path: path.to_owned(), expected, found });
    }
    // SAFETY: the map is read-only and only ever seen as bytes, for which every bit pattern is
    // valid. A dataset is renamed into place whole and never written afterwards, so this program
    // does not change the file below the map; should another process cut it short while it is
    // mapped, the operating system stops the program (SIGBUS).
    unsafe { Mmap::map(&file) }.map_err(|source| Error::read(path, source))
}
