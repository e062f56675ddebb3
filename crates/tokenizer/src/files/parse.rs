//! Reading `tokenizer.json`: what all kinds of file have in common.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{read_bpe, read_characters, read_unigram, read_wordpiece};
use crate::normalize::{self, normalize};
use crate::pipeline::Pipeline;
use crate::special::{AddedToken, SpecialTokens};
use crate::{Error, HashMap, TokenId, Tokenizer, decode, postprocess, split};

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

/// Steps of one part of a file; the files known have four.
const MAX_STEPS: usize = 64;
/// How much longer normalisation may make a text.
const MAX_GROWTH: usize = 1 << 16;
/// Ids without a token that a file may have beside as many as it has tokens.
const MAX_GAPS: usize = 1 << 16;

/// Reads the text of a `tokenizer.json`. `truncation` and `padding` are left to who makes batches.
pub(super) fn tokenizer(text: &[u8]) -> Result<Tokenizer> {
    let root: Value = serde_json::from_slice(text).map_err(Problem::Json)?;
    let root = object(&root, "the file")?;
    let Some(model) = get(root, "model") else { return invalid("it has no model") };
    let model = object(model, "model")?;
    let vocabulary = Vocabulary::read(root, model)?;
    let mut tokenizer = match type_of_model(model) {
        Some("BPE") => read_bpe::tokenizer(root, model, &vocabulary)?,
        Some("WordLevel") => read_characters::tokenizer(root, model, &vocabulary)?,
        Some("Unigram") => read_unigram::tokenizer(root, model, &vocabulary)?,
        Some("WordPiece") => read_wordpiece::tokenizer(root, model, &vocabulary)?,
        // Files of the first years do not say.
        None if model.contains_key("merges") => read_bpe::tokenizer(root, model, &vocabulary)?,
        _ => return unsupported("model.type", model.get("type").unwrap_or(&Value::Null)),
    };
    tokenizer.post_processor = post_processor(root, &tokenizer)?;
    Ok(tokenizer)
}

/// The vocabulary and the added tokens of a file.
pub(super) struct Vocabulary<'a> {
    /// All tokens, indexed by id; an id without a token has none.
    pub(super) keys: Vec<Option<&'a str>>,
    pub(super) ids: HashMap<&'a str, TokenId>,
    /// By id, whether the model has the token; some are added tokens only.
    is_in_model: Vec<bool>,
    pub(super) added: Vec<AddedToken>,
}

impl<'a> Vocabulary<'a> {
    fn read(root: &'a Map<String, Value>, model: &'a Map<String, Value>) -> Result<Self> {
        let Some(vocab) = get(model, "vocab") else { return invalid("model has no vocab") };
        let vocab = match vocab {
            // Pairs of token and score, whose places are their ids.
            Value::Array(pairs) if type_of_model(model) == Some("Unigram") => list(pairs)?,
            _ => entries(vocab, "model.vocab")?,
        };
        let added = added_tokens(root)?;
        let mut ids: HashMap<&str, TokenId> = vocab.into_iter().collect();
        let in_model: Vec<TokenId> = ids.values().copied().collect();
        let mut taken: HashMap<TokenId, &str> = ids.iter().map(|(&key, &id)| (id, key)).collect();
        for (content, token) in &added {
            let id = token.id;
            match ids.insert(content, id) {
                Some(other) if other != id => {
                    return invalid(format!("added token {content:?} has id {id}, but {other} in model.vocab"));
                }
                None if let Some(other) = taken.insert(id, content) => {
                    return invalid(format!("added token {content:?} has id {id}, which is that of {other:?}"));
                }
                _ => {}
            }
        }
        let keys = by_id(&ids)?;
        let mut is_in_model = vec![false; keys.len()];
        in_model.into_iter().for_each(|id| is_in_model[id as usize] = true);
        let in_model = |token: AddedToken| AddedToken { in_model: is_in_model[token.id as usize], ..token };
        let added = added.into_iter().map(|(_, token)| in_model(token)).collect();
        Ok(Self { keys, ids, is_in_model, added })
    }

    /// As the vocabulary of GPT-2 in two files.
    pub(super) fn of_entries(entries: Entries<'a>) -> Result<Self> {
        let ids: HashMap<&str, TokenId> = entries.into_iter().collect();
        let keys = by_id(&ids)?;
        Ok(Self { is_in_model: vec![true; keys.len()], keys, ids, added: Vec::new() })
    }

    /// The tokens with their ids.
    pub(super) fn tokens(&self) -> impl Iterator<Item = (&'a str, TokenId)> {
        (0..).zip(&self.keys).filter_map(|(id, key)| Some(((*key)?, id)))
    }

    /// The tokens of the model with their ids.
    pub(super) fn model_tokens(&self) -> impl Iterator<Item = (&'a str, TokenId)> {
        self.tokens().filter(|&(_, id)| self.is_in_model[id as usize])
    }

