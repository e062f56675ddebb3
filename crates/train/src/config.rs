//! One training run in one file.

use std::path::{Path, PathBuf};

use nn::{ConfigError, ModelConfig, Recompute};
use serde::{Deserialize, Deserializer, Serialize};
use tensor::DType;
use tensor::cpu::gemm::Kernel;

use crate::schedule::{ScheduleConfig, ScheduleError};

/// One training run. Unknown keys are errors; there are no hidden defaults for what shapes a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Of the weights and of the order of the data.
    pub seed: u64,
    /// Where the text comes from.
    pub data: DataConfig,
    /// How text becomes tokens.
    pub tokenizer: TokenizerConfig,
    /// What the model is made of.
    pub model: ModelConfig,
    /// How gradients become updates.
    pub optimizer: OptimizerConfig,
    /// How the learning rate moves.
    pub schedule: ScheduleConfig,
    /// How long, how much at a time, how often to look.
    pub training: TrainingConfig,
}

/// Where the text comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Text, JSONL or their `.zst`; or one folder that `cupola data prepare` wrote. Relative to the current folder.
    pub train: Vec<PathBuf>,
    /// What is held out.
    pub validation: ValidationConfig,
}

/// What is held out for validation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum ValidationConfig {
    /// Files of their own, or one folder that `cupola data prepare` wrote.
    Files(Vec<PathBuf>),
    /// The last part of the text of every training document, as a fraction of its characters.
    Tail(f64),
}

/// How text becomes tokens; chosen by key (`[tokenizer.bpe]`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum TokenizerConfig {
    /// A byte-level BPE vocabulary, trained on the training text.
    Bpe(tokenizer::train::BpeConfig),
    /// A token per distinct character of the text.
    Characters {},
    /// A token per byte.
    Bytes {},
    /// A `tokenizer.json`, or a folder with one or with `vocab.json` and `merges.txt`.
    File {
        /// The file or folder.
        path: PathBuf,
    },
}

/// How gradients become updates; chosen by key (`[optimizer.adamw]`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum OptimizerConfig {
    /// Loshchilov and Hutter, 2019, <https://arxiv.org/abs/1711.05101>.
    AdamW {
        /// At the peak of the schedule.
        learning_rate: f64,
        /// Decay rates of the two moments.
        betas: [f64; 2],
        /// Added to the root of the second moment.
        eps: f64,
        /// Share of a parameter lost per update and unit of learning rate.
        weight_decay: f64,
        /// Which parameters decay.
        decay: Decay,
    },
}

/// Which parameters decay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// Matrices and tables, not gains and biases.
    Matrices,
    /// All.
    All,
}

/// How long, how much at a time, how often to look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingConfig {
    /// Updates.
    pub steps: u64,
    /// Sequences per update, over all ranks and micro-batches.
    pub batch_size: usize,
    /// Sequences at a time; `"auto"` takes the most that fits and divides the batch.
    pub micro_batch_size: Auto<usize>,
    /// The largest global norm of the gradient; longer ones are scaled down to it. 0 for no limit.
    pub grad_clip_norm: f64,
    /// Steps between validations.
    pub validation_every: u64,
    /// Sequences of a validation during training, evenly spread; the one at the end uses all of the held-out text.
    pub validation_sequences: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Checkpoints that are kept.
    pub keep_checkpoints: usize,
    /// `"auto"`, `"cpu"`, or `"cuda:0"` and further numbers.
    pub device: String,
    /// Of the arithmetic: `"auto"` (bf16 on a GPU and on a CPU that multiplies it, otherwise f32), `"f32"` or `"bf16"`.
    pub precision: Auto<Precision>,
    /// What backward computes again instead of keeping it: `"auto"` (`"blocks"` if not even one sequence would fit
    /// otherwise), `"none"` or `"blocks"`. Results do not differ.
    #[serde(default = "automatic")]
    pub recompute: Auto<Recompute>,
    /// Of the matrix products in the linear maps of the blocks: `"auto"` (as `precision`) or `"fp8"`.
    #[serde(default = "automatic")]
    pub matmul: Auto<Matmul>,
    /// The matrix-product kernel: `"auto"`, `"avx512"`, `"avx2"` or `"portable"`. They differ in rounding.
    #[serde(default = "automatic")]
    pub kernel: Auto<KernelName>,
}

fn automatic<T>() -> Auto<T> {
    Auto::Auto(AutoWord::Auto)
}

/// See [`Kernel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum KernelName {
    Avx512,
    Avx2,
    Portable,
}

impl From<Kernel> for KernelName {
    fn from(kernel: Kernel) -> Self {
        match kernel {
            Kernel::Avx512 => KernelName::Avx512,
            Kernel::Avx2 => KernelName::Avx2,
            Kernel::Portable => KernelName::Portable,
        }
    }
}

impl From<KernelName> for Kernel {
    fn from(name: KernelName) -> Self {
        match name {
            KernelName::Avx512 => Kernel::Avx512,
            KernelName::Avx2 => Kernel::Avx2,
            KernelName::Portable => Kernel::Portable,
        }
    }
}

