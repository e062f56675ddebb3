//! The ids of many texts in one piece of memory.

use std::ops::Range;

use rayon::prelude::*;

use super::{MIN_BYTES_PER_TOKEN, parallel, table};
use crate::{TokenId, Tokenizer};

/// The ids of many texts, one text after the other; see [`Tokenizer::encode_flat`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlatIds {
    pub(super) ids: Vec<TokenId>,
    /// Where those of each text end.
    pub(super) ends: Vec<usize>,
}

impl FlatIds {
    /// How many texts there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no texts.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The ids of all texts.
    pub fn ids(&self) -> &[TokenId] {
        &self.ids
    }

    /// The ids of all texts, to keep.
    pub fn into_ids(self) -> Vec<TokenId> {
        self.ids
    }

    /// Where in [`FlatIds::ids`] those of each text are.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = Range<usize>> {
        self.ends.iter().enumerate().map(|(i, &end)| if i == 0 { 0..end } else { self.ends[i - 1]..end })
    }

    /// The ids of each text.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[TokenId]> {
        self.ranges().map(|range| &self.ids[range])
    }
}

impl Tokenizer {
    /// [`Tokenizer::encode`] of each text, by all threads, into one piece of memory: with much text, asking the
    /// system for memory takes as long as encoding, and this asks for it once.
    pub fn encode_flat(&self, texts: &[&[u8]]) -> FlatIds {
        let n_bytes: usize = texts.iter().map(|text| text.len()).sum();
        if self.is_staged() {
            return self.encode_batch(texts).into_iter().collect();
        }
        if n_bytes >= parallel::from_bytes() {
            return self.encode_flat_in_parallel(texts, n_bytes);
        }
        let mut flat = FlatIds { ids: table::large_vec(n_bytes / MIN_BYTES_PER_TOKEN), ends: Vec::new() };
        for text in texts {
            self.encode_segments(self.specials.segments(text), text.len(), &mut flat.ids);
            flat.ends.push(flat.ids.len());
        }
        flat.ids.shrink_to_fit();
        flat
    }

    /// [`Tokenizer::encode`] of each text, by all threads.
    pub fn encode_batch(&self, texts: &[&[u8]]) -> Vec<Vec<TokenId>> {
        texts.par_iter().map(|text| self.encode(text)).collect()
    }
}

impl FromIterator<Vec<TokenId>> for FlatIds {
    fn from_iter<I: IntoIterator<Item = Vec<TokenId>>>(texts: I) -> Self {
        let mut flat = Self::default();
        for ids in texts {
            flat.ids.extend(ids);
            flat.ends.push(flat.ids.len());
        }
        flat
    }
}
