//! The tables of a GPU.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use data::loader::Batch;
use nn::{ModelConfig, Transformer, flops};
use serde::Serialize;
use tensor::cuda::{self, Context, Event};
use tensor::ops::{self, Heads};
use tensor::random::Rng;
use tensor::{DType, Device, Gradients, Tensor};
use train::config::{Decay, Matmul, OptimizerConfig};
use train::stepper::{Stepper, TrainState};

use super::{peer, random_batch};
use crate::ui;
use crate::ui::units::{bytes, grouped, percent};

const EXAMPLES: &str = "\
EXAMPLES:
  cupola bench gpu
  cupola bench gpu --device cuda:1 --only attention
  cupola bench gpu --only steps --micro-batch 64      GPT-2 with another batch than 32 sequences
  cupola bench gpu --only steps --fp8                 each step in bf16, then with fp8 products

With --json: device, copy_bytes_per_second, bf16_peak (of the data sheet), matrix_products, attention, steps, peer.
MFU: training FLOPs per token (matrix products of 6 per weight, causal attention counted at half) times tokens per
second, over the data sheet's dense bf16 peak, for steps in fp8 too.";

/// An NVIDIA GPU: matrix products, attention, and steps of a 124M GPT-2 and a 953M Llama
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Gpu {
    /// Which one
    #[arg(long, default_value = "cuda:0")]
    device: String,
    /// One part alone
    #[arg(long)]
    only: Option<Part>,
    /// Sequences at a time in the GPT-2 step instead of 32; the Llama step takes an eighth
    #[arg(long, default_value_t = 32)]
    micro_batch: usize,
    /// Micro-batches of an update in the steps
    #[arg(long, default_value_t = 1)]
    accumulate: usize,
    /// Add the steps with the products of the blocks in fp8
    #[arg(long)]
    fp8: bool,
    /// Fewer repetitions
    #[arg(long)]
    quick: bool,
    /// Run the same work in PyTorch beside it, if there is a python3 with torch
    #[arg(long)]
    peer: bool,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Matrix products
    Products,
    /// Attention
    Attention,
    /// Training steps
    Steps,
}

#[derive(Serialize)]
struct Output {
    device: String,
    copy_bytes_per_second: f64,
    bf16_peak: Option<f64>,
    matrix_products: Vec<Product>,
    attention: Vec<Attention>,
    steps: Vec<Step>,
    peer: Option<String>,
}

#[derive(Serialize)]
struct Product {
    /// m = n = k.
    n: usize,
    seconds: f64,
    flops_per_second: f64,
}

#[derive(Serialize)]
struct Attention {
    b: usize,
    h: usize,
    t: usize,
    d: usize,
    forward_seconds: f64,
    forward_flops_per_second: f64,
    backward_seconds: f64,
    backward_flops_per_second: f64,
}

#[derive(Serialize)]
struct Step {
    model: &'static str,
    /// Of the products in the blocks.
    matmul: Matmul,
    parameters: usize,
    micro_batch: usize,
    accumulate: usize,
    t: usize,
    /// From fresh weights to the end of the first step.
    first_step_seconds: f64,
    startup: StepStartup,
    seconds: f64,
    tokens_per_second: f64,
    flops_per_second: f64,
    mfu: Option<f64>,
    /// In tensors.
    peak_memory_bytes: usize,
    /// Taken from the driver.
    peak_held_memory_bytes: usize,
    loss: f64,
}

/// Where the seconds of the first step went; that of the graph is recorded in the second.
#[derive(Serialize)]
struct StepStartup {
    weights_seconds: f64,
    kernels_seconds: f64,
    kernels_compiled: usize,
    kernels_read: usize,
    algorithm_search_seconds: f64,
    memory_seconds: f64,
    graph_seconds: f64,
}

