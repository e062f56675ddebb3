//! The pattern of GPT-2:
//! `'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`, from
//! <https://github.com/openai/gpt-2/blob/master/src/encoder.py>.

use super::char_class::{LETTER, NUMBER, SPACE, class_at, run_end};
use super::window::{Window, contractions};

/// Bytes of the pre-token at the start of `text`, which is not empty.
pub(super) fn pretoken_len(text: &[u8]) -> usize {
    match *text {
        [b'\'', b's' | b'd' | b'm' | b't', ..] => return 2,
        [b'\'', b'l', b'l', ..] | [b'\'', b'v', b'e', ..] | [b'\'', b'r', b'e', ..] => return 3,
        _ => {}
    }
    let start = usize::from(text[0] == b' ' && text.len() > 1);
    let (class, n) = class_at(text, start);
    if class & SPACE != 0 {
        return blank_len(text);
    }
    let set = match class {
        _ if class & LETTER != 0 => LETTER,
        NUMBER => NUMBER,
        _ => !(LETTER | NUMBER | SPACE),
    };
    run_end(text, start + n, set)
}

/// `\s+(?!\S)|\s+` at a white space: the run up to the end of the text, or without its last
/// character, or the one character that there is.
pub(super) fn blank_len(text: &[u8]) -> usize {
    let (mut end, mut last) = (0, 0);
    loop {
        let (class, n) = class_at(text, end);
        if class & SPACE == 0 {
            return if end == text.len() || last == 0 { end } else { last };
        }
        last = end;
        end += n;
    }
}

/// Where pre-tokens start in a window.
#[inline(always)]
pub(super) fn starts(window: &Window<'_>) -> u64 {
    let m = &window.masks;
    let first = |mask: u64| mask & !(mask << 1);
    // A run of anything but white space starts at its first byte, or at the space before.
    let runs = (first(m.letters) | first(m.numbers) | first(window.other)) & !(m.blank << 1);
    // White space starts at its first byte, and again at its last one, which may lead a word.
    let starts = runs | first(m.spaces) | (m.spaces & !(m.spaces >> 1));
    let apostrophes = starts & m.apostrophes;
    if apostrophes == 0 {
        return starts;
    }
    let (two, three) = contractions(window.text, apostrophes, false);
    (starts & !((two | three) << 1)) | two << 2 | three << 3
}
