//! Batches in an order that is a function of the seed alone.
//!
//! An epoch cuts the token stream into windows of `context_length` inputs, each with the token
//! after it as last target, from an offset that depends on seed and epoch, and visits the windows
//! in the order of a [`Permutation`]. So sequence number `i` of a run is computed from `i`: the
//! only state is how many sequences were consumed, and neither the number of ranks nor the
//! micro-batch size changes what a global batch holds.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::permutation::{Permutation, keyed_hash};
use crate::shard::Dataset;

// Dims: b sequence · t position.

/// Token ids for one forward pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// [n_sequences, context_length].
    pub inputs_bt: Vec<u32>,
    /// [n_sequences, context_length]: the token after each input, or [`crate::windows::IGNORE`].
    pub targets_bt: Vec<u32>,
    /// b.
    pub n_sequences: usize,
    /// t.
    pub context_length: usize,
}

/// What determines the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoaderConfig {
    /// Inputs per sequence, in tokens.
    pub context_length: usize,
    /// Sequences per optimizer step, over all ranks.
    pub global_batch: usize,
    /// Of the shuffle.
    pub seed: u64,
}

/// Where a run is in its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderState {
    /// Sequences taken so far, over all ranks.
    pub sequences_consumed: u64,
}

/// Endless shuffled sequences of one dataset, for one rank of a group.
///
/// Rank `r` of `w` takes the `r`-th of `w` equal runs of each global batch.
#[derive(Clone, Debug)]
pub struct Loader {
    dataset: Arc<Dataset>,
    config: LoaderConfig,
    windows_per_epoch: u64,
    rank: usize,
    world_size: usize,
    /// Sequences that this rank has taken.
    taken: u64,
}

/// A position beyond this is damage, not training; below it no arithmetic overflows.
const MAX_SEQUENCES: u64 = 1 << 60;

impl Loader {
    /// A loader at the start of the first epoch, for a group of one.
    ///
    /// **Errors**: a zero in `config`, or not enough tokens for one window.
    pub fn new(dataset: Arc<Dataset>, config: LoaderConfig) -> Result<Loader, Error> {
        check_range("context_length", config.context_length, 1, 1 << 32)?;
        check_range("global_batch", config.global_batch, 1, 1 << 32)?;
        check_tokens(&dataset, config.context_length, config.context_length as u64 + 1)?;
        // One window less than fits, so that every offset below the context length leaves the same
        // number.
        let (n_tokens, length) = (dataset.n_tokens(), config.context_length as u64);
        let windows_per_epoch = (n_tokens.saturating_sub(length) / length).max(1);
        Ok(Loader { dataset, config, windows_per_epoch, rank: 0, world_size: 1, taken: 0 })
    }

    /// The same run seen by rank `rank` of `world_size`, at its start.
    ///
    /// **Errors**: a rank that is not below the world size, or a global batch that it does not
    /// divide.
    pub fn for_rank(&self, rank: usize, world_size: usize) -> Result<Loader, Error> {
        check_range("world_size", world_size, 1, self.config.global_batch)?;
        check_range("rank", rank, 0, world_size - 1)?;
        if !self.config.global_batch.is_multiple_of(world_size) {
            let expected = format!("a multiple of the {world_size} ranks");
            let value = self.config.global_batch as u64;
            return Err(Error::InvalidOption { name: "global_batch", value, expected });
        }
        Ok(Loader { rank, world_size, taken: 0, ..self.clone() })
    }

    /// The next `n_sequences` of this rank, any number: a global batch may be taken in several
    /// micro-batches.
    pub fn next_batch(&mut self, n_sequences: usize) -> Batch {
        let context_length = self.config.context_length;
        let mut inputs_bt = Vec::with_capacity(n_sequences * context_length);
        let mut targets_bt = Vec::with_capacity(n_sequences * context_length);
        let mut window = vec![0; context_length + 1];
        for _ in 0..n_sequences {
            self.copy_window(self.next_sequence(), &mut window);
            inputs_bt.extend_from_slice(&window[..context_length]);
            targets_bt.extend_from_slice(&window[1..]);
            self.taken += 1;
        }
        Batch { inputs_bt, targets_bt, n_sequences, context_length }
    }

