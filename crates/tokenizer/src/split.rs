//! Cutting text into words before the model, where that is more than one pattern over bytes.
//!
//! The steps are those of a `tokenizer.json`, one variant each; the last of them, `ByteLevel`, is a
//! part of the byte-level model.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::normalize::{Needle, is_punctuation};
use crate::special::is_word;

/// One step of cutting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub(crate) enum Step {
    /// Leaves white space out and isolates punctuation.
    BertPreTokenizer,
    /// Leaves white space out and parts letters from the rest.
    Whitespace,
    /// Leaves white space out.
    WhitespaceSplit,
    Digits {
        individual_digits: bool,
    },
    Punctuation {
        #[serde(default)]
        behavior: Behavior,
    },
    CharDelimiterSplit {
        delimiter: char,
    },
    Split {
        pattern: Needle,
        behavior: Behavior,
        /// Whether what the pattern does not match counts as its matches.
        #[serde(default)]
        invert: bool,
    },
    Metaspace(Metaspace),
}

/// What becomes of the matches at which text is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Behavior {
    Removed,
    #[default]
    Isolated,
    MergedWithPrevious,
    MergedWithNext,
    Contiguous,
}

/// Spaces as a character that is visible.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "WrittenMetaspace")]
pub(crate) struct Metaspace {
    /// `▁` in all files known.
    pub(crate) replacement: char,
    pub(crate) prepend_scheme: PrependScheme,
    /// Whether text is cut before each of them.
    pub(crate) split: bool,
}

/// Where a space is put before text that does not start with one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PrependScheme {
    /// At the very start only.
    First,
    Never,
    /// Behind each added token, too.
    #[default]
    Always,
}

/// As files of all versions of `tokenizers` have it.
#[derive(Deserialize)]
struct WrittenMetaspace {
    replacement: char,
    add_prefix_space: Option<bool>,
    prepend_scheme: Option<PrependScheme>,
    split: Option<bool>,
}

impl TryFrom<WrittenMetaspace> for Metaspace {
    type Error = String;

    fn try_from(written: WrittenMetaspace) -> Result<Self, String> {
        let prepend_scheme = match (written.add_prefix_space, written.prepend_scheme) {
            (Some(false), None | Some(PrependScheme::Never)) => PrependScheme::Never,
            (Some(false), Some(_)) => return Err("add_prefix_space contradicts prepend_scheme".to_string()),
            (_, scheme) => scheme.unwrap_or_default(),
        };
        Ok(Self { replacement: written.replacement, prepend_scheme, split: written.split.unwrap_or(true) })
    }
}

/// Calls `take` with the parts of `text` that `steps` make of it, none of them empty.
///
/// `is_first`: whether `text` is at the very start.
pub(crate) fn split(steps: &[Step], text: &str, is_first: bool, take: &mut dyn FnMut(&str)) {
    if text.is_empty() {
        return;
    }
    let Some((step, steps)) = steps.split_first() else { return take(text) };
    let text = match step {
        Step::Metaspace(metaspace) => metaspace.apply(text, is_first),
        _ => Cow::Borrowed(text),
    };
    let mut go_on = |range: Range<usize>| split(steps, &text[range.clone()], is_first && range.start == 0, take);
    let by_char = |is_match: &dyn Fn(char) -> bool| matches_of_char(&text, is_match);
    match step {
        Step::BertPreTokenizer => {
            for word in apply(Behavior::Removed, by_char(&char::is_whitespace)) {
                let parts = apply(Behavior::Isolated, matches_of_char(&text[word.clone()], &is_punctuation));
                parts.into_iter().for_each(|part| go_on(word.start + part.start..word.start + part.end));
            }
        }
        Step::Whitespace => {
            let class = |c: char| (is_word(c), c.is_whitespace());
            for run in runs(&text, class) {
                if !text[run.clone()].starts_with(char::is_whitespace) {
                    go_on(run);
                }
            }
        }
        Step::WhitespaceSplit => apply(Behavior::Removed, by_char(&char::is_whitespace)).into_iter().for_each(go_on),
        Step::Digits { individual_digits } => {
            let behavior = if *individual_digits { Behavior::Isolated } else { Behavior::Contiguous };
            apply(behavior, by_char(&char::is_numeric)).into_iter().for_each(go_on);
        }
        Step::Punctuation { behavior } => apply(*behavior, by_char(&is_punctuation)).into_iter().for_each(go_on),
        Step::CharDelimiterSplit { delimiter } => {
            apply(Behavior::Removed, by_char(&|c| c == *delimiter)).into_iter().for_each(go_on);
        }
        Step::Split { pattern, behavior, invert } => {
            let mut parts = with_gaps(pattern.find_all(&text), text.len());
            parts.iter_mut().for_each(|(_, is_match)| *is_match ^= invert);
            apply(*behavior, parts).into_iter().for_each(go_on);
        }
        Step::Metaspace(metaspace) if metaspace.split => {
            let is_space = |c| c == metaspace.replacement;
            apply(Behavior::MergedWithNext, by_char(&is_space)).into_iter().for_each(go_on);
        }
        Step::Metaspace(_) => go_on(0..text.len()),
    }
}

