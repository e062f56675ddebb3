//! `cupola tokenizer inspect`: what is in a vocabulary.

use std::collections::{BTreeMap, HashSet};
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
  cupola tokenizer inspect llama/tokenizer.model

With --json: kind, vocab_size, n_merges, patterns, special_tokens, added_tokens (that are not special), longest_tokens,
n_tokens_by_length (bytes: tokens).";

/// How many of the longest tokens are shown.
const N_LONGEST: usize = 10;

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Inspect {
    /// A tokenizer.json, .model or .tiktoken file, or a folder with one or with vocab.json and merges.txt
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
    /// Regular expressions that cut text before byte-level BPE.
    patterns: Vec<String>,
    special_tokens: Vec<Token>,
    added_tokens: Vec<Token>,
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
    let token = |(text, id): (&str, TokenId)| Token { id, text: text.to_owned(), n_bytes: text.len() };
    let special_tokens: Vec<Token> = tokenizer.special_tokens().map(token).collect();
    let special: HashSet<TokenId> = special_tokens.iter().map(|token| token.id).collect();
    let added: HashSet<TokenId> = tokenizer.added_tokens().map(|(_, id)| id).collect();
    let added_tokens = tokenizer.added_tokens().filter(|(_, id)| !special.contains(id)).map(token).collect();
    let mut lengths: Vec<(usize, TokenId)> = (0..tokenizer.vocab_size() as TokenId)
        .filter(|id| !added.contains(id))
        .filter_map(|id| Some((tokenizer.token_bytes(id)?.len(), id)))
        .collect();
    let mut n_tokens_by_length = BTreeMap::new();
    for &(length, _) in &lengths {
        *n_tokens_by_length.entry(length).or_default() += 1;
    }
    // The longest first; of equally long ones, the one learned first.
    lengths.sort_by_key(|&(length, id)| (usize::MAX - length, id));
    let text = |id: TokenId| String::from_utf8_lossy(tokenizer.token_bytes(id).unwrap_or_default()).into_owned();
    let token = |&(n_bytes, id): &(usize, TokenId)| Token { id, text: text(id), n_bytes };
    Output {
        kind: match tokenizer.kind() {
            Kind::Bpe => "bpe",
            Kind::Characters => "characters",
            Kind::Bytes => "bytes",
            Kind::CharBpe => "bpe over characters",
            Kind::Unigram => "unigram",
            Kind::WordPiece => "wordpiece",
        },
        vocab_size: tokenizer.vocab_size(),
        n_merges: tokenizer.merges().len(),
        patterns: tokenizer.pattern().iter().flat_map(|pattern| pattern.regexes()).map(str::to_owned).collect(),
        longest_tokens: lengths.iter().take(N_LONGEST).map(token).collect(),
        special_tokens,
        added_tokens,
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
    let section = |name: &str, tokens: &[Token]| match tokens.is_empty() {
        true => String::new(),
        false => format!("\n{name}\n{}", list(tokens)),
    };
    let special =
        section("special tokens", &output.special_tokens) + &section("other added tokens", &output.added_tokens);
    format!(
        "{counts}{special}\nlongest tokens\n{}\ntokens by length\n{}",
        list(&output.longest_tokens),
        output.n_tokens_by_length.iter().map(bar).collect::<String>()
    )
}
