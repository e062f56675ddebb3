//! What a run will take: as lines before it starts, as tables in its report, and in time.

use std::time::{Duration, Instant};

use anyhow::Result;
use data::loader::Batch;
use nn::{Recompute, Transformer};
use serde::Serialize;
use tensor::{DType, Device};
use train::RunConfig;
use train::ceiling::matrix_product_rate;
use train::plan::Plan;
use train::report::Table;
use train::stepper::{Stepper, TrainState};

use crate::ui::units::{bytes, compact, duration, grouped, percent, with_unit};

/// Share of the matrix-product rate that is assumed where no step can be timed.
const ASSUMED_UTILISATION: f64 = 0.5;

/// How long a run will take.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Estimate {
    /// Operations per second of a large matrix product on this machine, measured.
    pub(crate) matrix_product_flops_per_second: f64,
    /// Of training.
    pub(crate) tokens_per_second: f64,
    /// From the first step to the last, without validation.
    pub(crate) estimated_seconds: f64,
    /// Whether steps were timed; else half the matrix-product rate is assumed.
    pub(crate) is_measured: bool,
}

impl Estimate {
    /// Times a step if it fits in memory and will take less than about `budget_seconds`.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn of(config: &RunConfig, plan: &Plan, budget_seconds: f64) -> Result<Self> {
        let device = Device::from_name(&config.training.device)?;
        let dtype = config.training.precision.value().expect("an effective config").dtype();
        let rate = matrix_product_rate(device, dtype, Duration::from_millis(200))?;
        let tokens_per_micro_step = (plan.micro_batch_size * config.model.context_length) as f64;
        let seconds = |tokens: f64| plan.training_flops_per_token * tokens / (ASSUMED_UTILISATION * rate);
        // Two micro-batches, one of them to warm up, and room for an estimate that is too low by half.
        // On a GPU the first step compiles kernels: it would take longer than it could tell.
        let fits = device == Device::Cpu
            && plan.check_memory().is_ok()
            && 4.0 * seconds(tokens_per_micro_step) < budget_seconds;
        let step_seconds = match fits {
            true => {
                let seconds = timed_step(config, plan, device, dtype)?;
                // The run that may follow shall find the memory as if nothing had been timed.
                tensor::memory::trim();
                tensor::memory::reset_peak();
                seconds
            }
            false => seconds(plan.tokens_per_step as f64),
        };
        Ok(Estimate {
            matrix_product_flops_per_second: rate,
            tokens_per_second: plan.tokens_per_step as f64 / step_seconds,
            estimated_seconds: step_seconds * config.training.steps as f64,
            is_measured: fits,
        })
    }

    fn remark(&self) -> &'static str {
        if self.is_measured { "one step timed" } else { "assuming half the matrix-product rate" }
    }
}

/// Seconds of a step, from updates of one micro-batch of made-up tokens: one to warm up, one with a micro-batch, and
/// what more micro-batches would take in proportion.
fn timed_step(config: &RunConfig, plan: &Plan, device: Device, dtype: DType) -> Result<f64> {
    let recompute = config.training.recompute.value().expect("an effective config");
    let model = Transformer::new(&config.model, config.seed).with_recompute(recompute);
    let mut state = TrainState::fresh(model, &config.optimizer, config.training.grad_clip_norm, device, dtype)?;
    let (b, t, v) = (plan.micro_batch_size, config.model.context_length, config.model.vocab_size);
    let mut stepper = Stepper::new(device, 1, b, t)?;
    // Spread over the vocabulary, as the rows of a text's tokens are.
    let ids: Vec<u32> = (0..b * t).map(|i: usize| (i.wrapping_mul(2_654_435_761) % v) as u32).collect();
    let batch = Batch { inputs_bt: ids.clone(), targets_bt: ids, n_sequences: b, context_length: t };
    let mut seconds = 0.0;
    for step in 0..2 {
        let start = Instant::now();
        stepper.step(&mut state, std::slice::from_ref(&batch), 0.0, step)?;
        seconds = start.elapsed().as_secs_f64();
    }
    Ok(seconds * plan.gradient_accumulation_steps as f64)
}

