//! What a run will take, before it starts: parameters, FLOPs, memory, tokens, time.

use nn::Recompute;
use nn::flops::{ForwardFlops, training_flops_per_token};
use nn::memory::{self, MemoryPlan, Step};
use serde::Serialize;
use tensor::cpu::gemm::Kernel;
use tensor::{Device, cuda};

use crate::config::{Auto, Matmul, Precision, RunConfigError};
use crate::{Error, RunConfig};

/// Share of the available memory that an automatic choice may fill: beside other programs, and on a GPU.
const MEMORY_SHARE: f64 = 0.8;
const GPU_MEMORY_SHARE: f64 = 0.9;

/// Positions beyond which a larger micro-batch no longer makes a CPU faster.
const ENOUGH_POSITIONS: usize = 1 << 12;

/// The accounts of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Trained numbers.
    pub parameters: usize,
    /// Of them, rows of the embedding tables and the head.
    pub embedding_parameters: usize,
    /// See [`training_flops_per_token`].
    pub training_flops_per_token: f64,
    /// Of the whole run.
    pub training_flops: f64,
    /// Tokens of one update.
    pub tokens_per_step: u64,
    /// Tokens of the whole run.
    pub tokens: u64,
    /// Sequences at a time.
    pub micro_batch_size: usize,
    /// Micro-batches of one update.
    pub gradient_accumulation_steps: usize,
    /// Where it runs.
    pub device: String,
    /// What backward computes again instead of keeping it.
    pub recompute: Recompute,
    /// Bytes that recomputation saves, or would save: of everything alive, at this micro-batch.
    pub recompute_saves_bytes: usize,
    /// At the moment at which the most is alive, and on a GPU what then waits to be used again, in bytes.
    pub memory_bytes: usize,
    /// The same by category.
    pub memory_by_category_bytes: MemoryCategories,
    /// What the device has free, in bytes, if it is known.
    pub available_memory_bytes: Option<usize>,
    /// Keys and values that generation keeps per token, in bytes.
    pub kv_cache_bytes_per_token: usize,
    /// Operations of one forward pass over one full sequence, by component.
    pub forward_flops: ForwardCategories,
}

/// See [`MemoryPlan`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct MemoryCategories {
    pub weights: usize,
    pub gradients: usize,
    pub optimizer: usize,
    pub activations: usize,
    pub workspace: usize,
    pub waiting: usize,
}

/// See [`ForwardFlops`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct ForwardCategories {
    pub projections: f64,
    pub attention: f64,
    pub mlp: f64,
    pub head: f64,
}

impl Plan {
    /// The accounts of a run whose micro-batch is chosen.
    ///
    /// # Panics
    /// If the micro-batch is still automatic; see [`choose`].
    pub fn of(config: &RunConfig) -> Self {
        let model = &config.model;
        let micro_batch_size = config.training.micro_batch_size.value().expect("a chosen micro-batch");
        let accumulation = config.training.batch_size / micro_batch_size;
        let tokens = config.tokens_per_step() * config.training.steps;
        let recompute = config.training.recompute.value().unwrap_or_default();
        let device = device(config);
        let on = device.as_ref().map_or(Device::Cpu, |&device| device);
        let memory = memory_of(config, on, micro_batch_size, recompute);
        let [kept, recomputed] = [Recompute::None, Recompute::Blocks]
            .map(|recompute| memory_of(config, on, micro_batch_size, recompute).held());
        let MemoryPlan { weights, gradients, optimizer, activations, workspace, waiting } = memory;
        let ForwardFlops { projections, attention, mlp, head } = ForwardFlops::of(model, model.context_length);
        let tables = if model.tie_embeddings { 1 } else { 2 };
        Plan {
            parameters: model.n_parameters(),
            embedding_parameters: tables * model.vocab_size * model.d_model,
            training_flops_per_token: training_flops_per_token(model),
            training_flops: training_flops_per_token(model) * tokens as f64,
            tokens_per_step: config.tokens_per_step(),
            tokens,
            micro_batch_size,
            gradient_accumulation_steps: accumulation,
            device: on.to_string(),
            recompute,
            recompute_saves_bytes: kept.saturating_sub(recomputed),
            memory_bytes: memory.held(),
            memory_by_category_bytes: MemoryCategories {
                weights,
                gradients,
                optimizer,
                activations,
                workspace,
                waiting,
            },
            available_memory_bytes: device.ok().and_then(Device::available_memory),
            kv_cache_bytes_per_token: nn::KvCache::bytes_per_token(model),
            forward_flops: ForwardCategories { projections, attention, mlp, head },
        }
    }

    /// Refuses a run that does not fit.
    ///
    /// # Errors
    /// If the plan needs more than the device has free.
    pub fn check_memory(&self) -> Result<(), Error> {
        match self.available_memory_bytes {
            Some(available) if self.memory_bytes > available => Err(Error::TooLarge {
                needed: gigabytes(self.memory_bytes),
                available: gigabytes(available),
                setting: match (self.micro_batch_size, self.recompute) {
                    (1, Recompute::None)
                        if self.memory_bytes.saturating_sub(self.recompute_saves_bytes) <= available =>
                    {
                        "what is kept: set training.recompute = \"blocks\""
                    }
                    (1, _) => "model.d_model, model.n_layers or model.context_length",
                    _ => "training.micro_batch_size",
                },
            }),
            _ => Ok(()),
        }
    }
}

