//! The patterns of DeepSeek-V3, applied one after the other to what the one before has cut:
//! `\p{N}{1,3}`, then `[一-龥぀-ゟ゠-ヿ]+`, then
//! ``[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+``.
//! So to the third, text ends at each number and wherever Chinese and Japanese begin or end. What no
//! pattern matches is a pre-token as well.

use super::char_class::{
    CONTROL, Class, LETTER, MARK, NEWLINE, NUMBER, PUNCTUATION, SPACE, SYMBOL, class_at, first_char,
};
use super::cl100k::{number_len, space_len};

const WORD: Class = LETTER | MARK;
const SIGN: Class = PUNCTUATION | SYMBOL;

/// Bytes of the pre-token at the start of `text`, which is not empty.
pub(super) fn pretoken_len(text: &[u8]) -> usize {
    let piece = Piece { text, is_east_asian: is_east_asian(text) };
    let (first, n) = class_at(text, 0);
    if first == NUMBER {
        return number_len(text, 3);
    }
    if first & WORD != 0 {
        return piece.run_end(n, WORD);
    }
    if text[0].is_ascii_punctuation() {
        let n_letters = text[1..].iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
        if n_letters > 0 {
            return 1 + n_letters;
        }
    }
    let (second, n_second) = piece.class_at(n);
    if first & (SIGN | NEWLINE) == 0 && second & WORD != 0 {
        return piece.run_end(n + n_second, WORD);
    }
    if first & SIGN != 0 || (text[0] == b' ' && second & SIGN != 0) {
        return piece.run_end(piece.run_end(n, SIGN), NEWLINE);
    }
    if first & SPACE != 0 {
        let end = piece.run_end(n, SPACE);
        let is_piece_end = piece.class_at(end).0 == 0;
        return space_len(if is_piece_end { &text[..end] } else { text }, false);
    }
    piece.unmatched_len()
}

/// What the third pattern gets to see of the text, from a pre-token on.
struct Piece<'a> {
    text: &'a [u8],
    is_east_asian: bool,
}

impl Piece<'_> {
    /// Class and bytes of a character; no class behind the end of the piece.
    #[inline]
    fn class_at(&self, at: usize) -> (Class, usize) {
        match class_at(self.text, at) {
            (NUMBER, _) => (0, 0),
            (_, 3) if is_east_asian(&self.text[at..]) != self.is_east_asian => (0, 0),
            (_, n) if self.is_east_asian && n != 3 => (0, 0),
            found => found,
        }
    }

    fn run_end(&self, from: usize, set: Class) -> usize {
        let mut end = from;
        loop {
            let (class, n) = self.class_at(end);
            if class & set == 0 {
                return end;
            }
            end += n;
        }
    }

    /// The characters of `CONTROL` that there are, but not one that leads a word.
    fn unmatched_len(&self) -> usize {
        let mut end = 0;
        loop {
            let (class, n) = self.class_at(end);
            if class != CONTROL || self.class_at(end + n).0 & WORD != 0 {
                return end;
            }
            end += n;
        }
    }
}

/// Whether the second pattern matches the character at the start of `text`.
#[inline]
fn is_east_asian(text: &[u8]) -> bool {
    matches!(text, [0xE3..=0xE9, ..])
        && matches!(first_char(text), Some('\u{4E00}'..='\u{9FA5}' | '\u{3040}'..='\u{30FF}'))
}
