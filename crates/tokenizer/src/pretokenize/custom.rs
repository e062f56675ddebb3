//! Any other pattern, by an engine of regular expressions.
//!
//! As in `tokenizers`' `Split` with the behaviour `Isolated`: each match is a piece, and so is what lies
//! between two matches; the next expression cuts the pieces of the one before.

use std::ops::Range;
use std::sync::Arc;

use fancy_regex::{Regex, RegexBuilder};

use super::char_class::first_char;
use crate::Error;

/// Steps back after which the engine gives up on a match: some seconds' worth.
const BACKTRACK_LIMIT: usize = 100_000_000;

/// Regular expressions, compiled, one after the other.
#[derive(Clone, Debug)]
pub struct CustomPattern {
    regexes: Arc<[Regex]>,
}

impl PartialEq for CustomPattern {
    fn eq(&self, other: &Self) -> bool {
        self.texts().eq(other.texts())
    }
}

impl CustomPattern {
    pub(super) fn new(texts: &[&str]) -> Result<Self, Error> {
        let compile = |text: &&str| {
            RegexBuilder::new(text)
                .backtrack_limit(BACKTRACK_LIMIT)
                .build()
                .map_err(|source| Error::Pattern { pattern: text.to_string(), reason: source.to_string() })
        };
        Ok(Self { regexes: texts.iter().map(compile).collect::<Result<_, _>>()? })
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.regexes.iter().map(Regex::as_str)
    }

    /// The ends of the pre-tokens of `text`.
    ///
    /// # Errors
    /// If the engine gives up.
    pub(super) fn ends(&self, text: &[u8]) -> Result<Vec<usize>, Error> {
        let (valid, offsets) = replace_invalid(text);
        let valid = match &valid {
            Some(valid) => valid,
            None => std::str::from_utf8(text).expect("it has been found valid"),
        };
        let mut pieces: Vec<Range<usize>> = Vec::new();
        if !text.is_empty() {
            pieces.push(0..valid.len());
        }
        for regex in &*self.regexes {
            let mut cut = Vec::new();
            for piece in pieces {
                isolate(regex, valid, piece, &mut cut)?;
            }
            pieces = cut;
        }
        let ends = pieces.into_iter().map(|piece| piece.end);
        Ok(match offsets {
            None => ends.collect(),
            Some(offsets) => ends.map(|end| offsets[end]).collect(),
        })
    }
}

/// Cuts a piece of `text` at the matches of `regex`, which sees nothing but the piece.
fn isolate(regex: &Regex, text: &str, piece: Range<usize>, cut: &mut Vec<Range<usize>>) -> Result<(), Error> {
    let mut from = piece.start;
    for found in regex.find_iter(&text[piece.clone()]) {
        let found = found.map_err(|source| Error::PatternGaveUp {
            pattern: regex.as_str().to_string(),
            offset: from as u64,
            reason: source.to_string(),
        })?;
        let (start, end) = (piece.start + found.start(), piece.start + found.end());
        // A match of nothing is no piece.
        if start < end {
            cut.extend((from < start).then_some(from..start));
            cut.push(start..end);
            from = end;
        }
    }
    cut.extend((from < piece.end).then_some(from..piece.end));
    Ok(())
}

/// If `text` is not UTF-8: a copy with U+FFFD for each wrong byte, and the place in `text` of each of the
/// copy's bytes and of its end.
fn replace_invalid(text: &[u8]) -> (Option<String>, Option<Vec<usize>>) {
    if std::str::from_utf8(text).is_ok() {
        return (None, None);
    }
    let (mut valid, mut offsets) = (String::with_capacity(text.len()), Vec::with_capacity(text.len()));
    let mut at = 0;
    while at < text.len() {
        let c = first_char(&text[at..]);
        valid.push(c.unwrap_or('\u{FFFD}'));
        offsets.resize(valid.len(), at);
        at += c.map_or(1, char::len_utf8);
    }
    offsets.push(at);
    (Some(valid), Some(offsets))
}
