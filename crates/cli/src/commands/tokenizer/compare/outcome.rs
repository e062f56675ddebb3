//! All that a comparison found: the object of `--json`, and what terminal and page show.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use tokenizer::measure::{Measurement, Span, TextSize, premium};
use tokenizer::{Kind, TokenId};

use super::languages::Languages;
use super::names::Named;

/// The order of Rényi's entropy at which it tells best how well translation works.
pub(super) const RENYI_ORDER: f64 = 2.5;

#[derive(Serialize)]
pub(super) struct Outcome {
    pub(super) threads: usize,
    /// None if there are only texts by language.
    pub(super) text: Option<Size>,
    pub(super) tokenizers: Vec<Compared>,
    /// The language that the others are compared with.
    pub(super) base: Option<String>,
    pub(super) languages: Vec<InLanguage>,
    pub(super) sample: Option<Sample>,
    /// The page.
    pub(super) output: Option<PathBuf>,
}

#[derive(Serialize)]
pub(super) struct Size {
    pub(super) n_bytes: u64,
    pub(super) n_characters: u64,
    /// Between white space.
    pub(super) n_words: u64,
    /// Whether its scripts put spaces between words.
    pub(super) has_words: bool,
}

#[derive(Serialize)]
pub(super) struct Compared {
    pub(super) name: String,
    pub(super) file: PathBuf,
    pub(super) kind: &'static str,
    pub(super) vocab_size: usize,
    #[serde(flatten)]
    pub(super) figures: Option<Figures>,
}

/// What a tokenizer made of the text.
#[derive(Serialize)]
pub(super) struct Figures {
    pub(super) n_tokens: u64,
    pub(super) bytes_per_token: Option<f64>,
    pub(super) characters_per_token: Option<f64>,
    pub(super) tokens_per_word: Option<f64>,
    /// Ids that text can become.
    pub(super) n_ids: usize,
    pub(super) n_used: usize,
    pub(super) n_used_once: usize,
    pub(super) n_unused: usize,
    pub(super) entropy_bits: f64,
    /// Of order 2.5.
    pub(super) renyi_efficiency: Option<f64>,
    pub(super) partial_share: f64,
    pub(super) n_unknown: u64,
    /// Whether decoding gives back the text.
    pub(super) is_exact: bool,
    /// Where it gives another for the first time, in bytes from the start.
    pub(super) first_change: Option<u64>,
    pub(super) encode_seconds: f64,
    pub(super) megabytes_per_second: Option<f64>,
    pub(super) longest_tokens: Vec<Longest>,
    /// Tokens of the text by their bytes.
    pub(super) n_tokens_by_length: BTreeMap<usize, u64>,
    /// How often each id occurs, the most frequent first.
    #[serde(skip)]
    pub(super) frequencies: Vec<u64>,
}

#[derive(Serialize)]
pub(super) struct Longest {
    pub(super) id: TokenId,
    pub(super) text: String,
    pub(super) n_bytes: usize,
    pub(super) count: u64,
}

#[derive(Serialize)]
pub(super) struct InLanguage {
    pub(super) language: String,
    pub(super) n_bytes: u64,
    pub(super) n_characters: u64,
    /// By tokenizer, in their order.
    pub(super) tokenizers: Vec<Tokens>,
}

#[derive(Serialize)]
pub(super) struct Tokens {
    pub(super) n_tokens: u64,
    /// How many times the tokens of the base.
    pub(super) premium: Option<f64>,
    /// Of scripts with spaces between words.
    pub(super) tokens_per_word: Option<f64>,
    pub(super) tokens_per_character: Option<f64>,
}

#[derive(Serialize)]
pub(super) struct Sample {
    pub(super) text: String,
    /// Whether there is more text.
    pub(super) is_cut: bool,
    /// By tokenizer, in their order.
    pub(super) tokenizers: Vec<Shown>,
}

#[derive(Serialize)]
pub(super) struct Shown {
    pub(super) ids: Vec<TokenId>,
    #[serde(skip)]
    pub(super) spans: Vec<Span>,
}

impl Sample {
    /// The first `n` characters of a text, token by token; none of an empty text. `goes_on`: whether there is more of it,
    /// so that its end may lie within a character.
    pub(super) fn of(text: &[u8], n: usize, goes_on: bool, tokenizers: &[Named]) -> Option<Self> {
        let mut end = 0;
        let mut n_left = n;
        for chunk in text.utf8_chunks() {
            let len = chunk.valid().char_indices().nth(n_left).map_or(chunk.valid().len(), |(i, _)| i);
            end += len;
            n_left = n_left.saturating_sub(chunk.valid().chars().count() + 1);
            // What is cut off within a character is left out, but other bytes are a part of the text.
            let is_rest = end + chunk.invalid().len() == text.len() && goes_on;
            if len < chunk.valid().len() || n_left == 0 || is_rest {
                break;
            }
            end += chunk.invalid().len();
        }
        let shown = &text[..end];
        let show = |named: &Named| {
            let ids = named.tokenizer.encode_ordinary(shown);
            Shown { spans: named.tokenizer.spans(&ids), ids }
        };
        (!shown.is_empty()).then(|| Sample {
            text: String::from_utf8_lossy(shown).into_owned(),
            is_cut: end < text.len() || goes_on,
            tokenizers: tokenizers.iter().map(show).collect(),
        })
    }
}

