//! Models in folders as Hugging Face lays them out: `config.json` and `model.safetensors`.
//!
//! A model of the shape of GPT-2 or Llama is written under their names, so that `transformers` loads it with no
//! conversion; any other combination of parts is written under our own names with `model_type: "cupola"`. Saving and
//! loading are exact inverses: what is renamed, split and transposed comes back bit for bit.

mod config_json;
mod layout;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tensor::Tensor;
use tensor::io::SafetensorsFile;

use crate::{ConfigError, ModelConfig, Transformer};
use layout::Family;

/// What can be wrong with a model folder.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("cannot {action} {path}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// `config.json` is not JSON, or misses a key, or has a value of the wrong kind.
    #[error(
        "{path} is not a model configuration: {reason}\nhint: it must be the config.json of a Hugging Face model folder; copy it again from where the model is from"
    )]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// `config.json` asks for something that the decoder does not have.
    #[error(
        "{path}: {key} = {value} is not supported, expected {expected}\nhint: choose a model of a supported architecture"
    )]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What would be.
        expected: String,
    },
    /// The sizes do not fit together.
    #[error("{path} describes an impossible model")]
    Config {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        source: ConfigError,
    },
    /// The weights cannot be read or written, or are not those of the configuration.
    #[error(transparent)]
    Weights(#[from] tensor::Error),
    /// The file holds tensors that the model has no place for.
    #[error("{path} has {} tensors that the model has no place for, the first is {first}\nhint: config.json and model.safetensors may be of two models", .count)]
    Extra {
        /// The file.
        path: PathBuf,
        /// How many.
        count: usize,
        /// The first of them by name.
        first: String,
    },
}

/// Ids that generation needs to know, for `config.json` and `generation_config.json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// Begins a text.
    pub begin: Option<u32>,
    /// Ends a text.
    pub end: Option<u32>,
}

/// Writes `config.json`, `generation_config.json` and `model.safetensors` into `folder`, each whole or not at all.
///
/// # Errors
/// If the folder cannot be written.
pub fn save(folder: &Path, model: &Transformer, special: SpecialIds) -> Result<(), Error> {
    save_weights(&folder.join("model.safetensors"), model)?;
    let config = config_json::to_json(model.config(), special);
    write_json(&folder.join("config.json"), &config)?;
    write_json(&folder.join("generation_config.json"), &config_json::generation(special))
}

/// Writes the weights alone.
///
/// # Errors
/// If the file cannot be written.
pub fn save_weights(path: &Path, model: &Transformer) -> Result<(), Error> {
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    Ok(tensor::io::save(path, &to_named_tensors(model), metadata)?)
}

/// The tensors under the names, and in the layout, in which they are stored.
pub fn to_named_tensors(model: &Transformer) -> Vec<(String, Tensor)> {
    let family = Family::of(model.config());
    let parameters = model.parameters();
    parameters.into_iter().flat_map(|(name, x)| family.stored(model.config(), &name).split(x)).collect()
}

/// Maps gradients or other tensors that are shaped like the parameters to the stored names and layout.
///
/// # Panics
/// If a tensor does not have the shape of its parameter.
pub fn name_like_parameters(config: &ModelConfig, tensors: &[(String, Tensor)]) -> Vec<(String, Tensor)> {
    let family = Family::of(config);
    tensors.iter().flat_map(|(name, x)| family.stored(config, name).split(x)).collect()
}

/// Reads a model from a folder with `config.json` and `model.safetensors`.
///
/// # Errors
/// If a file is missing, broken, or not supported; the message names the part.
pub fn load(folder: &Path) -> Result<Transformer, Error> {
    let config = load_config(&folder.join("config.json"))?;
    load_weights(&folder.join("model.safetensors"), &config)
}

/// Reads what a model is made of from `config.json`.
///
/// # Errors
/// If the file is missing, broken, or not supported.
pub fn load_config(path: &Path) -> Result<ModelConfig, Error> {
    let text =
        std::fs::read_to_string(path).map_err(|source| Error::Io { action: "read", path: path.to_owned(), source })?;
    config_json::from_json(path, &text)
}

/// Reads the weights of a model of known configuration.
///
/// # Errors
/// If a tensor is missing, extra, or of the wrong shape.
pub fn load_weights(path: &Path, config: &ModelConfig) -> Result<Transformer, Error> {
    let file = SafetensorsFile::open(path)?;
    let family = Family::of(config);
    let mut expected = Vec::new();
    let model = Transformer::build(config, &mut |name, _, shape| {
        let stored = family.stored(config, name);
        expected.extend(stored.names());
        stored.load(&file, shape)
    })?;
    let extra: Vec<String> = file
        .names()
        .into_iter()
        .filter(|name| !family.ignores(name) && !expected.contains(&family.canonical(name)))
        .collect();
    match extra.first() {
        None => Ok(model),
        Some(first) => Err(Error::Extra { path: path.to_owned(), count: extra.len(), first: first.clone() }),
    }
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<(), Error> {
    let io = |source| Error::Io { action: "write", path: path.to_owned(), source };
    let temporary = path.with_extension("json.tmp");
    let mut text = serde_json::to_string_pretty(value).expect("a JSON value has a text");
    text.push('\n');
    std::fs::write(&temporary, text).map_err(io)?;
    std::fs::File::open(&temporary).and_then(|file| file.sync_all()).map_err(io)?;
    std::fs::rename(&temporary, path).map_err(io)
}
