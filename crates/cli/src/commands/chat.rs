//! `cupola chat`: a conversation in the terminal.

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use eval::generate::Session;
use serde::Serialize;
use tokenizer::Tokenizer;

use super::generate::{finish_name, stream};
use super::sampling::SamplingOptions;
use crate::model_folder::{DeviceOption, LoadedModel};
use crate::ui;

const EXAMPLES: &str = "\
EXAMPLES:
  cupola chat runs/quickstart
  cupola chat runs/quickstart --max-tokens 60 --stop '.'
  echo 'It was a dark night' | cupola chat runs/quickstart

What you type and what the model writes form one text that grows; when the context is full, its older half is
forgotten. /quit or ctrl-d ends.";

/// Converse with a model in the terminal
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Chat {
    /// Folder of a run, or one with config.json, model.safetensors and tokenizer.json
    run: PathBuf,
    #[command(flatten)]
    sampling: SamplingOptions,
    #[command(flatten)]
    device: DeviceOption,
    /// Print the whole conversation as one JSON object at its end instead
    #[arg(long)]
    json: bool,
}

/// One thing said and what the model wrote after it.
#[derive(Serialize)]
struct Turn {
    prompt: String,
    text: String,
    n_tokens: usize,
    finish: &'static str,
}

#[derive(Serialize)]
struct Output {
    turns: Vec<Turn>,
}

/// A line of text, or why it is none that the model can read.
fn read_line(tokenizer: &Tokenizer, mut line: Vec<u8>) -> Result<String> {
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    let line = String::from_utf8(line).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        anyhow!("standard input has invalid UTF-8 at byte {offset} of a line\nhint: type or convert it as UTF-8")
    })?;
    tokenizer.try_encode(line.as_bytes())?;
    Ok(line)
}

/// What goes before a line that goes on with the text: a new line, if the vocabulary has one.
fn separator(tokenizer: &Tokenizer) -> &'static str {
    let can_encode = |text: &&str| tokenizer.try_encode(text.as_bytes()).is_ok();
    ["\n", " "].into_iter().find(can_encode).unwrap_or("")
}

impl Chat {
    pub(super) fn run(self) -> Result<()> {
        let loaded = LoadedModel::load(&self.run, &self.device)?;
        let mut config = self.sampling.config();
        config.sampling.validate()?;
        let mut session = Session::new(&loaded.model, &loaded.tokenizer)?;
        let lacks = match loaded.has_chat_template {
            true => "This version does not apply chat templates, so the model",
            false => "This model has no chat template: it",
        };
        ui::note(&format!(
            "{lacks} does not answer, it continues what you type.\n/quit or ctrl-d ends; --temperature, --max-tokens \
             and others change how it writes."
        ));

        let stdin = std::io::stdin().lock();
        let is_terminal = stdin.is_terminal();
        let mut lines = stdin.split(b'\n');
        let separator = separator(&loaded.tokenizer);
        let mut turns = Vec::new();
        loop {
            if is_terminal {
                ui::print("\n> ")?;
            }
            let Some(line) = lines.next() else { break };
            let line = match read_line(&loaded.tokenizer, line.context("cannot read standard input")?) {
                Ok(line) => line,
                Err(error) => {
                    ui::print_error(&error.context("this line is left out"));
                    continue;
                }
            };
            if line.trim() == "/quit" {
                break;
            }
            if line.is_empty() {
                continue;
            }
            // What was said so far goes on in a new line.
            let prompt = if turns.is_empty() { line.clone() } else { format!("{separator}{line}") };
            let generated = match self.json {
                true => session.generate(&prompt, &config, &mut |_| true)?,
                false => {
                    ui::print(&line)?;
                    let generated = stream(&mut session, &prompt, &config)?;
                    ui::print("\n")?;
                    generated
                }
            };
            let (text, n_tokens) = (generated.text, generated.n_tokens);
            turns.push(Turn { prompt: line, text, n_tokens, finish: finish_name(generated.finish) });
            // Another turn draws other random numbers; the conversation as a whole can be repeated.
            config.sampling.seed = config.sampling.seed.wrapping_add(1);
        }
        match self.json {
            true => ui::print_json(&Output { turns }),
            false if is_terminal => ui::print("\n"),
            false => Ok(()),
        }
    }
}
