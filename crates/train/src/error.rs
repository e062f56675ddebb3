//! What can stop a run.

use std::path::PathBuf;

/// Errors of preparing, training and resuming.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Two processes in one folder.
    #[error("another process is training in {path}\nhint: wait for it, or choose another folder with --run")]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// The config is not one.
    #[error(transparent)]
    Config(#[from] crate::config::RunConfigError),
    /// The text or the shards are not usable.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// The tokenizer is not usable.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// Weights cannot be read or written.
    #[error(transparent)]
    Tensor(#[from] tensor::Error),
    /// The run was started on a processor with other instructions.
    #[error(transparent)]
    Kernel(#[from] tensor::cpu::gemm::SelectError),
    /// A model folder cannot be read or written.
    #[error(transparent)]
    Model(#[from] nn::hugging_face::Error),
    /// The metrics file cannot be read or written.
    #[error(transparent)]
    Metrics(#[from] crate::metrics::MetricsError),
    /// The event file cannot be written.
    #[error(transparent)]
    TensorBoard(#[from] crate::tensorboard::EventError),
    /// The report cannot be written.
    #[error(transparent)]
    Report(#[from] crate::report::ReportError),
    /// The model has too few rows for the tokenizer.
    #[error(
        "the tokenizer has {tokenizer} ids, but model.vocab_size = {model}\nhint: set model.vocab_size to {tokenizer} or more"
    )]
    VocabTooSmall {
        /// Ids of the tokenizer.
        tokenizer: usize,
        /// Rows of the embedding table.
        model: usize,
    },
    /// Shards of another tokenizer.
    #[error(
        "the shards in {path} were written with another tokenizer\nhint: prepare them again with this run's tokenizer, or set tokenizer.file.path to the one they were made with"
    )]
    OtherTokenizer {
        /// The shards.
        path: PathBuf,
    },
    /// The run's inputs are shards, but its tokenizer is to be trained on text.
    #[error(
        "data.train is a folder of token shards, so the tokenizer must be the one they were made with\nhint: set [tokenizer.file] path = \"…/tokenizer.json\""
    )]
    ShardsNeedTokenizer,
    /// The loss is not a number.
    #[error(
        "step {step}: the loss is {loss}, so the run stops before the update; the weights are those of step {step}\nhint: lower optimizer.adamw.learning_rate, lengthen the warm-up, or set training.grad_clip_norm = 1.0, and start in another folder with --run"
    )]
    NonFiniteLoss {
        /// The step.
        step: u64,
        /// What came out.
        loss: f64,
    },
    /// The gradient is not a number.
    #[error(
        "step {step}: the norm of the gradient is {norm}, so the run stops before the update; the weights are those of step {step}\nhint: lower optimizer.adamw.learning_rate, lengthen the warm-up, or set training.grad_clip_norm = 1.0, and start in another folder with --run"
    )]
    NonFiniteGradient {
        /// The step.
        step: u64,
        /// What came out.
        norm: f64,
    },
    /// The run does not fit in memory.
    #[error("this run needs {needed} of memory, {available} are available\nhint: lower {setting}")]
    TooLarge {
        /// With its unit.
        needed: String,
        /// With its unit.
        available: String,
        /// What to lower.
        setting: &'static str,
    },
    /// The measured algorithms of matrix products cannot be used.
    #[error(
        "{path} does not say how this run computes its matrix products: {reason}\nhint: delete the file to measure them again on this device; the run then goes on with slightly other roundings"
    )]
    MatmulChoices {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A checkpoint is damaged.
    #[error(
        "the checkpoint {path} is damaged: {reason}\nhint: delete this folder to go on from the checkpoint before it, or from the start if there is none"
    )]
    DamagedCheckpoint {
        /// The checkpoint's folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A run cannot be resumed with a changed config.
    #[error(
        "{path} was started with another config\n{difference}\nhint: choose another folder with --run, or go on with the config of the run: cupola train --run {path} --resume"
    )]
    ConfigChanged {
        /// The run's folder.
        path: PathBuf,
        /// The first key that differs.
        difference: String,
    },
    /// There is nothing to resume.
    #[error("there is no run to resume in {path}\nhint: leave --resume out to start one")]
    NothingToResume {
        /// The folder.
        path: PathBuf,
    },
}
