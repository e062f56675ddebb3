//! `cupola tokenizer train`: a vocabulary from text.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use data::document::{Documents, END_OF_TEXT, ReadOptions, read_documents, total_bytes};
use serde::Serialize;
use tokenizer::Tokenizer;
use tokenizer::train::{BpeConfig, Progress, train_bpe};

use crate::ui::progress::Unit;
use crate::ui::units::grouped;
use crate::ui::{self, Bar};

const EXAMPLES: &str = "\
EXAMPLES:
  cupola tokenizer train --input books.jsonl.zst --vocab-size 4096 --special-token '<|endoftext|>' --output tokenizer.json
  cupola tokenizer train --input a.txt b.txt --vocab-size 500 --output tokenizer.json --json
  cupola tokenizer train --kind characters --input tinyshakespeare.txt --output characters.json

Byte-level BPE with the pattern of GPT-2; of equally frequent pairs the greatest is merged. Special tokens are cut out of
the text before. The file loads in Hugging Face's tokenizers. With --json: output, kind, vocab_size, n_merges.";

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// Byte-level BPE
    Bpe,
    /// A token per distinct character
    Characters,
    /// A token per byte; needs no text
    Bytes,
}

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Train {
    /// .txt, .jsonl, .txt.zst or .jsonl.zst
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

#[derive(Serialize)]
struct Output {
    output: PathBuf,
    kind: Kind,
    vocab_size: usize,
    n_merges: usize,
}

impl Train {
    pub(super) fn run(self) -> Result<()> {
        if self.kind != Kind::Bpe && self.vocab_size.is_some() {
            bail!(
                "--vocab-size is for --kind bpe: the other kinds have as many tokens as there are characters or bytes"
            );
        }
        let tokenizer = match self.kind {
            Kind::Bpe => self.bpe()?,
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

    fn documents(&self) -> Result<Documents> {
        // The text is cut at special tokens anyway; cut while it is read, a long file need not fit in memory.
        let separator = self.special_token.iter().find(|token| *token == END_OF_TEXT).cloned();
        let options = ReadOptions { raw_bytes: self.raw_bytes, separator, ..ReadOptions::default() };
        Ok(read_documents(&self.input, options)?)
    }

    fn bpe(&self) -> Result<Tokenizer> {
        let Some(vocab_size) = self.vocab_size else { bail!("--kind bpe needs --vocab-size") };
        let total = total_bytes(&self.input)?;
        let read = Cell::new(0);
        let texts = self.documents()?.map(|document| {
            document.map(|document| {
                read.set(document.input_bytes);
                document.text
            })
        });
        let counting = RefCell::new(Some(Bar::new("Counting words", total, Unit::Bytes)));
        let merging: RefCell<Option<Bar>> = RefCell::new(None);
        let config = BpeConfig { vocab_size, special_tokens: self.special_token.clone() };
        let tokenizer = train_bpe(texts, &config, &|event| match event {
            Progress::Counting { .. } => counting.borrow_mut().iter_mut().for_each(|bar| bar.set(read.get())),
            Progress::Merging { n_done, n_total } => {
                drop(counting.take());
                let mut merging = merging.borrow_mut();
                let bar = merging.get_or_insert_with(|| Bar::new("Learning merges", n_total as u64, Unit::Count));
                bar.set(n_done as u64);
            }
        })?;
        Ok(tokenizer)
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
