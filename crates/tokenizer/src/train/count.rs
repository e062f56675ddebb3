//! Counting pre-tokens in parallel, within a given memory.
//!
//! Text is gathered until there is enough for all threads, then cut where pre-tokens end anyway. Each
//! thread counts in a table of its own; a table that is full is written to disk as a run.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;

use super::TextPart;
use super::spill::{MAX_RUNS, RunWriter, merge_runs, write_run};
use super::table::{Full, Table};
use super::work::{self, Work};
use crate::Error;
use crate::pretokenize::{Ends, Pattern};
use crate::special::{Segment, SpecialTokens};

/// Text is counted once there is so much of it ...
const BATCH_BYTES: usize = 16 << 20;
/// ... or this share of the memory, with as much again for a part that does not fit.
const BATCH_SHARE: u64 = 32;
const MIN_BATCH_BYTES: usize = 1 << 18;
/// What one thread takes at a time.
const PART_BYTES: usize = 1 << 18;
/// What a training needs beside text and tables: the program itself, stacks, buffers of files.
pub(super) const FIXED_BYTES: u64 = 24 << 20;
/// The least memory that a training can keep within.
pub(super) const MIN_MEMORY: u64 = 64 << 20;

/// All counts.
pub(super) enum Counts {
    /// In a table.
    Memory(Box<Table>),
    /// In a run.
    Disk(PathBuf),
}

impl Counts {
    /// Calls `each` with every pre-token and its count.
    pub(super) fn for_each(&self, each: impl FnMut(&[u8], u64) -> Result<(), Error>) -> Result<(), Error> {
        match self {
            Counts::Memory(table) => table.for_each(each),
            Counts::Disk(path) => merge_runs(std::slice::from_ref(path), each),
        }
    }
}

/// How text becomes the words that are counted.
pub(super) trait Splitter: Sync {
    /// Cuts `text` into parts of about `len` bytes whose words, one part after the other, are those of the whole. But for
    /// the last part they do not depend on what follows `text`.
    fn parts<'t>(&self, text: &'t [u8], len: usize) -> Vec<&'t [u8]>;

    /// Calls `each` with texts in which words, some at a time, are given by their ends: the first begins at the start.
    ///
    /// # Errors
    /// Those of `each`, and of the splitter's own.
    fn words(&self, text: &[u8], each: &mut impl FnMut(&[u8], &[u32]) -> Result<(), Error>) -> Result<(), Error>;
}

impl Splitter for Pattern {
    fn parts<'t>(&self, text: &'t [u8], len: usize) -> Vec<&'t [u8]> {
        Pattern::parts(self, text, len)
    }

    fn words(&self, mut text: &[u8], each: &mut impl FnMut(&[u8], &[u32]) -> Result<(), Error>) -> Result<(), Error> {
        if self.is_custom() {
            return self.pretokens(text)?.into_iter().try_for_each(|word| each(word, &[word.len() as u32]));
        }
        let mut ends = Ends::new();
        while !text.is_empty() {
            self.cut(text, &mut ends);
            let ends = ends.as_slice();
            each(text, ends)?;
            text = &text[ends[ends.len() - 1] as usize..];
        }
        Ok(())
    }
}

/// Counts as text comes in.
pub(super) struct Counter<'a, S> {
    splitter: &'a S,
    specials: &'a SpecialTokens,
    /// One per thread.
    tables: Vec<Mutex<Table>>,
    work: Option<&'a mut Work>,
    /// The first of them are of many runs each.
    runs: Mutex<Vec<PathBuf>>,
    n_joined: usize,
    memory_limit: Option<u64>,
    batch_bytes: usize,
    /// Text that is not counted yet, and where documents end in it.
    buffer: Vec<u8>,
    ends: Vec<usize>,
    /// Text is counted once the buffer has so many bytes.
    wanted_bytes: usize,
    /// Bytes counted, special tokens included.
    n_bytes: u64,
    n_bytes_saved: u64,
}

