//! One update of the weights: micro-batches forward and backward, clip, AdamW. On a GPU the second update is recorded as
//! a graph, and from then on replayed: one call for a thousand kernels.

use data::loader::Batch;
use nn::Transformer;
use tensor::cuda::{self, Graph, Upload};
use tensor::{DType, Device, Gradients, Tensor};

use crate::Error;
use crate::config::OptimizerConfig;
use crate::optimizer::Optimizer;

/// What training changes.
#[derive(Debug)]
pub struct TrainState {
    /// The weights, in f32. On the tape if they are computed with as they are.
    pub model: Transformer,
    /// A copy of the weights in the dtype of the computation, on the tape, if that is not f32.
    pub compute: Option<Transformer>,
    /// The optimizer's state.
    pub optimizer: Optimizer,
}

impl TrainState {
    /// Takes weights and an optimizer's state to `device`, to be computed with in `dtype`.
    ///
    /// # Errors
    /// If the device's memory does not suffice.
    pub fn new(model: Transformer, optimizer: Optimizer, device: Device, dtype: DType) -> Result<Self, Error> {
        let state = cuda::catch(move || {
            // Updates change the weights in place, so they are nobody else's.
            let model = model.to(device);
            let optimizer = optimizer.to(device);
            match dtype {
                DType::F32 => TrainState { model: model.tracked(), compute: None, optimizer },
                _ => TrainState { compute: Some(model.compute_copy(dtype).tracked()), model, optimizer },
            }
        });
        Ok(state?)
    }

    /// [`TrainState::new`] with an optimizer that has seen nothing.
    ///
    /// # Errors
    /// As there.
    pub fn fresh(
        model: Transformer,
        config: &OptimizerConfig,
        grad_clip_norm: f64,
        device: Device,
        dtype: DType,
    ) -> Result<Self, Error> {
        // The weights first, so that the moments, as many zeros twice, are made where they stay.
        let (model, optimizer) = cuda::catch(move || {
            let model = model.to(device);
            let optimizer = Optimizer::new(config, grad_clip_norm, &model);
            (model, optimizer)
        })?;
        TrainState::new(model, optimizer, device, dtype)
    }

    /// The weights that forward passes are made with.
    pub fn compute_model(&self) -> &Transformer {
        self.compute.as_ref().unwrap_or(&self.model)
    }
}

/// What one update showed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepResult {
    /// Mean cross-entropy before the update, in nats per token.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
}

/// Makes updates of one [`TrainState`], all of the same shape.
pub struct Stepper {
    device: Device,
    /// Of each micro-batch, inputs and targets `[b, t]`.
    batches: Vec<(Tensor, Tensor)>,
    staged: Staged,
    /// See [`tensor::ops::adamw_step_numbers`].
    numbers: Tensor,
    tokens_per_step: f32,
    /// Whether the first update measures algorithms of matrix products.
    tunes: bool,
    /// See [`Stepper::with_fp8`].
    fp8: bool,
    graph: Option<Graph>,
    /// Of the newest update; a graph writes to the same ones again.
    outputs: Option<Outputs>,
}

/// The tokens of the next update: of each micro-batch the inputs, then the targets.
enum Staged {
    Here(Vec<u32>),
    OnItsWay(Upload),
}

/// What an update leaves on the device.
struct Outputs {
    losses: Vec<Tensor>,
    norm: Tensor,
}

impl Stepper {
    /// For updates of `n_micro_batches` micro-batches of `micro_batch_size` sequences.
    ///
    /// # Errors
    /// If the device's memory does not suffice.
    pub fn new(
        device: Device,
        n_micro_batches: usize,
        micro_batch_size: usize,
        context_length: usize,
    ) -> Result<Self, Error> {
        let shape = [micro_batch_size, context_length];
        let n_ids = 2 * n_micro_batches * micro_batch_size * context_length;
        let staged = match device {
            Device::Cpu => Staged::Here(vec![0; n_ids]),
            Device::Cuda(ordinal) => Staged::OnItsWay(Upload::new(&cuda::context(ordinal)?, n_ids)?),
        };
        Ok(cuda::catch(|| {
            let ids = || Tensor::zeros_on(device, &shape, DType::U32);
            Stepper {
                device,
                batches: (0..n_micro_batches).map(|_| (ids(), ids())).collect(),
                staged,
                numbers: Tensor::zeros_on(device, &[tensor::ops::ADAMW_STEP_NUMBERS], DType::F32),
                tokens_per_step: (n_micro_batches * micro_batch_size * context_length) as f32,
                tunes: false,
                fp8: false,
                graph: None,
                outputs: None,
            }
        })?)
    }

    /// The same, but on a GPU the first update measures which algorithms are fastest for its matrix products, and all
    /// updates use those: see [`tensor::cuda::Context::matmul_choices`].
    #[must_use]
    pub fn with_tuning(self) -> Self {
        Stepper { tunes: true, ..self }
    }

    /// Whether the linear maps of the blocks multiply in fp8: on a GPU that has it, in bf16.
    #[must_use]
    pub fn with_fp8(self, fp8: bool) -> Self {
        Stepper { fp8, ..self }
    }

