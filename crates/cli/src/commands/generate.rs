//! `cupola generate`: a model continues a text.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use eval::generate::{Finish, Generated, Session};
use serde::Serialize;

use super::sampling::SamplingOptions;
use crate::model_folder::{DeviceOption, LoadedModel};
use crate::ui;

const EXAMPLES: &str = "\
EXAMPLES:
  cupola generate runs/quickstart --prompt 'The captain said'
  cupola generate runs/quickstart --prompt 'The captain said' --temperature 0 --max-tokens 50
  cupola generate runs/quickstart --prompt 'Chapter' --top-k 50 --stop '.' --seed 7 --json

The text is shown as it is written, after the prompt. With --json: prompt, text (without the prompt), n_tokens,
finish (end_of_text, max_tokens, stop_string) and tokens_per_second.";

/// Let a model continue a text
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Generate {
    /// Folder of a run, or one with config.json, model.safetensors and tokenizer.json
    run: PathBuf,
    /// The text to continue; may be empty if the tokenizer has an end-of-text token
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    #[command(flatten)]
    sampling: SamplingOptions,
    #[command(flatten)]
    device: DeviceOption,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

/// The result for programs.
#[derive(Serialize)]
struct Output<'a> {
    prompt: &'a str,
    text: &'a str,
    n_tokens: usize,
    finish: &'static str,
    tokens_per_second: f64,
}

impl Generate {
    pub(super) fn run(self) -> Result<()> {
        let loaded = LoadedModel::load(&self.run, &self.device)?;
        let config = self.sampling.config();
        config.sampling.validate()?;
        let mut session = Session::new(&loaded.model, &loaded.tokenizer)?;
        // Before anything is printed.
        loaded.tokenizer.try_encode(self.prompt.as_bytes()).context("cannot encode the prompt")?;
        let start = Instant::now();
        if self.json {
            let generated = session.generate(&self.prompt, &config, &mut |_| true)?;
            let Generated { text, n_tokens, finish, .. } = &generated;
            let tokens_per_second = *n_tokens as f64 / start.elapsed().as_secs_f64().max(1e-9);
            let (n_tokens, finish) = (*n_tokens, finish_name(*finish));
            return ui::print_json(&Output { prompt: &self.prompt, text, n_tokens, finish, tokens_per_second });
        }
        ui::print(&self.prompt)?;
        stream(&mut session, &self.prompt, &config)?;
        ui::print("\n")
    }
}

/// The name of an end in results.
pub(super) fn finish_name(finish: Finish) -> &'static str {
    match finish {
        Finish::EndOfText => "end_of_text",
        Finish::MaxTokens => "max_tokens",
        Finish::StopString => "stop_string",
        Finish::Interrupted => "interrupted",
    }
}

/// Writes to standard output while the model does.
pub(super) fn stream(
    session: &mut Session<'_>,
    prompt: &str,
    config: &eval::generate::GenerateConfig,
) -> Result<Generated> {
    let mut printed = Ok(());
    let generated = session.generate(prompt, config, &mut |piece| {
        printed = ui::print(piece);
        printed.is_ok()
    })?;
    printed?;
    Ok(generated)
}