impl<'a, S: Splitter> Counter<'a, S> {
    /// Goes on from what `work` has saved.
    pub(super) fn new(
        splitter: &'a S,
        specials: &'a SpecialTokens,
        memory_limit: Option<u64>,
        work: Option<&'a mut Work>,
    ) -> Self {
        let n_threads = rayon::current_num_threads();
        let (mut batch_bytes, mut table_bytes) = (BATCH_BYTES, usize::MAX);
        if let Some(limit) = memory_limit {
            batch_bytes = ((limit / BATCH_SHARE) as usize).clamp(MIN_BATCH_BYTES, BATCH_BYTES);
            let tables = limit.saturating_sub(FIXED_BYTES + 4 * batch_bytes as u64);
            table_bytes = usize::try_from(tables).unwrap_or(usize::MAX) / n_threads;
        }
        let (runs, n_bytes) = work.as_ref().map_or((Vec::new(), 0), |work| work.saved());
        Self {
            splitter,
            specials,
            tables: (0..n_threads).map(|_| Mutex::new(Table::new(table_bytes))).collect(),
            work,
            runs: Mutex::new(runs),
            n_joined: 0,
            memory_limit,
            batch_bytes,
            buffer: Vec::new(),
            ends: Vec::new(),
            wanted_bytes: batch_bytes,
            n_bytes,
            n_bytes_saved: n_bytes,
        }
    }

    /// Bytes of the text, from its start, that are counted already.
    pub(super) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// Takes in the next part of the text; says whether some text was counted.
    pub(super) fn push(&mut self, part: &TextPart) -> Result<bool, Error> {
        self.buffer.extend_from_slice(&part.text);
        if part.ends_document {
            self.ends.push(self.buffer.len());
        }
        if self.buffer.len() < self.wanted_bytes {
            return Ok(false);
        }
        self.count_buffer()?;
        // A word as long as the buffer leaves most of it: looked at once per doubling, it takes linear time.
        self.wanted_bytes = self.batch_bytes.max(2 * self.buffer.len());
        let Some(checkpoint) = self.work.as_ref().and_then(|work| work.checkpoint()) else { return Ok(true) };
        if self.n_bytes - self.n_bytes_saved >= checkpoint.n_bytes {
            self.spill_all()?;
            self.n_bytes_saved = self.n_bytes;
            let runs = lock(&self.runs).clone();
            self.work.as_mut().expect("asked above").save_counting(&runs, self.n_bytes)?;
        }
        Ok(true)
    }

    /// Counts what is left and gives out all counts.
    pub(super) fn finish(mut self) -> Result<Counts, Error> {
        self.ends.push(self.buffer.len());
        self.count_buffer()?;
        self.buffer = Vec::new();
        let keeps = self.work.as_ref().is_some_and(|work| work.checkpoint().is_some());
        if !keeps && lock(&self.runs).is_empty() && self.join_tables() {
            let table = self.tables.pop().expect("there is a thread").into_inner();
            return Ok(Counts::Memory(Box::new(table.unwrap_or_else(PoisonError::into_inner))));
        }
        self.spill_all()?;
        self.tables.clear();
        let runs = std::mem::take(&mut *lock(&self.runs));
        let Some(work) = self.work else {
            return Err(Error::NoRoomForCounts { limit: self.memory_limit.unwrap_or(0) });
        };
        let words = work.save_words(&runs, |path| {
            let mut words = RunWriter::create(path)?;
            merge_runs(&runs, |word, count| words.push(word, count))?;
            words.finish()
        })?;
        Ok(Counts::Disk(words))
    }

