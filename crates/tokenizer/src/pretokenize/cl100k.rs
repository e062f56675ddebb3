//! The pattern of cl100k and its relatives:
//! `'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|…`, then white
//! space: `\s+$|\s*[\r\n]|\s+(?!\S)|\s` in tiktoken, and `\s*[\r\n]+|\s+(?!\S)|\s+` in Llama 3 and Qwen.

use super::char_class::{LETTER, NEWLINE, NUMBER, SPACE, class_at, run_end};
use super::window::{Window, contractions};

/// In what the relatives differ.
#[derive(Clone, Copy)]
pub(super) struct Variant {
    /// Numbers are cut into groups of so many characters.
    pub(super) n_digits: usize,
    /// White space at the end of the text is one pre-token, even if it has lines.
    pub(super) whole_tail: bool,
}

/// Bytes of the pre-token at the start of `text`, which is not empty.
pub(super) fn pretoken_len(text: &[u8], variant: Variant) -> usize {
    if let Some(n) = contraction_len(text) {
        return n;
    }
    let (first, n) = class_at(text, 0);
    if first & LETTER != 0 {
        return run_end(text, n, LETTER);
    }
    if first == NUMBER {
        return number_len(text, variant.n_digits);
    }
    if first != NEWLINE {
        let (second, n_second) = class_at(text, n);
        if second & LETTER != 0 {
            return run_end(text, n + n_second, LETTER);
        }
        let other = !(LETTER | NUMBER | SPACE);
        if first & other != 0 || (text[0] == b' ' && second & other != 0) {
            return run_end(text, run_end(text, n, other), NEWLINE);
        }
    }
    space_len(text, variant.whole_tail)
}

/// `'(?i:[sdmt]|ll|ve|re)`: among all characters, only U+017F folds to one of these letters, `s`.
pub(super) fn contraction_len(text: &[u8]) -> Option<usize> {
    if text[0] != b'\'' {
        return None;
    }
    let lower = |i: usize| text.get(i).map_or(0, u8::to_ascii_lowercase);
    match (lower(1), lower(2)) {
        (b's' | b'd' | b'm' | b't', _) => Some(2),
        (b'l', b'l') | (b'v', b'e') | (b'r', b'e') | (0xC5, 0xBF) => Some(3),
        _ => None,
    }
}

/// `\p{N}{1,n}` at a number.
pub(super) fn number_len(text: &[u8], n_digits: usize) -> usize {
    let mut end = 0;
    for _ in 0..n_digits {
        let (class, n) = class_at(text, end);
        if class != NUMBER {
            break;
        }
        end += n;
    }
    end
}

/// `\s*[\r\n]+|\s+(?!\S)|\s+` at a white space.
pub(super) fn space_len(text: &[u8], whole_tail: bool) -> usize {
    let (mut end, mut last, mut behind_newline) = (0, 0, 0);
    loop {
        let (class, n) = class_at(text, end);
        if class & SPACE == 0 {
            break;
        }
        last = end;
        end += n;
        if class == NEWLINE {
            behind_newline = end;
        }
    }
    let at_end = end == text.len();
    match behind_newline {
        0 if at_end || last == 0 => end,
        0 => last,
        _ if whole_tail && at_end => end,
        _ => behind_newline,
    }
}

/// Where pre-tokens start in a window.
#[inline(always)]
pub(super) fn starts(window: &Window<'_>, variant: Variant) -> u64 {
    let m = &window.masks;
    let leads = leads(window);
    let letters = first(m.letters) & !leads.before;
    let starts = letters | numbers(m.numbers, variant.n_digits) | others_and_spaces(window);
    if leads.apostrophes == 0 {
        return starts;
    }
    // An apostrophe that leads letters may be a contraction, which ends before the letters do.
    let (two, three) = contractions(window.text, leads.apostrophes, true);
    starts | two << 2 | three << 3 | long_s(window, leads.apostrophes)
}

/// Characters that lead letters.
pub(super) struct Leads {
    /// The bytes right behind them.
    pub(super) before: u64,
    /// Those of them that are apostrophes.
    pub(super) apostrophes: u64,
}

/// `[^\r\n\p{L}\p{N}]` of `[^\r\n\p{L}\p{N}]?\p{L}+`: a blank, or a single other character that no space
/// leads.
#[inline(always)]
pub(super) fn leads(window: &Window<'_>) -> Leads {
    let m = &window.masks;
    let other = window.other;
    let single = other & !(other << 1) & !(other >> 1) & !(m.blank << 1);
    let mut before = (single | (m.spaces & !m.newlines)) << 1;
    if m.wide != 0 {
        for (n, wide) in (2..).zip(window.wide_other) {
            before |= (wide & !(other << 1) & !(other >> n) & !(m.blank << 1)) << n;
        }
    }
    Leads { before, apostrophes: single & m.apostrophes & (m.letters >> 1) }
}

/// `'ſ`: the letter after a contraction's three bytes.
#[inline(always)]
fn long_s(window: &Window<'_>, apostrophes: u64) -> u64 {
    let mut rest = if window.masks.wide == 0 { 0 } else { apostrophes & (window.masks.wide >> 1) };
    let mut starts = 0;
    while rest != 0 {
        let at = rest.trailing_zeros() as usize;
        if window.text[at..].get(1..3) == Some("ſ".as_bytes()) {
            starts |= 1 << at << 3;
        }
        rest &= rest - 1;
    }
    starts
}

/// Groups of digits.
#[inline(always)]
pub(super) fn numbers(numbers: u64, n_digits: usize) -> u64 {
    if n_digits == 1 {
        return numbers;
    }
    let mut starts = first(numbers);
    // The fourth digit of a run and every third behind it.
    let fourth = numbers & (numbers << 1) & (numbers << 2) & (numbers << 3);
    let mut group = starts << 3 & fourth;
    while group != 0 {
        starts |= group;
        group = group << 3 & fourth;
    }
    starts
}

/// ` ?[^\s\p{L}\p{N}]+[\r\n]*` and what follows it in the pattern, which is for white space.
#[inline(always)]
pub(super) fn others_and_spaces(window: &Window<'_>) -> u64 {
    let m = &window.masks;
    let other = window.other;
    // Newlines right behind others: a carry runs through them and clears them.
    let behind_other = m.newlines & (other << 1);
    let taken = m.newlines & !m.newlines.wrapping_add(behind_other);
    let spaces = m.spaces & !taken;
    let blanks = spaces & !m.newlines;
    let last = blanks & !(m.spaces >> 1);
    let mut starts = (first(other) & !(m.blank << 1)) | first(spaces) | last;
    // Blanks behind newlines start anew, unless more newlines follow them.
    let mut indents = blanks & ((m.newlines & spaces) << 1);
    while indents != 0 {
        let at = indents.trailing_zeros();
        let end = at + (blanks >> at).trailing_ones();
        if end < 64 && m.newlines >> end & 1 == 0 {
            starts |= 1 << at;
        }
        indents &= indents - 1;
    }
    starts
}

#[inline(always)]
fn first(mask: u64) -> u64 {
    mask & !(mask << 1)
}