/// The accounts as `(name, value)`.
pub(crate) fn pairs(plan: &Plan, estimate: &Estimate) -> Vec<(String, String)> {
    let pair = |name: &str, value: String| (name.to_owned(), value);
    let available = plan.available_memory_bytes.map_or(String::new(), |n| format!(" of {} free", bytes(n as u64)));
    let accumulation = match plan.gradient_accumulation_steps {
        1 => String::new(),
        n => format!(", {n} micro-batches of {} sequences", plan.micro_batch_size),
    };
    let training = format!("{} per token", compact(plan.training_flops_per_token));
    vec![
        pair("parameters", {
            let embedding = grouped(plan.embedding_parameters as u64);
            format!("{} ({embedding} of them in embedding and head)", grouped(plan.parameters as u64))
        }),
        pair("training FLOPs", format!("{training}, {} in all", compact(plan.training_flops))),
        pair(
            "tokens",
            format!("{} in all, {} per step{accumulation}", grouped(plan.tokens), grouped(plan.tokens_per_step)),
        ),
        pair(if plan.device == "cpu" { "memory" } else { "device memory" }, {
            format!("{}{available}", bytes(plan.memory_bytes as u64))
        }),
        pair(
            "",
            memory_parts(plan)
                .iter()
                .map(|&(name, n)| format!("{name} {}", bytes(n as u64)))
                .collect::<Vec<_>>()
                .join(", "),
        ),
        pair("recomputation", {
            let saved = bytes(plan.recompute_saves_bytes as u64);
            match plan.recompute {
                Recompute::None => format!("none; training.recompute = \"blocks\" would save {saved}"),
                Recompute::Blocks => format!("of blocks, which saves {saved}"),
            }
        }),
        pair("KV cache", format!("{} per token of generation", bytes(plan.kv_cache_bytes_per_token as u64))),
        pair(
            "matrix products",
            format!("{} measured here", with_unit(estimate.matrix_product_flops_per_second, "FLOP/s")),
        ),
        pair("time", {
            let (time, speed) = (duration(estimate.estimated_seconds), grouped(estimate.tokens_per_second as u64));
            format!("about {time} at {speed} tokens/s ({})", estimate.remark())
        }),
    ]
}

/// The accounts as tables: operations and memory by part.
pub(crate) fn tables(plan: &Plan) -> Vec<Table> {
    let forward = plan.forward_flops;
    let parts = [
        ("projections", forward.projections),
        ("attention scores and sums", forward.attention),
        ("feed-forward", forward.mlp),
        ("head", forward.head),
    ];
    let total: f64 = parts.iter().map(|(_, flops)| flops).sum();
    let flops_row = |name: &str, flops: f64| vec![name.to_owned(), compact(flops), percent(flops / total)];
    let flops = Table {
        title: "FLOPs of one forward pass over one sequence".to_owned(),
        header: ["part", "FLOPs", "share"].map(str::to_owned).to_vec(),
        rows: parts.iter().map(|(name, flops)| flops_row(name, *flops)).chain([flops_row("all", total)]).collect(),
        note: format!(
            "Matrix products only, 2·m·n·k each, attention over all pairs of positions. Training: three times that with \
             half the attention (causal), {} per token.",
            compact(plan.training_flops_per_token)
        ),
    };
    let memory_row =
        |name: &str, n: usize| vec![name.to_owned(), bytes(n as u64), percent(n as f64 / plan.memory_bytes as f64)];
    let memory = Table {
        title: "Memory of a training step".to_owned(),
        header: ["part", "bytes", "share"].map(str::to_owned).to_vec(),
        rows: memory_parts(plan)
            .iter()
            .map(|&(name, n)| memory_row(name, n))
            .chain([memory_row("all", plan.memory_bytes)])
            .collect(),
        note: format!(
            "On {}, at the moment at which the most is alive, with micro-batches of {} sequences{}.",
            plan.device,
            plan.micro_batch_size,
            if plan.recompute == Recompute::Blocks { " and blocks recomputed" } else { "" }
        ),
    };
    vec![flops, memory]
}

fn memory_parts(plan: &Plan) -> Vec<(&'static str, usize)> {
    let memory = plan.memory_by_category_bytes;
    let mut parts = vec![
        ("weights", memory.weights),
        ("gradients", memory.gradients),
        ("optimizer", memory.optimizer),
        ("activations", memory.activations),
        ("workspace", memory.workspace),
    ];
    if memory.waiting > 0 {
        parts.push(("waiting for reuse", memory.waiting));
    }
    parts
}
