//! Counting pre-tokens in parallel.

use rayon::prelude::*;

use super::Progress;
use crate::pretokenize::{parts, pretokens};
use crate::special::{Segment, SpecialTokens};
use crate::{Error, HashMap};

/// Documents are counted together once they have this many bytes.
const BATCH_BYTES: usize = 64 << 20;
/// What one thread takes at a time, and how often progress is reported at most.
const PART_BYTES: usize = 1 << 20;

/// How often each distinct pre-token occurs.
pub(super) type Counts = HashMap<Box<[u8]>, u64>;

/// Counts the pre-tokens of all documents, cut at special tokens, which are not counted.
pub(super) fn count<E>(
    documents: impl IntoIterator<Item = Result<Vec<u8>, E>>,
    specials: &SpecialTokens,
    progress: &dyn Fn(Progress),
) -> Result<Counts, Error>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut counts = Counts::default();
    let mut batch = Batch { documents: Vec::new(), n_bytes: 0, n_counted: 0 };
    for (index, document) in documents.into_iter().enumerate() {
        let document = document.map_err(|error| Error::Document { index, source: error.into() })?;
        batch.n_bytes += document.len();
        batch.documents.push(document);
        if batch.n_bytes >= BATCH_BYTES {
            batch.count(specials, &mut counts, progress);
        }
    }
    batch.count(specials, &mut counts, progress);
    Ok(counts)
}

struct Batch {
    documents: Vec<Vec<u8>>,
    n_bytes: usize,
    /// Bytes of all batches before.
    n_counted: u64,
}

impl Batch {
    /// Adds what the documents hold to `counts` and lets go of them.
    fn count(&mut self, specials: &SpecialTokens, counts: &mut Counts, report: &dyn Fn(Progress)) {
        let segments: Vec<&[u8]> = self
            .documents
            .iter()
            .flat_map(|document| specials.segments(document))
            .filter_map(|segment| match segment {
                Segment::Text(text) => Some(text),
                Segment::Special(_) => None,
            })
            .flat_map(|text| parts(text, PART_BYTES))
            .collect();
        // A few parts per thread between reports: `report` need not be callable from all threads.
        let n_at_once = PART_BYTES * 4 * rayon::current_num_threads();
        let mut rest = &segments[..];
        let mut n_done = self.n_counted;
        while !rest.is_empty() {
            let mut n_bytes = 0;
            let n = rest.iter().take_while(|part| {
                let take = n_bytes < n_at_once;
                n_bytes += if take { part.len() } else { 0 };
                take
            });
            let (now, later) = rest.split_at(n.count());
            rest = later;
            for part in count_parts(now) {
                add(counts, part);
            }
            n_done += n_bytes as u64;
            report(Progress::Counting { n_bytes: n_done });
        }
        // Special tokens, which no part has, are done as well.
        self.n_counted += self.n_bytes as u64;
        report(Progress::Counting { n_bytes: self.n_counted });
        self.documents.clear();
        self.n_bytes = 0;
    }
}

fn count_parts<'a>(parts: &[&'a [u8]]) -> Vec<HashMap<&'a [u8], u64>> {
    parts
        .par_iter()
        .fold(HashMap::default, |mut counts, part| {
            for pretoken in pretokens(part) {
                *counts.entry(pretoken).or_insert(0) += 1;
            }
            counts
        })
        .collect()
}

fn add(counts: &mut Counts, part: HashMap<&[u8], u64>) {
    for (pretoken, n) in part {
        match counts.get_mut(pretoken) {
            Some(count) => *count += n,
            None => {
                counts.insert(pretoken.into(), n);
            }
        }
    }
}