impl Gpu {
    pub(super) fn run(self) -> Result<()> {
        let device = Device::from_name(&self.device)?;
        let Device::Cuda(ordinal) = device else {
            bail!(
                "--device is {}, expected cuda:0 or another GPU\nhint: `cupola doctor` lists what is here",
                self.device
            )
        };
        let context = cuda::context(ordinal)?;
        if self.fp8 && !context.has_fp8() {
            bail!(
                "--fp8: {} ({}) has no products in fp8\nhint: they need a GPU of compute capability 8.9 (Ada) or 9.0 (Hopper)",
                context.name(),
                context.arch()
            )
        }
        let wants = |part| self.only.is_none_or(|only| only == part);
        let budget = Duration::from_millis(if self.quick { 150 } else { 600 });
        let bench = Timer { context, device, budget };
        let mut output = Output {
            device: bench.context.name(),
            copy_bytes_per_second: cuda::catch(|| bench.copy())??,
            bf16_peak: bench.context.bf16_peak(),
            matrix_products: Vec::new(),
            attention: Vec::new(),
            steps: Vec::new(),
            peer: None,
        };
        if wants(Part::Products) {
            for n in [4096, 8192] {
                output.matrix_products.push(cuda::catch(|| bench.product(n))??);
            }
        }
        if wants(Part::Attention) {
            for (b, h, t, d) in [(16, 12, 1024, 64), (4, 16, 4096, 128), (2, 16, 8192, 128), (1, 16, 16384, 64)] {
                output.attention.push(cuda::catch(|| bench.attention(b, h, t, d))??);
            }
        }
        if wants(Part::Steps) {
            let gpt2 = ModelConfig::gpt2(50304, 1024, 768, 12, 12);
            let llama = ModelConfig::llama(32000, 2048, 2048, 16, 16, 5632);
            let matmuls: &[Matmul] = if self.fp8 { &[Matmul::Bf16, Matmul::Fp8] } else { &[Matmul::Bf16] };
            let micro_batches = [self.micro_batch, (self.micro_batch / 8).max(1)];
            for ((name, config), micro_batch) in
                [("gpt2-124m", gpt2), ("llama-953m", llama)].into_iter().zip(micro_batches)
            {
                for &matmul in matmuls {
                    output.steps.push(bench.step(name, &config, micro_batch, self.accumulate, matmul)?);
                }
            }
        }
        if self.peer {
            output.peer = Some(peer::run(peer::GPU)?);
        }
        ui::print_result(self.json, &output, &|| text(&output))
    }
}

struct Timer {
    context: Arc<Context>,
    device: Device,
    budget: Duration,
}

impl Timer {
    /// Seconds of one run of `work`, on the device's clock, over as many runs as fit into the budget.
    fn seconds(&self, mut work: impl FnMut()) -> Result<f64> {
        work();
        let once = self.timed(1, &mut work)?;
        let n = (self.budget.as_secs_f64() / once).clamp(3.0, 2000.0) as usize;
        // The clock of a device rises under load: a first round warms it up.
        self.timed(n / 3 + 1, &mut work)?;
        self.timed(n, &mut work)
    }

    fn timed(&self, n: usize, work: &mut impl FnMut()) -> Result<f64> {
        let start = Event::record(&self.context)?;
        (0..n).for_each(|_| work());
        let end = Event::record(&self.context)?;
        Ok(end.since(&start)?.as_secs_f64() / n as f64)
    }

    /// Bytes read and written per second by a copy far larger than any cache.
    fn copy(&self) -> Result<f64> {
        const BYTES: usize = 2 << 30;
        let x = Tensor::zeros_on(self.device, &[BYTES / 4], DType::F32);
        let seconds = self.seconds(|| drop(x.copied_to(self.device)))?;
        Ok(2.0 * BYTES as f64 / seconds)
    }

    /// Normal numbers in bf16: the power that a product takes, and so its clock, depends on the numbers.
    fn random(&self, shape: &[usize], stream: u64) -> Tensor {
        ops::cast(&Rng::new(1, stream).normal_on(self.device, shape, 1.0), DType::Bf16)
    }

