//! What the counts say.

use std::collections::{BTreeMap, HashSet};

use crate::{TokenId, Tokenizer};

/// How many of the longest tokens are kept.
const N_LONGEST: usize = 10;

/// What a tokenizer made of a text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measurement {
    /// Bytes of the text.
    pub n_bytes: u64,
    /// Tokens of the text.
    pub n_tokens: u64,
    /// Ids that text can become: all but gaps and special tokens.
    pub n_ids: usize,
    /// Tokens of what the vocabulary does not have; of a character vocabulary, which has no such token, the characters
    /// that it left out.
    pub n_unknown: u64,
    /// Tokens that are less than a character: they stand for a byte by fallback, or for bytes that are no UTF-8 by
    /// themselves.
    pub n_partial: u64,
    /// How often each id occurs that does, the most frequent first.
    pub frequencies: Vec<u64>,
    /// Tokens of the text by their bytes.
    pub n_tokens_by_length: BTreeMap<usize, u64>,
    /// The longest tokens of the text, the longest first, and of equally long ones the most frequent.
    pub longest: Vec<UsedToken>,
    /// Where decoding gives another text for the first time, in bytes from the start of all text; `None` if it gives
    /// back all of it.
    pub first_change: Option<u64>,
    /// Time that encoding took, by all threads together.
    pub encode_seconds: f64,
}

/// A token that a text has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedToken {
    /// Its id.
    pub id: TokenId,
    /// What it stands for.
    pub bytes: Vec<u8>,
    /// How often the text has it.
    pub count: u64,
}

impl Measurement {
    /// Adds what follows from `counts` by id.
    pub(super) fn new(tokenizer: &Tokenizer, counts: Vec<u64>, rest: Self) -> Self {
        let special: HashSet<TokenId> = tokenizer.special_tokens().map(|(_, id)| id).collect();
        let fallback: HashSet<TokenId> = tokenizer.fallback_ids().into_iter().collect();
        let mut measured = Self { n_tokens: counts.iter().sum(), ..rest };
        let mut used = Vec::new();
        for (id, &count) in (0..).zip(&counts) {
            let Some(bytes) = tokenizer.token_bytes(id) else { continue };
            measured.n_ids += usize::from(!special.contains(&id));
            if count == 0 {
                continue;
            }
            *measured.n_tokens_by_length.entry(bytes.len()).or_default() += count;
            if fallback.contains(&id) || std::str::from_utf8(bytes).is_err() {
                measured.n_partial += count;
            }
            used.push((bytes, count, id));
        }
        used.sort_unstable_by(|a, b| (b.0.len(), b.1).cmp(&(a.0.len(), a.1)).then(a.2.cmp(&b.2)));
        let token = |&(bytes, count, id): &(&[u8], u64, TokenId)| UsedToken { id, bytes: bytes.to_vec(), count };
        measured.longest = used.iter().take(N_LONGEST).map(token).collect();
        measured.frequencies = counts.into_iter().filter(|&count| count > 0).collect();
        measured.frequencies.sort_unstable_by(|a, b| b.cmp(a));
        measured
    }

    /// `None` for an empty text.
    pub fn bytes_per_token(&self) -> Option<f64> {
        ratio(self.n_bytes, self.n_tokens)
    }

    /// Distinct ids that occur.
    pub fn n_used(&self) -> usize {
        self.frequencies.len()
    }

    /// Ids that text can become and that this one does not.
    pub fn n_unused(&self) -> usize {
        self.n_ids.saturating_sub(self.n_used())
    }

    /// Distinct ids that occur once.
    pub fn n_used_once(&self) -> usize {
        self.frequencies.iter().rev().take_while(|&&count| count == 1).count()
    }

    /// Shannon's entropy of the distribution of tokens, in bits per token: what a code without context needs.
    pub fn entropy(&self) -> f64 {
        let bits = |p: f64| -p * p.log2();
        // No text has the entropy 0, not -0.
        self.shares().map(bits).sum::<f64>() + 0.0
    }

    /// Rényi's entropy of order `alpha` over that of the even distribution on all ids, from 0 to 1: how evenly the
    /// vocabulary is used, where frequent tokens count the more, the greater `alpha` is.
    ///
    /// Zouhar et al., 2023, <https://arxiv.org/abs/2306.16842>, definition 4.3: at 2.5 it tells best how well translation works.
    /// `None` for less than two ids, an empty text, or the order 1.
    pub fn renyi_efficiency(&self, alpha: f64) -> Option<f64> {
        if self.n_ids < 2 || self.n_tokens == 0 || alpha == 1.0 {
            return None;
        }
        let nats = self.shares().map(|p| p.powf(alpha)).sum::<f64>().ln() / (1.0 - alpha);
        Some((nats / (self.n_ids as f64).ln()).max(0.0))
    }

    fn shares(&self) -> impl Iterator<Item = f64> {
        self.frequencies.iter().map(|&count| count as f64 / self.n_tokens as f64)
    }

    /// Bytes encoded per second; `None` if it took no time.
    pub fn bytes_per_second(&self) -> Option<f64> {
        (self.encode_seconds > 0.0).then(|| self.n_bytes as f64 / self.encode_seconds)
    }
}

/// How many times the tokens of one language another one needs for the same text.
///
/// Petrov et al., 2023, <https://arxiv.org/abs/2305.15425>, section 3: the tokenization premium. `None` if `base` has none.
pub fn premium(n_tokens: u64, base: u64) -> Option<f64> {
    ratio(n_tokens, base)
}

fn ratio(a: u64, b: u64) -> Option<f64> {
    (b > 0).then(|| a as f64 / b as f64)
}
