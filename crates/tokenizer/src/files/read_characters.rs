//! Reading the character vocabularies that `write.rs` writes.

use serde_json::{Map, Value, json};

use super::EVERY_CHARACTER;
use super::parse::{Problem, Result, Vocabulary, get, invalid, type_of, unsupported};
use crate::encode::Characters;
use crate::special::SpecialTokens;
use crate::vocab::Model;
use crate::{TokenId, Tokenizer};

/// Reads a `tokenizer.json` whose model is WordLevel: the words must be characters.
pub(super) fn tokenizer(
    root: &Map<String, Value>,
    model: &Map<String, Value>,
    vocabulary: &Vocabulary<'_>,
) -> Result<Tokenizer> {
    if let Some(found) = get(root, "normalizer") {
        return unsupported("normalizer (of a WordLevel model)", found);
    }
    let found = root.get("pre_tokenizer").unwrap_or(&Value::Null);
    let split = json!({"Regex": EVERY_CHARACTER});
    if type_of(found) != Some("Split")
        || found.get("pattern") != Some(&split)
        || found.get("behavior").and_then(Value::as_str) != Some("Isolated")
        || found.get("invert").and_then(Value::as_bool) != Some(false)
    {
        return unsupported("pre_tokenizer (of a WordLevel model)", found);
    }
    match root.get("decoder").unwrap_or(&Value::Null) {
        found if type_of(found) == Some("Fuse") => {}
        found => return unsupported("decoder (of a WordLevel model)", found),
    }
    let Vocabulary { keys, ids, added, .. } = vocabulary;
    if let Some(token) = added.iter().find(|token| token.has_context()) {
        return unsupported("added_tokens (of a WordLevel model)", &token.content.as_str().into());
    }
    match model.get("unk_token").and_then(Value::as_str) {
        // Unknown characters would become that token.
        Some(unknown) if ids.contains_key(unknown) => {
            return unsupported("model.unk_token (within the vocabulary)", &unknown.into());
        }
        _ => {}
    }
    let mut is_added = vec![false; keys.len()];
    added.iter().for_each(|token| is_added[token.id as usize] = true);
    let mut characters: Vec<(char, TokenId)> = Vec::new();
    for (key, id) in vocabulary.tokens() {
        let mut chars = key.chars();
        match (chars.next(), chars.next()) {
            (Some(c), None) if !is_added[id as usize] => characters.push((c, id)),
            _ if is_added[id as usize] => {}
            _ => return invalid(format!("{key:?} is neither a character nor an added token")),
        }
    }
    let tokens = keys.iter().map(|key| key.unwrap_or("").as_bytes().into()).collect();
    let specials = SpecialTokens::of_added(added.clone()).map_err(Problem::Other)?;
    let model = Model::Characters(Characters::new(characters.into_iter()));
    Ok(Tokenizer::of_model(tokens, specials, model))
}
