//! `report.html`: one page about one run that opens anywhere, offline, with nothing beside it.
//!
//! The page works without scripts; they only add the values under the pointer. Its parts (charts, tables, the document
//! around them) are there for pages about something else, too.

mod page;
mod run_charts;
mod figures;
mod tables;
mod curves;
mod chart;
mod axis;
mod text;
#[cfg(test)]
mod tests;

pub use axis::Scale;
pub use chart::{Chart, N_COLOURS, Series, Style, figure};
pub use curves::{Points, thinned};
pub use page::{document, section, tiles};
pub use tables::table;
pub use text::escape;

use std::io;
use std::path::{Path, PathBuf};

use crate::metrics::Record;
use crate::whole_file;

/// What a report shows. All strings are plain text; the page escapes them.
///
/// Parts that are empty are left out of the page.
#[derive(Clone, Debug, Default)]
pub struct Report<'a> {
    /// Name of the run.
    pub title: String,
    /// The effective config of the run as TOML.
    pub config: String,
    /// What it ran on, as `(name, value)`.
    pub machine: Vec<(String, String)>,
    /// The results that matter most, as `(label, value with unit)`.
    pub summary: Vec<(String, String)>,
    /// Accounts of parameters, FLOPs, memory and the like.
    pub tables: Vec<Table>,
    /// All steps of the run in order.
    pub records: &'a [Record],
    /// Text that the model wrote.
    pub samples: Vec<Sample>,
    /// Compression of the held-out text by this model and by others, in the order to show.
    pub baselines: Vec<Baseline>,
}

/// A table of text; columns that hold only numbers are aligned to the right.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Heading.
    pub title: String,
    /// Names of the columns.
    pub header: Vec<String>,
    /// Cells by row; a row may be shorter than the header.
    pub rows: Vec<Vec<String>>,
    /// A remark below the table, such as the formula behind it; may be empty.
    pub note: String,
}

/// A text that the model wrote.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// What the model was given.
    pub prompt: String,
    /// What it wrote after the prompt.
    pub text: String,
    /// How it was sampled, such as `temperature 0.8, top-p 0.95, seed 1`.
    pub settings: String,
}

/// How well something predicts, or compresses, the held-out text.
#[derive(Clone, Debug, Default)]
pub struct Baseline {
    /// What it is, such as `xz -9e`.
    pub name: String,
    /// Bits per byte of the text; lower is better.
    pub bits_per_byte: f64,
    /// Whether it is the model of this run.
    pub is_this_run: bool,
}

/// A report that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the report to {path}\nhint: check free space and permissions, then make the report again")]
pub struct ReportError {
    /// The page.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Writes the page of a run to `path` in one go: an earlier page is replaced whole or left as it was.
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: &Path, report: &Report) -> Result<(), ReportError> {
    write_page(path, &page::html(report))
}

/// Writes a page that [`document`] made, as [`write()`] does.
///
/// # Errors
/// If the file cannot be written.
pub fn write_page(path: &Path, html: &str) -> Result<(), ReportError> {
    whole_file::replace(path, html.as_bytes()).map_err(|source| ReportError { path: path.into(), source })
}
