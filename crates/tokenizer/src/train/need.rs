//! What learning merges will take, told before.

use super::count::{Counts, FIXED_BYTES};
use crate::Error;

/// Bytes for a distinct pre-token: its count, the cell before it, and its share of the pairs.
const BYTES_PER_WORD: u64 = 24;
/// Bytes for each of its bytes: a cell, and the places at which pairs start there.
const BYTES_PER_BYTE: u64 = 24;
/// Counts from this one on are taken together.
const N_COUNTS: usize = 1 << 12;

/// The distinct pre-tokens from which merges are learned, and what that takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Pre-tokens that occur at least so often take part.
    pub min_count: u64,
    /// How many they are.
    pub n_words: u64,
    /// Bytes in them, each counted once.
    pub n_bytes: u64,
    /// About the most memory that the process will hold.
    pub memory_bytes: u64,
}

/// Numbers of pre-tokens and of their bytes, by count.
pub(super) struct Histogram(Vec<[u64; 2]>);

impl Histogram {
    pub(super) fn of(counts: &Counts) -> Result<Self, Error> {
        let mut by_count = vec![[0; 2]; N_COUNTS + 1];
        counts.for_each(|word, count| {
            let [n_words, n_bytes] = &mut by_count[N_COUNTS.min(count as usize)];
            *n_words += 1;
            *n_bytes += word.len() as u64;
            Ok(())
        })?;
        Ok(Self(by_count))
    }

    /// What the pre-tokens take that occur at least `min_count` times.
    pub(super) fn need(&self, min_count: u64) -> Need {
        let frequent = &self.0[N_COUNTS.min(min_count as usize)..];
        let [n_words, n_bytes] = frequent.iter().fold([0; 2], |sum, n| [sum[0] + n[0], sum[1] + n[1]]);
        let memory_bytes = FIXED_BYTES + BYTES_PER_WORD * n_words + BYTES_PER_BYTE * n_bytes;
        Need { min_count, n_words, n_bytes, memory_bytes }
    }

    /// # Errors
    /// [`Error::MemoryForMerging`] if they take more than `memory_limit`.
    pub(super) fn check(&self, min_count: u64, memory_limit: Option<u64>) -> Result<Need, Error> {
        let need = self.need(min_count);
        match memory_limit {
            Some(limit) if need.memory_bytes > limit => {
                let fitting = (min_count + 1..N_COUNTS as u64).find(|&n| self.need(n).memory_bytes <= limit);
                Err(Error::MemoryForMerging { needed: need.memory_bytes, limit, min_count, fitting })
            }
            _ => Ok(need),
        }
    }
}