/// The arithmetic of forward and backward. Weights and optimizer state are always f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision.
    F32,
    /// Activations and a copy of the weights in bfloat16, sums in f32.
    Bf16,
}

impl Precision {
    /// Of activations.
    pub fn dtype(self) -> DType {
        match self {
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::Bf16,
        }
    }
}

/// The numbers that matrix products in the linear maps of the blocks are made of: qkv, output, up and down. Sums and what
/// is done between products are as [`Precision`] says, and so are embeddings and the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Matmul {
    /// Single precision.
    F32,
    /// bfloat16.
    Bf16,
    /// 8 bits, one factor for each matrix: e4m3, and e5m2 for gradients; see [`tensor::ops::fp8_linear`].
    Fp8,
}

impl From<Precision> for Matmul {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Matmul::F32,
            Precision::Bf16 => Matmul::Bf16,
        }
    }
}

/// A value, or `"auto"`: chosen when the run starts, and written to its effective config.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Auto<T> {
    /// Chosen.
    Value(T),
    /// To be chosen.
    Auto(AutoWord),
}

/// Types of values that may be left to be chosen.
trait Choices {
    /// What a config may say, for messages.
    const CHOICES: &'static str;
}

impl Choices for usize {
    const CHOICES: &'static str = "\"auto\" or a whole number";
}

impl Choices for Precision {
    const CHOICES: &'static str = "\"auto\", \"f32\" or \"bf16\"";
}

impl Choices for Recompute {
    const CHOICES: &'static str = "\"auto\", \"none\" or \"blocks\"";
}

impl Choices for Matmul {
    const CHOICES: &'static str = "\"auto\", \"f32\", \"bf16\" or \"fp8\"";
}

impl Choices for KernelName {
    const CHOICES: &'static str = "\"auto\", \"avx512\", \"avx2\" or \"portable\"";
}

impl<'de, T: Deserialize<'de> + Choices> Deserialize<'de> for Auto<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written<T> {
            Value(T),
            Auto(AutoWord),
        }
        match Written::deserialize(deserializer) {
            Ok(Written::Value(value)) => Ok(Auto::Value(value)),
            Ok(Written::Auto(word)) => Ok(Auto::Auto(word)),
            // Serde would say that no variant matched.
            Err(_) => Err(serde::de::Error::custom(format_args!("expected {}", T::CHOICES))),
        }
    }
}

/// The word `"auto"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AutoWord {
    /// To be chosen.
    Auto,
}

impl<T: Copy> Auto<T> {
    /// The value, if it is chosen.
    pub fn value(&self) -> Option<T> {
        match self {
            Auto::Value(value) => Some(*value),
            Auto::Auto(_) => None,
        }
    }
}

