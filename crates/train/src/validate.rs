//! The loss on held-out text.

use data::shard::Dataset;
use data::windows::sequential_windows;
use nn::Transformer;
use tensor::{Tensor, cuda};

use crate::Error;
use crate::metrics::Validation;

// Shards mark padding with the id that the loss leaves out; the two crates do not know each other.
const _: () = assert!(data::windows::IGNORE == tensor::ops::IGNORED);

/// The mean loss over held-out shards, in windows of the context length that do not overlap.
///
/// With `at_most` windows given, that many are taken, evenly spread: always the same ones. Bits per byte are exact over
/// all windows; over some of them the text's mean bytes per token stands in.
///
/// # Errors
/// If the shards hold too few tokens, or the device fails.
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

    let (mut nats, mut n_targets, mut window, mut taken) = (0.0, 0u64, 0u64, 0u64);
    let (mut inputs, mut targets) = (Vec::new(), Vec::new());
    while taken < wanted {
        let next = windows.next_batch(1).expect("as many windows as were counted");
        // Those at ⌊i·n/wanted⌋ are taken.
        if window == taken * n_windows / wanted {
            taken += 1;
            inputs.extend(next.inputs_bt);
            targets.extend(next.targets_bt);
        }
        window += 1;
        let n_sequences = inputs.len() / context_length;
        if n_sequences == batch_size || (taken == wanted && n_sequences > 0) {
            n_targets += targets.iter().filter(|&&target| target != data::windows::IGNORE).count() as u64;
            let shape = [n_sequences, context_length];
            let [inputs_bt, targets_bt] =
                [&mut inputs, &mut targets].map(|ids| Tensor::from_u32(&shape, std::mem::take(ids)));
            nats += cuda::catch(|| {
                let [inputs_bt, targets_bt] = [inputs_bt, targets_bt].map(|ids| ids.to(model.device()));
                f64::from(model.loss(&inputs_bt, &targets_bt, 1.0).item())
            })?;
            progress(taken, wanted);
        }
    }

    let loss = nats / n_targets as f64;
    let tokens_per_byte = dataset.n_tokens() as f64 / dataset.n_text_bytes() as f64;
    Ok(Validation { loss, bits_per_byte: Some(loss * tokens_per_byte / std::f64::consts::LN_2) })
}
