//! Reading WordPiece.

use serde_json::{Map, Value};

use super::parse::{Result, Stages, Vocabulary, decoder, get, invalid, shorten, steps};
use crate::Tokenizer;
use crate::decode::Decoder;
use crate::vocab::Model;
use crate::wordpiece::WordPiece;

/// Reads a `tokenizer.json` whose model is WordPiece.
pub(super) fn tokenizer(
    root: &Map<String, Value>,
    model: &Map<String, Value>,
    vocabulary: &Vocabulary<'_>,
) -> Result<Tokenizer> {
    let Some(unknown) = vocabulary.named(model, "unk_token")? else { return invalid("model has no unk_token") };
    let prefix = match get(model, "continuing_subword_prefix") {
        Some(Value::String(prefix)) => prefix,
        None => "##",
        Some(found) => return invalid(format!("model.continuing_subword_prefix is {}", shorten(found))),
    };
    let max_chars = match get(model, "max_input_chars_per_word") {
        None => 100,
        Some(found) => match found.as_u64() {
            Some(n) => usize::try_from(n).unwrap_or(usize::MAX),
            None => return invalid(format!("model.max_input_chars_per_word is {}", shorten(found))),
        },
    };
    let stages = Stages::read(root, &vocabulary.added, steps(root, "pre_tokenizer", "pretokenizers")?)?;
    let steps = decoder(root)?;
    let bytes = |token: &str| token.strip_prefix(prefix).unwrap_or(token).as_bytes().into();
    let (written, tokens) = stages.texts(vocabulary, bytes);
    let pieces = vocabulary.model_tokens();
    Ok(Tokenizer {
        tokens,
        specials: stages.specials,
        pipeline: stages.pipeline,
        model: Model::WordPiece(Box::new(WordPiece::new(pieces, prefix, unknown, max_chars))),
        decoder: Decoder::Steps { steps, written },
        post_processor: None,
        sentencepiece: None,
    })
}
