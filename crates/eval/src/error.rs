//! What can be wrong with a request.

/// Errors of evaluation and generation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing to predict.
    #[error(
        "the text has {n_tokens} tokens, expected at least 2: the first one is given, the others are predicted\nhint: give a longer text"
    )]
    TooShort {
        /// Tokens of the text.
        n_tokens: usize,
    },
    /// The text or the prompt cannot be encoded.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// The tokenizer has ids that the model has no rows for.
    #[error(
        "the tokenizer has {tokenizer} ids, but the model has {model} rows\nhint: the tokenizer and the weights are of two models"
    )]
    VocabMismatch {
        /// Ids of the tokenizer.
        tokenizer: usize,
        /// Rows of the model.
        model: usize,
    },
    /// A setting of the sampler is out of range.
    #[error("{key} = {value}, expected {expected}\nhint: change it, or leave it out for the default")]
    Sampling {
        /// Which setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// What would be in range.
        expected: &'static str,
    },
    /// The weights give no distribution.
    #[error("the model's logits are not numbers\nhint: its weights are damaged, or the run diverged")]
    NotFinite,
    /// Nothing to continue.
    #[error(
        "the prompt is empty, and the tokenizer has no end-of-text token to start from\nhint: give a prompt of at least one character"
    )]
    EmptyPrompt,
}
