//! `cupola tokenizer`: make, use and look into tokenizers.

mod train;
mod encode;
mod decode;
mod inspect;
mod explain;
mod compare;
mod utf8;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

const EXAMPLES: &str = "\
EXAMPLES:
  cupola tokenizer train --input books.jsonl.zst --vocab-size 4096 --output tokenizer.json
  cupola tokenizer encode --tokenizer tokenizer.json --text 'Hello, world'
  cupola tokenizer inspect tokenizer.json
  cupola tokenizer explain ' newest' --tokenizer tokenizer.json
  cupola tokenizer compare --tokenizer tokenizer.json gpt2/ --input book.txt

Every one of them has --help with examples, and --json for one machine-readable result on standard output.";

/// Make, use and look into tokenizers
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Tokenizer {
    #[command(subcommand)]
    command: TokenizerCommand,
}

#[derive(Subcommand)]
enum TokenizerCommand {
    /// Learn a vocabulary from text
    Train(train::Train),
    /// Text to ids
    Encode(encode::Encode),
    /// Ids to text
    Decode(decode::Decode),
    /// Say what is in a vocabulary
    Inspect(inspect::Inspect),
    /// Show the merges of a word as they happen
    Explain(explain::Explain),
    /// Say what tokenizers make of a text, in figures and token by token
    Compare(compare::Compare),
}

impl Tokenizer {
    pub(super) fn run(self) -> Result<()> {
        match self.command {
            TokenizerCommand::Train(command) => command.run(),
            TokenizerCommand::Encode(command) => command.run(),
            TokenizerCommand::Decode(command) => command.run(),
            TokenizerCommand::Inspect(command) => command.run(),
            TokenizerCommand::Explain(command) => command.run(),
            TokenizerCommand::Compare(command) => command.run(),
        }
    }
}

/// An output that is one of the inputs would replace what somebody gave to be read.
fn refuse_output_among(inputs: &[PathBuf], output: &Path) -> Result<()> {
    let Ok(there) = output.canonicalize() else { return Ok(()) };
    match inputs.iter().find(|input| input.canonicalize().is_ok_and(|input| input == there)) {
        Some(input) => bail!(
            "--output {} is also read, as {}\nhint: choose another file to write",
            output.display(),
            input.display()
        ),
        None => Ok(()),
    }
}
