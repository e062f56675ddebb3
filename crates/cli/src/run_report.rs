//! What a run leaves for programs (`summary.json`) and for people (`report.html`).

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use eval::generate::{GenerateConfig, Session};
use serde::{Deserialize, Serialize};
use train::folder::write_whole;
use train::metrics::{self, Record, Validation};
use train::plan::{self, Plan};
use train::report::{self, Baseline, Report};
use train::startup::{DeviceMemory, Startup};
use train::{RunConfig, RunFolder};

use crate::accounts;
use crate::baselines::Compressed;
use crate::machine::{Machine, peak_memory_bytes};
use crate::training::FinishedRun;
use crate::ui::units::{bytes, duration, grouped, percent, with_unit};

/// Tokens of each sample.
const SAMPLE_TOKENS: usize = 120;
/// Samples beyond the prompts that are given: the model begins a text of its own.
const N_SAMPLES: usize = 3;

/// The results of a finished run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Always `finished`.
    pub(crate) status: String,
    /// Trained numbers.
    pub(crate) parameters: usize,
    /// Updates.
    pub(crate) steps: u64,
    /// Trained on.
    pub(crate) tokens: u64,
    /// Of training, without validation and checkpoints.
    pub(crate) elapsed_seconds: f64,
    /// Mean over the run.
    pub(crate) tokens_per_second: f64,
    /// Model FLOPs utilisation against the matrix-product rate below.
    pub(crate) mfu: f64,
    /// Measured on this machine.
    pub(crate) matrix_product_flops_per_second: f64,
    /// What the plan said that a step takes.
    pub(crate) planned_memory_bytes: usize,
    /// The most memory that the last process of the run held, program and preparation included, if the system tells.
    pub(crate) peak_memory_bytes: Option<u64>,
    /// The same of the GPU it ran on, beside `planned_memory_bytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) device_memory_bytes: Option<DeviceMemory>,
    /// Where the seconds went until the last process of the run had made its first step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) startup_seconds: Option<Startup>,
    /// Over all of the held-out text.
    pub(crate) validation: Validation,
    /// The held-out text compressed by this model and by others.
    pub(crate) compression: Vec<Compressed>,
    /// What the model wrote.
    pub(crate) samples: Vec<Sample>,
    /// What it ran on.
    pub(crate) machine: Machine,
}

/// A text that the model wrote.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// What it was given.
    pub(crate) prompt: String,
    /// What it wrote after that.
    pub(crate) text: String,
    /// How it was drawn.
    pub(crate) settings: String,
}

impl Summary {
    /// The summary of a finished run.
    pub(crate) fn read(folder: &RunFolder) -> Result<Self> {
        let path = folder.summary();
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| {
            format!(
                "{} is not a run's summary\nhint: delete it and start the run again to write it anew",
                path.display()
            )
        })
    }

    /// Bits per byte that this model needs for the held-out text: measured as text if it was, else in windows.
    pub(crate) fn bits_per_byte(&self) -> Option<f64> {
        let as_text = self.compression.iter().find(|one| one.is_this_run).map(|one| one.bits_per_byte);
        as_text.or(self.validation.bits_per_byte)
    }

    /// The results that matter most as `(name, value)`.
    pub(crate) fn pairs(&self) -> Vec<(String, String)> {
        let pair = |name: &str, value: String| (name.to_owned(), value);
        let mut pairs = vec![pair("held-out loss, nats per token", format!("{:.4}", self.validation.loss))];
        // Of the same windows as the loss.
        pairs.extend(self.validation.bits_per_byte.map(|bits| pair("its bits per byte", format!("{bits:.3}"))));
        pairs.extend(self.training_pairs());
        pairs
    }

    /// Of these, those on the training itself.
    pub(crate) fn training_pairs(&self) -> Vec<(String, String)> {
        let pair = |name: &str, value: String| (name.to_owned(), value);
        let mut pairs = vec![
            pair("parameters", grouped(self.parameters as u64)),
            pair("tokens", grouped(self.tokens)),
            pair("training time", duration(self.elapsed_seconds)),
            pair("tokens/s", grouped(self.tokens_per_second as u64)),
            pair(&format!("MFU of the {} measured", self.matrix_rate_text()), percent(self.mfu)),
        ];
        let size = |n: usize| bytes(n as u64);
        if let Some(memory) = &self.device_memory_bytes {
            let in_use = memory.in_use.map_or(String::new(), |n| format!("; the driver counts {} in use", size(n)));
            let planned = size(self.planned_memory_bytes);
            pairs.push(pair("device memory", format!("{} at most, {planned} planned{in_use}", size(memory.peak_held))));
            pairs.extend(self.peak_memory_bytes.map(|n| pair("host memory", format!("{} at most", bytes(n)))));
        }
        pairs
    }

    fn matrix_rate_text(&self) -> String {
        with_unit(self.matrix_product_flops_per_second, "FLOP/s")
    }
}

