//! The command line: one file per command.

mod quickstart;
mod tokenizer;
mod data;
mod train;
mod plan;
mod eval;
mod sampling;
mod generate;
mod chat;
mod report;
mod doctor;
mod bench;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Builds language models from scratch: text in, a trained, evaluated and talking model out.
#[derive(Parser)]
#[command(name = "cupola", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
EXAMPLES:
  cupola quickstart                                  from books to a model that writes, in about three minutes
  cupola chat runs/quickstart                        talk to it
  cupola train configs/shakespeare-char.toml         a run of your own
  cupola train CONFIG.toml --set model.n_layers=6    the same with one thing changed

Every command has --help with examples, and --json for one machine-readable result on standard output.";

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Train a small model on the books that come along, evaluate it, and let it write
    Quickstart(quickstart::Quickstart),
    /// Make, use and look into tokenizers
    Tokenizer(tokenizer::Tokenizer),
    /// Prepare token shards
    Data(data::Data),
    /// Train the model that a config file describes
    Train(train::Train),
    /// Say what a run will take, without running it
    Plan(plan::Plan),
    /// Measure how well a model predicts a text
    Eval(eval::Eval),
    /// Let a model continue a text
    Generate(generate::Generate),
    /// Converse with a model in the terminal
    Chat(chat::Chat),
    /// Write a run's report.html again
    Report(report::Report),
    /// Measure the speed of this machine on the work that training is made of
    Bench(bench::Bench),
    /// Say what this machine offers, and what is missing for more
    Doctor(doctor::Doctor),
}

impl Command {
    /// Runs it; the exit code says how it ended where that was no error.
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self {
            Command::Quickstart(command) => return command.run(),
            Command::Train(command) => return command.run(),
            Command::Tokenizer(command) => command.run()?,
            Command::Data(command) => command.run()?,
            Command::Plan(command) => command.run()?,
            Command::Eval(command) => command.run()?,
            Command::Generate(command) => command.run()?,
            Command::Chat(command) => command.run()?,
            Command::Report(command) => command.run()?,
            Command::Bench(command) => command.run()?,
            Command::Doctor(command) => command.run()?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// How the user starts this program: through Cargo if the binary lies in a folder of Cargo's.
pub(crate) fn program() -> &'static str {
    let executable = std::env::current_exe().unwrap_or_default();
    let profile = executable.parent().unwrap_or(Path::new(""));
    let is_of_cargo = profile.parent().is_some_and(|target| target.join("CACHEDIR.TAG").is_file());
    match is_of_cargo {
        true if profile.ends_with("release") => "cargo run --release --",
        true => "cargo run --",
        false => "cupola",
    }
}
