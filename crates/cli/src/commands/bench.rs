//! `cupola bench`: how fast this machine computes what training is made of, as a share of what it could.

mod gpu;
mod peer;

use anyhow::Result;
use clap::{Args, Subcommand};

const EXAMPLES: &str = "\
EXAMPLES:
  cupola bench gpu                        matrix products, attention and training steps on the first GPU
  cupola bench gpu --only steps --quick   the training steps alone, fewer repetitions
  cupola bench gpu --peer                 the same work in PyTorch beside it, if python3 has torch";

/// Measure the speed of this machine on the work that training is made of
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// An NVIDIA GPU: matrix products, attention, and steps of a 124M GPT-2 and a 953M Llama
    Gpu(gpu::Gpu),
}

impl Bench {
    pub(super) fn run(self) -> Result<()> {
        match self.what {
            What::Gpu(gpu) => gpu.run(),
        }
    }
}
