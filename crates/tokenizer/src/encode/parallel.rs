//! Encoding by all threads: the text is cut where pre-tokens are sure to end, and each thread has memory of its
//! own. Threads take the parts in order, so that most ids can be copied to where they belong while they
//! are still in the processor's caches.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Encoder, FlatIds, MIN_BYTES_PER_TOKEN, table};
use crate::pretokenize::Pattern;
use crate::special::Segment;
use crate::vocab::Model;
use crate::{TokenId, Tokenizer};

/// Texts from this many bytes on are encoded by all threads.
const FROM_BYTES: usize = 1 << 18;
/// The same for a text that is one of many, which have a thread each already.
const IN_BATCH_FROM_BYTES: usize = 1 << 22;
/// What one thread takes at a time, if there is enough of it for all, and at least.
const PART_BYTES: usize = 1 << 19;
const MIN_PART_BYTES: usize = 1 << 16;

/// From how many bytes on several threads are worth it, here.
pub(super) fn from_bytes() -> usize {
    match rayon::current_thread_index() {
        _ if rayon::current_num_threads() == 1 => usize::MAX,
        Some(_) => IN_BATCH_FROM_BYTES,
        None => FROM_BYTES,
    }
}

/// What one thread encodes at a time.
#[derive(Default)]
struct Job<'a> {
    pieces: Vec<Piece<'a>>,
    n_bytes: usize,
}

enum Piece<'a> {
    /// Text without special tokens.
    Text(&'a [u8]),
    /// Text before which the vocabulary wants a space.
    WithSpace(&'a [u8]),
    Special(TokenId),
    /// Text whose special tokens are still to be found.
    Whole(&'a [u8]),
    /// A text of several ends here.
    End,
}

/// The ids of a job.
#[derive(Default)]
struct Part {
    ids: Vec<TokenId>,
    ends: Vec<usize>,
}

/// Where the ids of all jobs go.
struct Output<'o> {
    /// Places that are still free.
    rest: &'o mut [TokenId],
    /// Ids in places.
    n_placed: usize,
    ends: Vec<usize>,
    /// The job whose part is placed next.
    next: usize,
    /// Parts of later jobs.
    waiting: BTreeMap<usize, Part>,
    /// Parts for which there was no room; all parts behind them are here, too.
    left_over: Vec<Part>,
}

impl<'o> Output<'o> {
    /// A part whose turn it is, and its place.
    fn take_ready(&mut self) -> Option<(&'o mut [TokenId], Part)> {
        while let Some(part) = self.waiting.remove(&self.next) {
            self.next += 1;
            if self.rest.len() < part.ids.len() || !self.left_over.is_empty() {
                self.left_over.push(part);
                continue;
            }
            let (place, rest) = std::mem::take(&mut self.rest).split_at_mut(part.ids.len());
            self.rest = rest;
            self.ends.extend(part.ends.iter().map(|end| end + self.n_placed));
            self.n_placed += part.ids.len();
            return Some((place, part));
        }
        None
    }
}

impl Tokenizer {
    /// Appends the ids of all segments, in order; nothing happens before the model.
    pub(super) fn encode_in_parallel<'a>(&self, segments: impl Iterator<Item = Segment<'a>>, ids: &mut Vec<TokenId>) {
        let segments: Vec<Segment<'a>> = segments.collect();
        let mut jobs = Jobs::new(self, segments.iter().map(Segment::len).sum());
        segments.into_iter().for_each(|segment| jobs.push_segment(segment));
        let encoded = self.encode_jobs(&jobs).ids;
        if ids.is_empty() { *ids = encoded } else { ids.extend(encoded) }
    }

    /// The ids of many texts of `n_bytes` together; nothing happens before the model.
    pub(super) fn encode_flat_in_parallel(&self, texts: &[&[u8]], n_bytes: usize) -> FlatIds {
        let mut jobs = Jobs::new(self, n_bytes);
        for &text in texts {
            if text.len() <= jobs.part_bytes {
                jobs.push(Piece::Whole(text), text.len());
            } else {
                self.specials.segments(text).for_each(|segment| jobs.push_segment(segment));
            }
            jobs.push_end();
        }
        self.encode_jobs(&jobs)
    }

    fn encode_jobs(&self, jobs: &Jobs<'_>) -> FlatIds {
        // If tokens are shorter, what is left over is added in the end.
        let mut ids = table::large_zeros(jobs.n_bytes / MIN_BYTES_PER_TOKEN);
        let output = Output {
            rest: &mut ids,
            n_placed: 0,
            ends: Vec::new(),
            next: 0,
            waiting: BTreeMap::new(),
            left_over: Vec::new(),
        };
        let (output, n_taken) = (Mutex::new(output), AtomicUsize::new(0));
        rayon::scope(|scope| {
            for _ in 0..rayon::current_num_threads().min(jobs.jobs.len()) {
                scope.spawn(|_| self.work(&jobs.jobs, &n_taken, &output));
            }
        });
        let Output { n_placed, mut ends, left_over, .. } = output.into_inner().unwrap_or_else(PoisonError::into_inner);
        ids.truncate(n_placed);
        for part in left_over {
            ends.extend(part.ends.iter().map(|end| end + ids.len()));
            ids.extend(part.ids);
        }
        ids.shrink_to_fit();
        FlatIds { ids, ends }
    }

    /// Encodes jobs as long as there are any that nobody has taken.
    fn work(&self, jobs: &[Job<'_>], n_taken: &AtomicUsize, output: &Mutex<Output<'_>>) {
        fn lock<'m, 'o>(output: &'m Mutex<Output<'o>>) -> MutexGuard<'m, Output<'o>> {
            output.lock().unwrap_or_else(PoisonError::into_inner)
        }
        let (mut encoder, mut part) = (Encoder::new(self), Part::default());
        loop {
            let index = n_taken.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(index) else { return };
            part.ids.clear();
            part.ends.clear();
            job.pieces.iter().for_each(|piece| encode_piece(&mut encoder, piece, &mut part));
            lock(output).waiting.insert(index, std::mem::take(&mut part));
            // In a statement of its own, so that others need not wait for the copy.
            while let Some((place, ready)) = { lock(output).take_ready() } {
                place.copy_from_slice(&ready.ids);
                part = ready;
            }
        }
    }
}

fn encode_piece(encoder: &mut Encoder<'_>, piece: &Piece<'_>, part: &mut Part) {
    let tokenizer = encoder.tokenizer;
    match piece {
        Piece::Text(text) => encoder.encode(text, &mut part.ids),
        Piece::WithSpace(text) => encoder.encode(&[b" ", *text].concat(), &mut part.ids),
        Piece::Special(id) => part.ids.push(*id),
        Piece::Whole(text) => {
            for segment in tokenizer.specials.segments(text) {
                match segment {
                    Segment::Text(text) => encoder.encode(&tokenizer.with_prefix_space(text), &mut part.ids),
                    Segment::Special(id) => part.ids.push(id),
                }
            }
        }
        Piece::End => part.ends.push(part.ids.len()),
    }
}

struct Jobs<'a> {
    tokenizer: &'a Tokenizer,
    jobs: Vec<Job<'a>>,
    /// Of all text.
    n_bytes: usize,
    /// Of a job, about.
    part_bytes: usize,
}