    /// Makes update number `step`, counted from 0: always of the same `state`. The same as [`Stepper::stage`],
    /// [`Stepper::begin`] and [`Stepper::finish`].
    ///
    /// # Errors
    /// If the loss or the gradient is not finite: then nothing was updated. If the device fails.
    pub fn step(
        &mut self,
        state: &mut TrainState,
        batches: &[Batch],
        learning_rate: f64,
        step: u64,
    ) -> Result<StepResult, Error> {
        self.stage(batches)?;
        self.begin(state, learning_rate, step)?;
        self.finish(step)
    }

    /// Hands over the micro-batches of the next update that begins. On a GPU they travel there beside the update that is
    /// under way: neither waits for the other.
    ///
    /// # Panics
    /// If they are not of the number and shape that was agreed on.
    ///
    /// # Errors
    /// If the device fails.
    pub fn stage(&mut self, batches: &[Batch]) -> Result<(), Error> {
        assert!(
            batches.len() == self.batches.len(),
            "stage: {} micro-batches of {}",
            batches.len(),
            self.batches.len()
        );
        let fill = |ids: &mut [u32]| {
            let mut rest = ids;
            for part in batches.iter().flat_map(|batch| [&batch.inputs_bt, &batch.targets_bt]) {
                let (ids, behind) = rest.split_at_mut(part.len());
                ids.copy_from_slice(part);
                rest = behind;
            }
            assert!(rest.is_empty(), "stage: {} tokens are missing", rest.len());
        };
        match &mut self.staged {
            Staged::Here(ids) => fill(ids),
            Staged::OnItsWay(upload) => upload.send(fill)?,
        }
        Ok(())
    }

    /// Begins update number `step`, counted from 0, on the staged micro-batches: always of the same `state`. On a GPU it is
    /// only asked for.
    ///
    /// # Errors
    /// If the device fails.
    pub fn begin(&mut self, state: &mut TrainState, learning_rate: f64, step: u64) -> Result<(), Error> {
        cuda::catch(|| {
            self.numbers.write_f32s(&state.optimizer.step_numbers(learning_rate, step + 1));
            let tensors = self.batches.iter_mut().flat_map(|(inputs, targets)| [inputs, targets]);
            match &mut self.staged {
                Staged::Here(ids) => {
                    let mut rest = ids.as_slice();
                    for x in tensors {
                        let (ids, behind) = rest.split_at(x.len());
                        x.write_u32s(ids);
                        rest = behind;
                    }
                    Ok(())
                }
                Staged::OnItsWay(upload) => upload.take(tensors),
            }
        })??;
        let update = || update(state, &self.batches, &self.numbers, self.tokens_per_step, self.fp8);
        match (self.device, &self.graph) {
            (Device::Cuda(_), Some(graph)) => graph.replay()?,
            // The first update compiles kernels and fetches memory, which a recording could not.
            (Device::Cuda(ordinal), None) if self.outputs.is_some() => {
                let (graph, outputs) = Graph::record(&cuda::context(ordinal)?, update)?;
                graph.replay()?;
                (self.graph, self.outputs) = (Some(graph), Some(outputs));
            }
            (Device::Cuda(ordinal), None) if self.tunes => {
                let context = cuda::context(ordinal)?;
                context.set_autotune(true);
                let outputs = cuda::catch(update);
                context.set_autotune(false);
                self.outputs = Some(outputs?);
            }
            _ => self.outputs = Some(cuda::catch(update)?),
        }
        Ok(())
    }

    /// Waits for update number `step`, the newest that was begun.
    ///
    /// # Panics
    /// If none was.
    ///
    /// # Errors
    /// If the loss or the gradient is not finite: then nothing was updated. If the device fails.
    pub fn finish(&mut self, step: u64) -> Result<StepResult, Error> {
        let outputs = self.outputs.as_ref().expect("an update was begun");
        let (loss, grad_norm) = cuda::catch(|| {
            let losses = outputs.losses.iter().map(|loss| f64::from(loss.item()));
            (losses.sum::<f64>(), f64::from(outputs.norm.item()))
        })?;
        match (loss.is_finite(), grad_norm.is_finite()) {
            (true, true) => Ok(StepResult { loss, grad_norm }),
            (true, false) => Err(Error::NonFiniteGradient { step, norm: grad_norm }),
            (false, _) => Err(Error::NonFiniteLoss { step, loss }),
        }
    }
}

/// All work of one update. Nothing in it waits for the device, and all that changes from one update to the next is in
/// `batches` and `numbers`.
fn update(
    state: &mut TrainState,
    batches: &[(Tensor, Tensor)],
    numbers: &Tensor,
    tokens_per_step: f32,
    fp8: bool,
) -> Outputs {
    // Weights are rounded once for all micro-batches.
    let rounded = fp8.then(|| state.compute_model().with_fp8());
    let model = rounded.as_ref().unwrap_or(state.compute_model());
    let mut gradients = Gradients::new();
    let mut losses = Vec::with_capacity(batches.len());
    for (inputs_bt, targets_bt) in batches {
        // Each micro-batch contributes its share of the mean over the whole batch.
        let loss = model.loss(inputs_bt, targets_bt, tokens_per_step);
        loss.backward_into(1.0, &mut gradients);
        losses.push(loss.detached());
    }
    drop(rounded);
    let TrainState { model, compute, optimizer } = state;
    // Leaves weights and moments as they are if the norm is not finite.
    let norm = optimizer.update(model, compute.as_mut(), &gradients, numbers);
    Outputs { losses, norm }
}
