//! The loss on held-out text.

use data::shard::Dataset;
use data::windows::sequential_windows;
use nn::Transformer;
use tensor::Tensor;

use crate::Error;
use crate::metrics::Validation;

/// The mean loss over held-out shards, in windows of the context length that do not overlap.
///
/// With `at_most` windows given, that many are taken, evenly spread: always the same ones. Bits per byte are exact over
/// all windows; over some of them the text's mean bytes per token stands in.
///
/// # Errors
/// If the shards hold too few tokens.
pub fn validate(
    model: &Transformer,
    dataset: &Dataset,
    batch_size: usize,
    at_most: Option<u64>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Validation, Error> {
    let model = model.detached();
    let context_length = model.config().context_length;
    let mut windows = sequential_windows(dataset, context_length)?;
    let n_windows = windows.n_windows();
    let wanted = at_most.unwrap_or(n_windows).min(n_windows);

    let (mut nats, mut n_targets, mut seen, mut taken) = (0.0, 0u64, 0u64, 0u64);
    // A batch of some of the windows: those at ⌊i·n/wanted⌋.
    while let Some(batch) = windows.next_batch(batch_size) {
        let mut inputs = Vec::with_capacity(batch.inputs_bt.len());
        let mut targets = Vec::with_capacity(batch.targets_bt.len());
        for row in 0..batch.n_sequences {
            let window = seen + row as u64;
            if taken < wanted && window == taken * n_windows / wanted {
                taken += 1;
                let range = row * context_length..(row + 1) * context_length;
                inputs.extend_from_slice(&batch.inputs_bt[range.clone()]);
                targets.extend_from_slice(&batch.targets_bt[range]);
            }
        }
        seen += batch.n_sequences as u64;
        let n_sequences = inputs.len() / context_length;
        if n_sequences == 0 {
            continue;
        }
        n_targets += targets.iter().filter(|&&target| target != data::windows::IGNORE).count() as u64;
        let shape = [n_sequences, context_length];
        let loss = model.loss(&Tensor::from_u32(&shape, inputs), &Tensor::from_u32(&shape, targets), 1.0);
        nats += f64::from(loss.item());
        progress(taken, wanted);
    }

    let loss = nats / n_targets as f64;
    let tokens_per_byte = dataset.n_tokens() as f64 / dataset.n_text_bytes() as f64;
    Ok(Validation { loss, bits_per_byte: Some(loss * tokens_per_byte / std::f64::consts::LN_2) })
}
