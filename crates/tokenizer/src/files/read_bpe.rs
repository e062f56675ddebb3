//! Reading BPE, over bytes and over characters.

use serde_json::{Map, Value, json};

use super::parse::{
    Problem, Result, Stages, Vocabulary, decoder, entries, flag, flatten, get, invalid, step, type_of, unsupported,
};
use crate::char_bpe::{self, CharBpe};
use crate::decode::{Decoder, byte_of_token};
use crate::encode::Bpe;
use crate::normalize::{META_SPACE, Needle};
use crate::pretokenize::Pattern;
use crate::special::AddedToken;
use crate::split::{Behavior, Step};
use crate::vocab::Model;
use crate::{TokenId, Tokenizer, alphabet};

/// The pattern of cl100k without what Hugging Face's engine takes for something else: `{1,3}+`, and `$`,
/// which is the end of a line there.
pub(super) const CL100K: &str =
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+\z|\s*[\r\n]|\s+(?!\S)|\s";

/// Left and right half of each merge, as written.
pub(super) type Merges<'a> = Vec<(&'a str, &'a str)>;

/// Reads a `tokenizer.json` whose model is BPE.
pub(super) fn tokenizer(
    root: &Map<String, Value>,
    model: &Map<String, Value>,
    vocabulary: &Vocabulary<'_>,
) -> Result<Tokenizer> {
    for part in ["continuing_subword_prefix", "end_of_word_suffix"] {
        match get(model, part) {
            Some(found) if found != "" => return unsupported(&format!("model.{part}"), found),
            _ => {}
        }
    }
    match get(model, "dropout") {
        Some(found) if found.as_f64() != Some(0.0) => return unsupported("model.dropout", found),
        _ => {}
    }
    let merges = match get(model, "merges") {
        Some(Value::Array(merges)) => merges.iter().map(merge).collect::<Result<Merges<'_>>>()?,
        _ => return invalid("model has no merges"),
    };
    let mut places = Vec::new();
    if let Some(value) = get(root, "pre_tokenizer") {
        flatten(value, "pre_tokenizer".to_string(), "pretokenizers", &mut places)?;
    }
    let is_byte_level = places.iter().any(|(_, value)| type_of(value) == Some("ByteLevel"));
    match is_byte_level {
        true => over_bytes(root, model, vocabulary, &merges, places),
        false => over_characters(root, model, vocabulary, &merges, places),
    }
}

fn over_bytes(
    root: &Map<String, Value>,
    model: &Map<String, Value>,
    vocabulary: &Vocabulary<'_>,
    merges: &Merges<'_>,
    mut places: Vec<(String, &Value)>,
) -> Result<Tokenizer> {
    let mut decoders = Vec::new();
    let found = root.get("decoder").unwrap_or(&Value::Null);
    flatten(found, "decoder".to_string(), "decoders", &mut decoders)?;
    if let Some((place, found)) = decoders.iter().find(|(_, step)| type_of(step) != Some("ByteLevel")) {
        return unsupported(place, found);
    }
    let Some((_, bytes)) = places.pop().filter(|(_, last)| type_of(last) == Some("ByteLevel")) else {
        let (place, found) = places.into_iter().find(|(_, step)| type_of(step) == Some("ByteLevel")).expect("one is");
        return unsupported(&place, found);
    };
    let flag_of_bytes = |key: &str| bytes.get(key).and_then(Value::as_bool).unwrap_or(true);
    let splits: Vec<Step> = places.iter().map(|(place, value)| step(value, place)).collect::<Result<_>>()?;
    let cutting = Cutting::of(splits, flag_of_bytes("use_regex"), flag_of_bytes("add_prefix_space"))?;
    let add_prefix_space = flag_of_bytes("add_prefix_space");
    let ignores_merges = flag(model, "ignore_merges");
    let stages = Stages::read(root, &vocabulary.added, cutting.splits)?;
    build(vocabulary, merges, stages, cutting.pattern, add_prefix_space, ignores_merges)
}

/// How text is cut before a byte-level model: by steps, then by the model's own pattern.
struct Cutting {
    splits: Vec<Step>,
    pattern: Pattern,
}

