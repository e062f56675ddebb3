//! `cupola tokenizer decode`: ids to text.

use std::collections::HashSet;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokenizer::{TokenId, Tokenizer};

use crate::ui;

const EXAMPLES: &str = "\
EXAMPLES:
  cupola tokenizer decode --tokenizer tokenizer.json --ids '15496 11 995'
  cupola tokenizer decode --tokenizer tokenizer.json --input ids.json --json
  cupola tokenizer encode --tokenizer T --text hello | cupola tokenizer decode --tokenizer T

Ids are numbers between spaces or commas, or {\"ids\": [...]}. Bytes that are not UTF-8 become U+FFFD, unless --raw-bytes.
With --json: {\"text\": \"...\"}.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Decode {
    /// A tokenizer.json, .model or .tiktoken file, or a folder with one or with vocab.json and merges.txt
    #[arg(long, value_name = "FILE")]
    tokenizer: PathBuf,
    /// The ids; without --ids and --input they are read from standard input
    #[arg(long, visible_alias = "text", value_name = "IDS", conflicts_with = "input")]
    ids: Option<String>,
    /// A file of ids
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Leave special tokens out
    #[arg(long)]
    skip_special_tokens: bool,
    /// Print the exact bytes, also those that are not UTF-8
    #[arg(long, conflicts_with = "json")]
    raw_bytes: bool,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Output {
    text: String,
}

#[derive(Deserialize)]
struct Ids {
    ids: Vec<TokenId>,
}

impl Decode {
    pub(super) fn run(self) -> Result<()> {
        let tokenizer = Tokenizer::from_file(&self.tokenizer)?;
        let mut ids = parse(&self.read()?)?;
        if self.skip_special_tokens {
            let special: HashSet<TokenId> = tokenizer.special_tokens().map(|(_, id)| id).collect();
            ids.retain(|id| !special.contains(id));
        }
        let text = tokenizer.try_decode(&ids)?;
        if self.json {
            return ui::print_json(&Output { text });
        }
        match self.raw_bytes {
            true => ui::print_bytes(&tokenizer.decode_bytes(&ids))?,
            false => ui::print(&text)?,
        }
        // A file gets the text and nothing else; a person's prompt begins on a line of its own.
        if io::stdout().is_terminal() { ui::print("\n") } else { Ok(()) }
    }

    fn read(&self) -> Result<String> {
        match (&self.ids, &self.input) {
            (Some(ids), _) => Ok(ids.clone()),
            (None, Some(path)) => {
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
            }
            (None, None) => {
                let mut text = String::new();
                io::stdin().lock().read_to_string(&mut text).context("cannot read standard input as text")?;
                Ok(text)
            }
        }
    }
}

fn parse(text: &str) -> Result<Vec<TokenId>> {
    if text.trim_start().starts_with('{') {
        let ids: Ids = serde_json::from_str(text).context("the ids are not JSON of the form {\"ids\": [...]}\nhint: give such JSON whole, or numbers, such as '15496 11 995'")?;
        return Ok(ids.ids);
    }
    let is_separator = |c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']');
    let mut ids = Vec::new();
    for word in text.split(is_separator).filter(|word| !word.is_empty()) {
        match word.parse() {
            Ok(id) => ids.push(id),
            Err(_) => bail!("{word:?} is not a token id\nhint: ids are numbers from 0, such as --ids '15496 11 995'"),
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_from_lines_lists_and_objects() {
        for text in ["1 22 333\n", "1,22,333", "[1, 22, 333]", "{\"ids\":[1,22,333]}"] {
            assert_eq!(parse(text).unwrap(), [1, 22, 333], "{text}");
        }
        assert!(parse("").unwrap().is_empty());
        for text in ["1 x", "-1", "99999999999", "{\"id\": 1}"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
