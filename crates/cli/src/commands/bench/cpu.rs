//! The tables of a CPU.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Args, ValueEnum};
use data::loader::Batch;
use nn::{ModelConfig, Transformer, flops};
use rayon::prelude::*;
use serde::Serialize;
use tensor::cpu::element::Element;
use tensor::cpu::gemm::{Kernel, MatMut, MatRef, Parallel, gemm};
use tensor::ops::{self, Heads};
use tensor::random::Rng;
use tensor::{DType, Device, Gradients, memory};
use train::config::{Decay, OptimizerConfig};
use train::stepper::{Stepper, TrainState};

use super::{peer, random_batch};
use crate::machine::Machine;
use crate::ui;
use crate::ui::units::{bytes, grouped, percent};

const EXAMPLES: &str = "\
EXAMPLES:
  cupola bench cpu
  cupola bench cpu --only steps --quick
  cupola bench cpu --peer                 the same work in PyTorch beside it, if python3 has torch

Times are the fastest of many. Shares are of the fastest product in the same precision; the memory's rate is that of a sum
over an array far larger than the caches.

With --json: machine, memory_bytes_per_second, products, attention, steps, peer.";

/// Rows of the products of a step, and its shape: 8 sequences of 256 tokens.
const BATCH: usize = 8;

/// A CPU: memory, matrix products, attention, and a training step of a 22.7M model, in f32 and bf16
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Cpu {
    /// One part alone
    #[arg(long)]
    only: Option<Part>,
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
    machine: Machine,
    memory_bytes_per_second: f64,
    products: Vec<Product>,
    attention: Vec<Attention>,
    steps: Vec<Step>,
    peer: Option<String>,
}

#[derive(Serialize)]
struct Product {
    name: String,
    precision: String,
    kernel: &'static str,
    m: usize,
    n: usize,
    k: usize,
    seconds: f64,
    flops_per_second: f64,
}

#[derive(Serialize)]
struct Attention {
    precision: String,
    forward_seconds: f64,
    forward_flops_per_second: f64,
    backward_seconds: f64,
    backward_flops_per_second: f64,
}

#[derive(Serialize)]
struct Step {
    precision: String,
    kernel: &'static str,
    parameters: usize,
    seconds: f64,
    tokens_per_second: f64,
    flops_per_second: f64,
    peak_memory_bytes: usize,
    loss: f64,
}

/// The model of `configs/cs336-17m.toml`.
fn model_config() -> ModelConfig {
    ModelConfig::llama(10_000, 256, 512, 4, 16, 1344)
}

impl Cpu {
    pub(super) fn run(self) -> Result<()> {
        let wants = |part| self.only.is_none_or(|only| only == part);
        let timer = Timer { budget: Duration::from_millis(if self.quick { 200 } else { 800 }) };
        let mut output = Output {
            machine: Machine::detect(),
            memory_bytes_per_second: timer.memory(),
            products: Vec::new(),
            attention: Vec::new(),
            steps: Vec::new(),
            peer: None,
        };
        if wants(Part::Products) {
            output.products = timer.products::<f32>();
            output.products.extend(timer.products::<half::bf16>());
        }
        for dtype in [DType::F32, DType::Bf16] {
            if wants(Part::Attention) {
                output.attention.push(timer.attention(dtype));
            }
            if wants(Part::Steps) {
                output.steps.push(timer.step(dtype)?);
            }
        }
        if self.peer {
            output.peer = Some(peer::run(peer::CPU)?);
        }
        ui::print_result(self.json, &output, &|| text(&output))
    }
}

struct Timer {
    budget: Duration,
}

impl Timer {
    /// Seconds of one run of `work`: the fastest of those that fit into the budget, at least five. Other programs slow down
    /// some of them, nothing speeds one up.
    fn seconds(&self, mut work: impl FnMut()) -> f64 {
        work();
        let start = Instant::now();
        let (mut fastest, mut n) = (f64::INFINITY, 0);
        while n < 5 || start.elapsed() < self.budget {
            let begin = Instant::now();
            work();
            fastest = fastest.min(begin.elapsed().as_secs_f64());
            n += 1;
        }
        fastest
    }

