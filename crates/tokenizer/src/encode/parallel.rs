//! Encoding by all threads: the text is cut where pre-tokens are sure to end, and each thread has memory of its
//! own.

use rayon::prelude::*;

use super::{BYTES_PER_TOKEN, Encoder};
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
    Text(&'a [u8]),
    /// Text before which the vocabulary wants a space.
    WithSpace(&'a [u8]),
    Special(TokenId),
}

impl Tokenizer {
    /// Appends the ids of all segments, in order; nothing happens before the model.
    pub(super) fn encode_in_parallel<'a>(&self, segments: impl Iterator<Item = Segment<'a>>, ids: &mut Vec<TokenId>) {
        let encode = |mut encoder: Encoder<'_>, job: &Job<'_>| {
            let mut ids = Vec::with_capacity(job.n_bytes / BYTES_PER_TOKEN);
            for piece in &job.pieces {
                match piece {
                    Piece::Text(text) => encoder.encode(text, &mut ids),
                    Piece::WithSpace(text) => encoder.encode(&[b" ", *text].concat(), &mut ids),
                    Piece::Special(id) => ids.push(*id),
                }
            }
            ids
        };
        let jobs = self.jobs(segments);
        let encoded: Vec<Vec<TokenId>> = jobs.par_iter().map(|job| encode(Encoder::new(self), job)).collect();
        let n_before = ids.len();
        ids.resize(n_before + encoded.iter().map(Vec::len).sum::<usize>(), 0);
        let mut rest = &mut ids[n_before..];
        let places: Vec<&mut [TokenId]> = encoded
            .iter()
            .map(|part| {
                let (place, behind) = std::mem::take(&mut rest).split_at_mut(part.len());
                rest = behind;
                place
            })
            .collect();
        places.into_par_iter().zip(encoded).for_each(|(place, part)| place.copy_from_slice(&part));
    }

    fn jobs<'a>(&self, segments: impl Iterator<Item = Segment<'a>>) -> Vec<Job<'a>> {
        let pattern = match &self.model {
            Model::Bpe(bpe) => bpe.pattern(),
            _ => &Pattern::Gpt2,
        };
        let segments: Vec<Segment<'a>> = segments.collect();
        let n_bytes: usize = segments.iter().map(|segment| segment.len()).sum();
        let n_jobs = rayon::current_num_threads() * 4;
        let part_bytes = (n_bytes / n_jobs).clamp(MIN_PART_BYTES, PART_BYTES);
        let mut jobs = vec![Job::default()];
        let mut push = |piece: Piece<'a>, n_bytes: usize| {
            if jobs.last().is_none_or(|job| job.n_bytes > 0 && job.n_bytes + n_bytes > part_bytes) {
                jobs.push(Job::default());
            }
            let job = jobs.last_mut().expect("there is one at least");
            job.pieces.push(piece);
            job.n_bytes += n_bytes;
        };
        for segment in segments {
            match segment {
                Segment::Special(id) => push(Piece::Special(id), 1),
                Segment::Text(text) => {
                    let mut wants_space = self.wants_prefix_space(text);
                    for part in pattern.parts(text, part_bytes) {
                        let piece = if wants_space { Piece::WithSpace(part) } else { Piece::Text(part) };
                        push(piece, part.len());
                        wants_space = false;
                    }
                }
            }
        }
        jobs
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
