//! A whole dataset in reading order, for validation.

use crate::Error;
use crate::loader::{Batch, check_tokens};
use crate::shard::Dataset;

/// The target of a position that does not count. No vocabulary has this id: sizes are at most
/// `u32::MAX`.
pub const IGNORE: u32 = u32::MAX;

/// Windows that follow each other without overlap, so that every token but the dataset's first is a
/// target once.
///
/// The last window is padded at its end: inputs with 0, targets with [`IGNORE`]. A causal model
/// sees the padding only where nothing counts.
///
/// **Errors**: fewer than two tokens, or a context length of 0.
pub fn sequential_windows(dataset: &Dataset, context_length: usize) -> Result<SequentialWindows<'_>, Error> {
    if context_length == 0 {
        return Err(Error::InvalidOption { name: "context_length", value: 0, expected: "at least 1".to_owned() });
    }
    check_tokens(dataset, context_length, 2)?;
    let n_windows = (dataset.n_tokens() - 1).div_ceil(context_length as u64);
    Ok(SequentialWindows { dataset, context_length, n_windows, taken: 0 })
}

/// See [`sequential_windows`].
#[derive(Clone, Debug)]
pub struct SequentialWindows<'a> {
    dataset: &'a Dataset,
    context_length: usize,
    n_windows: u64,
    taken: u64,
}

impl SequentialWindows<'_> {
    /// Number of windows in all.
    pub fn n_windows(&self) -> u64 {
        self.n_windows
    }

    /// Number of targets that count, one less than the tokens.
    pub fn n_targets(&self) -> u64 {
        self.dataset.n_tokens() - 1
    }

    /// The next windows, at most `max_sequences`; `None` after the last.
    ///
    /// **Panics** if `max_sequences` is 0.
    pub fn next_batch(&mut self, max_sequences: usize) -> Option<Batch> {
        assert!(max_sequences > 0, "next_batch: a batch of 0 sequences would never end");
        let length = self.context_length;
        let n_sequences = (self.n_windows - self.taken).min(max_sequences as u64) as usize;
        if n_sequences == 0 {
            return None;
        }
        let start = self.taken * length as u64;
        let n_targets = (n_sequences * length).min((self.n_targets() - start) as usize);
        let mut tokens = vec![0; n_targets + 1];
        self.dataset.copy_tokens(start, &mut tokens);
        let mut targets_bt = tokens[1..].to_vec();
        targets_bt.resize(n_sequences * length, IGNORE);
        tokens.truncate(n_targets);
        tokens.resize(n_sequences * length, 0);
        self.taken += n_sequences as u64;
        Some(Batch { inputs_bt: tokens, targets_bt, n_sequences, context_length: length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::tests::dataset_of;

    #[test]
    fn every_token_but_the_first_is_a_target_exactly_once_after_its_predecessor() {
        for n_tokens in [2, 3, 5, 6, 9, 10, 11, 25, 64, 65, 66_u32] {
            let folder = tempfile::tempdir().unwrap();
            let tokens: Vec<u32> = (100..100 + n_tokens).collect();
            let dataset = dataset_of(&folder.path().join("d"), &tokens, 17);
            for (context_length, max_sequences) in [(1, 1), (4, 3), (5, 100), (64, 2)] {
                let mut windows = sequential_windows(&dataset, context_length).unwrap();
                let mut targets = Vec::new();
                let mut n_sequences = 0;
                while let Some(batch) = windows.next_batch(max_sequences) {
                    assert_eq!(batch.inputs_bt.len(), batch.n_sequences * context_length);
                    assert_eq!(batch.targets_bt.len(), batch.n_sequences * context_length);
                    for (&input, &target) in batch.inputs_bt.iter().zip(&batch.targets_bt) {
                        match target {
                            IGNORE => assert_eq!(input, 0),
                            _ => assert_eq!(input + 1, target),
                        }
                    }
                    targets.extend(batch.targets_bt.into_iter().filter(|&target| target != IGNORE));
                    n_sequences += batch.n_sequences as u64;
                }
                assert_eq!(targets, tokens[1..]);
                assert_eq!((n_sequences, targets.len() as u64), (windows.n_windows(), windows.n_targets()));
            }
        }
    }

    #[test]
    fn a_single_token_is_too_few() {
        let folder = tempfile::tempdir().unwrap();
        let dataset = dataset_of(&folder.path().join("d"), &[5], 7);
        let error = sequential_windows(&dataset, 8).unwrap_err();
        assert!(matches!(error, Error::TooFewTokens { needed: 2, found: 1, .. }), "{error}");
    }
}