impl Metaspace {
    fn apply<'t>(&self, text: &'t str, is_first: bool) -> Cow<'t, str> {
        let is_wanted = match self.prepend_scheme {
            PrependScheme::Always => true,
            PrependScheme::First => is_first,
            PrependScheme::Never => false,
        };
        let prepend = is_wanted && !text.starts_with([' ', self.replacement]);
        if !prepend && !text.contains(' ') {
            return Cow::Borrowed(text);
        }
        let space = prepend.then_some(self.replacement).into_iter();
        Cow::Owned(space.chain(text.chars().map(|c| if c == ' ' { self.replacement } else { c })).collect())
    }
}

/// A part of a text, and whether it is a match or lies between two.
type Part = (Range<usize>, bool);

/// Matches of one character each.
fn matches_of_char(text: &str, is_match: &dyn Fn(char) -> bool) -> Vec<Part> {
    let matches = text.char_indices().filter(|&(_, c)| is_match(c)).map(|(at, c)| at..at + c.len_utf8());
    with_gaps(matches, text.len())
}

fn with_gaps(matches: impl IntoIterator<Item = Range<usize>>, len: usize) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut position = 0;
    for found in matches {
        if position < found.start {
            parts.push((position..found.start, false));
        }
        position = found.end;
        parts.push((found, true));
    }
    if position < len {
        parts.push((position..len, false));
    }
    parts
}

/// What is left of the parts of a text.
fn apply(behavior: Behavior, parts: Vec<Part>) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::with_capacity(parts.len());
    // Of the part before in the order of going, whether it was a match.
    let mut was_match = false;
    match behavior {
        Behavior::Removed => parts.into_iter().filter(|&(_, is_match)| !is_match).map(|(range, _)| range).collect(),
        Behavior::Isolated => parts.into_iter().map(|(range, _)| range).collect(),
        Behavior::Contiguous | Behavior::MergedWithPrevious => {
            for (range, is_match) in parts {
                let joins = match behavior {
                    Behavior::Contiguous => is_match == was_match,
                    _ => is_match && !was_match,
                };
                match ranges.last_mut().filter(|_| joins) {
                    Some(last) => last.end = range.end,
                    None => ranges.push(range),
                }
                was_match = is_match;
            }
            ranges
        }
        Behavior::MergedWithNext => {
            for (range, is_match) in parts.into_iter().rev() {
                match ranges.last_mut().filter(|_| is_match && !was_match) {
                    Some(last) => last.start = range.start,
                    None => ranges.push(range),
                }
                was_match = is_match;
            }
            ranges.reverse();
            ranges
        }
    }
}

/// Runs of characters of the same class.
fn runs<C: PartialEq>(text: &str, class: impl Fn(char) -> C) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut class_of_run = None;
    for (at, c) in text.char_indices() {
        let (end, class) = (at + c.len_utf8(), Some(class(c)));
        match runs.last_mut().filter(|_| class == class_of_run) {
            Some(run) => run.end = end,
            None => runs.push(at..end),
        }
        class_of_run = class;
    }
    runs
}
