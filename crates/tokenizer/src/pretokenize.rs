//! Cuts text into pre-tokens, which merges never cross: the pattern of GPT-2, written by hand.
//!
//! The pattern is `'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`, from
//! <https://github.com/openai/gpt-2/blob/master/src/encoder.py>: the first alternative that matches
//! wins, and `\s` is Unicode's White_Space. A pre-token depends only on the text from its start on,
//! which is why text can be cut in parallel and streamed.
//!
//! Text may be any bytes. A byte that does not belong to valid UTF-8 counts as a character of its
//! own that is neither letter, number nor space, so it joins a run of punctuation.

#[cfg(test)]
mod tests;

use unicode_general_category::{GeneralCategory, get_general_category};

/// How far behind its end a pre-token may depend on the text: to see that a run of white space has
/// ended, its last character (at most 3 bytes) and the next one (at most 4) are read.
pub(crate) const LOOKAHEAD: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    Letter,
    Number,
    Space,
    Other,
}

const ASCII: [Class; 128] = ascii_classes();

/// All pre-tokens of `text`; one after the other they are `text`.
pub(crate) fn pretokens(mut text: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (pretoken, rest) = text.split_at(pretoken_len(text));
        text = rest;
        (!pretoken.is_empty()).then_some(pretoken)
    })
}

/// Bytes of the pre-token at the start of `text`; 0 only for empty text.
#[inline]
pub(crate) fn pretoken_len(text: &[u8]) -> usize {
    match *text {
        [] => 0,
        [b'\'', b's' | b'd' | b'm' | b't', ..] => 2,
        [b'\'', b'l', b'l', ..] | [b'\'', b'v', b'e', ..] | [b'\'', b'r', b'e', ..] => 3,
        [b' ', _, ..] => match class_at(&text[1..]) {
            (Class::Space, _) => space_len(text),
            (class, n) => run_end(text, 1 + n, class),
        },
        _ => match class_at(text) {
            (Class::Space, _) => space_len(text),
            (class, n) => run_end(text, n, class),
        },
    }
}

/// `\s+(?!\S)|\s+` at a white space that does not lead a word: the run up to the end of the text,
/// or without its last character, or the one character that there is.
fn space_len(text: &[u8]) -> usize {
    let (mut end, mut last) = (0, 0);
    while end < text.len() {
        let (class, n) = class_at(&text[end..]);
        if class != Class::Space {
            return if last == 0 { end } else { last };
        }
        last = end;
        end += n;
    }
    end
}

/// The end of the run of `class` that includes everything before `from`.
#[inline]
fn run_end(text: &[u8], from: usize, class: Class) -> usize {
    let mut end = from;
    while let Some(&byte) = text.get(end) {
        let (class_here, n) = if byte < 128 { (ASCII[usize::from(byte)], 1) } else { wide_class(&text[end..]) };
        if class_here != class {
            break;
        }
        end += n;
    }
    end
}

/// Class and bytes of the character at the start of `text`, which is not empty.
#[inline]
fn class_at(text: &[u8]) -> (Class, usize) {
    match text[0] {
        byte @ 0..128 => (ASCII[usize::from(byte)], 1),
        _ => wide_class(text),
    }
}

fn wide_class(text: &[u8]) -> (Class, usize) {
    match first_char(text) {
        Some(c) => (class(c), c.len_utf8()),
        None => (Class::Other, 1),
    }
}

/// The character at the start of `text`, if it is valid UTF-8 there.
pub(crate) fn first_char(text: &[u8]) -> Option<char> {
    let n = match text.first()? {
        0..0x80 => 1,
        0xC2..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF4 => 4,
        _ => return None,
    };
    std::str::from_utf8(text.get(..n)?).ok()?.chars().next()
}

fn class(c: char) -> Class {
    use GeneralCategory::{
        DecimalNumber, LetterNumber, LowercaseLetter, ModifierLetter, OtherLetter, OtherNumber, TitlecaseLetter,
        UppercaseLetter,
    };
    match get_general_category(c) {
        UppercaseLetter | LowercaseLetter | TitlecaseLetter | ModifierLetter | OtherLetter => Class::Letter,
        DecimalNumber | LetterNumber | OtherNumber => Class::Number,
        _ if c.is_whitespace() => Class::Space,
        _ => Class::Other,
    }
}

const fn ascii_classes() -> [Class; 128] {
    let mut classes = [Class::Other; 128];
    let mut byte = 0;
    while byte < 128 {
        classes[byte] = match byte as u8 {
            b'A'..=b'Z' | b'a'..=b'z' => Class::Letter,
            b'0'..=b'9' => Class::Number,
            b' ' | b'\t'..=b'\r' => Class::Space,
            _ => Class::Other,
        };
        byte += 1;
    }
    classes
}

/// Cuts `text` into parts of about `len` bytes whose pre-tokens, one part after the other, are
/// those of the whole. Text without white space stays whole.
pub(crate) fn parts(mut text: &[u8], len: usize) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let Some(end) = safe_cut(text, len) {
        let (part, rest) = text.split_at(end);
        parts.push(part);
        text = rest;
    }
    if !text.is_empty() {
        parts.push(text);
    }
    parts
}

/// The first place from `at` on where white space follows something else. A pre-token has white
/// space only at its start or is white space alone, so it ends there, whether or not it can see
/// what follows.
fn safe_cut(text: &[u8], at: usize) -> Option<usize> {
    let is_ascii_space = |byte: u8| byte < 128 && ASCII[usize::from(byte)] == Class::Space;
    (at.max(1)..text.len()).find(|&i| is_ascii_space(text[i]) && !ends_with_space(&text[..i]))
}

/// Errs to the side of `true` where the bytes before the end are not valid UTF-8.
fn ends_with_space(text: &[u8]) -> bool {
    let first = text.len().saturating_sub(3);
    (first..text.len()).any(|i| {
        let (class, n) = class_at(&text[i..]);
        class == Class::Space && i + n == text.len()
    })
}