    /// Bytes per second that all threads read.
    fn memory(&self) -> f64 {
        let x = vec![1.0_f32; 128 << 20];
        let sum = |part: &[f32]| {
            let mut lanes = [0.0_f32; 64];
            for chunk in part.as_chunks::<64>().0 {
                lanes.iter_mut().zip(chunk).for_each(|(sum, x)| *sum += x);
            }
            lanes.iter().sum::<f32>()
        };
        let seconds = self.seconds(|| {
            black_box(x.par_chunks(1 << 20).map(sum).sum::<f32>());
        });
        size_of_val(&x[..]) as f64 / seconds
    }

    /// A large product, and those of a step: forward, and the gradients of input and weight.
    fn products<T: Element>(&self) -> Vec<Product> {
        let rows = BATCH * 256;
        let mut products = vec![self.product::<T, T>("2048³".to_owned(), [2048; 3], [false, false])];
        let layers = [("qkv", 1536, 512), ("output", 512, 512), ("up", 2688, 512), ("down", 512, 1344)];
        for (name, o, i) in layers.into_iter().chain([("head", 10_000, 512)]) {
            products.push(self.product::<T, T>(format!("{name} forward"), [rows, o, i], [false, true]));
            products.push(self.product::<T, T>(format!("{name} input gradient"), [rows, i, o], [false, false]));
            products.push(self.product::<T, f32>(format!("{name} weight gradient"), [o, i, rows], [true, false]));
        }
        products
    }

    /// `a` and `b` may lie transposed.
    fn product<T: Element, C: Element>(&self, name: String, [m, n, k]: [usize; 3], transposed: [bool; 2]) -> Product {
        let random = |len, stream| -> Vec<T> {
            Rng::new(1, stream).normal(&[len], 1.0).f32s().iter().map(|&x| T::narrow(x)).collect()
        };
        let (a, b) = (random(m * k, 1), random(k * n, 2));
        let mut c = vec![C::narrow(0.0); m * n];
        let view = |data, [rows, cols]: [usize; 2], transposed| match transposed {
            true => MatRef::row_major(data, rows).transposed(),
            false => MatRef::row_major(data, cols),
        };
        let (a, b) = (view(&a[..], [m, k], transposed[0]), view(&b[..], [k, n], transposed[1]));
        let seconds = self.seconds(|| gemm(m, n, k, 1.0, a, b, 0.0, MatMut::row_major(&mut c[..], n), Parallel::Rayon));
        let flops_per_second = 2.0 * (m * n * k) as f64 / seconds;
        let (precision, kernel) = (T::DTYPE.to_string(), Kernel::current().name_for(T::DTYPE));
        Product { name, precision, kernel, m, n, k, seconds, flops_per_second }
    }

    fn attention(&self, dtype: DType) -> Attention {
        let config = model_config();
        let (heads, t) = (config.heads(), config.context_length);
        let Heads { n_heads, head_dim, .. } = heads;
        let scale = 1.0 / (head_dim as f32).sqrt();
        let random = |width, stream| ops::cast(&Rng::new(1, stream).normal(&[BATCH, t, width], 1.0), dtype);
        let (qkv, dy) = (random(heads.qkv_width(), 1), random(heads.q_width(), 2));
        let forward_seconds = self.seconds(|| drop(ops::attention(&qkv, &heads, scale)));
        let both = self.seconds(|| {
            // An activation, not a leaf, whose gradient stays in its precision.
            let qkv = ops::as_activation(&qkv, drop);
            ops::pull_back(&ops::attention(&qkv, &heads, scale), &dy).backward_into(1.0, &mut Gradients::new());
        });
        let backward_seconds = both - forward_seconds;
        let flops = 2.0 * (BATCH * n_heads * head_dim) as f64 * (t as f64).powi(2);
        Attention {
            precision: dtype.to_string(),
            forward_seconds,
            forward_flops_per_second: flops / forward_seconds,
            backward_seconds,
            backward_flops_per_second: 2.5 * flops / backward_seconds,
        }
    }

