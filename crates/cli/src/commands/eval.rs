//! `cupola eval`: how well a model predicts a text.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use data::document::{ReadOptions, read_documents, total_bytes};
use serde::Serialize;

use crate::model_folder::{DeviceOption, LoadedModel};
use crate::ui::progress::Unit;
use crate::ui::units::grouped;
use crate::ui::{self, Bar};

const EXAMPLES: &str = "\
EXAMPLES:
  cupola eval runs/quickstart --text assets/held_out_book.txt.zst
  cupola eval path/to/a/hugging-face-folder --text book.txt --json

Every token is predicted from at least half a context of text before it, so far as there is any. Bits per byte compare
models with different tokenizers, and with compressors. With --json: bits_per_byte, loss (nats per token), perplexity,
n_tokens, n_bytes, n_documents.";

/// Measure how well a model predicts a text
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Eval {
    /// Folder of a run, or one with config.json, model.safetensors and tokenizer.json
    run: PathBuf,
    /// .txt, .jsonl, .txt.zst or .jsonl.zst; documents are predicted one by one
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Accept text that is not UTF-8
    #[arg(long)]
    raw_bytes: bool,
    #[command(flatten)]
    device: DeviceOption,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

/// Over all documents.
#[derive(Serialize)]
struct Output {
    bits_per_byte: f64,
    loss: f64,
    perplexity: f64,
    n_tokens: u64,
    n_bytes: u64,
    n_documents: u64,
}

impl Eval {
    pub(super) fn run(self) -> Result<()> {
        let paths = [self.text.clone()];
        let options = ReadOptions { raw_bytes: self.raw_bytes, ..ReadOptions::default() };
        let documents = read_documents(&paths, options)?;
        let loaded = LoadedModel::load(&self.run, &self.device)?;
        let output = evaluate(&loaded, documents, total_bytes(&paths)?)?;
        ui::print_result(self.json, &output, &|| {
            ui::pairs(&[
                ("bits per byte".to_owned(), format!("{:.4}", output.bits_per_byte)),
                ("loss".to_owned(), format!("{:.4} nats per token", output.loss)),
                ("perplexity".to_owned(), format!("{:.2}", output.perplexity)),
                ("tokens".to_owned(), grouped(output.n_tokens)),
                ("bytes".to_owned(), grouped(output.n_bytes)),
                ("documents".to_owned(), grouped(output.n_documents)),
                ("weights".to_owned(), loaded.weights.display().to_string()),
            ])
        })
    }
}

fn evaluate(loaded: &LoadedModel, documents: data::document::Documents, total: u64) -> Result<Output> {
    let has_end_of_text = loaded.tokenizer.end_of_text().is_some();
    let mut bar = Bar::new("Evaluating", total, Unit::Bytes);
    let (mut nats, mut n_predicted) = (0.0, 0);
    let (mut n_tokens, mut n_bytes, mut n_documents, mut n_too_short) = (0, 0, 0, 0u64);
    let mut before = 0;
    for document in documents {
        let document = document?;
        // Within a document, progress is the share of it that is done.
        let (start, end) = (before, document.input_bytes);
        let mut progress = |done: u64, of: u64| bar.set(start + (end - start) * done / of.max(1));
        let batch_size = loaded.evaluation_batch_size();
        let result = eval::text::evaluate(&loaded.model, &loaded.tokenizer, &document.text, batch_size, &mut progress);
        before = end;
        let result = match result {
            Err(eval::Error::TooShort { .. }) => {
                n_too_short += 1;
                continue;
            }
            result => result?,
        };
        // Without an end-of-text token before it, the first token is given.
        let predicted = result.n_tokens - usize::from(!has_end_of_text);
        nats += result.loss * predicted as f64;
        n_predicted += predicted as u64;
        n_tokens += result.n_tokens as u64;
        n_bytes += result.n_bytes as u64;
        n_documents += 1;
    }
    bar.clear();
    if n_too_short > 0 {
        ui::note(&format!("{n_too_short} documents of a single token were left out"));
    }
    if n_documents == 0 {
        bail!("no document has the 2 tokens that predicting needs\nhint: evaluate a longer text");
    }
    let loss = nats / n_predicted as f64;
    let bits_per_byte = nats / std::f64::consts::LN_2 / n_bytes as f64;
    Ok(Output { bits_per_byte, loss, perplexity: loss.exp(), n_tokens, n_bytes, n_documents })
}
