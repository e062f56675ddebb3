//! Options that say how text is drawn, shared by the commands that write.

use clap::Args;
use eval::generate::GenerateConfig;
use eval::sampler::Sampling;

/// How text is drawn.
#[derive(Args)]
pub(crate) struct SamplingOptions {
    /// The most tokens to write
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub(crate) max_tokens: usize,
    /// Divides the logits; 0 always takes the likeliest token
    #[arg(long, value_name = "T", default_value_t = 0.8, allow_negative_numbers = true)]
    temperature: f32,
    /// Draw among the K likeliest tokens
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Draw among the fewest likeliest tokens whose probabilities sum to P; 1 for all
    #[arg(long, value_name = "P", default_value_t = 0.95, allow_negative_numbers = true)]
    top_p: f32,
    /// Draw among tokens at least this share as likely as the likeliest
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// End before this text appears; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Of the random numbers: the same seed writes the same text
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

impl SamplingOptions {
    /// As the library wants it.
    pub(crate) fn config(&self) -> GenerateConfig {
        let &SamplingOptions { max_tokens, temperature, top_k, top_p, min_p, seed, .. } = self;
        let sampling = Sampling { temperature, top_k, top_p: Some(top_p), min_p, seed };
        GenerateConfig { sampling, max_tokens, stop: self.stop.clone() }
    }
}
