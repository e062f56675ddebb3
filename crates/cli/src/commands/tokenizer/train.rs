//! `cupola tokenizer train`: a vocabulary from text.

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use data::document::{
    Documents, END_OF_TEXT, Part, ReadOptions, StdinFormat, expand, inputs_key, read_ahead, read_documents, read_parts,
    total_bytes,
};
use serde::Serialize;
use tokenizer::Tokenizer;
use tokenizer::train::{
    BpeConfig, Checkpoint, Progress, Resources, TextPart, UnigramConfig, WordPieceConfig, WorkFolder, pattern_of,
    train_bpe_within, train_unigram, train_wordpiece,
};

use super::refuse_output_among;
use crate::ui::progress::Unit;
use crate::ui::units::{bytes, grouped};
use crate::ui::{self, Bar};

const EXAMPLES: &str = "\
EXAMPLES:
  cupola tokenizer train --input books.jsonl.zst --vocab-size 4096 --special-token '<|endoftext|>' --output tokenizer.json
  cupola tokenizer train --input 'crawl/**/*.parquet' --vocab-size 100000 --pattern o200k --memory-limit 8GB --output t.json
  zstdcat a.txt.zst | cupola tokenizer train --input - --vocab-size 500 --output tokenizer.json --json
  cupola tokenizer train --kind wordpiece --lowercase --input books/ --vocab-size 30522 --output bert.json
  cupola tokenizer train --kind characters --input tinyshakespeare.txt --output characters.json

Byte-level BPE; of equally frequent pairs the greatest by bytes is merged, so the result depends on the text alone. Special
tokens are cut out of the text before. With --memory-limit, counts that do not fit go to a work folder beside the output,
and the same command goes on after a kill. The file loads in Hugging Face's tokenizers. With --json: output, kind,
vocab_size, n_merges.";

/// Text that is read at a time; a few of these are read ahead.
const PART_BYTES: u64 = 1 << 20;
const PARTS_AHEAD: usize = 2;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lowercase")]
enum Kind {
    /// Byte-level BPE
    Bpe,
    /// Pieces of words as BERT has them
    WordPiece,
    /// A unigram language model as SentencePiece trains it
    Unigram,
    /// A token per distinct character
    Characters,
    /// A token per byte; needs no text
    Bytes,
}

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Train {
    /// .txt, .jsonl (either with .zst or .gz) or .parquet files, folders, 'patterns*', or - for standard input
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present = "kind")]
    input: Vec<PathBuf>,
    /// Number of ids: special tokens, 256 bytes, and the rest learned
    #[arg(long, value_name = "N", required_unless_present = "kind")]
    vocab_size: Option<usize>,
    /// A text that is one token, such as <|endoftext|>; may be given several times
    #[arg(long, value_name = "TEXT")]
    special_token: Vec<String>,
    /// What a token is
    #[arg(long, value_enum, default_value = "bpe")]
    kind: Kind,
    /// How text is cut before: gpt2, cl100k, o200k, llama3, qwen2, deepseek-v3, or a regular expression
    #[arg(long, value_name = "PATTERN", default_value = "gpt2")]
    pattern: String,
    /// Lowercase the text and leave out accents; for --kind wordpiece
    #[arg(long)]
    lowercase: bool,
    /// Leave out pre-tokens that occur more rarely
    #[arg(long, value_name = "N", default_value = "1")]
    min_count: u64,
    /// Memory to keep within, such as 2GB; counts that do not fit go to the work folder
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    memory_limit: Option<u64>,
    /// Folder for counts and checkpoints: with it, the same command goes on after a kill
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// What standard input holds
    #[arg(long, value_enum, default_value = "text")]
    stdin_format: Format,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Accept text that is not UTF-8
    #[arg(long)]
    raw_bytes: bool,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

/// What standard input holds.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Text
    Text,
    /// A JSON object with a string `text` per line
    Jsonl,
}

#[derive(Serialize)]
struct Output {
    output: PathBuf,
    kind: Kind,
    vocab_size: usize,
    n_merges: usize,
}

impl Train {
    pub(super) fn run(mut self) -> Result<()> {
        let learns = matches!(self.kind, Kind::Bpe | Kind::WordPiece | Kind::Unigram);
        if !learns && self.vocab_size.is_some() {
            bail!(
                "--vocab-size is for kinds that learn: the others have as many tokens as there are characters or bytes\nhint: leave it out"
            );
        }
        if self.output.extension().is_some_and(|extension| extension == "tiktoken") {
            bail!("a .tiktoken file has no place for pattern and special tokens\nhint: write a tokenizer.json");
        }
        if self.kind != Kind::Bytes {
            self.input = expand(&self.input)?;
            refuse_output_among(&self.input, &self.output)?;
        }
        let tokenizer = match self.kind {
            Kind::Bpe | Kind::WordPiece | Kind::Unigram => self.learn()?,
            Kind::Characters => self.characters()?,
            Kind::Bytes => Tokenizer::bytes_with_specials(&self.special_token)?,
        };
        tokenizer.save(&self.output)?;
        let (vocab_size, n_merges) = (tokenizer.vocab_size(), tokenizer.merges().len());
        let output = Output { output: self.output, kind: self.kind, vocab_size, n_merges };
        ui::print_result(self.json, &output, &|| {
            let (ids, merges) = (grouped(vocab_size as u64), grouped(n_merges as u64));
            format!("{}: {ids} ids, {merges} merges\n", output.output.display())
        })
    }

