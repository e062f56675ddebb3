//! `cupola bench`: how fast this machine computes what training is made of, as a share of what it could.

mod cpu;
mod gpu;
mod peer;

use anyhow::Result;
use clap::{Args, Subcommand};
use data::loader::Batch;
use nn::ModelConfig;
use tensor::random::Rng;

const EXAMPLES: &str = "\
EXAMPLES:
  cupola bench cpu                        memory, matrix products, attention and training steps on the CPU
  cupola bench gpu                        matrix products, attention and training steps on the first GPU
  cupola bench gpu --only steps --quick   the training steps alone, fewer repetitions
  cupola bench gpu --peer                 the same work in PyTorch beside it, if python3 has torch

Each takes --json for one machine-readable result on standard output.";

/// Measure the speed of this machine on the work that training is made of
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// A CPU: memory, matrix products, attention, and a training step of a 22.7M model, in f32 and bf16
    Cpu(cpu::Cpu),
    /// An NVIDIA GPU: matrix products, attention, and steps of a 124M GPT-2 and a 953M Llama
    Gpu(gpu::Gpu),
}

impl Bench {
    pub(super) fn run(self) -> Result<()> {
        match self.what {
            What::Cpu(cpu) => cpu.run(),
            What::Gpu(gpu) => gpu.run(),
        }
    }
}

/// Tokens without any order, as the peer's script has them.
fn random_batch(config: &ModelConfig, n_sequences: usize, stream: u64) -> Batch {
    let n = n_sequences * config.context_length;
    let uniform = Rng::new(2, stream).uniform_tensor(&[n + 1], 0.0, config.vocab_size as f32);
    let ids: Vec<u32> = uniform.f32s().iter().map(|&x| (x as u32).min(config.vocab_size as u32 - 1)).collect();
    Batch {
        inputs_bt: ids[..n].to_vec(),
        targets_bt: ids[1..].to_vec(),
        n_sequences,
        context_length: config.context_length,
    }
}
