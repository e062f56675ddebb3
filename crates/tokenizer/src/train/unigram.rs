//! Learning a unigram vocabulary, as SentencePiece does it: many pieces at first, their probabilities by expectation
//! maximisation, and those that matter least removed, until few enough are left.
//!
//! Kudo, 2018, <https://arxiv.org/abs/1804.10959>, section 3.2; the constants are those of SentencePiece's
//! `unigram_model_trainer.cc`. Words are cut at spaces, each with the space before it written `▁`.
//!
//! Sums of floating-point numbers are made in an order that does not depend on the number of threads.

mod model;
mod seed;
mod prune;

use std::path::Path;

use serde_json::{Value, json};

use super::need::Histogram;
use super::split::TextSplitter;
use super::work::Work;
use super::{Progress, Resources, TextPart, count};
use crate::normalize::META_SPACE;
use crate::vocab::cutter;
use crate::{Error, Tokenizer};
use model::{Model, Words};

/// Between two removals the probabilities are estimated so often.
const N_ESTIMATIONS: usize = 2;
/// Removal goes on until there are this many times more pieces than wanted ...
const SURPLUS: f64 = 1.1;
/// ... and at each time leaves at least this share.
const KEPT_SHARE: f64 = 0.75;

/// What a unigram vocabulary is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct UnigramConfig {
    /// Number of ids: special tokens, characters, and pieces that are longer.
    pub vocab_size: usize,
    /// Strings that are one id each, from 0 on. Without `<unk>` among them it is put first.
    pub special_tokens: Vec<String>,
    /// The share of all characters in the text that become pieces; the rarest beyond it are unknown.
    pub character_coverage: f64,
    /// Pieces to begin with, at most.
    pub seed_size: usize,
    /// Whether to begin with exactly the strings that SentencePiece begins with, which have different characters behind
    /// them somewhere. It misses strings that always end a word; with them the text becomes likelier and shorter.
    pub sentencepiece_seeds: bool,
    /// Characters in a piece, at most.
    pub max_piece_chars: usize,
    /// Words that occur more rarely than this take no part; 1 takes all.
    pub min_count: u64,
}

impl Default for UnigramConfig {
    /// SentencePiece's but for the seeds, with 8,000 ids.
    fn default() -> Self {
        Self {
            vocab_size: 8000,
            special_tokens: Vec::new(),
            character_coverage: 0.9995,
            seed_size: 1_000_000,
            sentencepiece_seeds: false,
            max_piece_chars: 16,
            min_count: 1,
        }
    }
}

/// The token of characters that no piece has.
const UNKNOWN: &str = "<unk>";

/// Learns the pieces of a text.
///
/// # Errors
/// If the special tokens and characters alone are more than the vocabulary may have ([`Error::VocabTooSmall`]), if the
/// text has too few pieces ([`Error::TooFewPairs`]), and as [`super::train_bpe_within`].
pub fn train_unigram<E>(
    parts: impl IntoIterator<Item = Result<TextPart, E>>,
    config: &UnigramConfig,
    resources: &Resources,
    progress: &dyn Fn(Progress),
) -> Result<Tokenizer, Error>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut special_tokens = config.special_tokens.clone();
    if !special_tokens.iter().any(|token| token == UNKNOWN) {
        special_tokens.insert(0, UNKNOWN.to_owned());
    }
    let specials = cutter(&special_tokens)?;
    let key = format!("unigram {special_tokens:?}");
    let splitter = TextSplitter::new(&normalizer(), &metaspace());
    let mut work = resources.work_folder.as_ref().map(|folder| Work::open(folder, &key)).transpose()?;
    let counts = count(parts, &splitter, &specials, resources.memory_limit, work.as_mut(), progress)?;
    let need = Histogram::of(&counts)?.check(config.min_count, resources.memory_limit)?;
    progress(Progress::Counted(need));
    let mut words = Vec::new();
    counts.for_each(|word, count| {
        if count >= config.min_count {
            words.push((String::from_utf8_lossy(word).into_owned(), count));
        }
        Ok(())
    })?;
    drop(counts);
    // The table's order is that of a seeded hash.
    words.sort_unstable();

    let pieces = learn(&Words(words), config, special_tokens.len(), progress)?;
    let n_ids = special_tokens.len() + pieces.len();
    if n_ids < config.vocab_size {
        let n_wanted = config.vocab_size - special_tokens.len();
        return Err(Error::TooFewPairs { vocab_size: config.vocab_size, n_wanted, n_possible: pieces.len() });
    }
    let tokenizer = Tokenizer::from_bytes(file(&pieces, &special_tokens).as_bytes(), Path::new("trained"), None)?;
    if let Some(work) = work {
        work.finish();
    }
    Ok(tokenizer)
}

/// Pieces with the logarithms of their probabilities, the likeliest first.
fn learn(
    words: &Words,
    config: &UnigramConfig,
    n_special_tokens: usize,
    progress: &dyn Fn(Progress),
) -> Result<Vec<(Box<str>, f64)>, Error> {
    let required = words.required_chars(config.character_coverage);
    let minimum = n_special_tokens + required.len();
    if config.vocab_size < minimum {
        return Err(Error::VocabTooSmall { vocab_size: config.vocab_size, n_special_tokens, minimum });
    }
    let n_wanted = config.vocab_size - n_special_tokens;
    let n_enough = (config.vocab_size as f64 * SURPLUS) as usize;
    let mut model = Model::new(seed::pieces(words, &required, config));
    let n_total = model.pieces().len().saturating_sub(n_enough);
    loop {
        for _ in 0..N_ESTIMATIONS {
            model = model.estimated(words);
        }
        let n_left = model.pieces().len().saturating_sub(n_enough);
        progress(Progress::Pruning { n_done: n_total.saturating_sub(n_left), n_total });
        if n_left == 0 {
            return Ok(prune::finished(&model, &required, n_wanted));
        }
        let n_kept = n_enough.max((KEPT_SHARE * model.pieces().len() as f64) as usize);
        let kept = prune::pruned(&model, words, n_kept);
        // Where nothing can be removed without loss of a way to write something, it is enough.
        if kept.len() == model.pieces().len() {
            return Ok(prune::finished(&model, &required, n_wanted));
        }
        model = Model::new(kept);
    }
}

/// The steps that SentencePiece's rules are in a `tokenizer.json`; several spaces are one.
fn normalizer() -> Vec<Value> {
    let spaces = json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "});
    vec![json!({"type": "Nmt"}), json!({"type": "NFKC"}), spaces]
}

/// Words begin with `▁`.
fn metaspace() -> Value {
    json!({"type": "Metaspace", "replacement": META_SPACE, "prepend_scheme": "always", "split": true})
}

/// The `tokenizer.json` of these pieces.
fn file(pieces: &[(Box<str>, f64)], special_tokens: &[String]) -> String {
    let specials = special_tokens.iter().map(|token| json!([token, 0.0]));
    let vocab: Vec<_> = specials.chain(pieces.iter().map(|(piece, score)| json!([piece, score]))).collect();
    let unknown = special_tokens.iter().position(|token| token == UNKNOWN);
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": super::split::added_tokens(special_tokens),
        "normalizer": {"type": "Sequence", "normalizers": normalizer()},
        "pre_tokenizer": metaspace(),
        "post_processor": null,
        "decoder": metaspace(),
        "model": {"type": "Unigram", "unk_id": unknown, "vocab": vocab, "byte_fallback": false},
    })
    .to_string()
}
