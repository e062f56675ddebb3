//! `cupola data`: text to token shards.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use data::document::{ReadOptions, expand, inputs_key, read_ahead, read_documents, total_bytes};
use data::fingerprint::fingerprint;
use data::prepare::{PrepareOptions, prepare};
use data::shard::WriterOptions;
use serde::Serialize;
use tokenizer::Tokenizer;

use crate::ui::progress::Unit;
use crate::ui::units::{bytes, grouped};
use crate::ui::{self, Bar};

const EXAMPLES: &str = "\
EXAMPLES:
  cupola data prepare --tokenizer tokenizer.json --input books.jsonl.zst --output data/books
  cupola data prepare --tokenizer gpt2/ --input a.txt b.txt --separator '<|endoftext|>' --output data/ab --overwrite

Tokenised in parallel, in the order of the input: the shards do not depend on the number of threads. The same command
after a kill keeps the shards that were finished. A config uses the shards with data.train = [\"data/books\"] and [tokenizer.file] path = \"tokenizer.json\".
With --json: output, n_documents, n_tokens, n_text_bytes, n_shards.";

const GROUP_EXAMPLES: &str = "\
EXAMPLES:
  cupola data prepare --tokenizer tokenizer.json --input books.jsonl.zst --output data/books

It has --help with more examples, and --json for one machine-readable result on standard output.";

/// Documents that are read while those before are tokenised.
const DOCUMENTS_AHEAD: usize = 64;

/// Prepare token shards
#[derive(Args)]
#[command(after_help = GROUP_EXAMPLES)]
pub(crate) struct Data {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Subcommand)]
enum DataCommand {
    /// Tokenise text into shards that training maps into memory
    Prepare(Prepare),
}

impl Data {
    pub(super) fn run(self) -> Result<()> {
        match self.command {
            DataCommand::Prepare(command) => command.run(),
        }
    }
}

#[derive(Args)]
#[command(after_help = EXAMPLES)]
struct Prepare {
    /// A tokenizer.json, or a folder with one or with vocab.json and merges.txt
    #[arg(long, value_name = "FILE")]
    tokenizer: PathBuf,
    /// .txt, .jsonl (either with .zst or .gz) or .parquet files, folders, 'patterns*', or - for standard input
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    input: Vec<PathBuf>,
    /// Folder for the shards
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Cut .txt files into documents at this text
    #[arg(long, value_name = "TEXT")]
    separator: Option<String>,
    /// Tokens in each shard but the last, at most
    #[arg(long, value_name = "N", default_value_t = WriterOptions::DEFAULT_TOKENS_PER_SHARD)]
    tokens_per_shard: u64,
    /// Accept text that is not UTF-8
    #[arg(long)]
    raw_bytes: bool,
    /// Replace a dataset that is already there
    #[arg(long)]
    overwrite: bool,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Output {
    output: PathBuf,
    n_documents: u64,
    n_tokens: u64,
    n_text_bytes: u64,
    n_shards: usize,
}

impl Prepare {
    fn run(self) -> Result<()> {
        let input = expand(&self.input)?;
        let total = total_bytes(&input)?;
        let tokenizer = Tokenizer::from_file(&self.tokenizer)?;
        let resume_key = inputs_key(&input)?.map(|key| format!("{key} {} {:?}", self.raw_bytes, self.separator));
        let options = ReadOptions { raw_bytes: self.raw_bytes, separator: self.separator, ..ReadOptions::default() };
        let documents = read_ahead(read_documents(&input, options)?, DOCUMENTS_AHEAD);
        if let Some(parent) = self.output.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot make the folder {}", parent.display()))?;
        }
        let options = PrepareOptions {
            output: self.output.clone(),
            overwrite: self.overwrite,
            append_end_of_text: true,
            tokenizer_xxh3: fingerprint(&tokenizer),
            max_tokens_per_shard: self.tokens_per_shard,
            resume_key,
        };
        let bar = std::cell::RefCell::new(Bar::new("Tokenising", total, Unit::Bytes));
        let summary = prepare(documents, &tokenizer, options, &|event| bar.borrow_mut().set(event.input_bytes))?;
        bar.borrow().clear();
        let totals = summary.totals;
        let output = Output {
            output: self.output,
            n_documents: totals.n_documents,
            n_tokens: totals.n_tokens,
            n_text_bytes: totals.n_text_bytes,
            n_shards: summary.n_shards,
        };
        ui::print_result(self.json, &output, &|| {
            let bytes_per_token = output.n_text_bytes as f64 / output.n_tokens as f64;
            ui::pairs(&[
                ("output".to_owned(), output.output.display().to_string()),
                ("documents".to_owned(), grouped(output.n_documents)),
                ("tokens".to_owned(), grouped(output.n_tokens)),
                ("text".to_owned(), format!("{}, {bytes_per_token:.2} bytes per token", bytes(output.n_text_bytes))),
                ("shards".to_owned(), output.n_shards.to_string()),
            ])
        })
    }
}
