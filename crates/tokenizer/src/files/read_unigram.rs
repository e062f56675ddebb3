//! Reading unigram language models.

use serde_json::{Map, Value};

use super::parse::{Result, Stages, Vocabulary, decoder, flag, get, invalid, shorten, steps};
use super::read_bpe::bytes_of;
use crate::decode::Decoder;
use crate::unigram::{Options, Piece, PieceKind, Unigram};
use crate::vocab::Model;
use crate::{TokenId, Tokenizer};

/// Reads a `tokenizer.json` whose model is Unigram.
pub(super) fn tokenizer(
    root: &Map<String, Value>,
    model: &Map<String, Value>,
    vocabulary: &Vocabulary<'_>,
) -> Result<Tokenizer> {
    let Some(Value::Array(pairs)) = get(model, "vocab") else { return invalid("model.vocab is no list") };
    let pieces = pairs.iter().map(piece).collect::<Result<Vec<Piece>>>()?;
    let unknown = match get(model, "unk_id") {
        None => None,
        Some(id) => match id.as_u64().and_then(|id| TokenId::try_from(id).ok()) {
            Some(id) if (id as usize) < pieces.len() => Some(id),
            _ => return invalid(format!("model.unk_id is {}, but no id of model.vocab", shorten(id))),
        },
    };
    let stages = Stages::read(root, &vocabulary.added, steps(root, "pre_tokenizer", "pretokenizers")?)?;
    let steps = decoder(root)?;
    let byte_fallback = flag(model, "byte_fallback");
    let byte_ids = vocabulary.byte_ids().iter().copied().collect::<Option<Vec<TokenId>>>();
    let byte_ids =
        byte_ids.filter(|_| byte_fallback).and_then(|ids| Some(Box::new(<[TokenId; 256]>::try_from(ids).ok()?)));
    let (written, tokens) = stages.texts(vocabulary, |token| bytes_of(token, byte_fallback));
    let unigram = Unigram::new(pieces, Options { unknown, byte_ids, rounds_to_f32: false });
    Ok(Tokenizer {
        tokens,
        specials: stages.specials,
        pipeline: stages.pipeline,
        model: Model::Unigram(Box::new(unigram)),
        decoder: Decoder::Steps { steps, written },
        post_processor: None,
        sentencepiece: None,
    })
}

fn piece(pair: &Value) -> Result<Piece> {
    match pair.as_array().map(Vec::as_slice) {
        Some([Value::String(text), score]) if let Some(score) = score.as_f64() => {
            Ok(Piece { text: text.as_str().into(), score, kind: PieceKind::Normal })
        }
        _ => invalid(format!("model.vocab has {}, which is not a token with its score", shorten(pair))),
    }
}
