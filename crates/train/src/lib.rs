//! Optimizer, schedules, the training loop, checkpoints, metrics, reports.
//!
//! A run is one file, [`RunConfig`], and one folder, [`RunFolder`]. [`prepare`] makes the inputs (tokenizer and token
//! shards), [`Trainer`] is the loop; [`stepper`] is the page to read first.

pub mod config;
pub mod folder;
pub mod prepare;
pub mod schedule;
pub mod optimizer;
pub mod stepper;
pub mod checkpoint;
pub mod validate;
pub mod ceiling;
pub mod plan;
pub mod run;
pub mod startup;
pub mod metrics;
pub mod tensorboard;
pub mod report;
mod error;
mod matmul_choices;
mod whole_file;

pub use config::RunConfig;
pub use error::Error;
pub use folder::RunFolder;
pub use run::{Event, Trainer};