    fn product(&self, n: usize) -> Result<Product> {
        let (x, w) = (self.random(&[n, n], 1), self.random(&[n, n], 2));
        let seconds = self.seconds(|| drop(ops::linear(&x, &w, None)))?;
        Ok(Product { n, seconds, flops_per_second: 2.0 * (n as f64).powi(3) / seconds })
    }

    fn attention(&self, b: usize, h: usize, t: usize, d: usize) -> Result<Attention> {
        let heads = Heads::of_one_size(h, h, d);
        let scale = 1.0 / (d as f32).sqrt();
        let qkv = self.random(&[b, t, heads.qkv_width()], 1);
        let dy = self.random(&[b, t, heads.q_width()], 2);
        let forward_seconds = self.seconds(|| drop(ops::attention(&qkv, &heads, scale)))?;
        let both = self.seconds(|| {
            let qkv = ops::as_activation(&qkv, drop);
            ops::pull_back(&ops::attention(&qkv, &heads, scale), &dy).backward_into(1.0, &mut Gradients::new());
        })?;
        let backward_seconds = both - forward_seconds;
        let flops = 2.0 * (b * h * d) as f64 * (t as f64).powi(2);
        Ok(Attention {
            b,
            h,
            t,
            d,
            forward_seconds,
            forward_flops_per_second: flops / forward_seconds,
            backward_seconds,
            backward_flops_per_second: 2.5 * flops / backward_seconds,
        })
    }

    fn step(
        &self,
        name: &'static str,
        config: &ModelConfig,
        micro_batch: usize,
        accumulate: usize,
        matmul: Matmul,
    ) -> Result<Step> {
        let optimizer = OptimizerConfig::AdamW {
            learning_rate: 3e-4,
            betas: [0.9, 0.95],
            eps: 1e-8,
            weight_decay: 0.1,
            decay: Decay::All,
        };
        let t = config.context_length;
        let batches: Vec<Batch> = (0..accumulate).map(|i| random_batch(config, micro_batch, i as u64)).collect();
        let tokens = (micro_batch * accumulate * t) as f64;
        self.context.reset_peak_memory();
        let before = self.context.spent();
        let start = Instant::now();
        let model = cuda::catch(|| Transformer::new_on(self.device, config, 0))?;
        let mut state = TrainState::fresh(model, &optimizer, 1.0, self.device, DType::Bf16)?;
        self.context.synchronize()?;
        let weights_seconds = start.elapsed().as_secs_f64();
        let mut stepper =
            Stepper::new(self.device, accumulate, micro_batch, t)?.with_tuning().with_fp8(matmul == Matmul::Fp8);
        stepper.step(&mut state, &batches, 3e-4, 0)?;
        let first_step_seconds = start.elapsed().as_secs_f64();
        let spent = self.context.spent();

        let n_steps = if self.budget.as_millis() < 500 { 10 } else { 30 };
        let mut seconds = Vec::new();
        let mut loss = 0.0;
        for step in 1..=n_steps {
            let start = Instant::now();
            loss = stepper.step(&mut state, &batches, 3e-4, step)?.loss;
            seconds.push(start.elapsed().as_secs_f64());
        }
        // Of those that replay the graph.
        let mut seconds = seconds.split_off(2);
        seconds.sort_by(f64::total_cmp);
        let seconds = seconds[seconds.len() / 2];
        let flops_per_second = flops::training_flops_per_token(config) * tokens / seconds;
        Ok(Step {
            model: name,
            matmul,
            parameters: config.n_parameters(),
            micro_batch,
            accumulate,
            t,
            first_step_seconds,
            startup: StepStartup {
                weights_seconds,
                kernels_seconds: (spent.kernels - before.kernels).as_secs_f64(),
                kernels_compiled: spent.n_compiled - before.n_compiled,
                kernels_read: spent.n_read - before.n_read,
                algorithm_search_seconds: (spent.algorithms - before.algorithms).as_secs_f64(),
                memory_seconds: (spent.memory - before.memory).as_secs_f64(),
                graph_seconds: (self.context.spent().graphs - before.graphs).as_secs_f64(),
            },
            seconds,
            tokens_per_second: tokens / seconds,
            flops_per_second,
            mfu: self.context.bf16_peak().map(|peak| flops_per_second / peak),
            peak_memory_bytes: self.context.memory().peak_alive,
            peak_held_memory_bytes: self.context.peak_held_memory(),
            loss,
        })
    }
}

