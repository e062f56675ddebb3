//! Learning a WordPiece vocabulary, as Hugging Face's `tokenizers` does it: merges of BPE over characters, where a piece
//! within a word begins with `##`.
//!
//! Words are those of BERT (Devlin et al., 2018, <https://arxiv.org/abs/1810.04805>): white space is left out and
//! punctuation stands alone. Of equally frequent pairs the one with the lower ids is merged. `tokenizers` numbers the
//! characters within words in the order of a hash map, so that its own ties change from run to run; here they have the
//! order of the characters.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::count::Counts;
use super::merge::{Merger, Rules};
use super::need::Histogram;
use super::queue::Ties;
use super::split::TextSplitter;
use super::text::Text;
use super::work::Work;
use super::{Progress, Resources, TextPart, count, learn};
use crate::vocab::cutter;
use crate::{Error, HashMap, TokenId, Tokenizer};

const PREFIX: &str = "##";
/// The token of words that cannot be spelt.
const UNKNOWN: &str = "[UNK]";
const RULES: Rules = Rules { ties: Ties::LowestIds, continuation: PREFIX.as_bytes(), min_count: 1 };

/// What a WordPiece vocabulary is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WordPieceConfig {
    /// Number of ids: special tokens, characters, and the rest learned.
    pub vocab_size: usize,
    /// Strings that are one id each, from 0 on. Without `[UNK]` among them it is put first.
    pub special_tokens: Vec<String>,
    /// Whether text is lowercased and accents are left out.
    pub lowercase: bool,
    /// Words that occur more rarely than this take no part; 1 takes all.
    pub min_count: u64,
}

/// Learns the pieces of a text until the vocabulary is full or no pair is left.
///
/// # Errors
/// If the special tokens and characters alone are more than the vocabulary may have ([`Error::VocabTooSmall`]), and as
/// [`super::train_bpe_within`].
pub fn train_wordpiece<E>(
    parts: impl IntoIterator<Item = Result<TextPart, E>>,
    config: &WordPieceConfig,
    resources: &Resources,
    progress: &dyn Fn(Progress),
) -> Result<Tokenizer, Error>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let WordPieceConfig { vocab_size, lowercase, min_count, .. } = *config;
    let mut special_tokens = config.special_tokens.clone();
    if !special_tokens.iter().any(|token| token == UNKNOWN) {
        special_tokens.insert(0, UNKNOWN.to_owned());
    }
    let specials = cutter(&special_tokens)?;
    let splitter = TextSplitter::new(&[normalizer(lowercase)], &pre_tokenizer());

    let key = format!("wordpiece {lowercase} {special_tokens:?}");
    let mut work = resources.work_folder.as_ref().map(|folder| Work::open(folder, &key)).transpose()?;
    let counts = count(parts, &splitter, &specials, resources.memory_limit, work.as_mut(), progress)?;
    let need = Histogram::of(&counts)?.check(min_count, resources.memory_limit)?;
    progress(Progress::Counted(need));

    let Alphabet { tokens, ids } = alphabet(&counts, min_count, &special_tokens)?;
    if tokens.len() > vocab_size {
        let (n_special_tokens, minimum) = (special_tokens.len(), tokens.len());
        return Err(Error::VocabTooSmall { vocab_size, n_special_tokens, minimum });
    }
    let mut text = Text::with_capacity(need.n_words, need.n_bytes, vec![1; tokens.len()])?;
    counts.for_each(|word, count| {
        if count >= min_count {
            text.push_word(places(word).map(|key| ids[&key]), count);
        }
        Ok(())
    })?;
    drop(counts);
    let mut merger = Merger::new(text, &tokens, tokens.len(), special_tokens.len(), Vec::new(), RULES);
    learn(&mut merger, vocab_size - tokens.len(), progress, &mut |_| Ok(()))?;

    let written = tokens.iter().map(|token| &**token).chain(merger.learned());
    let pieces: Vec<&str> = written.map(|token| std::str::from_utf8(token).expect("characters")).collect();
    let tokenizer =
        Tokenizer::from_bytes(file(&pieces, &special_tokens, lowercase).as_bytes(), Path::new("trained"), None)?;
    if let Some(work) = work {
        work.finish();
    }
    Ok(tokenizer)
}

/// A character and whether it stands within a word.
type Place = (char, bool);

fn places(word: &[u8]) -> impl Iterator<Item = Place> {
    let word = std::str::from_utf8(word).expect("words are cut from text");
    word.char_indices().map(|(start, c)| (c, start > 0))
}

/// What is there before anything is learned.
struct Alphabet {
    /// By id.
    tokens: Vec<Box<[u8]>>,
    ids: HashMap<Place, TokenId>,
}

/// Special tokens, then the characters that start words, then those within words, by their code points, each also as it
/// stands within a word where it does.
fn alphabet(counts: &Counts, min_count: u64, special_tokens: &[String]) -> Result<Alphabet, Error> {
    let mut found: BTreeMap<char, bool> = BTreeMap::new();
    counts.for_each(|word, count| {
        if count >= min_count {
            for (c, is_within) in places(word) {
                *found.entry(c).or_default() |= is_within;
            }
        }
        Ok(())
    })?;
    let mut tokens: Vec<Box<[u8]>> = special_tokens.iter().map(|token| token.as_bytes().into()).collect();
    let mut ids = HashMap::default();
    for (is_within, prefix) in [(false, ""), (true, PREFIX)] {
        for (&c, _) in found.iter().filter(|&(_, &stands_within)| stands_within || !is_within) {
            ids.insert((c, is_within), tokens.len() as TokenId);
            tokens.push(format!("{prefix}{c}").into_bytes().into());
        }
    }
    Ok(Alphabet { tokens, ids })
}

fn normalizer(lowercase: bool) -> Value {
    json!({
        "type": "BertNormalizer",
        "clean_text": true,
        "handle_chinese_chars": true,
        "strip_accents": null,
        "lowercase": lowercase,
    })
}

fn pre_tokenizer() -> Value {
    json!({"type": "BertPreTokenizer"})
}

/// The `tokenizer.json` of these pieces.
fn file(pieces: &[&str], special_tokens: &[String], lowercase: bool) -> String {
    let vocab: serde_json::Map<String, Value> =
        pieces.iter().zip(0..).map(|(piece, id)| ((*piece).to_owned(), json!(id))).collect();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": super::split::added_tokens(special_tokens),
        "normalizer": normalizer(lowercase),
        "pre_tokenizer": pre_tokenizer(),
        "post_processor": null,
        "decoder": {"type": "WordPiece", "prefix": PREFIX, "cleanup": true},
        "model": {
            "type": "WordPiece",
            "unk_token": UNKNOWN,
            "continuing_subword_prefix": PREFIX,
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        },
    })
    .to_string()
}