/// Why a file is not a training config.
#[derive(Debug, thiserror::Error)]
pub enum RunConfigError {
    /// It cannot be read.
    #[error("cannot read {path}\nhint: {}", match source.kind() {
        std::io::ErrorKind::InvalidData => "a config is a TOML file in UTF-8, like those in configs/",
        _ => "check the path; the files in configs/ are complete examples",
    })]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is not TOML, or has a key that is unknown, missing or of the wrong kind.
    #[error("{path} is not a training config\n{message}\nhint: the files in configs/ are complete examples")]
    Parse {
        /// The file.
        path: PathBuf,
        /// With line, column and the keys that would be known.
        message: String,
    },
    /// An override is not `key=value`.
    #[error("--set {setting}: {reason}\nhint: write --set section.key=value, such as --set model.n_layers=6")]
    Set {
        /// What was typed.
        setting: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A value is out of its range.
    #[error("{key} = {value}, expected {expected}\nhint: change it in the config, or by --set {key}=…")]
    Range {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What would be.
        expected: &'static str,
    },
    /// The model is impossible.
    #[error(transparent)]
    Model(#[from] ConfigError),
    /// The schedule does not fit the run.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
}

impl RunConfig {
    /// Reads a config file and applies overrides of the form `section.key=value`.
    ///
    /// # Errors
    /// If the file cannot be read, has unknown or missing keys, or describes an impossible run.
    pub fn from_file(path: &Path, settings: &[String]) -> Result<Self, RunConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| RunConfigError::Read { path: path.to_owned(), source })?;
        Self::from_text(&text, path, settings)
    }

    /// Reads a config from text; `path` is for messages.
    ///
    /// # Errors
    /// See [`RunConfig::from_file`].
    pub fn from_text(text: &str, path: &Path, settings: &[String]) -> Result<Self, RunConfigError> {
        let parse = |e: toml::de::Error| RunConfigError::Parse { path: path.to_owned(), message: e.to_string() };
        // Parsed as typed first, so that a mistake in the file is shown with its line.
        let mut config: RunConfig = toml::from_str(text).map_err(parse)?;
        if !settings.is_empty() {
            let mut table: toml::Table = toml::from_str(text).map_err(parse)?;
            for setting in settings {
                set(&mut table, setting)?;
            }
            config = RunConfig::deserialize(table).map_err(|e| RunConfigError::Set {
                setting: settings.join(" --set "),
                reason: e.to_string().trim_end().replace('\n', " "),
            })?;
        }
        config.validate()?;
        Ok(config)
    }

    /// The config as text, every key written out.
    pub fn to_text(&self) -> String {
        toml::to_string(self).expect("a config has a TOML text")
    }

    /// Checks that the parts fit together.
    ///
    /// # Errors
    /// The first value out of range.
    pub fn validate(&self) -> Result<(), RunConfigError> {
        self.model.validate()?;
        let TrainingConfig { steps, batch_size, micro_batch_size, grad_clip_norm, .. } = &self.training;
        let TrainingConfig { validation_every, validation_sequences, checkpoint_every, keep_checkpoints, .. } =
            &self.training;
        let at_least_1 = [
            ("training.steps", *steps),
            ("training.batch_size", *batch_size as u64),
            ("training.micro_batch_size", micro_batch_size.value().unwrap_or(1) as u64),
            ("training.validation_every", *validation_every),
            ("training.validation_sequences", *validation_sequences),
            ("training.checkpoint_every", *checkpoint_every),
            ("training.keep_checkpoints", *keep_checkpoints as u64),
        ];
        for (key, value) in at_least_1 {
            require(value >= 1, key, value, "at least 1")?;
        }
        require(*steps <= 1 << 31, "training.steps", steps, "at most 2^31")?;
        let fits = batch_size.saturating_mul(self.model.context_length) <= 1 << 32;
        require(
            fits,
            "training.batch_size",
            batch_size,
            "at most 2^32 tokens per step, with model.context_length each",
        )?;
        if let Some(micro) = micro_batch_size.value() {
            let divides = batch_size.is_multiple_of(micro);
            require(divides, "training.micro_batch_size", micro, "a divisor of training.batch_size")?;
        }
        let good = grad_clip_norm.is_finite() && *grad_clip_norm >= 0.0;
        require(good, "training.grad_clip_norm", grad_clip_norm, "a norm above 0, or 0 for no limit")?;
        require(!self.data.train.is_empty(), "data.train", "[]", "at least one file or folder")?;
        match &self.data.validation {
            ValidationConfig::Tail(fraction) => {
                let good = *fraction > 0.0 && *fraction < 1.0;
                require(good, "data.validation.tail", fraction, "a fraction between 0 and 1")?;
            }
            ValidationConfig::Files(files) => {
                require(!files.is_empty(), "data.validation.files", "[]", "at least one file or folder")?;
            }
        }
        let OptimizerConfig::AdamW { learning_rate, betas, eps, weight_decay, .. } = &self.optimizer;
        let positive = |x: f64| x.is_finite() && x > 0.0;
        require(positive(*learning_rate), "optimizer.adamw.learning_rate", learning_rate, "a number above 0")?;
        for beta in betas {
            require((0.0..1.0).contains(beta), "optimizer.adamw.betas", beta, "numbers from 0 to below 1")?;
        }
        require(positive(*eps), "optimizer.adamw.eps", eps, "a number above 0")?;
        let good = weight_decay.is_finite() && *weight_decay >= 0.0;
        require(good, "optimizer.adamw.weight_decay", weight_decay, "0 or more")?;
        self.schedule.validate(*steps)?;
        if let TokenizerConfig::Bpe(bpe) = &self.tokenizer {
            let fits = bpe.vocab_size <= self.model.vocab_size;
            require(fits, "tokenizer.bpe.vocab_size", bpe.vocab_size, "at most model.vocab_size")?;
        }
        Ok(())
    }

    /// Tokens per update.
    pub fn tokens_per_step(&self) -> u64 {
        (self.training.batch_size * self.model.context_length) as u64
    }
}

fn require(holds: bool, key: &'static str, value: impl ToString, expected: &'static str) -> Result<(), RunConfigError> {
    if holds { Ok(()) } else { Err(RunConfigError::Range { key, value: value.to_string(), expected }) }
}

/// Applies one `section.key=value`. The value is read as TOML; what is not TOML is a string.
fn set(table: &mut toml::Table, setting: &str) -> Result<(), RunConfigError> {
    let error = |reason: &str| RunConfigError::Set { setting: setting.to_owned(), reason: reason.to_owned() };
    let (key, value) = setting.split_once('=').ok_or_else(|| error("there is no ="))?;
    let value = match toml::from_str::<toml::Table>(&format!("value = {value}")) {
        Ok(mut parsed) => parsed.remove("value").ok_or_else(|| error("there is no value"))?,
        Err(_) => toml::Value::String(value.to_owned()),
    };
    let (sections, last) = key.rsplit_once('.').map_or((None, key), |(sections, last)| (Some(sections), last));
    let mut table = table;
    for section in sections.into_iter().flat_map(|sections| sections.split('.')) {
        let entry = table.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        table = entry.as_table_mut().ok_or_else(|| error(&format!("{section} is not a section")))?;
    }
    table.insert(last.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests;