    /// Inputs and targets of sequence number `global_idx` of the run, `context_length` tokens each.
    pub fn sequence(&self, global_idx: u64) -> (Vec<u32>, Vec<u32>) {
        let mut window = vec![0; self.config.context_length + 1];
        self.copy_window(global_idx, &mut window);
        (window[..self.config.context_length].to_vec(), window[1..].to_vec())
    }

    /// Where sequence number `global_idx` begins in the dataset, in tokens.
    pub fn sequence_start(&self, global_idx: u64) -> u64 {
        let (epoch, i) = (global_idx / self.windows_per_epoch, global_idx % self.windows_per_epoch);
        let length = self.config.context_length as u64;
        let n_windows = self.windows_per_epoch;
        // Most often there are `length` offsets; a dataset of less than two windows has fewer.
        let n_offsets = (self.dataset.n_tokens() - n_windows * length).min(length);
        let offset = keyed_hash(self.config.seed, epoch) % n_offsets;
        offset + Permutation::new(n_windows, self.config.seed, epoch).apply(i) * length
    }

    /// The number of sequences taken by all ranks, if each has taken as many as this one.
    pub fn state(&self) -> LoaderState {
        LoaderState { sequences_consumed: self.taken * self.world_size as u64 }
    }

    /// Goes on where `state` was taken, whatever the number of ranks was then.
    ///
    /// **Errors**: several ranks and a state within a step, or a state beyond 2⁶⁰ sequences.
    pub fn resume(&mut self, state: LoaderState) -> Result<(), Error> {
        let LoaderState { sequences_consumed } = state;
        if sequences_consumed > MAX_SEQUENCES {
            let (name, expected) = ("sequences_consumed", "at most 2^60".to_owned());
            return Err(Error::InvalidOption { name, value: sequences_consumed, expected });
        }
        let (global_batch, world_size) = (self.config.global_batch, self.world_size);
        if world_size > 1 && !sequences_consumed.is_multiple_of(global_batch as u64) {
            return Err(Error::UnalignedState { sequences_consumed, global_batch, world_size });
        }
        self.taken = sequences_consumed / world_size as u64;
        Ok(())
    }

    /// The epoch, from 0, of the next sequence.
    pub fn epoch(&self) -> u64 {
        self.next_sequence() / self.windows_per_epoch
    }

    /// Sequences per epoch. Up to two windows of tokens sit out an epoch, others in each.
    pub fn sequences_per_epoch(&self) -> u64 {
        self.windows_per_epoch
    }

    /// What determines the order.
    pub fn config(&self) -> LoaderConfig {
        self.config
    }

    /// The number in the run of the next sequence of this rank.
    fn next_sequence(&self) -> u64 {
        let global_batch = self.config.global_batch as u64;
        let share = global_batch / self.world_size as u64;
        let (step, i) = (self.taken / share, self.taken % share);
        step * global_batch + self.rank as u64 * share + i
    }

    fn copy_window(&self, global_idx: u64, window: &mut [u32]) {
        self.dataset.copy_tokens(self.sequence_start(global_idx), window);
    }
}

fn check_range(name: &'static str, value: usize, min: usize, max: usize) -> Result<(), Error> {
    match (min..=max).contains(&value) {
        true => Ok(()),
        false => Err(Error::InvalidOption { name, value: value as u64, expected: format!("{min} to {max}") }),
    }
}

/// An error unless `dataset` has the `needed` tokens.
pub(crate) fn check_tokens(dataset: &Dataset, context_length: usize, needed: u64) -> Result<(), Error> {
    let found = dataset.n_tokens();
    match found < needed {
        true => Err(Error::TooFewTokens { path: dataset.path().to_owned(), needed, found, context_length }),
        false => Ok(()),
    }
}
