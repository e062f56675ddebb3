//! Added tokens: strings that are one id wherever they stand, and that text cannot reach across.

use unicode_general_category::{GeneralCategory, get_general_category};

use crate::pretokenize::first_char;
use crate::trie::Trie;
use crate::{Error, TokenId};

/// A token beside those that the model makes, as `tokenizer.json` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AddedToken {
    pub(crate) content: String,
    /// What is looked for in the text: the content, normalised where the text is.
    pub(crate) pattern: String,
    pub(crate) id: TokenId,
    /// Whether it means something to the program around the model, as `<|endoftext|>` does.
    pub(crate) special: bool,
    /// Whether it is looked for in the normalised text.
    pub(crate) normalized: bool,
    /// Whether it must not touch letters and digits.
    pub(crate) single_word: bool,
    /// Whether it takes the white space before it along.
    pub(crate) lstrip: bool,
    /// Whether it takes the white space behind it along.
    pub(crate) rstrip: bool,
    /// Whether the model's own vocabulary has it, too.
    pub(crate) in_model: bool,
}

impl AddedToken {
    /// A special token that takes nothing along.
    pub(crate) fn special(content: String, id: TokenId) -> Self {
        let pattern = content.clone();
        Self {
            content,
            pattern,
            id,
            special: true,
            normalized: false,
            single_word: false,
            lstrip: false,
            rstrip: false,
            in_model: true,
        }
    }

    /// Whether what stands around it matters.
    pub(crate) fn has_context(&self) -> bool {
        self.single_word || self.lstrip || self.rstrip
    }
}

/// Finds added tokens in text: the leftmost one, and there the longest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SpecialTokens {
    /// In the order of their ids.
    tokens: Vec<AddedToken>,
    /// Where in `tokens` a pattern is.
    by_pattern: Trie<usize>,
    /// Bytes of the longest pattern, 0 if there is none.
    max_len: usize,
    is_first_byte: [bool; 256],
    /// The same as a list.
    first_bytes: Vec<u8>,
    /// A bit for each two bytes that a token starts with; none if there is a token of one byte. Where tokens are
    /// runs of spaces, most spaces start none.
    first_pairs: Option<Box<[u64; 1 << 10]>>,
}

/// A stretch of text: `text[start..end]` is an added token with the white space that it takes along.
#[derive(Clone, Copy)]
pub(crate) struct Match {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) id: TokenId,
}

/// A part of a text.
pub(crate) enum Segment<'a> {
    /// Text without added tokens, never empty.
    Text(&'a [u8]),
    /// One added token.
    Special(TokenId),
}

impl SpecialTokens {
    /// # Errors
    /// If a token is empty or appears twice.
    pub(crate) fn new(tokens: Vec<(String, TokenId)>) -> Result<Self, Error> {
        Self::of_added(tokens.into_iter().map(|(content, id)| AddedToken::special(content, id)).collect())
    }

    /// # Errors
    /// If a token is empty or appears twice.
    pub(crate) fn of_added(mut tokens: Vec<AddedToken>) -> Result<Self, Error> {
        check(tokens.iter().map(|token| &token.pattern))?;
        tokens.sort_by_key(|token| token.id);
        let mut by_pattern = Trie::default();
        tokens.iter().enumerate().for_each(|(i, token)| by_pattern.insert(token.pattern.as_bytes(), i));
        let max_len = tokens.iter().map(|token| token.pattern.len()).max().unwrap_or(0);
        let mut is_first_byte = [false; 256];
        for token in &tokens {
            is_first_byte[usize::from(token.pattern.as_bytes()[0])] = true;
        }
        let first_bytes = (0..=255).filter(|&byte| is_first_byte[usize::from(byte)]).collect();
        let mut first_pairs = Some(Box::new([0; 1 << 10]));
        for token in &tokens {
            match (token.pattern.as_bytes().first_chunk(), &mut first_pairs) {
                (Some(&pair), Some(pairs)) => pairs[place(pair).0] |= place(pair).1,
                _ => first_pairs = None,
            }
        }
        Ok(Self { tokens, by_pattern, max_len, is_first_byte, first_bytes, first_pairs })
    }

    pub(crate) fn tokens(&self) -> &[AddedToken] {
        &self.tokens
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, TokenId)> {
        self.tokens.iter().map(|token| (token.content.as_str(), token.id))
    }