    fn step(&self, dtype: DType) -> Result<Step> {
        let config = model_config();
        let optimizer = OptimizerConfig::AdamW {
            learning_rate: 1e-3,
            betas: [0.9, 0.95],
            eps: 1e-8,
            weight_decay: 0.1,
            decay: Decay::Matrices,
        };
        memory::trim();
        let model = Transformer::new(&config, 0);
        let mut state = TrainState::fresh(model, &optimizer, 1.0, Device::Cpu, dtype)?;
        memory::reset_peak();
        let mut stepper = Stepper::new(Device::Cpu, 1, BATCH, config.context_length)?;
        let batch: [Batch; 1] = [random_batch(&config, BATCH, 0)];
        let (mut loss, mut failure, mut step) = (0.0, None, 0);
        let seconds = Timer { budget: 5 * self.budget }.seconds(|| {
            match stepper.step(&mut state, &batch, 1e-3, step) {
                Ok(result) => loss = result.loss,
                Err(e) => failure = Some(e),
            }
            step += 1;
        });
        if let Some(e) = failure {
            return Err(e.into());
        }
        let tokens = (BATCH * config.context_length) as f64;
        Ok(Step {
            precision: dtype.to_string(),
            kernel: Kernel::current().name_for(dtype),
            parameters: config.n_parameters(),
            seconds,
            tokens_per_second: tokens / seconds,
            flops_per_second: flops::training_flops_per_token(&config) * tokens / seconds,
            peak_memory_bytes: memory::stats().peak_alive,
            loss,
        })
    }
}

fn text(output: &Output) -> String {
    let giga = |rate: f64| format!("{:.0} GFLOP/s", rate / 1e9);
    // Of the fastest product in the same precision.
    let share = |precision: &str, rate: f64| {
        let rates = output.products.iter().filter(|x| x.precision == precision).map(|x| x.flops_per_second);
        match rates.fold(0.0, f64::max) {
            0.0 => String::new(),
            best => format!(", {}", percent(rate / best)),
        }
    };
    let Machine { processor, threads, instruction_set, .. } = &output.machine;
    let processor = processor.as_deref().unwrap_or("unknown");
    let mut pairs = vec![
        ("processor".to_owned(), format!("{processor}, {threads} threads, {instruction_set}")),
        ("memory".to_owned(), format!("{:.1} GB/s read", output.memory_bytes_per_second / 1e9)),
    ];
    for Product { name, precision, kernel, seconds, flops_per_second, m, n, k } in &output.products {
        let (rate, share) = (giga(*flops_per_second), share(precision, *flops_per_second));
        let value = format!("{:.3} ms, {rate}{share} ({kernel}, {m} × {n} × {k})", seconds * 1e3);
        pairs.push((format!("{precision} product {name}"), value));
    }
    for attention in &output.attention {
        let part = |name: &str, seconds: f64, rate: f64| {
            (
                format!("{} attention {name}", attention.precision),
                format!("{:.3} ms, {}{}", seconds * 1e3, giga(rate), share(&attention.precision, rate)),
            )
        };
        pairs.push(part("forward", attention.forward_seconds, attention.forward_flops_per_second));
        pairs.push(part("backward", attention.backward_seconds, attention.backward_flops_per_second));
    }
    for step in &output.steps {
        let value = format!(
            "{:.1} ms, {} tokens/s, {}{}, {} at most ({})",
            step.seconds * 1e3,
            grouped(step.tokens_per_second as u64),
            giga(step.flops_per_second),
            share(&step.precision, step.flops_per_second),
            bytes(step.peak_memory_bytes as u64),
            step.kernel,
        );
        pairs.push((format!("{} step, 22.7M, {BATCH} × 256", step.precision), value));
    }
    let peer = output.peer.as_ref().map_or(String::new(), |peer| format!("\nPyTorch:\n{peer}"));
    format!("{}{peer}", ui::pairs(&pairs))
}