fn gigabytes(bytes: usize) -> String {
    format!("{:.2} GB", bytes as f64 / 1e9)
}

fn memory_of(config: &RunConfig, device: Device, micro_batch_size: usize, recompute: Recompute) -> MemoryPlan {
    let n_micro_batches = config.training.batch_size / micro_batch_size;
    let dtype = precision(config, device).dtype();
    let fp8 = config.training.matmul.value() == Some(Matmul::Fp8);
    memory::training(&config.model, &Step { micro_batch_size, n_micro_batches, dtype, device, recompute, fp8 })
}

/// The numbers that matrix products are made of: those of `precision`, or fewer bits where the device has them.
fn matmul(config: &RunConfig, device: Device, precision: Precision) -> Result<Matmul, Error> {
    let usual = Matmul::from(precision);
    let refused = |value: &str, expected| {
        let (key, value) = ("training.matmul", value.to_owned());
        Err(RunConfigError::Range { key, value, expected }.into())
    };
    match config.training.matmul.value() {
        None => Ok(usual),
        Some(Matmul::Fp8) => match device {
            Device::Cuda(ordinal) if !cuda::context(ordinal)?.has_fp8() => refused(
                "fp8",
                "bf16 on this GPU: products in fp8 need one of compute capability 8.9 (Ada) or 9.0 (Hopper)",
            ),
            Device::Cuda(_) if precision == Precision::Bf16 => Ok(Matmul::Fp8),
            Device::Cuda(_) => refused("fp8", "f32, as training.precision: fp8 goes with bf16"),
            Device::Cpu => refused("fp8", "f32 on a CPU: products in fp8 need an NVIDIA GPU"),
        },
        Some(other) if other == usual => Ok(usual),
        Some(Matmul::F32) => refused("f32", "bf16, as training.precision, or fp8"),
        Some(Matmul::Bf16) => refused("bf16", "f32, as training.precision"),
    }
}

/// The precision of a run on `device`: bf16 where it is known to be several times faster. On a CPU it must be asked for.
fn precision(config: &RunConfig, device: Device) -> Precision {
    config.training.precision.value().unwrap_or(match device {
        Device::Cpu => Precision::F32,
        Device::Cuda(_) => Precision::Bf16,
    })
}

/// The matrix-product kernel of a run.
fn kernel(config: &RunConfig) -> Kernel {
    config.training.kernel.value().map_or_else(Kernel::fastest, Kernel::from)
}

fn device(config: &RunConfig) -> Result<Device, tensor::Error> {
    Device::from_name(&config.training.device)
}

/// Writes a choice in place of every `"auto"`: the config is then the run's effective one.
///
/// # Errors
/// If the device is not there.
pub fn choose(config: &RunConfig) -> Result<RunConfig, Error> {
    let device = device(config)?;
    let mut chosen = config.clone();
    chosen.training.device = device.to_string();
    let precision = precision(config, device);
    chosen.training.precision = Auto::Value(precision);
    chosen.training.matmul = Auto::Value(matmul(config, device, precision)?);
    chosen.training.kernel = Auto::Value(kernel(config).into());
    let (micro_batch_size, recompute) = fitting(config, device, device.available_memory());
    chosen.training.micro_batch_size = Auto::Value(micro_batch_size);
    chosen.training.recompute = Auto::Value(recompute);
    Ok(chosen)
}

/// The micro-batch and what is recomputed, as the config says or as fits into `available` bytes of `device`: the largest
/// divisor of the batch, without recomputation if at least one sequence (or the micro-batch asked for) fits so. If nothing
/// fits, one sequence with recomputation, for [`Plan::check_memory`] to refuse.
fn fitting(config: &RunConfig, device: Device, available: Option<usize>) -> (usize, Recompute) {
    let share = if device == Device::Cpu { MEMORY_SHARE } else { GPU_MEMORY_SHARE };
    let budget = available.map_or(f64::INFINITY, |bytes| share * bytes as f64);
    let batch_size = config.training.batch_size;
    let fits = |size, recompute| memory_of(config, device, size, recompute).held() as f64 <= budget;
    let sizes = match config.training.micro_batch_size.value() {
        Some(size) => vec![size],
        None => {
            let enough = |size: usize| device != Device::Cpu || size * config.model.context_length <= ENOUGH_POSITIONS;
            divisors(batch_size).into_iter().filter(|&size| size == 1 || enough(size)).collect()
        }
    };
    let smallest = sizes.first().copied().unwrap_or(1);
    let recompute = config.training.recompute.value().unwrap_or_else(|| match fits(smallest, Recompute::None) {
        true => Recompute::None,
        false => Recompute::Blocks,
    });
    let largest = sizes.into_iter().rev().find(|&size| fits(size, recompute));
    (largest.unwrap_or(smallest), recompute)
}

/// In ascending order.
fn divisors(n: usize) -> Vec<usize> {
    let small: Vec<usize> = (1..).take_while(|&x| x * x <= n).filter(|&x| n.is_multiple_of(x)).collect();
    let large = small.iter().rev().map(|&x| n / x).filter(|&x| x * x > n);
    small.iter().copied().chain(large).collect()
}

#[cfg(test)]
mod tests;