/// Lets the model write samples, and writes summary and report: from then on the run is finished.
pub(crate) fn finish(
    folder: &RunFolder,
    config: &RunConfig,
    finished: &FinishedRun,
    prompts: &[&str],
    compression: Vec<Compressed>,
) -> Result<Summary> {
    let plan = Plan::of(config);
    let records = metrics::read(&folder.metrics())?;
    let elapsed_seconds = records.last().map_or(0.0, |record| record.elapsed_seconds);
    let tokens_per_second = plan.tokens as f64 / elapsed_seconds;
    let summary = Summary {
        status: "finished".to_owned(),
        parameters: plan.parameters,
        steps: config.training.steps,
        tokens: plan.tokens,
        elapsed_seconds,
        tokens_per_second,
        mfu: plan.training_flops_per_token * tokens_per_second / finished.matrix_product_rate,
        matrix_product_flops_per_second: finished.matrix_product_rate,
        planned_memory_bytes: plan.memory_bytes,
        peak_memory_bytes: peak_memory_bytes(),
        device_memory_bytes: finished.device_memory,
        startup_seconds: finished.startup,
        validation: finished.validation.clone(),
        compression,
        samples: samples(finished, prompts)?,
        machine: Machine::detect(),
    };
    // The report first: a finished run has one.
    write(folder, config, &records, Some(&summary))?;
    let json = serde_json::to_vec_pretty(&summary).context("the summary has no JSON text")?;
    write_whole(&folder.summary(), &json)?;
    Ok(summary)
}

/// Writes the report of a folder again, from what lies in it.
pub(crate) fn rewrite(folder: &RunFolder) -> Result<()> {
    let config = RunConfig::from_file(&folder.config(), &[])?;
    let summary = if folder.is_finished() { Some(Summary::read(folder)?) } else { None };
    let records = match folder.metrics().is_file() {
        true => metrics::read(&folder.metrics())?,
        false => Vec::new(),
    };
    write(folder, &plan::choose(&config)?, &records, summary.as_ref())
}

fn write(folder: &RunFolder, config: &RunConfig, records: &[Record], summary: Option<&Summary>) -> Result<()> {
    let mut report = Report {
        title: name_of(folder.path()),
        config: config.to_text(),
        tables: accounts::tables(&Plan::of(config)),
        records,
        ..Report::default()
    };
    let machine = match summary {
        Some(summary) => {
            report.summary = summary.pairs();
            report.samples = summary.samples.iter().map(Sample::for_report).collect();
            report.baselines = summary.compression.iter().map(Compressed::for_report).collect();
            summary.machine.clone()
        }
        None => Machine::detect(),
    };
    report.machine = machine.pairs();
    if let Some(summary) = summary {
        report.machine.push(("matrix products".to_owned(), summary.matrix_rate_text()));
    }
    Ok(report::write(&folder.report(), &report)?)
}

/// The last part of a path, even of `.`.
fn name_of(path: &Path) -> String {
    let full = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    full.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// Continuations of `prompts`; without any, of the opening of the held-out text, and texts of the model's own.
fn samples(finished: &FinishedRun, prompts: &[&str]) -> Result<Vec<Sample>> {
    let begins_alone = finished.tokenizer.end_of_text().is_some();
    let own = if begins_alone { "" } else { "\n" };
    let prompts = match prompts.is_empty() {
        false => prompts.to_vec(),
        true => [vec![finished.held_out_opening.as_str()], vec![own; N_SAMPLES - 1]].concat(),
    };
    let mut samples = Vec::new();
    for (prompt, seed) in prompts.into_iter().zip(1..) {
        let mut config = GenerateConfig { max_tokens: SAMPLE_TOKENS, ..GenerateConfig::default() };
        config.sampling.seed = seed;
        let mut session = Session::new(&finished.model, &finished.tokenizer)?;
        let generated = session.generate(prompt, &config, &mut |_| true)?;
        let sampling = config.sampling;
        let top_p = sampling.top_p.map_or(String::new(), |p| format!(", top-p {p}"));
        let settings = format!("temperature {}{top_p}, seed {seed}", sampling.temperature);
        samples.push(Sample { prompt: prompt.to_owned(), text: generated.text, settings });
    }
    Ok(samples)
}

impl Sample {
    fn for_report(&self) -> report::Sample {
        let Sample { prompt, text, settings } = self.clone();
        report::Sample { prompt, text, settings }
    }
}

impl Compressed {
    fn for_report(&self) -> Baseline {
        let Compressed { name, bits_per_byte, is_this_run } = self.clone();
        Baseline { name, bits_per_byte, is_this_run }
    }
}

impl Machine {
    /// As `(name, value)`.
    pub(crate) fn pairs(&self) -> Vec<(String, String)> {
        let pair = |name: &str, value: String| (name.to_owned(), value);
        let mut pairs: Vec<_> = self.processor.iter().map(|name| pair("processor", name.clone())).collect();
        pairs.extend([
            pair("threads", self.threads.to_string()),
            pair("instruction set", self.instruction_set.clone()),
            pair("matrix-product kernel", self.matrix_kernel.clone()),
        ]);
        pairs.extend(self.memory_bytes.map(|n| pair("memory", bytes(n))));
        pairs.extend([pair("system", self.system.clone()), pair("cupola", self.cupola.clone())]);
        pairs
    }
}