    /// The id of the token that a key of the model names.
    pub(super) fn named(&self, model: &Map<String, Value>, key: &str) -> Result<Option<TokenId>> {
        let Some(named) = get(model, key) else { return Ok(None) };
        match named.as_str().and_then(|token| self.ids.get(token)) {
            Some(&id) => Ok(Some(id)),
            None => invalid(format!("model.{key} is {}, which is not in the vocabulary", shorten(named))),
        }
    }

    /// The tokens of the bytes as `<0x0A>` writes them.
    pub(super) fn byte_ids(&self) -> Box<[Option<TokenId>; 256]> {
        Box::new(std::array::from_fn(|byte| self.ids.get(&*format!("<0x{byte:02X}>")).copied()))
    }
}

/// What stands before a model over text, and the tokens that it is put together with.
pub(super) struct Stages {
    pub(super) specials: SpecialTokens,
    pub(super) pipeline: Pipeline,
}

impl Stages {
    /// `splits`: what is done between normalisation and the model.
    pub(super) fn read(root: &Map<String, Value>, added: &[AddedToken], splits: Vec<split::Step>) -> Result<Self> {
        let normalizer: Vec<normalize::Step> = steps(root, "normalizer", "normalizers")?;
        let growth = normalizer.iter().fold(1_usize, |growth, step| growth.saturating_mul(step.growth()));
        if growth > MAX_GROWTH {
            return invalid(format!("the normalizer may make a text {growth} times longer"));
        }
        let in_one_pass = normalizer.is_empty() && can_be_found_at_once(added);
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for token in added.iter().cloned() {
            if in_one_pass {
                first.push(AddedToken { normalized: false, ..token });
            } else if token.normalized {
                let pattern = normalize(&normalizer, &token.content).into_owned();
                second.push(AddedToken { pattern, ..token });
            } else {
                first.push(token);
            }
        }
        let specials = SpecialTokens::of_added(first).map_err(Problem::Other)?;
        let added = SpecialTokens::of_added(second).map_err(Problem::Other)?;
        Ok(Self { specials, pipeline: Pipeline { normalizer, added, splits, is_lossy: false } })
    }

    /// The tokens as decoding by steps has them, and the bytes that they stand for by `bytes`.
    pub(super) fn texts(
        &self,
        vocabulary: &Vocabulary<'_>,
        bytes: impl Fn(&str) -> Box<[u8]>,
    ) -> (Vec<Box<str>>, Vec<Box<[u8]>>) {
        let mut written: Vec<Box<str>> = vocabulary.keys.iter().map(|key| key.unwrap_or("").into()).collect();
        let mut tokens: Vec<Box<[u8]>> = written.iter().map(|key| bytes(key)).collect();
        for token in self.specials.tokens().iter().chain(self.pipeline.added.tokens()) {
            written[token.id as usize] = token.pattern.as_str().into();
            tokens[token.id as usize] = token.content.as_bytes().into();
        }
        (written, tokens)
    }
}

/// Whether looking for the tokens of the text as it is and for those of the normalised text one after
/// the other finds what looking for all of them at once finds: no token overlaps one of the others.
fn can_be_found_at_once(added: &[AddedToken]) -> bool {
    let contents = |normalized: bool| {
        added.iter().filter(move |token| token.normalized == normalized).map(|token| token.content.as_bytes())
    };
    let overlap = |a: &[u8], b: &[u8]| {
        let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
        let meet = |a: &[u8], b: &[u8]| (1..a.len().min(b.len())).any(|n| a.ends_with(&b[..n]));
        long.windows(short.len().max(1)).any(|part| part == short) || meet(a, b) || meet(b, a)
    };
    let (n_first, n_second) = (contents(false).count(), contents(true).count());
    // Quadratic in the tokens and their bytes, so only for as many as files have.
    n_first * n_second < 1 << 16
        && added.iter().all(|token| token.content.len() < 256)
        && !contents(false).any(|a| contents(true).any(|b| overlap(a, b)))
}

/// The steps of a part of the file, those of sequences in sequences one after the other.
pub(super) fn steps<T: DeserializeOwned>(root: &Map<String, Value>, part: &str, list: &str) -> Result<Vec<T>> {
    let mut places = Vec::new();
    if let Some(value) = get(root, part) {
        flatten(value, part.to_string(), list, &mut places)?;
    }
    places.into_iter().map(|(place, value)| step(value, &place)).collect()
}

/// One step of a part of the file; an error names its place.
pub(super) fn step<T: DeserializeOwned>(value: &Value, place: &str) -> Result<T> {
    serde_json::from_value(value.clone()).or_else(|error| match error.to_string() {
        reason if reason.starts_with("unknown variant") => unsupported(place, value),
        reason => invalid(format!("{place} is {}: {reason}", shorten(value))),
    })
}

