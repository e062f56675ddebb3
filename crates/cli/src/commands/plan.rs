//! `cupola plan`: what a run will take, without running it.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use train::plan::{self, Plan as Accounts};
use train::report::Table;

use super::train::RunOptions;
use crate::accounts::{Estimate, pairs, tables};
use crate::training::select_kernel;
use crate::ui;

const EXAMPLES: &str = "\
EXAMPLES:
  cupola plan configs/cs336-17m.toml
  cupola plan configs/cs336-17m.toml --set model.n_layers=12 --set training.batch_size=64
  cupola plan configs/cs336-17m.toml --set training.recompute=blocks
  cupola plan configs/cs336-17m.toml --json

With --json: parameters, embedding_parameters, training_flops_per_token, training_flops, tokens_per_step, tokens,
micro_batch_size, gradient_accumulation_steps, device, recompute, recompute_saves_bytes, memory_bytes,
memory_by_category_bytes, available_memory_bytes, fits, kv_cache_bytes_per_token, forward_flops, matrix_product_flops_per_second, tokens_per_second, estimated_seconds,
is_measured (whether a step was timed; otherwise half the matrix-product rate is assumed).";

/// A step is timed if it takes less than about this.
const TIMING_BUDGET_SECONDS: f64 = 5.0;

/// Say what a run will take, without running it
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Plan {
    /// The run's config
    config: PathBuf,
    #[command(flatten)]
    options: RunOptions,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Output {
    #[serde(flatten)]
    plan: Accounts,
    fits: bool,
    #[serde(flatten)]
    estimate: Estimate,
}

impl Plan {
    pub(super) fn run(self) -> Result<()> {
        let config = plan::choose(&self.options.read(&self.config)?)?;
        select_kernel(&config)?;
        let plan = Accounts::of(&config);
        let fits = plan.check_memory();
        let estimate = Estimate::of(&config, &plan, TIMING_BUDGET_SECONDS)?;
        let text = || {
            let tables: String = tables(&plan).iter().map(table_text).collect();
            let mut text = format!("{}\n{tables}", ui::pairs(&pairs(&plan, &estimate)));
            if let Err(error) = &fits {
                text += &format!("\n{error}\n");
            }
            text
        };
        let output = Output { plan: plan.clone(), fits: fits.is_ok(), estimate };
        ui::print_result(self.json, &output, &text)
    }
}

/// A table for the terminal; all columns but the first are aligned to the right.
fn table_text(table: &Table) -> String {
    let n_columns = table.header.len();
    let width = |column: usize| {
        let cells = table.rows.iter().chain([&table.header]).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..n_columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let mut text = format!("  {:width$}", row[0], width = widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            text += &format!("  {cell:>width$}");
        }
        text + "\n"
    };
    let rows: String = table.rows.iter().map(line).collect();
    format!("{}\n{}{rows}\n", table.title, line(&table.header))
}
