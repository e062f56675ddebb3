//! Reading `tokenizer.json`: what the two kinds of file have in common.

use serde_json::{Map, Value};

use super::{read_bpe, read_characters};
use crate::{Error, HashMap, TokenId, Tokenizer};

/// What is wrong with a file.
#[derive(Debug)]
pub(super) enum Problem {
    Json(serde_json::Error),
    Unsupported { part: String, found: String },
    Invalid(String),
    Other(Error),
}

/// A token as a file writes it, with its id.
pub(super) type Entries<'a> = Vec<(&'a str, TokenId)>;

pub(super) type Result<T> = std::result::Result<T, Problem>;

/// Reads the text of a `tokenizer.json`.
pub(super) fn tokenizer(text: &[u8]) -> Result<Tokenizer> {
    let root: Value = serde_json::from_slice(text).map_err(Problem::Json)?;
    let root = object(&root, "the file")?;
    for part in ["truncation", "padding", "normalizer"] {
        if let Some(found) = get(root, part) {
            return unsupported(part, found);
        }
    }
    match get(root, "post_processor") {
        // It moves offsets into the text and leaves ids as they are.
        None => {}
        Some(found) if type_of(found) == Some("ByteLevel") => {}
        Some(found) => return unsupported("post_processor", found),
    }
    let Some(model) = get(root, "model") else { return invalid("it has no model") };
    let model = object(model, "model")?;
    match model.get("type").and_then(Value::as_str) {
        Some("BPE") => read_bpe::tokenizer(root, model),
        Some("WordLevel") => read_characters::tokenizer(root, model),
        // Files of the first years do not say.
        None if model.contains_key("merges") => read_bpe::tokenizer(root, model),
        _ => unsupported("model.type", model.get("type").unwrap_or(&Value::Null)),
    }
}

/// The vocabulary and the added tokens of a file, all ids contiguous from 0.
pub(super) struct Vocabulary<'a> {
    /// All tokens, indexed by id.
    pub(super) keys: Vec<&'a str>,
    pub(super) ids: HashMap<&'a str, TokenId>,
    pub(super) added: Entries<'a>,
}

impl<'a> Vocabulary<'a> {
    pub(super) fn read(root: &'a Map<String, Value>, model: &'a Map<String, Value>) -> Result<Self> {
        let Some(vocab) = get(model, "vocab") else { return invalid("model has no vocab") };
        let vocab = entries(vocab, "model.vocab")?;
        let n_in_model = vocab.len();
        let mut ids: HashMap<&str, TokenId> = vocab.into_iter().collect();
        let added = added_tokens(root)?;
        for &(content, id) in &added {
            match ids.insert(content, id) {
                Some(other) if other != id => {
                    return invalid(format!("added token {content:?} has id {id}, but {other} in model.vocab"));
                }
                // Hugging Face numbers these itself, from the end of the model's vocabulary.
                None if (id as usize) < n_in_model => {
                    return invalid(format!(
                        "added token {content:?} has id {id}, but is not in model.vocab, \
                         whose {n_in_model} ids end below it"
                    ));
                }
                _ => {}
            }
        }
        let keys = by_id(&ids)?;
        Ok(Self { keys, ids, added })
    }
}

/// Tokens in the order of their ids.
///
/// # Errors
/// If the ids are not 0, 1, 2, ...; so nothing is allocated for an id, only for an entry.
pub(super) fn by_id<'a>(ids: &HashMap<&'a str, TokenId>) -> Result<Vec<&'a str>> {
    let mut sorted: Vec<(TokenId, &str)> = ids.iter().map(|(&key, &id)| (id, key)).collect();
    sorted.sort_unstable();
    for (expected, &(id, key)) in sorted.iter().enumerate() {
        let expected = expected as TokenId;
        if id > expected {
            return invalid(format!("no token has id {expected}, but {key:?} has id {id}"));
        }
        if id < expected {
            return invalid(format!("more than one token has id {id}, {key:?} is one"));
        }
    }
    Ok(sorted.into_iter().map(|(_, key)| key).collect())
}

/// The entries of an object from tokens to ids.
pub(super) fn entries<'a>(vocab: &'a Value, place: &str) -> Result<Entries<'a>> {
    object(vocab, place)?
        .iter()
        .map(|(key, id)| match id.as_u64().and_then(|id| TokenId::try_from(id).ok()) {
            Some(id) => Ok((key.as_str(), id)),
            None => invalid(format!("{place} gives {key:?} the id {}", shorten(id))),
        })
        .collect()
}

fn added_tokens(root: &Map<String, Value>) -> Result<Entries<'_>> {
    let added = match get(root, "added_tokens") {
        None => return Ok(Vec::new()),
        Some(Value::Array(added)) => added,
        Some(found) => return invalid(format!("added_tokens is {}", shorten(found))),
    };
    let mut normalized = None;
    added
        .iter()
        .map(|token| {
            let token = object(token, "an added token")?;
            for flag in ["single_word", "lstrip", "rstrip"] {
                if token.get(flag).is_some_and(|value| *value != Value::Bool(false)) {
                    return unsupported(&format!("added_tokens.{flag}"), &token[flag]);
                }
            }
            // Without a normalizer the flag says only which tokens are looked for first.
            let flag = token.get("normalized").and_then(Value::as_bool).unwrap_or(true);
            if *normalized.get_or_insert(flag) != flag {
                return unsupported("added_tokens.normalized", &"true and false".into());
            }
            let id = token.get("id").and_then(Value::as_u64);
            match (token.get("content"), id.and_then(|id| TokenId::try_from(id).ok())) {
                (Some(Value::String(content)), Some(id)) => Ok((content.as_str(), id)),
                _ => invalid(format!("an added token lacks content or id: {}", shorten(&Value::Object(token.clone())))),
            }
        })
        .collect()
}

/// The value of a key, unless it is null.
pub(super) fn get<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    object.get(key).filter(|value| !value.is_null())
}

pub(super) fn object<'a>(value: &'a Value, place: &str) -> Result<&'a Map<String, Value>> {
    match value {
        Value::Object(object) => Ok(object),
        _ => invalid(format!("{place} is {}, not an object", shorten(value))),
    }
}

/// The `type` of a part such as the decoder.
pub(super) fn type_of(value: &Value) -> Option<&str> {
    value.get("type")?.as_str()
}

pub(super) fn invalid<T>(reason: impl Into<String>) -> Result<T> {
    Err(Problem::Invalid(reason.into()))
}

pub(super) fn unsupported<T>(part: &str, found: &Value) -> Result<T> {
    Err(Problem::Unsupported { part: part.to_string(), found: shorten(found) })
}

/// The value for a message, of at most some 80 characters.
fn shorten(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text,
    }
}