/// The steps of a part as they are, with their places.
pub(super) fn flatten<'a>(
    value: &'a Value,
    place: String,
    list: &str,
    places: &mut Vec<(String, &'a Value)>,
) -> Result<()> {
    if type_of(value) == Some("Sequence") {
        let Some(Value::Array(values)) = value.get(list) else {
            return invalid(format!("{place} is a sequence without {list}"));
        };
        let mut indexed = values.iter().enumerate();
        return indexed.try_for_each(|(i, value)| flatten(value, format!("{place}.{list}[{i}]"), list, places));
    }
    places.push((place, value));
    match places.len() > MAX_STEPS {
        true => invalid(format!("it has more than {MAX_STEPS} {list}")),
        false => Ok(()),
    }
}

/// The decoder of a model over text.
pub(super) fn decoder(root: &Map<String, Value>) -> Result<Vec<decode::Step>> {
    match get(root, "decoder") {
        None => Ok(vec![decode::Step::Join]),
        Some(_) => steps(root, "decoder", "decoders"),
    }
}

/// The step that adds tokens; others move offsets.
fn post_processor(root: &Map<String, Value>, tokenizer: &Tokenizer) -> Result<Option<postprocess::Step>> {
    let part = "post_processor";
    let mut steps: Vec<postprocess::Step> = steps(root, part, "processors")?;
    steps.retain(|step| !matches!(step, postprocess::Step::ByteLevel { .. }));
    if steps.len() > 1 {
        return unsupported(part, &root[part]);
    }
    let Some(step) = steps.pop() else { return Ok(None) };
    if let Some(name) = step.unknown_names().first() {
        return invalid(format!("{part} has the special token {name:?}, but does not say its ids"));
    }
    if let Some(id) = step.ids().into_iter().find(|&id| tokenizer.token_bytes(id).is_none()) {
        return invalid(format!("{part} adds the id {id}, which no token has"));
    }
    Ok(Some(step))
}

/// Tokens in the order of their ids.
///
/// # Errors
/// If two have one id, or ids have so wide gaps that the list would be much longer than the file.
pub(super) fn by_id<'a>(ids: &HashMap<&'a str, TokenId>) -> Result<Vec<Option<&'a str>>> {
    let mut sorted: Vec<(TokenId, &str)> = ids.iter().map(|(&key, &id)| (id, key)).collect();
    sorted.sort_unstable();
    if let Some(&(id, key)) = sorted.last()
        && id as usize >= 2 * sorted.len() + MAX_GAPS
    {
        return invalid(format!("{key:?} has id {id}, but there are only {} tokens", sorted.len()));
    }
    let mut keys = Vec::new();
    for (id, key) in sorted {
        if keys.len() > id as usize {
            return invalid(format!("more than one token has id {id}, {key:?} is one"));
        }
        keys.resize(id as usize, None);
        keys.push(Some(key));
    }
    Ok(keys)
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

/// The tokens of a list of tokens and scores.
fn list(pairs: &[Value]) -> Result<Entries<'_>> {
    (0..)
        .zip(pairs)
        .map(|(id, pair)| match pair.get(0).and_then(Value::as_str) {
            Some(token) => Ok((token, id)),
            None => invalid(format!("model.vocab[{id}] is {}, not a token with its score", shorten(pair))),
        })
        .collect()
}

fn added_tokens(root: &Map<String, Value>) -> Result<Vec<(&str, AddedToken)>> {
    let added = match get(root, "added_tokens") {
        None => return Ok(Vec::new()),
        Some(Value::Array(added)) => added,
        Some(found) => return invalid(format!("added_tokens is {}", shorten(found))),
    };
    added
        .iter()
        .map(|token| {
            let token = object(token, "an added token")?;
            let flag = |key: &str, default: bool| token.get(key).and_then(Value::as_bool).unwrap_or(default);
            let id = token.get("id").and_then(Value::as_u64);
            match (token.get("content"), id.and_then(|id| TokenId::try_from(id).ok())) {
                (Some(Value::String(content)), Some(id)) => Ok((
                    content.as_str(),
                    AddedToken {
                        content: content.clone(),
                        pattern: content.clone(),
                        id,
                        special: flag("special", false),
                        normalized: flag("normalized", true),
                        single_word: flag("single_word", false),
                        lstrip: flag("lstrip", false),
                        rstrip: flag("rstrip", false),
                        in_model: true,
                    },
                )),
                _ => invalid(format!("an added token lacks content or id: {}", shorten(&Value::Object(token.clone())))),
            }
        })
        .collect()
}

/// The value of a key, unless it is null.
pub(super) fn get<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    object.get(key).filter(|value| !value.is_null())
}

/// Whether a key is true; a missing one is not.
pub(super) fn flag(object: &Map<String, Value>, key: &str) -> bool {
    object.get(key).and_then(Value::as_bool).unwrap_or(false)
}

pub(super) fn object<'a>(value: &'a Value, place: &str) -> Result<&'a Map<String, Value>> {
    match value {
        Value::Object(object) => Ok(object),
        _ => invalid(format!("{place} is {}, not an object", shorten(value))),
    }
}

fn type_of_model(model: &Map<String, Value>) -> Option<&str> {
    model.get("type")?.as_str()
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
pub(super) fn shorten(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text,
    }
}
