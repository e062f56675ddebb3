//! How well a model predicts a text.

use nn::Transformer;
use serde::Serialize;
use tensor::{Tensor, ops};
use tokenizer::Tokenizer;

use crate::Error;

/// The result of predicting a text, token by token.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TextEvaluation {
    /// Bytes of the text.
    pub n_bytes: usize,
    /// Tokens of the text.
    pub n_tokens: usize,
    /// Mean cross-entropy, in nats per predicted token.
    pub loss: f64,
    /// `e^loss`.
    pub perplexity: f64,
    /// Cross-entropy of the whole text in bits, over its bytes: comparable between tokenizers, and with compressors.
    pub bits_per_byte: f64,
}

/// Predicts every token of `text` from those before it.
///
/// The first token is predicted from the end-of-text token, where the tokenizer has one; otherwise it is given for
/// free. Each window of the context length starts with the second half of the window before, so that every token (but
/// those of the first window) is predicted from at least half a context. `progress` is told windows done and in all.
///
/// # Errors
/// If the text is too short, or has a character that the tokenizer does not know.
pub fn evaluate(
    model: &Transformer,
    tokenizer: &Tokenizer,
    text: &[u8],
    batch_size: usize,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<TextEvaluation, Error> {
    check_vocabularies(model, tokenizer)?;
    let model = model.detached();
    let mut ids = tokenizer.end_of_text().map_or(Vec::new(), |end| vec![end]);
    let n_given = ids.len();
    ids.extend(tokenizer.try_encode(text)?);
    let n_tokens = ids.len() - n_given;
    if ids.len() < 2 {
        return Err(Error::TooShort { n_tokens });
    }

    let windows = Windows { ids: &ids, context_length: model.config().context_length };
    let n_windows = windows.len();
    let mut nats = 0.0;
    let mut start = 0;
    while start < n_windows {
        let batch = start..(start + batch_size.max(1)).min(n_windows);
        let (inputs_bt, targets_bt) = windows.batch(batch.clone());
        let [inputs_bt, targets_bt] = [inputs_bt, targets_bt].map(|ids| ids.to(model.device()));
        nats += f64::from(model.loss(&inputs_bt, &targets_bt, 1.0).item());
        start = batch.end;
        progress(start as u64, n_windows as u64);
    }
    let loss = nats / (ids.len() - 1) as f64;
    let bits_per_byte = nats / std::f64::consts::LN_2 / text.len() as f64;
    Ok(TextEvaluation { n_bytes: text.len(), n_tokens, loss, perplexity: loss.exp(), bits_per_byte })
}

/// The model must have a row for every id.
pub(crate) fn check_vocabularies(model: &Transformer, tokenizer: &Tokenizer) -> Result<(), Error> {
    let (tokenizer, model) = (tokenizer.vocab_size(), model.config().vocab_size);
    if tokenizer > model { Err(Error::VocabMismatch { tokenizer, model }) } else { Ok(()) }
}

/// Overlapping windows over `ids`; every id but the first is a counted target once.
struct Windows<'a> {
    ids: &'a [u32],
    context_length: usize,
}

impl Windows<'_> {
    /// Positions from one window to the next.
    fn stride(&self) -> usize {
        self.context_length.div_ceil(2)
    }

    fn len(&self) -> usize {
        let n_targets = self.ids.len() - 1;
        1 + n_targets.saturating_sub(self.context_length).div_ceil(self.stride())
    }

    /// Inputs and targets `[b, t]`. What an earlier window predicted, and padding, is not counted.
    fn batch(&self, windows: std::ops::Range<usize>) -> (Tensor, Tensor) {
        // All but the last window are full; a single short one need not be padded.
        let t = self.context_length.min(self.ids.len() - 1);
        let (mut inputs, mut targets) = (Vec::new(), Vec::new());
        for window in windows.clone() {
            let first = window * self.stride();
            let n_seen = if window == 0 { 0 } else { self.context_length - self.stride() };
            for position in 0..t {
                let at = first + position;
                inputs.push(self.ids.get(at).copied().unwrap_or(0));
                let counted = self.ids.get(at + 1).filter(|_| position >= n_seen);
                targets.push(counted.copied().unwrap_or(ops::IGNORED));
            }
        }
        let shape = [windows.len(), t];
        (Tensor::from_u32(&shape, inputs), Tensor::from_u32(&shape, targets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nn::ModelConfig;

    #[test]
    fn every_token_but_the_first_is_counted_once() {
        for n in 2..60 {
            let ids: Vec<u32> = (0..n).collect();
            for context_length in 1..12 {
                let windows = Windows { ids: &ids, context_length };
                let (inputs, targets) = windows.batch(0..windows.len());
                let mut counted = Vec::new();
                for (&input, &target) in inputs.u32s().iter().zip(targets.u32s()) {
                    if target != ops::IGNORED {
                        assert_eq!(target, input + 1, "a target follows its input");
                        counted.push(target);
                    }
                }
                assert_eq!(counted, ids[1..], "{n} ids in windows of {context_length}");
            }
        }
    }

    #[test]
    fn a_model_that_knows_nothing_needs_eight_bits_per_byte() {
        let mut model = Transformer::new(&ModelConfig::llama(256, 16, 8, 1, 2, 16), 0);
        for parameter in model.parameters_mut() {
            parameter.f32s_mut().fill(0.0);
        }
        let text = "any text at all, of more than one window; ".repeat(5);
        let result = evaluate(&model, &Tokenizer::bytes(), text.as_bytes(), 3, &mut |_, _| {}).unwrap();
        assert!((result.loss - 256f64.ln()).abs() < 1e-5);
        let n = text.len() as f64;
        assert!((result.bits_per_byte - 8.0 * (n - 1.0) / n).abs() < 1e-4, "the first byte is given");
    }

    #[test]
    fn text_that_is_too_short_is_refused() {
        let model = Transformer::new(&ModelConfig::llama(256, 16, 8, 1, 2, 16), 0);
        for text in ["", "a"] {
            let error = evaluate(&model, &Tokenizer::bytes(), text.as_bytes(), 1, &mut |_, _| {}).unwrap_err();
            assert!(error.to_string().contains("at least 2"));
        }
    }
}