impl Cutting {
    fn of(splits: Vec<Step>, use_regex: bool, add_prefix_space: bool) -> Result<Self> {
        let gpt2 = use_regex.then(|| Pattern::Gpt2.regexes()[0].to_string());
        // The space is put before each piece of the steps, but before the pattern's text only.
        if let Some(mut regexes) = splits.iter().map(regex).collect::<Option<Vec<&str>>>()
            && (!add_prefix_space || splits.is_empty())
        {
            regexes.extend(gpt2.as_deref());
            let pattern = match regexes[..] {
                [CL100K] => Pattern::Cl100k,
                _ => Pattern::of_regexes(&regexes).map_err(Problem::Other)?,
            };
            return Ok(Self { splits: Vec::new(), pattern });
        }
        let pattern = Pattern::of_regexes(&gpt2.as_deref().into_iter().collect::<Vec<_>>()).map_err(Problem::Other)?;
        Ok(Self { splits, pattern })
    }
}

/// The expression whose matches and what lies between them are the pieces.
fn regex(split: &Step) -> Option<&str> {
    let Step::Split { pattern: Needle::Regex(regex), behavior, invert } = split else { return None };
    let regex = regex.pattern();
    // What a known pattern does not match is nothing, so nothing is left to remove.
    let is_known = Pattern::of_regex(regex).is_ok_and(|pattern| !pattern.is_custom());
    let is_isolated = match (behavior, invert) {
        (Behavior::Isolated, _) => true,
        (Behavior::Removed, true) => is_known,
        _ => false,
    };
    is_isolated.then_some(regex)
}

fn over_characters(
    root: &Map<String, Value>,
    model: &Map<String, Value>,
    vocabulary: &Vocabulary<'_>,
    merges: &Merges<'_>,
    places: Vec<(String, &Value)>,
) -> Result<Tokenizer> {
    let splits = places.iter().map(|(place, value)| step(value, place)).collect::<Result<_>>()?;
    let stages = Stages::read(root, &vocabulary.added, splits)?;
    let steps = decoder(root)?;
    let byte_fallback = flag(model, "byte_fallback");
    let whole = || vocabulary.model_tokens().map(|(token, id)| (token.into(), id)).collect();
    let options = char_bpe::Options {
        unknown: vocabulary.named(model, "unk_token")?,
        fuse_unknown: flag(model, "fuse_unk"),
        byte_ids: byte_fallback.then(|| vocabulary.byte_ids()),
        whole: flag(model, "ignore_merges").then(whole),
        user_defined: None,
    };
    let merges = numbered(vocabulary, merges)?;
    let mut keys = vec![""; vocabulary.keys.len()];
    vocabulary.model_tokens().for_each(|(token, id)| keys[id as usize] = token);
    let bpe = CharBpe::of_merges(&keys, &merges, options);
    let (written, tokens) = stages.texts(vocabulary, |token| bytes_of(token, byte_fallback));
    Ok(Tokenizer {
        tokens,
        specials: stages.specials,
        pipeline: stages.pipeline,
        model: Model::CharBpe(Box::new(bpe)),
        decoder: Decoder::Steps { steps, written },
        post_processor: None,
        sentencepiece: None,
    })
}

/// What a token of SentencePiece stands for.
pub(super) fn bytes_of(token: &str, byte_fallback: bool) -> Box<[u8]> {
    match byte_of_token(token).filter(|_| byte_fallback) {
        Some(byte) => [byte].into(),
        None => token.replace(META_SPACE, " ").into_bytes().into(),
    }
}

/// Reads GPT-2's `vocab.json`.
pub(super) fn vocab_and_merges(vocab: &[u8], merges: &Merges<'_>) -> Result<Tokenizer> {
    let vocab: Value = serde_json::from_slice(vocab).map_err(Problem::Json)?;
    let mut vocabulary = Vocabulary::of_entries(entries(&vocab, "the file")?)?;
    let results: std::collections::HashSet<String> =
        merges.iter().map(|(left, right)| [*left, *right].concat()).collect();
    let is_byte = |key: &str| alphabet::read(key).is_some_and(|bytes| bytes.len() == 1);
    let added: Vec<AddedToken> = vocabulary
        .tokens()
        .filter(|(key, _)| !is_byte(key) && !results.contains(*key))
        .map(|(key, id)| AddedToken::special(key.to_string(), id))
        .collect();
    vocabulary.added = added;
    let stages = Stages::read(&Map::new(), &vocabulary.added, Vec::new())?;
    build(&vocabulary, merges, stages, Pattern::Gpt2, false, false)
}

