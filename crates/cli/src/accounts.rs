//! What a run will take: as lines before it starts, as tables in its report, and in time.

use std::time::{Duration, Instant};

use nn::Transformer;
use serde::Serialize;
use tensor::{Gradients, Tensor};
use train::RunConfig;
use train::ceiling::matrix_product_rate;
use train::optimizer::{Optimizer, global_norm};
use train::plan::Plan;
use train::report::Table;

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
    pub(crate) fn of(config: &RunConfig, plan: &Plan, budget_seconds: f64) -> Self {
        let rate = matrix_product_rate(Duration::from_millis(200));
        let tokens_per_micro_step = (plan.micro_batch_size * config.model.context_length) as f64;
        let seconds = |tokens: f64| plan.training_flops_per_token * tokens / (ASSUMED_UTILISATION * rate);
        // Two micro-batches, one of them to warm up, and room for an estimate that is too low by half.
        let fits = plan.check_memory().is_ok() && 4.0 * seconds(tokens_per_micro_step) < budget_seconds;
        let step_seconds = match fits {
            true => {
                let seconds = timed_step(config, plan);
                // The run that may follow shall find the memory as if nothing had been timed.
                tensor::memory::trim();
                tensor::memory::reset_peak();
                seconds
            }
            false => seconds(plan.tokens_per_step as f64),
        };
        Estimate {
            matrix_product_flops_per_second: rate,
            tokens_per_second: plan.tokens_per_step as f64 / step_seconds,
            estimated_seconds: step_seconds * config.training.steps as f64,
            is_measured: fits,
        }
    }

    fn remark(&self) -> &'static str {
        if self.is_measured { "one step timed" } else { "assuming half the matrix-product rate" }
    }
}

/// Seconds of a step: one micro-batch of made-up tokens after another to warm up, and the update.
fn timed_step(config: &RunConfig, plan: &Plan) -> f64 {
    let model_config = &config.model;
    let mut model = Transformer::new(model_config, config.seed).tracked();
    let mut optimizer = Optimizer::new(&config.optimizer, &model);
    let shape = [plan.micro_batch_size, model_config.context_length];
    let ids = || {
        // Spread over the vocabulary, as the rows of a text's tokens are.
        let id = |i: usize| (i.wrapping_mul(2_654_435_761) % model_config.vocab_size) as u32;
        Tensor::from_u32(&shape, (0..shape[0] * shape[1]).map(id).collect())
    };
    let mut timed = [0.0; 2];
    for seconds in &mut timed {
        let start = Instant::now();
        let mut gradients = Gradients::new();
        model.loss(&ids(), &ids(), plan.tokens_per_step as f32).backward_into(1.0, &mut gradients);
        let micro_step = start.elapsed().as_secs_f64();
        global_norm(&model, &gradients);
        optimizer.update(&mut model, &gradients, 1.0, 0.0, 1);
        let update = start.elapsed().as_secs_f64() - micro_step;
        *seconds = micro_step * plan.gradient_accumulation_steps as f64 + update;
    }
    timed[1]
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
        pair("memory", format!("{}{available}", bytes(plan.memory_bytes as u64))),
        pair("", memory_parts(plan).map(|(name, n)| format!("{name} {}", bytes(n as u64))).join(", ")),
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
            "At the moment at which the most is alive, with micro-batches of {} sequences.",
            plan.micro_batch_size
        ),
    };
    vec![flops, memory]
}

fn memory_parts(plan: &Plan) -> [(&'static str, usize); 5] {
    let memory = plan.memory_by_category_bytes;
    [
        ("weights", memory.weights),
        ("gradients", memory.gradients),
        ("optimizer", memory.optimizer),
        ("activations", memory.activations),
        ("workspace", memory.workspace),
    ]
}
