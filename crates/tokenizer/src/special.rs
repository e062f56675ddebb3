//! Special tokens: strings that are one id wherever they stand, and that text cannot reach across.

use std::cmp::Reverse;

use crate::{Error, HashMap, TokenId};

/// Finds special tokens in text: the leftmost one, and there the longest.
#[derive(Clone, PartialEq)]
pub(crate) struct SpecialTokens {
    /// In the order of their ids.
    tokens: Vec<(String, TokenId)>,
    ids: HashMap<Box<[u8]>, TokenId>,
    /// The distinct lengths of tokens in bytes, longest first: however many tokens there are, a
    /// place in the text is looked at once per length.
    lens: Vec<usize>,
    is_first_byte: [bool; 256],
}

/// A stretch of text: `text[start..end]` is a special token.
#[derive(Clone, Copy)]
pub(crate) struct Match {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) id: TokenId,
}

/// A part of a text.
pub(crate) enum Segment<'a> {
    /// Text without special tokens, never empty.
    Text(&'a [u8]),
    /// One special token.
    Special(TokenId),
}

impl SpecialTokens {
    /// # Errors
    /// If a token is empty or appears twice.
    pub(crate) fn new(mut tokens: Vec<(String, TokenId)>) -> Result<Self, Error> {
        check(tokens.iter().map(|(token, _)| token))?;
        tokens.sort_by_key(|&(_, id)| id);
        let ids = tokens.iter().map(|(token, id)| (token.as_bytes().into(), *id)).collect();
        let mut lens: Vec<usize> = tokens.iter().map(|(token, _)| token.len()).collect();
        lens.sort_unstable_by_key(|&len| Reverse(len));
        lens.dedup();
        let mut is_first_byte = [false; 256];
        for (token, _) in &tokens {
            is_first_byte[usize::from(token.as_bytes()[0])] = true;
        }
        Ok(Self { tokens, ids, lens, is_first_byte })
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, TokenId)> {
        self.tokens.iter().map(|(token, id)| (token.as_str(), *id))
    }

    pub(crate) fn id(&self, token: &str) -> Option<TokenId> {
        self.ids.get(token.as_bytes()).copied()
    }

    /// Bytes of the longest token, 0 if there is none.
    pub(crate) fn max_len(&self) -> usize {
        self.lens.first().copied().unwrap_or(0)
    }

    /// The first special token that starts in `text[from..to]`; it may end behind `to`.
    pub(crate) fn find(&self, text: &[u8], from: usize, to: usize) -> Option<Match> {
        if self.tokens.is_empty() {
            return None;
        }
        let is_first_byte = |&byte: &u8| self.is_first_byte[usize::from(byte)];
        let mut start = from;
        while let Some(skip) = text[start..to].iter().position(is_first_byte) {
            start += skip;
            let rest = &text[start..];
            for &len in &self.lens {
                if let Some(&id) = rest.get(..len).and_then(|token| self.ids.get(token)) {
                    return Some(Match { start, end: start + len, id });
                }
            }
            start += 1;
        }
        None
    }

    /// Cuts `text` at its special tokens; the parts, one after the other, are the text.
    pub(crate) fn segments<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = Segment<'a>> {
        let mut position = 0;
        let mut pending = None;
        std::iter::from_fn(move || {
            if let Some(id) = pending.take() {
                return Some(Segment::Special(id));
            }
            if position == text.len() {
                return None;
            }
            let start = position;
            let Some(found) = self.find(text, start, text.len()) else {
                position = text.len();
                return Some(Segment::Text(&text[start..]));
            };
            position = found.end;
            if found.start == start {
                return Some(Segment::Special(found.id));
            }
            pending = Some(found.id);
            Some(Segment::Text(&text[start..found.start]))
        })
    }
}

/// # Errors
/// If a token is empty or appears twice.
pub(crate) fn check<'a>(tokens: impl IntoIterator<Item = &'a String>) -> Result<(), Error> {
    let mut seen = std::collections::HashSet::new();
    for token in tokens {
        let fail = |reason: &str| Err(Error::SpecialToken { token: token.clone(), reason: reason.to_string() });
        if token.is_empty() {
            return fail("is empty");
        }
        if !seen.insert(token) {
            return fail("is given twice");
        }
    }
    Ok(())
}