impl Outcome {
    pub(super) fn new(
        tokenizers: &[Named],
        measured: Option<(TextSize, Vec<Measurement>)>,
        sample: Option<Sample>,
    ) -> Self {
        let size = |size: &TextSize| Size {
            n_bytes: size.n_bytes,
            n_characters: size.n_characters,
            n_words: size.n_words,
            has_words: size.has_words(),
        };
        let text = measured.as_ref().map(|(text, _)| size(text));
        let mut figures: Vec<Option<Figures>> = match measured {
            Some((text, measured)) => measured.into_iter().map(|one| Some(Figures::new(&text, one))).collect(),
            None => tokenizers.iter().map(|_| None).collect(),
        };
        let compared = |(named, figures): (&Named, &mut Option<Figures>)| Compared {
            name: named.name.clone(),
            file: named.file.clone(),
            kind: kind(named.tokenizer.kind()),
            vocab_size: named.tokenizer.vocab_size(),
            figures: figures.take(),
        };
        let tokenizers = tokenizers.iter().zip(&mut figures).map(compared).collect();
        let threads = rayon::current_num_threads();
        Outcome { threads, text, tokenizers, base: None, languages: Vec::new(), sample, output: None }
    }

    /// Languages, the cheapest first as the first tokenizer has it.
    pub(super) fn add_languages(&mut self, languages: &Languages, base: Option<String>) {
        let of_base = base.as_ref().and_then(|name| languages.get(name));
        let premium = |i: usize, n: u64| premium(n, of_base?.n_tokens[i]);
        self.languages = languages
            .iter()
            .map(|(name, language)| {
                let size = &language.size;
                let words = if size.has_words() { size.n_words } else { 0 };
                let tokens = |(i, &n_tokens): (usize, &u64)| Tokens {
                    n_tokens,
                    premium: premium(i, n_tokens),
                    tokens_per_word: ratio(n_tokens, words),
                    tokens_per_character: ratio(n_tokens, size.n_characters),
                };
                InLanguage {
                    language: name.clone(),
                    n_bytes: size.n_bytes,
                    n_characters: size.n_characters,
                    tokenizers: language.n_tokens.iter().enumerate().map(tokens).collect(),
                }
            })
            .collect();
        self.languages.sort_by_key(|language| language.tokenizers.first().map_or(0, |tokens| tokens.n_tokens));
        self.base = base;
    }
}

impl Figures {
    fn new(text: &TextSize, measured: Measurement) -> Self {
        let longest = measured.longest.iter().map(|token| Longest {
            id: token.id,
            text: String::from_utf8_lossy(&token.bytes).into_owned(),
            n_bytes: token.bytes.len(),
            count: token.count,
        });
        Figures {
            n_tokens: measured.n_tokens,
            bytes_per_token: measured.bytes_per_token(),
            characters_per_token: ratio(text.n_characters, measured.n_tokens),
            tokens_per_word: ratio(measured.n_tokens, if text.has_words() { text.n_words } else { 0 }),
            n_ids: measured.n_ids,
            n_used: measured.n_used(),
            n_used_once: measured.n_used_once(),
            n_unused: measured.n_unused(),
            entropy_bits: measured.entropy(),
            renyi_efficiency: measured.renyi_efficiency(RENYI_ORDER),
            partial_share: ratio(measured.n_partial, measured.n_tokens).unwrap_or(0.0),
            n_unknown: measured.n_unknown,
            is_exact: measured.first_change.is_none(),
            first_change: measured.first_change,
            encode_seconds: measured.encode_seconds,
            megabytes_per_second: measured.bytes_per_second().map(|rate| rate / 1e6),
            longest_tokens: longest.collect(),
            n_tokens_by_length: measured.n_tokens_by_length,
            frequencies: measured.frequencies,
        }
    }
}

fn ratio(a: u64, b: u64) -> Option<f64> {
    (b > 0).then(|| a as f64 / b as f64)
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Bpe => "byte-level BPE",
        Kind::Characters => "characters",
        Kind::Bytes => "bytes",
        Kind::CharBpe => "BPE over characters",
        Kind::Unigram => "unigram",
        Kind::WordPiece => "WordPiece",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizer::Tokenizer;

    #[test]
    fn a_sample_is_cut_between_characters_and_has_the_bytes_that_are_none() {
        let tokenizers = [Named { name: "b".into(), file: "b".into(), tokenizer: Tokenizer::bytes() }];
        let sample = |text: &[u8], n, goes_on| {
            let sample = Sample::of(text, n, goes_on, &tokenizers)?;
            Some((sample.tokenizers[0].ids.len(), sample.is_cut))
        };
        assert_eq!(sample("aé世b".as_bytes(), 3, false), Some((6, true)));
        assert_eq!(sample("aé世b".as_bytes(), 9, false), Some((7, false)));
        assert_eq!(sample("aé世b".as_bytes(), 9, true), Some((7, true)));
        assert_eq!(sample(b"a\xffb", 9, false), Some((3, false)));
        // The first bytes of a character whose others are not among those read.
        assert_eq!(sample(b"ab\xe4\xb8", 9, true), Some((2, true)));
        assert_eq!(sample(b"", 9, false), None);
    }
}