    /// Counts the buffer up to where its last document is complete, or else up to where what follows cannot matter.
    fn count_buffer(&mut self) -> Result<(), Error> {
        let mut jobs = Vec::new();
        let mut start = 0;
        for &end in &self.ends {
            start = self.add_jobs(start..end, true, &mut jobs);
        }
        start = self.add_jobs(start..self.buffer.len(), false, &mut jobs);
        let next = AtomicUsize::new(0);
        self.tables.par_iter().try_for_each(|table| {
            let mut table = lock(table);
            while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.count_part(&self.buffer[job.clone()], &mut table)?;
            }
            Ok(())
        })?;
        self.buffer.drain(..start);
        self.ends.clear();
        self.n_bytes += start as u64;
        let n_runs = lock(&self.runs).len();
        if n_runs - self.n_joined >= MAX_RUNS {
            self.join_runs()?;
        }
        Ok(())
    }

    /// Cuts a range of the buffer into jobs; where the text goes on behind it, the end may be left. Says how far it got.
    fn add_jobs(&self, range: Range<usize>, is_complete: bool, jobs: &mut Vec<Range<usize>>) -> usize {
        let Range { mut start, end } = range;
        // A special token that starts from here on may not be there as a whole.
        let decidable = match is_complete {
            true => end,
            false => end.saturating_sub(self.specials.max_len()).max(start),
        };
        // Special tokens with white space may be cut by the splitter, so they are found before.
        if self.specials.iter().any(|(token, _)| token.contains(char::is_whitespace)) {
            while let Some(found) = self.specials.find(&self.buffer[..end], start, decidable) {
                self.add_parts(start..found.start, true, found.start, jobs);
                start = found.end;
            }
        }
        self.add_parts(start..end, is_complete, decidable, jobs)
    }

    fn add_parts(&self, range: Range<usize>, is_complete: bool, to: usize, jobs: &mut Vec<Range<usize>>) -> usize {
        let Range { mut start, end } = range;
        for part in self.splitter.parts(&self.buffer[start..end], PART_BYTES) {
            let cut = start + part.len();
            if !is_complete && (cut > to || cut == end) {
                break;
            }
            jobs.push(start..cut);
            start = cut;
        }
        start
    }

    fn count_part(&self, part: &[u8], table: &mut Table) -> Result<(), Error> {
        for segment in self.specials.segments(part) {
            let Segment::Text(text) = segment else { continue };
            self.splitter.words(text, &mut |text, ends| {
                let mut rest = (text, ends, 0);
                while let Err((Full, n_added)) = table.add_all(rest.0, rest.1, rest.2) {
                    if table.n_words() == 0 {
                        return Err(self.too_little());
                    }
                    self.spill(table)?;
                    let start = if n_added == 0 { rest.2 } else { rest.1[n_added - 1] };
                    rest = (text, &rest.1[n_added..], start);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn spill(&self, table: &mut Table) -> Result<(), Error> {
        if table.n_words() == 0 {
            return Ok(());
        }
        let path = self.work.as_ref().ok_or_else(|| self.too_little())?.new_run();
        write_run(table, path.clone())?;
        lock(&self.runs).push(path);
        Ok(())
    }

    fn spill_all(&self) -> Result<(), Error> {
        self.tables.par_iter().try_for_each(|table| self.spill(&mut lock(table)))
    }

    fn too_little(&self) -> Error {
        Error::NoRoomForCounts { limit: self.memory_limit.unwrap_or(0) }
    }

    /// Merges runs into one, those of many runs once there are many of these: each word is written again a few times at most.
    fn join_runs(&mut self) -> Result<(), Error> {
        let mut runs = lock(&self.runs);
        let work = self.work.as_mut().expect("there are runs");
        let first = if self.n_joined >= MAX_RUNS { 0 } else { self.n_joined };
        let joined = work.new_run();
        let mut writer = RunWriter::create(joined.clone())?;
        merge_runs(&runs[first..], |word, count| writer.push(word, count))?;
        writer.finish()?;
        // Those that a state names are needed after a kill.
        let (saved, _) = work.saved();
        let gone: Vec<PathBuf> = runs.drain(first..).filter(|run| !saved.contains(run)).collect();
        runs.push(joined);
        self.n_joined = first + 1;
        work::remove(&gone)
    }

    /// Adds all tables to the last, unless there is no room for that.
    fn join_tables(&mut self) -> bool {
        let mut tables: Vec<Table> =
            self.tables.drain(..).map(|table| table.into_inner().unwrap_or_else(PoisonError::into_inner)).collect();
        let n_words = tables.iter().map(Table::n_words).sum();
        let n_bytes: usize = tables.iter().map(Table::memory_bytes).sum();
        let joined_bytes = Table::memory_bytes_of(n_words);
        let has_room = self.memory_limit.is_none_or(|limit| (n_bytes + joined_bytes) as u64 + FIXED_BYTES <= limit);
        if has_room {
            let mut all = tables.pop().expect("there is a thread");
            all.lift_limit();
            for table in tables.drain(..) {
                let added = table.for_each(|word, count| all.add(word, 0, word.len(), count));
                added.expect("a table without a limit is never full");
            }
            tables.push(all);
        }
        self.tables = tables.into_iter().map(Mutex::new).collect();
        has_room
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