    fn options(&self) -> ReadOptions {
        let stdin_format = match self.stdin_format {
            Format::Text => StdinFormat::Text,
            Format::Jsonl => StdinFormat::JsonLines,
        };
        ReadOptions { raw_bytes: self.raw_bytes, stdin_format, ..ReadOptions::default() }
    }

    fn documents(&self) -> Result<Documents> {
        // The text is cut at special tokens anyway; cut while it is read, a long file need not fit in memory.
        let separator = self.special_token.iter().find(|token| *token == END_OF_TEXT).cloned();
        Ok(read_documents(&self.input, ReadOptions { separator, ..self.options() })?)
    }

    fn learn(&self) -> Result<Tokenizer> {
        let Some(vocab_size) = self.vocab_size else { bail!("this kind needs --vocab-size") };
        let total = total_bytes(&self.input)?;
        let read = Cell::new(0);
        let parts = read_ahead(read_parts(&self.input, self.options(), PART_BYTES)?, PARTS_AHEAD);
        let parts = parts.map(|part| {
            part.map(|Part { text, ends_document, input_bytes }| {
                read.set(input_bytes);
                TextPart { text, ends_document }
            })
        });
        let resources = Resources { memory_limit: self.memory_limit, work_folder: self.work_folder()? };
        let counting = RefCell::new(Some(Bar::new("Counting words", total, Unit::Bytes)));
        let learning: RefCell<Option<Bar>> = RefCell::new(None);
        let progress = |event| match event {
            Progress::Counting { .. } => counting.borrow_mut().iter_mut().for_each(|bar| bar.set(read.get())),
            Progress::Counted(need) => {
                drop(counting.take());
                let (words, memory) = (grouped(need.n_words), bytes(need.memory_bytes));
                ui::note(&format!("{words} distinct words; learning takes up to about {memory} of memory"));
            }
            Progress::Merging { n_done, n_total } | Progress::Pruning { n_done, n_total } => {
                drop(counting.take());
                let mut learning = learning.borrow_mut();
                let bar = learning.get_or_insert_with(|| Bar::new("Learning tokens", n_total as u64, Unit::Count));
                bar.set(n_done as u64);
            }
        };
        let special_tokens = self.special_token.clone();
        let (min_count, lowercase) = (self.min_count, self.lowercase);
        let tokenizer = match self.kind {
            Kind::WordPiece => {
                let config = WordPieceConfig { vocab_size, special_tokens, lowercase, min_count };
                train_wordpiece(parts, &config, &resources, &progress)?
            }
            Kind::Unigram => {
                let config = UnigramConfig { vocab_size, special_tokens, min_count, ..UnigramConfig::default() };
                train_unigram(parts, &config, &resources, &progress)?
            }
            _ => {
                let pattern = pattern_of(&self.pattern)?;
                if pattern.is_custom() {
                    ui::note("this pattern goes through an engine of regular expressions, which takes much longer");
                }
                let config = BpeConfig { vocab_size, special_tokens, pattern, min_count };
                train_bpe_within(parts, &config, &resources, &progress)?
            }
        };
        Ok(tokenizer)
    }

    /// The folder asked for, or one beside the output where counts may not fit.
    fn work_folder(&self) -> Result<Option<WorkFolder>> {
        let path = match (&self.work, self.memory_limit) {
            (Some(path), _) => path.clone(),
            (None, None) => return Ok(None),
            (None, Some(_)) => {
                let mut name = OsString::from(".");
                name.push(self.output.file_name().context("--output is not a file name")?);
                name.push(".work");
                self.output.with_file_name(name)
            }
        };
        let resume_key = inputs_key(&self.input)?.map(|key| format!("{key} {}", self.raw_bytes));
        Ok(Some(WorkFolder { path, resume_key, checkpoint: Checkpoint::default() }))
    }

    fn characters(&self) -> Result<Tokenizer> {
        let mut texts = Vec::new();
        for document in self.documents()? {
            let document = document?;
            let text = String::from_utf8(document.text)
                .with_context(|| format!("{} is not UTF-8, so it has no characters", document.source.path.display()))?;
            texts.push(text);
        }
        Ok(Tokenizer::characters(texts.iter().map(String::as_str), &self.special_token)?)
    }
}

/// Bytes with a decimal (`2GB`) or binary (`512MiB`) unit.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit.trim().to_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" | "k" => 1e3,
        "mb" | "m" => 1e6,
        "gb" | "g" => 1e9,
        "tb" | "t" => 1e12,
        "kib" => 1024.0,
        "mib" => 1_048_576.0,
        "gib" => 1_073_741_824.0,
        _ => return Err(format!("{unit:?} is no unit of memory: use MB, GB, MiB or GiB")),
    };
    match number.parse::<f64>() {
        Ok(number) => Ok((number * scale) as u64),
        Err(_) => Err("a size is a number with a unit, such as 2GB".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_bytes;

    #[test]
    fn sizes_are_numbers_with_a_unit() {
        let cases = [("2GB", 2_000_000_000), ("64MiB", 64 << 20), ("1.5 g", 1_500_000_000), ("7", 7)];
        for (text, expected) in cases {
            assert_eq!(parse_bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "GB", "2 apples", "-1GB", "1.2.3MB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
