//! `cupola report`: a run's page for people, written again.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;
use train::RunFolder;

use crate::run_report;
use crate::ui;

const EXAMPLES: &str = "\
EXAMPLES:
  cupola report runs/quickstart
  cupola report runs/unfinished --json

The page is made from the files in the folder, also while a run is under way. With --json: report, its path.";

/// Write a run's report.html again
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Report {
    /// Folder of a run
    run: PathBuf,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Output {
    report: PathBuf,
}

impl Report {
    pub(super) fn run(self) -> Result<()> {
        if self.run.is_file() {
            let path = self.run.display();
            bail!("{path} is a file, expected a folder\nhint: name the folder of a run");
        }
        let folder = RunFolder::new(&self.run);
        if !folder.is_started() {
            let path = self.run.display();
            bail!("there is no run in {path}\nhint: a run's folder has a config.toml; `cupola train` makes one");
        }
        run_report::rewrite(&folder)?;
        let output = Output { report: folder.report() };
        ui::print_result(self.json, &output, &|| format!("{}\n", output.report.display()))
    }
}
