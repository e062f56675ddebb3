//! Counts on disk: runs of pre-tokens in one order, and merging them.
//!
//! A run is a sequence of: length, bytes, count; numbers in 7-bit groups, the lowest first. The order
//! is that of [`Table::drain_sorted`]: by length, then by bytes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use super::table::Table;
use crate::Error;

/// What is read or written at a time. All runs of one merge have a buffer of this size.
const BUFFER_BYTES: usize = 1 << 16;
/// So many runs are merged at once; more are merged into fewer before.
pub(super) const MAX_RUNS: usize = 64;

/// Writes a run.
pub(super) struct RunWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl RunWriter {
    pub(super) fn create(path: PathBuf) -> Result<Self, Error> {
        let file = File::create(&path).map_err(|source| Error::work("write", &path, source))?;
        Ok(Self { path, file: BufWriter::with_capacity(BUFFER_BYTES, file) })
    }

    pub(super) fn push(&mut self, word: &[u8], count: u64) -> Result<(), Error> {
        let written = write_number(&mut self.file, word.len() as u64)
            .and_then(|()| self.file.write_all(word))
            .and_then(|()| write_number(&mut self.file, count));
        written.map_err(|source| Error::work("write", &self.path, source))
    }

    /// Flushes and syncs.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        synced.map_err(|source| Error::work("write", &self.path, source))
    }
}

/// Writes all that `table` holds, and empties it.
pub(super) fn write_run(table: &mut Table, path: PathBuf) -> Result<(), Error> {
    let mut run = RunWriter::create(path)?;
    table.drain_sorted(|word, count| run.push(word, count))?;
    run.finish()
}

/// Reads a run.
struct RunReader {
    path: PathBuf,
    file: BufReader<File>,
}

impl RunReader {
    fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|source| Error::work("read", path, source))?;
        Ok(Self { path: path.to_owned(), file: BufReader::with_capacity(BUFFER_BYTES, file) })
    }

    /// The next pre-token replaces `word`; `None` at the end.
    fn next(&mut self, word: &mut Vec<u8>) -> Result<Option<u64>, Error> {
        let read = self.try_next(word);
        read.map_err(|source| Error::work("read", &self.path, source))
    }

    fn try_next(&mut self, word: &mut Vec<u8>) -> io::Result<Option<u64>> {
        if self.file.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let len = read_number(&mut self.file)?;
        word.clear();
        if (&mut self.file).take(len).read_to_end(word)? as u64 != len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        read_number(&mut self.file).map(Some)
    }
}

/// Calls `each` with every pre-token of the runs and the sum of its counts, in their order.
pub(super) fn merge_runs(
    paths: &[PathBuf],
    mut each: impl FnMut(&[u8], u64) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut runs = paths.iter().map(|path| RunReader::open(path)).collect::<Result<Vec<_>, _>>()?;
    let mut heads = BinaryHeap::with_capacity(runs.len());
    for (i, run) in runs.iter_mut().enumerate() {
        let mut word = Vec::new();
        if let Some(count) = run.next(&mut word)? {
            heads.push(Reverse((word.len(), word, i, count)));
        }
    }
    let mut current: Option<(Vec<u8>, u64)> = None;
    while let Some(Reverse((_, word, i, count))) = heads.pop() {
        let mut spare = match &mut current {
            Some((same, sum)) if *same == word => {
                *sum += count;
                word
            }
            _ => match current.replace((word, count)) {
                Some((before, sum)) => {
                    each(&before, sum)?;
                    before
                }
                None => Vec::new(),
            },
        };
        if let Some(count) = runs[i].next(&mut spare)? {
            heads.push(Reverse((spare.len(), spare, i, count)));
        }
    }
    current.map_or(Ok(()), |(word, sum)| each(&word, sum))
}

/// Writes a number in groups of 7 bits.
pub(super) fn write_number(out: &mut impl Write, mut number: u64) -> io::Result<()> {
    let mut bytes = [0; 10];
    let mut n = 0;
    loop {
        bytes[n] = number as u8 & 0x7F | if number > 0x7F { 0x80 } else { 0 };
        n += 1;
        number >>= 7;
        if number == 0 {
            return out.write_all(&bytes[..n]);
        }
    }
}

/// Reads a number in groups of 7 bits.
pub(super) fn read_number(input: &mut impl Read) -> io::Result<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        input.read_exact(&mut byte)?;
        number |= u64::from(byte[0] & 0x7F) << shift;
        if byte[0] < 0x80 {
            return Ok(number);
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "a number of more than 64 bits"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn merged_runs_hold_the_sums_of_their_counts(
            runs in prop::collection::vec(prop::collection::vec("[ab]{1,3}|[ab]{15,18}", 0..200), 0..5),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let mut expected: BTreeMap<(usize, String), u64> = BTreeMap::new();
            let mut paths = Vec::new();
            for (i, words) in runs.iter().enumerate() {
                let mut table = Table::new(usize::MAX);
                for word in words {
                    table.add(word.as_bytes(), 0, word.len(), 1 << 40).unwrap();
                    *expected.entry((word.len(), word.clone())).or_default() += 1 << 40;
                }
                paths.push(folder.path().join(i.to_string()));
                write_run(&mut table, paths[i].clone()).unwrap();
            }
            let mut merged = Vec::new();
            merge_runs(&paths, |word, count| {
                merged.push(((word.len(), String::from_utf8(word.to_vec()).unwrap()), count));
                Ok(())
            }).unwrap();
            prop_assert_eq!(merged, expected.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn numbers_come_back(number: u64, shift in 0_u32..64) {
            let mut bytes = Vec::new();
            write_number(&mut bytes, number >> shift).unwrap();
            prop_assert_eq!(read_number(&mut &bytes[..]).unwrap(), number >> shift);
        }
    }

    #[test]
    fn a_run_that_is_cut_short_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        std::fs::write(&path, b"\x05abc").unwrap();
        assert!(merge_runs(&[path], |_, _| Ok(())).is_err());
        assert!(read_number(&mut &[0xFF; 11][..]).is_err());
    }
}