    /// Bytes of the longest token, 0 if there is none.
    pub(crate) fn max_len(&self) -> usize {
        self.max_len
    }

    /// The longest token that `text` starts with: its place in [`SpecialTokens::tokens`] and its bytes.
    pub(crate) fn prefix(&self, text: &[u8]) -> Option<(usize, usize)> {
        let may_start = text.first().is_some_and(|&byte| self.is_first_byte[usize::from(byte)]);
        may_start.then(|| self.at_start(text)).flatten()
    }

    /// The first added token that starts in `text[from..to]`; it may end behind `to`.
    pub(crate) fn find(&self, text: &[u8], from: usize, to: usize) -> Option<Match> {
        if self.tokens.is_empty() {
            return None;
        }
        let mut start = from;
        while let Some(skip) = self.find_first_byte(&text[start.min(to)..to]) {
            start += skip;
            start += match self.at_start(&text[start..]) {
                None => 1,
                Some((i, len)) if self.tokens[i].single_word && touches_word(text, start, start + len) => len,
                Some((i, len)) => {
                    let token = &self.tokens[i];
                    let (before, behind) = (&text[from..start], &text[start + len..]);
                    let start = if token.lstrip { from + before.trim_end().len() } else { start };
                    let end =
                        if token.rstrip { text.len() - behind.trim_start().len() } else { text.len() - behind.len() };
                    return Some(Match { start, end, id: token.id });
                }
            };
        }
        None
    }

    /// The first place at which a token may start.
    #[inline]
    fn find_first_byte(&self, text: &[u8]) -> Option<usize> {
        match self.first_bytes[..] {
            [one] => memchr::memchr(one, text),
            [one, two] => memchr::memchr2(one, two, text),
            [one, two, three] => memchr::memchr3(one, two, three, text),
            _ => text.iter().position(|&byte| self.is_first_byte[usize::from(byte)]),
        }
    }

    /// Cuts `text` at its added tokens; the parts, one after the other, are the text.
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

    #[inline]
    fn at_start(&self, text: &[u8]) -> Option<(usize, usize)> {
        if let Some(pairs) = &self.first_pairs {
            let (word, bit) = place(*text.first_chunk()?);
            if pairs[word] & bit == 0 {
                return None;
            }
        }
        self.by_pattern.prefixes(text).last().map(|(len, i)| (i, len))
    }
}

/// The word and the bit of two bytes.
fn place(pair: [u8; 2]) -> (usize, u64) {
    let pair = u16::from_be_bytes(pair);
    (usize::from(pair >> 6), 1 << (pair & 63))
}

/// White space of Unicode at the ends of bytes; what is not UTF-8 is none.
trait TrimSpace {
    fn trim_start(&self) -> &Self;
    fn trim_end(&self) -> &Self;
}

impl TrimSpace for [u8] {
    fn trim_start(&self) -> &Self {
        let mut text = self;
        while let Some(c) = first_char(text).filter(|c| c.is_whitespace()) {
            text = &text[c.len_utf8()..];
        }
        text
    }

    fn trim_end(&self) -> &Self {
        let mut text = self;
        while let Some(c) = last_char(text).filter(|c| c.is_whitespace()) {
            text = &text[..text.len() - c.len_utf8()];
        }
        text
    }
}

/// Whether a letter, a digit or another character of words stands right before or behind.
fn touches_word(text: &[u8], start: usize, end: usize) -> bool {
    last_char(&text[..start]).is_some_and(is_word) || first_char(&text[end..]).is_some_and(is_word)
}

fn last_char(text: &[u8]) -> Option<char> {
    let start = (1..=text.len().min(4)).map(|n| text.len() - n).find(|&i| text[i] & 0xC0 != 0x80)?;
    std::str::from_utf8(&text[start..]).ok()?.chars().next()
}

/// `\w` of regular expressions over Unicode: letters, marks, decimal digits, connectors, joiners.
pub(crate) fn is_word(c: char) -> bool {
    use GeneralCategory::{ConnectorPunctuation, DecimalNumber, EnclosingMark, NonspacingMark, SpacingMark};
    let category = get_general_category(c);
    c.is_alphabetic()
        || matches!(category, NonspacingMark | SpacingMark | EnclosingMark | DecimalNumber | ConnectorPunctuation)
        || matches!(c, '\u{200C}' | '\u{200D}')
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
