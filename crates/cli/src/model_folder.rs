//! Folders that hold a model: runs, finished or not, and models as Hugging Face lays them out.

use std::path::{Path, PathBuf};

use anyhow::{Error, Result, anyhow, bail};
use clap::Args;
use nn::{Transformer, hugging_face};
use tensor::{DType, Device, cuda};
use tokenizer::Tokenizer;
use train::{RunConfig, RunFolder, checkpoint};

use crate::ui;

/// Where a model is computed with.
#[derive(Args)]
pub(crate) struct DeviceOption {
    /// Where to compute: cpu (in f32), cuda:N (in bf16), or auto for a GPU if there is one
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: String,
}

/// A model that can read and write text.
pub(crate) struct LoadedModel {
    /// The weights.
    pub(crate) model: Transformer,
    /// Text to tokens and back.
    pub(crate) tokenizer: Tokenizer,
    /// Where the weights lie.
    pub(crate) weights: PathBuf,
    /// Whether the folder brings a chat template, which nothing here applies.
    pub(crate) has_chat_template: bool,
}

impl LoadedModel {
    /// Reads the model of a finished run, the newest checkpoint of an unfinished one, or a folder with `config.json`,
    /// `model.safetensors` and a tokenizer.
    ///
    /// The model is put on `device`; on a GPU it is computed with in bf16.
    pub(crate) fn load(path: &Path, device: &DeviceOption) -> Result<Self> {
        let device = Device::from_name(&device.device)?;
        let mut loaded = Self::load_to_host(path)?;
        if device != Device::Cpu {
            loaded.model = cuda::catch(|| loaded.model.to(device).compute_copy(DType::Bf16))?;
        }
        Ok(loaded)
    }

    fn load_to_host(path: &Path) -> Result<Self> {
        if path.is_file() {
            bail!(
                "{} is a file, expected a folder\n\
                 hint: name the folder of a run, or one with config.json, model.safetensors and tokenizer.json",
                path.display()
            );
        }
        let folder = RunFolder::new(path);
        let (model, weights) = if folder.is_started() && !folder.is_finished() {
            newest_checkpoint(&folder)?
        } else if path.join("config.json").is_file() {
            refuse_missing(path, "model.safetensors")?;
            (hugging_face::load(path)?, folder.weights())
        } else if folder.weights().is_file() {
            return Err(missing(path, "config.json"));
        } else if path.is_dir() {
            bail!(
                "{} holds no model: neither a run's config.toml nor a config.json\n\
                 hint: name the folder of a run, or one with config.json, model.safetensors and tokenizer.json",
                path.display()
            );
        } else {
            bail!("there is no folder {}\nhint: `cupola train` and `cupola quickstart` make one", path.display());
        };
        if !path.join("vocab.json").is_file() {
            refuse_missing(path, "tokenizer.json")?;
        }
        let has_chat_template = path.join("chat_template.jinja").is_file()
            || std::fs::read_to_string(path.join("tokenizer_config.json"))
                .is_ok_and(|t| t.contains("\"chat_template\""));
        Ok(LoadedModel { model, tokenizer: Tokenizer::from_file(path)?, weights, has_chat_template })
    }

    /// Sequences at a time that keep the machine busy when only forward is run.
    pub(crate) fn evaluation_batch_size(&self) -> usize {
        const POSITIONS: usize = 1 << 12;
        (POSITIONS / self.model.config().context_length).max(1)
    }
}

/// Refuses a folder of a model that lacks one of its files.
pub(crate) fn refuse_missing(folder: &Path, file: &str) -> Result<()> {
    if folder.join(file).is_file() { Ok(()) } else { Err(missing(folder, file)) }
}

fn missing(folder: &Path, file: &str) -> Error {
    let folder = folder.display();
    anyhow!("{folder} has no {file}\nhint: copy it from where the rest of the model in {folder} comes from")
}

fn newest_checkpoint(folder: &RunFolder) -> Result<(Transformer, PathBuf)> {
    let Some(newest) = checkpoint::list(folder)?.pop() else {
        bail!(
            "the run in {path} has no checkpoint yet\nhint: go on with it: {command} train --run {path} --resume",
            path = folder.path().display(),
            command = crate::commands::program()
        );
    };
    let config = RunConfig::from_file(&folder.config(), &[])?;
    let weights = newest.join("model.safetensors");
    let model = hugging_face::load_weights(&weights, &config.model)?;
    ui::note(&format!("the run is not finished: taking its newest checkpoint, {}", newest.display()));
    Ok((model, weights))
}
