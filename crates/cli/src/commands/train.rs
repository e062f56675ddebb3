//! `cupola train`: the run that a config file describes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use data::fingerprint::fingerprint;
use nn::{Transformer, hugging_face};
use tokenizer::Tokenizer;
use train::config::{RunConfigError, TokenizerConfig};
use train::plan::{self, Plan};
use train::{Error, RunConfig, RunFolder};

use super::program;
use crate::accounts::{Estimate, pairs};
use crate::model_folder::refuse_missing;
use crate::run_report::{self, Summary};
use crate::signals::{Phase, StopRequest};
use crate::training::{self, Difference, Outcome};
use crate::ui;

const EXAMPLES: &str = "\
EXAMPLES:
  cupola train configs/shakespeare-char.toml
  cupola train configs/shakespeare-char.toml --set training.steps=500 --set model.n_layers=2 --run runs/short
  cupola train --run runs/short --resume              go on with the config of the run itself
  cupola train configs/cs336-17m.toml --print-config  the effective config, everything automatic chosen
  cupola train CONFIG.toml --init-from gpt2           start from weights of a Hugging Face folder

A run that was stopped or killed goes on by itself when it is started again. Ctrl-C finishes the step, writes a
checkpoint and says how to go on; a second one ends at once. With --json: the content of summary.json, or
{\"status\": \"stopped\", ...}.";

/// A step is timed before a run if it takes less than about this.
const TIMING_BUDGET_SECONDS: f64 = 2.0;

/// Train the model that a config file describes
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Train {
    /// The run's config; may be left out with --resume
    #[arg(required_unless_present = "resume")]
    config: Option<PathBuf>,
    #[command(flatten)]
    options: RunOptions,
    /// The run's folder [default: runs/NAME-OF-THE-CONFIG]
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Go on with a run, or fail if there is none
    #[arg(long)]
    resume: bool,
    /// Start from the weights in this folder (config.json, model.safetensors) instead of fresh ones
    #[arg(long, value_name = "FOLDER")]
    init_from: Option<PathBuf>,
    /// Print the effective config and do nothing
    #[arg(long)]
    print_config: bool,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

/// What changes a config from the command line.
#[derive(Args)]
pub(super) struct RunOptions {
    /// Change one key of the config, such as model.n_layers=6; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// auto, cpu or cuda:N; short for --set training.device=…
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
}

impl RunOptions {
    /// Reads a config file with the changes applied.
    pub(super) fn read(&self, path: &Path) -> Result<RunConfig> {
        RunConfig::from_file(path, &self.settings()).map_err(explain_setting)
    }

    /// All changes as `key=value`.
    pub(super) fn settings(&self) -> Vec<String> {
        let device = self.device.iter().map(|device| format!("training.device={device}"));
        self.set.iter().cloned().chain(device).collect()
    }
}

impl Train {
    pub(super) fn run(self) -> Result<ExitCode> {
        let path = self.folder()?;
        let mut config = self.read_config(&path)?;
        if let Some(folder) = &self.init_from {
            take_tokenizer(folder, &mut config)?;
        }
        if self.print_config {
            let config = plan::choose(&config)?;
            ui::print_result(self.json, &config, &|| config.to_text())?;
            return Ok(ExitCode::SUCCESS);
        }
        let stop = StopRequest::listen(&path, self.json)?;
        if !RunFolder::new(&path).is_started() {
            train::prepare::check(&config)?;
        }
        let initial = self.init_from.as_deref().map(|folder| initial_weights(folder, &config)).transpose()?;
        let started = training::start(&path, &config)?;
        let folder = started.folder.clone();
        if folder.is_finished() {
            let summary = Summary::read(&folder)?;
            stop.enter(Phase::Finished);
            ui::note(&format!("the run in {} is finished", path.display()));
            self.show(&path, &summary)?;
            ui::note("to train anew, choose another folder with --run, or delete this one");
            return Ok(ExitCode::SUCCESS);
        }
        ui::note(&format!("run {}", path.display()));
        say_plan(&started.config)?;
        let config = started.config.clone();
        let to_go_on = format!("train --run {} --resume", path.display());
        match training::train(started, initial, &to_go_on, &stop)? {
            Outcome::Stopped { step } => stop.stopped(step),
            Outcome::Finished(finished) => {
                let summary = run_report::finish(&folder, &config, &finished, &[], Vec::new())?;
                stop.enter(Phase::Finished);
                self.show(&path, &summary)?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }

    /// The run's folder: as given, or named after the config.
    fn folder(&self) -> Result<PathBuf> {
        if let Some(run) = &self.run {
            return Ok(run.clone());
        }
        let Some(config) = &self.config else {
            bail!("which run is to go on?\nhint: name its folder with --run, or its config");
        };
        let stem = config.file_stem().with_context(|| format!("{} is not a file", config.display()))?;
        Ok(Path::new("runs").join(stem))
    }

    fn read_config(&self, run: &Path) -> Result<RunConfig> {
        let folder = RunFolder::new(run);
        if run.is_file() {
            bail!("{} is a file, expected a folder\nhint: choose the run's folder with --run", run.display());
        }
        if self.resume && !folder.is_started() {
            return Err(Error::NothingToResume { path: run.to_owned() }.into());
        }
        match &self.config {
            Some(config) => self.options.read(config),
            None => self.options.read(&folder.config()),
        }
    }

    fn show(&self, path: &Path, summary: &Summary) -> Result<()> {
        ui::print_result(self.json, summary, &|| {
            format!(
                "{}\nreport:  {}\nto talk: {} chat {}\n",
                ui::pairs(&summary.pairs()),
                path.join("report.html").display(),
                program(),
                path.display()
            )
        })
    }
}

/// The error with a hint that fits what is wrong with a `--set`.
pub(super) fn explain_setting(error: RunConfigError) -> anyhow::Error {
    let RunConfigError::Set { setting, reason } = &error else { return error.into() };
    let hint = match reason.split_once(", expected ") {
        _ if reason.starts_with("there is no") => return error.into(),
        Some((what, known)) if what.starts_with("unknown") => {
            let known = known.trim_start_matches("one of ").replace('`', "");
            return anyhow!("--set {setting}: {what}\nhint: known are {known}");
        }
        _ if reason.ends_with("is not a section") => "shows which keys there are, and in which sections",
        _ => "shows this key with a value as it should be",
    };
    anyhow!("--set {setting}: {reason}\nhint: {} train CONFIG.toml --print-config {hint}", program())
}

/// Prints what the run will take, and refuses one that does not fit.
pub(super) fn say_plan(config: &RunConfig) -> Result<()> {
    let plan = Plan::of(config);
    plan.check_memory()?;
    ui::note(ui::pairs(&pairs(&plan, &Estimate::of(config, &plan, TIMING_BUDGET_SECONDS)?)).trim_end());
    Ok(())
}

/// Weights know the ids of their own tokenizer only, so a run that starts from them takes it, too.
fn take_tokenizer(folder: &Path, config: &mut RunConfig) -> Result<()> {
    let path = folder.join("tokenizer.json");
    if !path.is_file() {
        return Ok(());
    }
    if let TokenizerConfig::File { path: asked } = &config.tokenizer {
        let fingerprint = |path: &Path| Tokenizer::from_file(path).map(|tokenizer| fingerprint(&tokenizer));
        if fingerprint(asked)? != fingerprint(&path)? {
            bail!(
                "{} is not the tokenizer of the weights in {}\nhint: set [tokenizer.file] path to {}",
                asked.display(),
                folder.display(),
                path.display()
            );
        }
        return Ok(());
    }
    ui::note(&format!("the tokenizer is that of the weights, {}", path.display()));
    config.tokenizer = TokenizerConfig::File { path };
    Ok(())
}

/// Weights to start from; they must be those of the config's model.
fn initial_weights(folder: &Path, config: &RunConfig) -> Result<Transformer> {
    if folder.is_file() {
        bail!(
            "{} is a file, expected a folder\nhint: name a folder with config.json and model.safetensors",
            folder.display()
        );
    }
    for file in ["config.json", "model.safetensors"] {
        refuse_missing(folder, file)?;
    }
    let model = hugging_face::load(folder)?;
    let (found, wanted) = (model.config(), &config.model);
    // How fresh weights would be drawn is no property of weights that exist.
    let comparable = nn::ModelConfig { init: wanted.init.clone(), ..found.clone() };
    let with_found = RunConfig { model: comparable, ..config.clone() };
    if let Some(Difference { key, stored, asked }) = training::first_difference(&with_found, config) {
        bail!(
            "the model in {folder} is not that of the config\n{key} = {stored} in {folder}, {asked} in the config\n\
             hint: set the keys of [model] to what they are in {folder}, such as --set '{key}={stored}'",
            folder = folder.display()
        );
    }
    Ok(model)
}