impl<'a> Jobs<'a> {
    fn new(tokenizer: &'a Tokenizer, n_bytes: usize) -> Self {
        let n_jobs = rayon::current_num_threads() * 4;
        let part_bytes = (n_bytes / n_jobs).clamp(MIN_PART_BYTES, PART_BYTES);
        Self { tokenizer, jobs: vec![Job::default()], n_bytes, part_bytes }
    }

    fn push(&mut self, piece: Piece<'a>, n_bytes: usize) {
        if self.jobs.last().is_none_or(|job| job.n_bytes > 0 && job.n_bytes + n_bytes > self.part_bytes) {
            self.jobs.push(Job::default());
        }
        let job = self.jobs.last_mut().expect("there is one at least");
        job.pieces.push(piece);
        job.n_bytes += n_bytes;
    }

    fn push_end(&mut self) {
        self.jobs.last_mut().expect("there is one at least").pieces.push(Piece::End);
    }

    fn push_segment(&mut self, segment: Segment<'a>) {
        match segment {
            Segment::Special(id) => self.push(Piece::Special(id), 1),
            Segment::Text(text) => {
                let pattern = match &self.tokenizer.model {
                    Model::Bpe(bpe) => bpe.pattern(),
                    // Where these may be cut does not matter.
                    _ => &Pattern::Gpt2,
                };
                let mut wants_space = self.tokenizer.wants_prefix_space(text);
                for part in pattern.parts(text, self.part_bytes) {
                    self.push(if wants_space { Piece::WithSpace(part) } else { Piece::Text(part) }, part.len());
                    wants_space = false;
                }
            }
        }
    }
}

impl Segment<'_> {
    fn len(&self) -> usize {
        match self {
            Segment::Text(text) => text.len(),
            Segment::Special(_) => 1,
        }
    }
}
