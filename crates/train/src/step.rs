//! One update: micro-batches forward and backward, clip, AdamW.

use data::loader::Loader;
use nn::Transformer;
use tensor::{Gradients, Tensor};

use crate::Error;
use crate::optimizer::{Optimizer, clip_scale, global_norm};

/// What one update is made with.
pub struct StepSettings {
    /// Counted from 0.
    pub step: u64,
    /// Sequences per update.
    pub batch_size: usize,
    /// Sequences at a time; divides `batch_size`.
    pub micro_batch_size: usize,
    /// See [`clip_scale`].
    pub grad_clip_norm: f64,
    /// Of this update.
    pub learning_rate: f64,
}

/// What one update showed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepResult {
    /// Mean cross-entropy before the update, in nats per token.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
}

/// Makes one update of a tracked `model`.
///
/// # Errors
/// If the loss or the gradient is not finite: then nothing was updated.
pub fn step(
    model: &mut Transformer,
    optimizer: &mut Optimizer,
    loader: &mut Loader,
    settings: &StepSettings,
) -> Result<StepResult, Error> {
    let &StepSettings { step, batch_size, micro_batch_size, grad_clip_norm, learning_rate } = settings;
    let context_length = model.config().context_length;
    let tokens_per_step = (batch_size * context_length) as f32;

    let mut gradients = Gradients::new();
    let mut loss = 0.0;
    for _ in 0..batch_size / micro_batch_size {
        let batch = loader.next_batch(micro_batch_size);
        let shape = [micro_batch_size, context_length];
        let inputs_bt = Tensor::from_u32(&shape, batch.inputs_bt);
        let targets_bt = Tensor::from_u32(&shape, batch.targets_bt);
        // Each micro-batch contributes its share of the mean over the whole batch.
        let micro_loss = model.loss(&inputs_bt, &targets_bt, tokens_per_step);
        loss += f64::from(micro_loss.item());
        if !loss.is_finite() {
            return Err(Error::NonFiniteLoss { step, loss });
        }
        micro_loss.backward_into(1.0, &mut gradients);
    }

    let grad_norm = global_norm(model, &gradients);
    if !grad_norm.is_finite() {
        return Err(Error::NonFiniteGradient { step, norm: grad_norm });
    }
    let scale = clip_scale(grad_norm, grad_clip_norm);
    optimizer.update(model, &gradients, scale, learning_rate, step + 1);
    Ok(StepResult { loss, grad_norm })
}
