//! `cupola tokenizer explain`: the merges of a word as they happen.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;
use tokenizer::explain::{Explanation, Step};
use tokenizer::{TokenId, Tokenizer};

use crate::ui;
use crate::ui::units::grouped;

const EXAMPLES: &str = "\
EXAMPLES:
  cupola tokenizer explain newest --tokenizer tokenizer.json
  cupola tokenizer explain ' lower case' --tokenizer gpt2/
  cupola tokenizer explain unbelievable --tokenizer tokenizer.json --json

Byte-level BPE: text is cut into pre-tokens, then of all neighbouring tokens the pair that was learned first is merged,
again and again. With --json: {\"pretokens\": [{\"text\", \"start\", \"steps\": [{\"rank\", \"left\", \"right\", \"tokens\"}], \"ids\"}]}.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Explain {
    /// A word, or any text; in quotes if it has spaces
    #[arg(value_name = "WORD")]
    word: String,
    /// A tokenizer.json, or a folder with one or with vocab.json and merges.txt
    #[arg(long, value_name = "FILE")]
    tokenizer: PathBuf,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Output {
    pretokens: Vec<Pretoken>,
}

#[derive(Serialize)]
struct Pretoken {
    text: String,
    /// Its bytes at first.
    start: Vec<String>,
    steps: Vec<Merge>,
    ids: Vec<TokenId>,
}

#[derive(Serialize)]
struct Merge {
    /// Its place among the merges that the vocabulary learned, from 1.
    rank: usize,
    left: String,
    right: String,
    /// All tokens behind it.
    tokens: Vec<String>,
}

impl Explain {
    pub(super) fn run(self) -> Result<()> {
        let tokenizer = Tokenizer::from_file(&self.tokenizer)?;
        let Some(explanations) = tokenizer.explain(self.word.as_bytes())? else {
            bail!(
                "{} is not byte-level BPE, so it has no merges to show\nhint: `cupola tokenizer encode` shows the ids",
                self.tokenizer.display()
            );
        };
        let output = Output { pretokens: explanations.iter().map(pretoken).collect() };
        ui::print_result(self.json, &output, &|| text(&output))
    }
}

fn pretoken(explanation: &Explanation) -> Pretoken {
    let shown = |tokens: &[Vec<u8>]| tokens.iter().map(|token| show(token)).collect();
    let step = |Step { rank, left, right, tokens }: &Step| Merge {
        rank: rank + 1,
        left: show(left),
        right: show(right),
        tokens: shown(tokens),
    };
    Pretoken {
        text: show(&explanation.pretoken),
        start: shown(&explanation.pretoken.iter().map(|&byte| vec![byte]).collect::<Vec<_>>()),
        steps: explanation.steps.iter().map(step).collect(),
        ids: explanation.ids.clone(),
    }
}

/// Bytes for reading: a space is `␣`, what is no text is hexadecimal.
fn show(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.extend(chunk.valid().chars().map(|c| match c {
            ' ' => "␣".to_owned(),
            c if c.is_control() => c.escape_default().to_string(),
            c => c.to_string(),
        }));
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02X}")));
    }
    text
}

fn text(output: &Output) -> String {
    let one = |pretoken: &Pretoken| {
        let width = pretoken.steps.iter().map(|step| grouped(step.rank as u64).len()).max().unwrap_or(0).max(5);
        let ids = pretoken.ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let line = |step: &Merge| {
            let rank = grouped(step.rank as u64);
            format!("  {rank:>width$}  {}   {} + {}\n", step.tokens.join(" "), step.left, step.right)
        };
        let steps: String = pretoken.steps.iter().map(line).collect();
        format!(
            "{}\n  {:>width$}  {}\n{steps}  {:>width$}  {ids}\n",
            pretoken.text,
            "bytes",
            pretoken.start.join(" "),
            "ids"
        )
    };
    let mut text = output.pretokens.iter().map(one).collect::<Vec<_>>().join("\n");
    text += "\nThe numbers are places in the order in which the vocabulary learned its merges.\n";
    text
}
