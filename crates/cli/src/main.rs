//! The one binary: `cupola`. Reads the command line, runs one command, prints what went wrong.

mod commands;
mod accounts;
mod training;
mod run_report;
mod baselines;
mod model_folder;
mod machine;
mod cuda_paths;
mod signals;
mod ui;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    machine::started();
    let arguments = commands::Arguments::parse();
    cuda_paths::configure();
    // A device that fails within an operation ends up here, if nobody has caught it before.
    let outcome = tensor::cuda::catch(|| arguments.command.run()).unwrap_or_else(|error| Err(error.into()));
    match outcome {
        Ok(code) => code,
        Err(error) if ui::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            ui::print_error(&error);
            ExitCode::FAILURE
        }
    }
}
