//! Reading byte-level BPE.

use serde_json::{Map, Value};

use super::parse::{Entries, Problem, Result, Vocabulary, by_id, entries, get, invalid, type_of, unsupported};
use crate::encode::Bpe;
use crate::special::SpecialTokens;
use crate::vocab::Model;
use crate::{HashMap, TokenId, Tokenizer, alphabet};

/// The pattern of GPT-2 as it is written in files.
const PATTERNS: [&str; 2] = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
];

/// Left and right half of each merge, as written.
type Merges<'a> = Vec<(&'a str, &'a str)>;

/// Reads a `tokenizer.json` whose model is BPE.
pub(super) fn tokenizer(root: &Map<String, Value>, model: &Map<String, Value>) -> Result<Tokenizer> {
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
    match get(model, "ignore_merges") {
        Some(found) if *found != Value::Bool(false) => {
            return unsupported("model.ignore_merges", found);
        }
        _ => {}
    }
    let add_prefix_space = read_pre_tokenizer(root.get("pre_tokenizer").unwrap_or(&Value::Null))?;
    match root.get("decoder").unwrap_or(&Value::Null) {
        found if type_of(found) == Some("ByteLevel") => {}
        found => return unsupported("decoder", found),
    }
    let vocabulary = Vocabulary::read(root, model)?;
    let merges = match get(model, "merges") {
        Some(Value::Array(merges)) => merges.iter().map(merge).collect::<Result<Merges<'_>>>()?,
        _ => return invalid("model has no merges"),
    };
    build(&vocabulary, &merges, add_prefix_space)
}

/// Reads GPT-2's `vocab.json`.
pub(super) fn vocab_and_merges(vocab: &[u8], merges: &Merges<'_>) -> Result<Tokenizer> {
    let vocab: Value = serde_json::from_slice(vocab).map_err(Problem::Json)?;
    let ids: HashMap<&str, TokenId> = entries(&vocab, "the file")?.into_iter().collect();
    let keys = by_id(&ids)?;
    let results: HashMap<String, ()> = merges.iter().map(|(left, right)| ([*left, *right].concat(), ())).collect();
    let is_byte = |key: &str| alphabet::read(key).is_some_and(|bytes| bytes.len() == 1);
    let added: Entries<'_> = (0..)
        .zip(&keys)
        .filter(|&(_, key)| !is_byte(key) && !results.contains_key(*key))
        .map(|(id, &key)| (key, id))
        .collect();
    build(&Vocabulary { keys, ids, added }, merges, false)
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

/// Says whether a space is put before text.
fn read_pre_tokenizer(found: &Value) -> Result<bool> {
    let flag = |part: &Value, key: &str| part.get(key).and_then(Value::as_bool).unwrap_or(true);
    match type_of(found) {
        Some("ByteLevel") if flag(found, "use_regex") => Ok(flag(found, "add_prefix_space")),
        Some("Sequence") => match found.get("pretokenizers").and_then(Value::as_array) {
            Some(steps) => match &steps[..] {
                [one] if type_of(one) != Some("Sequence") => read_pre_tokenizer(one),
                // The space would be put before each pre-token.
                [split, bytes]
                    if is_gpt2_split(split)
                        && type_of(bytes) == Some("ByteLevel")
                        && !flag(bytes, "use_regex")
                        && !flag(bytes, "add_prefix_space") =>
                {
                    Ok(false)
                }
                _ => unsupported("pre_tokenizer", found),
            },
            None => unsupported("pre_tokenizer", found),
        },
        _ => unsupported("pre_tokenizer", found),
    }
}

fn is_gpt2_split(step: &Value) -> bool {
    let pattern = step.pointer("/pattern/Regex").and_then(Value::as_str);
    let invert = step.get("invert").and_then(Value::as_bool).unwrap_or(false);
    type_of(step) == Some("Split")
        && pattern.is_some_and(|pattern| PATTERNS.contains(&pattern))
        // The pattern matches every character, so that nothing is left to remove.
        && matches!(
            (step.get("behavior").and_then(Value::as_str), invert),
            (Some("Isolated"), false) | (Some("Removed"), true)
        )
}

fn build(vocabulary: &Vocabulary<'_>, merges: &Merges<'_>, add_prefix_space: bool) -> Result<Tokenizer> {
    let Vocabulary { keys, ids, added } = vocabulary;
    let id_of = |key: &str| match ids.get(key) {
        Some(&id) => Ok(id),
        None => invalid(format!("a merge has {key:?}, which is not in the vocabulary")),
    };
    // As Hugging Face decodes: what is not of the alphabet stands for itself.
    let mut tokens: Vec<Box<[u8]>> =
        keys.iter().map(|key| alphabet::read(key).unwrap_or(key.as_bytes().into())).collect();
    let mut byte_ids = [0; 256];
    for (byte, id) in (0..=255).zip(&mut byte_ids) {
        match ids.get(&*alphabet::write(&[byte])) {
            Some(&found) => *id = found,
            None => return invalid(format!("the vocabulary lacks the byte 0x{byte:02X}")),
        }
    }
    let merges: Vec<[TokenId; 3]> = merges
        .iter()
        .map(|(left, right)| Ok([id_of(left)?, id_of(right)?, id_of(&[*left, *right].concat())?]))
        .collect::<Result<_>>()?;

    let mut is_text = vec![false; tokens.len()];
    byte_ids.iter().for_each(|&id| is_text[id as usize] = true);
    merges.iter().for_each(|merge| is_text[merge[2] as usize] = true);
    for &(content, id) in added {
        let token = &mut tokens[id as usize];
        if is_text[id as usize] && **token != *content.as_bytes() {
            return invalid(format!("added token {content:?} is also how a token is written"));
        }
        *token = content.as_bytes().into();
    }
    let specials = added.iter().map(|&(content, id)| (content.to_string(), id)).collect();
    let specials = SpecialTokens::new(specials).map_err(Problem::Other)?;

    let is_bytes = merges.is_empty() && (0..).zip(byte_ids).all(|(byte, id)| byte == id);
    if is_bytes && !add_prefix_space && tokens.len() == 256 + added.len() {
        return Ok(Tokenizer { tokens, specials, model: Model::Bytes });
    }
    let bpe = Bpe::new(byte_ids, &merges, add_prefix_space);
    Tokenizer::bpe(tokens, specials, bpe).map_err(Problem::Other)
}
