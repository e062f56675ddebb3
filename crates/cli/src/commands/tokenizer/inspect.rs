//! `cupola tokenizer inspect`: what is in a vocabulary.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use tokenizer::{Kind, TokenId, Tokenizer};

use crate::ui;
use crate::ui::units::grouped;

const EXAMPLES: &str = "\
EXAMPLES:
  cupola tokenizer inspect tokenizer.json
  cupola tokenizer inspect gpt2/ --json

With --json: kind, vocab_size, n_merges, special_tokens, longest_tokens, n_tokens_by_length (bytes: tokens).";

/// How many of the longest tokens are shown.
const N_LONGEST: usize = 10;

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Inspect {
    /// A tokenizer.json, or a folder with one or with vocab.json and merges.txt
    file: PathBuf,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Output {
    kind: &'static str,
    vocab_size: usize,
    n_merges: usize,
    special_tokens: Vec<Token>,
    longest_tokens: Vec<Token>,
    n_tokens_by_length: BTreeMap<usize, usize>,
}

#[derive(Serialize)]
struct Token {
    id: TokenId,
    text: String,
    n_bytes: usize,
}

impl Inspect {
    pub(super) fn run(self) -> Result<()> {
        let tokenizer = Tokenizer::from_file(&self.file)?;
        let output = inspect(&tokenizer);
        ui::print_result(self.json, &output, &|| text(&output))
    }
}

fn inspect(tokenizer: &Tokenizer) -> Output {
    let special_tokens: Vec<Token> =
        tokenizer.special_tokens().map(|(text, id)| Token { id, text: text.to_owned(), n_bytes: text.len() }).collect();
    let is_special = |id: TokenId| special_tokens.iter().any(|token| token.id == id);
    let mut lengths: Vec<(usize, TokenId)> = (0..tokenizer.vocab_size() as TokenId)
        .filter(|&id| !is_special(id))
        .filter_map(|id| Some((tokenizer.token_bytes(id)?.len(), id)))
        .collect();
    let mut n_tokens_by_length = BTreeMap::new();
    for &(length, _) in &lengths {
        *n_tokens_by_length.entry(length).or_default() += 1;
    }
    // The longest first; of equally long ones, the one learned first.
    lengths.sort_by_key(|&(length, id)| (usize::MAX - length, id));
    let token = |&(n_bytes, id): &(usize, TokenId)| Token { id, text: tokenizer.decode(&[id]), n_bytes };
    Output {
        kind: match tokenizer.kind() {
            Kind::Bpe => "bpe",
            Kind::Characters => "characters",
            Kind::Bytes => "bytes",
        },
        vocab_size: tokenizer.vocab_size(),
        n_merges: tokenizer.merges().len(),
        longest_tokens: lengths.iter().take(N_LONGEST).map(token).collect(),
        special_tokens,
        n_tokens_by_length,
    }
}

fn text(output: &Output) -> String {
    let list = |tokens: &[Token]| -> String {
        let line = |token: &Token| format!("  {:>7}  {:?}  {} bytes\n", token.id, token.text, token.n_bytes);
        tokens.iter().map(line).collect()
    };
    let most = output.n_tokens_by_length.values().copied().max().unwrap_or(1);
    let bar = |(length, n): (&usize, &usize)| {
        format!("  {length:>3} bytes  {:>9}  {}\n", grouped(*n as u64), "▇".repeat((40 * n).div_ceil(most)))
    };
    let counts = ui::pairs(&[
        ("kind".to_owned(), output.kind.to_owned()),
        ("ids".to_owned(), grouped(output.vocab_size as u64)),
        ("merges".to_owned(), grouped(output.n_merges as u64)),
    ]);
    let special = match output.special_tokens.is_empty() {
        true => String::new(),
        false => format!("\nspecial tokens\n{}", list(&output.special_tokens)),
    };
    format!(
        "{counts}{special}\nlongest tokens\n{}\ntokens by length\n{}",
        list(&output.longest_tokens),
        output.n_tokens_by_length.iter().map(bar).collect::<String>()
    )
}
