//! The algorithms as the papers tell them, slow and obvious: the oracle of the tests.

use std::collections::{BTreeMap, HashSet};

/// The pattern of GPT-2.
pub(crate) const PATTERN: &str = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// A token by its bytes.
pub(crate) type Bytes = Vec<u8>;

/// Pre-tokens by a regular-expression engine.
pub(crate) fn pretokens(text: &str) -> Vec<&str> {
    thread_local! {
        static REGEX: fancy_regex::Regex = fancy_regex::Regex::new(PATTERN).unwrap();
    }
    REGEX.with(|regex| regex.find_iter(text).map(|found| found.unwrap().as_str()).collect())
}

/// Learns up to `n_tokens` new tokens: counts all pairs, merges the best everywhere, starts again.
pub(crate) fn train(words: &[(Bytes, u64)], n_tokens: usize) -> Vec<(Bytes, Bytes)> {
    let mut words: Vec<(Vec<Bytes>, u64)> =
        words.iter().map(|(word, n)| (word.iter().map(|&b| vec![b]).collect(), *n)).collect();
    let mut tokens: HashSet<Bytes> = (0..=255).map(|byte| vec![byte]).collect();
    let mut merges = Vec::new();
    while tokens.len() < 256 + n_tokens {
        let mut counts: BTreeMap<(&Bytes, &Bytes), u64> = BTreeMap::new();
        for (word, n) in &words {
            for pair in word.windows(2) {
                *counts.entry((&pair[0], &pair[1])).or_default() += n;
            }
        }
        let best = counts.iter().max_by_key(|&(pair, count)| (count, pair));
        let Some(((left, right), _)) = best else { break };
        let (left, right) = ((*left).clone(), (*right).clone());
        for (word, _) in &mut words {
            let mut i = 0;
            while i + 1 < word.len() {
                if word[i] == left && word[i + 1] == right {
                    word[i] = [&*left, &*right].concat();
                    word.remove(i + 1);
                }
                i += 1;
            }
        }
        tokens.insert([&*left, &*right].concat());
        if !merges.contains(&(left.clone(), right.clone())) {
            merges.push((left, right));
        }
    }
    merges
}

/// Merges the pair learned first, of equal ones the leftmost, until no pair is known.
pub(crate) fn encode(pretoken: &[u8], merges: &[(Bytes, Bytes)]) -> Vec<Bytes> {
    let mut tokens: Vec<Bytes> = pretoken.iter().map(|&byte| vec![byte]).collect();
    loop {
        let rank = |i: usize| merges.iter().rposition(|(l, r)| *l == tokens[i] && *r == tokens[i + 1]);
        let best = (1..tokens.len()).filter_map(|i| Some((rank(i - 1)?, i - 1))).min();
        let Some((_, i)) = best else { return tokens };
        let right = tokens.remove(i + 1);
        tokens[i].extend(right);
    }
}