/// Reads GPT-2's `merges.txt`: a line per merge, its halves parted by a space.
pub(super) fn merges_of_lines(text: &[u8]) -> Result<Merges<'_>> {
    let Ok(text) = std::str::from_utf8(text) else { return invalid("it is not UTF-8") };
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.is_empty() && !line.starts_with("#version"))
        .map(|(i, line)| match halves(line) {
            Some(halves) => Ok(halves),
            None => invalid(format!("line {} is not two tokens: {line:?}", i + 1)),
        })
        .collect()
}

fn merge(merge: &Value) -> Result<(&str, &str)> {
    let halves = match merge {
        Value::String(line) => halves(line),
        Value::Array(pair) => match &pair[..] {
            [Value::String(left), Value::String(right)] => Some((left.as_str(), right.as_str())),
            _ => None,
        },
        _ => None,
    };
    match halves {
        Some(halves) => Ok(halves),
        None => invalid(format!("a merge is not two tokens: {merge}")),
    }
}

fn halves(line: &str) -> Option<(&str, &str)> {
    line.split_once(' ').filter(|(left, right)| !left.is_empty() && !right.is_empty() && !right.contains(' '))
}

/// Left, right and merged token of each merge.
fn numbered(vocabulary: &Vocabulary<'_>, merges: &Merges<'_>) -> Result<Vec<[TokenId; 3]>> {
    let id_of = |key: &str| match vocabulary.ids.get(key) {
        Some(&id) => Ok(id),
        None => invalid(format!("a merge has {key:?}, which is not in the vocabulary")),
    };
    merges.iter().map(|(left, right)| Ok([id_of(left)?, id_of(right)?, id_of(&[*left, *right].concat())?])).collect()
}

/// Whether UTF-8 has no such byte.
fn is_never_used(byte: u8) -> bool {
    matches!(byte, 0xC0 | 0xC1 | 0xF5..)
}

fn build(
    vocabulary: &Vocabulary<'_>,
    merges: &Merges<'_>,
    mut stages: Stages,
    pattern: Pattern,
    add_prefix_space: bool,
    ignores_merges: bool,
) -> Result<Tokenizer> {
    let Vocabulary { keys, ids, added, .. } = vocabulary;
    // As Hugging Face decodes: what is not of the alphabet stands for itself.
    let read = |key: &str| alphabet::read(key).unwrap_or(key.as_bytes().into());
    let mut tokens: Vec<Box<[u8]>> = keys.iter().map(|key| key.map_or(Box::default(), read)).collect();
    let mut byte_ids = [0; 256];
    for (byte, id) in (0..=255).zip(&mut byte_ids) {
        match ids.get(&*alphabet::write(&[byte])) {
            Some(&found) => *id = found,
            // A vocabulary learned without the full alphabet.
            None if is_never_used(byte) => stages.pipeline.is_lossy = true,
            None => return invalid(format!("the vocabulary lacks the byte 0x{byte:02X}")),
        }
    }
    let merges = numbered(vocabulary, merges)?;

    let mut is_text = vec![false; tokens.len()];
    byte_ids.iter().for_each(|&id| is_text[id as usize] = true);
    merges.iter().for_each(|merge| is_text[merge[2] as usize] = true);
    for AddedToken { content, id, .. } in added {
        let token = &mut tokens[*id as usize];
        if is_text[*id as usize] && **token != *content.as_bytes() {
            return invalid(format!("added token {content:?} is also how a token is written"));
        }
        *token = content.as_bytes().into();
    }

    let is_bytes = merges.is_empty() && (0..).zip(byte_ids).all(|(byte, id)| byte == id);
    let is_plain = stages.pipeline.is_none() && pattern == Pattern::Gpt2 && !add_prefix_space && !ignores_merges;
    if is_bytes && is_plain && tokens.len() == 256 + added.len() {
        return Ok(Tokenizer::of_model(tokens, stages.specials, Model::Bytes));
    }
    let mut bpe = Bpe::new(byte_ids, &merges, add_prefix_space).with_pattern(pattern);
    if ignores_merges {
        let whole: Vec<(Box<[u8]>, TokenId)> =
            vocabulary.model_tokens().filter_map(|(key, id)| Some((alphabet::read(key)?, id))).collect();
        bpe = bpe.ignoring_merges(whole.iter().map(|(bytes, id)| (&**bytes, *id)));
    }
    let tokenizer = Tokenizer::bpe(tokens, stages.specials, bpe).map_err(Problem::Other)?;
    Ok(Tokenizer { pipeline: stages.pipeline, ..tokenizer })
}

/// A step that is written with a byte-level model's own.
pub(super) fn split_of_regex(regex: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false})
}
