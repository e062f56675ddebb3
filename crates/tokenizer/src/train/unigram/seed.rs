//! The pieces to begin with: all characters, and the strings in words that are worth most.
//!
//! A suffix array of the words gives each string that occurs with different characters behind it (or with the end of a
//! word) once, with how often it does; its worth is that times its characters.

use std::cmp::Reverse;

use rayon::prelude::*;
use unicode_script::{Script, UnicodeScript};

use super::UnigramConfig;
use super::model::Words;
use crate::HashMap;
use crate::normalize::META_SPACE;

/// Pieces with the logarithms of their shares of all worth.
pub(super) fn pieces(words: &Words, required: &[(char, u64)], config: &UnigramConfig) -> Vec<(Box<str>, f64)> {
    let is_required: HashMap<char, ()> = required.iter().map(|&(c, _)| (c, ())).collect();
    let is_good = |text: &str| is_piece(text) && text.chars().all(|c| is_required.contains_key(&c));
    let mut strings: Vec<(u64, &str)> = Vec::new();
    for_each_string(words, config.max_piece_chars, &mut |text, n, is_followed| {
        let n_chars = text.chars().count() as u64;
        let is_seed = is_followed || !config.sentencepiece_seeds;
        if is_seed && 1 < n_chars && n_chars <= config.max_piece_chars as u64 && n > 1 && is_good(text) {
            strings.push((n * n_chars, text));
        }
    });
    strings.par_sort_unstable_by_key(|&(worth, text)| (Reverse(worth), text));
    strings.truncate(config.seed_size.saturating_sub(required.len()));
    let characters = required.iter().map(|&(c, n)| (Box::from(c.encode_utf8(&mut [0; 4]) as &str), n as f64));
    let strings = strings.into_iter().map(|(worth, text)| (Box::from(text), worth as f64));
    let all: Vec<(Box<str>, f64)> = characters.chain(strings).collect();
    let total: f64 = all.iter().map(|(_, worth)| worth).sum();
    all.into_iter().map(|(piece, worth)| (piece, (worth / total).ln())).collect()
}

/// Calls `each` with the strings in words, of at most one character more than `max_chars`, how often they occur, and
/// whether they do with different characters behind them, of which the end of a word is one. Of strings that always occur
/// together it gives the longest.
fn for_each_string<'w>(words: &'w Words, max_chars: usize, each: &mut impl FnMut(&'w str, u64, bool)) {
    let mut suffixes: Vec<(&str, u64)> = Vec::new();
    for (word, count) in &words.0 {
        for (start, _) in word.char_indices() {
            let suffix = &word[start..];
            let len = suffix.char_indices().nth(max_chars + 1).map_or(suffix.len(), |(len, _)| len);
            suffixes.push((&suffix[..len], *count));
        }
    }
    suffixes.par_sort_unstable();
    // Strings that begin all suffixes since one of them, the shortest first.
    let mut open: Vec<Open> = Vec::new();
    let mut before = "";
    for &(suffix, count) in suffixes.iter().chain([&("", 0)]) {
        let common = common_len(before, suffix);
        let mut n_closed = 0;
        while let Some(Open { len, n, is_followed }) = open.pop_if(|open| open.len > common) {
            n_closed += n;
            each(&before[..len], n_closed, is_followed);
        }
        add(&mut open, Open { len: common, n: n_closed, is_followed: before != suffix });
        add(&mut open, Open { len: suffix.len(), n: count, is_followed: false });
        before = suffix;
    }
}

#[derive(Clone, Copy)]
struct Open {
    /// Bytes of the string.
    len: usize,
    /// Occurrences, those of longer strings that are open not included.
    n: u64,
    is_followed: bool,
}

fn add(open: &mut Vec<Open>, new: Open) {
    match open.last_mut() {
        Some(last) if last.len == new.len => {
            last.n += new.n;
            last.is_followed |= new.is_followed;
        }
        _ if new.len > 0 => open.push(new),
        _ => {}
    }
}

/// Bytes of the characters that both start with.
fn common_len(a: &str, b: &str) -> usize {
    let common = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    (0..=common).rev().find(|&len| a.is_char_boundary(len) && b.is_char_boundary(len)).unwrap_or(0)
}

/// Whether a string may be a piece: `▁` only at its start, and all of one script, where numbers and punctuation are one of
/// their own, and Han goes with Japanese.
fn is_piece(text: &str) -> bool {
    let rest = text.strip_prefix(META_SPACE).unwrap_or(text);
    let mut before = None;
    for c in rest.chars() {
        if c == META_SPACE || c == ' ' || c == '\0' {
            return false;
        }
        let script = match c.script() {
            Script::Hiragana | Script::Katakana => Script::Han,
            _ if c == 'ー' => Script::Han,
            Script::Inherited => before.unwrap_or(Script::Inherited),
            script => script,
        };
        if before.is_some_and(|before| before != script) {
            return false;
        }
        before = Some(script);
    }
    true
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn strings_and_their_numbers_are_those_of_looking_everywhere(
            words in prop::collection::btree_map("[aé]{1,6}", 1_u64..5, 0..12),
        ) {
            let words = Words(words.into_iter().collect());
            let mut found: BTreeMap<&str, (u64, bool)> = BTreeMap::new();
            for_each_string(&words, 4, &mut |text, n, is_followed| {
                assert!(found.insert(text, (n, is_followed)).is_none(), "{text} comes twice");
            });
            // By string: occurrences and what stands behind, up to one character more.
            let mut all: BTreeMap<String, (u64, BTreeMap<Option<char>, ()>)> = BTreeMap::new();
            for (word, n) in &words.0 {
                let chars: Vec<char> = word.chars().collect();
                for start in 0..chars.len() {
                    for end in start + 1..=chars.len().min(start + 5) {
                        let of = all.entry(chars[start..end].iter().collect()).or_default();
                        of.0 += n;
                        let next = if end - start == 5 { None } else { chars.get(end).copied() };
                        of.1.insert(next, ());
                    }
                }
            }
            let maximal = all.iter().filter(|(_, (_, next))| next.len() > 1 || next.contains_key(&None));
            let expected: BTreeMap<&str, (u64, bool)> =
                maximal.map(|(text, (n, next))| (text.as_str(), (*n, next.len() > 1))).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn pieces_keep_to_one_script_and_begin_words() {
        for good in ["▁the", "the", "▁", "123", "日本のカ", "e\u{301}", "?!"] {
            assert!(is_piece(good), "{good}");
        }
        for bad in ["a▁b", "▁▁", "a1", "dog.", "latinкирил"] {
            assert!(!is_piece(bad), "{bad}");
        }
    }
}