fn text(output: &Output) -> String {
    let tera = |rate: f64| format!("{:.0} TFLOP/s", rate / 1e12);
    let share = |rate: f64| {
        output.bf16_peak.map_or(String::new(), |peak| format!(", {} of the data sheet", percent(rate / peak)))
    };
    let best = output.matrix_products.iter().map(|product| product.flops_per_second).fold(0.0, f64::max);
    let share_of_product = |rate: f64| match best > 0.0 {
        true => format!(", {} of the product measured here", percent(rate / best)),
        false => String::new(),
    };
    let mut pairs = vec![
        ("device".to_owned(), output.device.clone()),
        ("copy".to_owned(), format!("{:.0} GB/s read and written", output.copy_bytes_per_second / 1e9)),
    ];
    for Product { n, seconds, flops_per_second } in &output.matrix_products {
        let rate = *flops_per_second;
        pairs.push((format!("bf16 product {n}³"), format!("{:.3} ms, {}{}", seconds * 1e3, tera(rate), share(rate))));
    }
    for attention in &output.attention {
        let Attention { b, h, t, d, .. } = attention;
        let part =
            |name, seconds: f64, rate: f64| format!("{name} {:.3} ms, {}{}", seconds * 1e3, tera(rate), share(rate));
        pairs.push((
            format!("attention B{b} H{h} T{t} D{d} causal"),
            part("forward", attention.forward_seconds, attention.forward_flops_per_second),
        ));
        let backward = part("backward", attention.backward_seconds, attention.backward_flops_per_second);
        pairs.push((String::new(), backward));
    }
    for step in &output.steps {
        let batch = match step.accumulate {
            1 => format!("{} × {}", step.micro_batch, step.t),
            n => format!("{n} × {} × {}", step.micro_batch, step.t),
        };
        let numbers = if step.matmul == Matmul::Fp8 { ", fp8" } else { "" };
        pairs.push((
            format!("{} ({batch}{numbers})", step.model),
            format!(
                "{:.2} ms, {} tokens/s, {}{}{}",
                step.seconds * 1e3,
                grouped(step.tokens_per_second as u64),
                tera(step.flops_per_second),
                step.mfu.map_or(String::new(), |mfu| format!(", MFU {}", percent(mfu))),
                share_of_product(step.flops_per_second),
            ),
        ));
        let (memory, first) = (bytes(step.peak_memory_bytes as u64), step.first_step_seconds);
        pairs.push((String::new(), format!("{memory} at most, first step after {first:.2} s, loss {:.3}", step.loss)));
        let StepStartup { weights_seconds, kernels_seconds, algorithm_search_seconds, memory_seconds, .. } =
            step.startup;
        let StepStartup { kernels_compiled, kernels_read, graph_seconds, .. } = step.startup;
        pairs.push((
            String::new(),
            format!(
                "of it weights {weights_seconds:.2}, {kernels_compiled} kernels compiled and {kernels_read} read \
                 {kernels_seconds:.2}, algorithm search {algorithm_search_seconds:.2}, device memory {memory_seconds:.2}; \
                 then graph {graph_seconds:.2}"
            ),
        ));
    }
    let peer = output.peer.as_ref().map_or(String::new(), |peer| format!("\nPyTorch:\n{peer}"));
    format!("{}{peer}", ui::pairs(&pairs))
}
