//! The pattern of o200k (GPT-4o): words are cut where lower case turns into upper case, marks belong to
//! words, and contractions to the word before them.
//!
//! With `U` for `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`, `L` for `[\p{Ll}\p{Lm}\p{Lo}\p{M}]` and `C` for
//! `(?i:'s|'t|'re|'ve|'m|'ll|'d)`:
//! `[^\r\n\p{L}\p{N}]?U*L+C?|[^\r\n\p{L}\p{N}]?U+L*C?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`.

use super::char_class::{CASELESS, LETTER, LOWER, MARK, NEWLINE, NUMBER, SPACE, UPPER, class_at, run_end};
use super::cl100k::{contraction_len, leads, number_len, numbers, others_and_spaces, space_len};
use super::window::{Window, contractions};

/// `U` of the pattern.
const HEAD: u16 = UPPER | BOTH;
/// `L` of the pattern.
const TAIL: u16 = LOWER | BOTH;
/// What is in `U` and in `L`.
const BOTH: u16 = CASELESS | MARK;

/// Bytes of the pre-token at the start of `text`, which is not empty.
pub(super) fn pretoken_len(text: &[u8]) -> usize {
    let (first, n) = class_at(text, 0);
    if first == NUMBER {
        return number_len(text, 3);
    }
    let may_lead = first & (LETTER | NEWLINE) == 0;
    if first & (LETTER | MARK) != 0 || (may_lead && class_at(text, n).0 & (LETTER | MARK) != 0) {
        // A mark may lead a word, or be its first character.
        let with_lead = if may_lead { word(text, n) } else { Word::default() };
        let without = if first & (LETTER | MARK) != 0 { word(text, 0) } else { Word::default() };
        let ends = [with_lead.lower, without.lower, with_lead.upper, without.upper];
        let end = ends.into_iter().flatten().next().expect("one of the two begins with a letter or mark");
        return end + if end < text.len() { contraction_len(&text[end..]).unwrap_or(0) } else { 0 };
    }
    let other = !(LETTER | NUMBER | SPACE);
    let start = usize::from(text[0] == b' ');
    let end = run_end(text, start, other);
    if end > start {
        return newlines_and_slashes_end(text, end);
    }
    space_len(text, false)
}

/// Where a word ends by the two alternatives.
#[derive(Default)]
struct Word {
    /// `U*L+`.
    lower: Option<usize>,
    /// `U+L*`, if the other does not match.
    upper: Option<usize>,
}

fn word(text: &[u8], start: usize) -> Word {
    let (mut end, mut behind_both) = (start, None);
    loop {
        let (class, n) = class_at(text, end);
        if class & HEAD == 0 {
            // `L+` takes what follows, or gets back from `U*` its last character that is in both.
            let lower = if class == LOWER { Some(run_end(text, end + n, TAIL)) } else { behind_both };
            return Word { lower, upper: (end > start).then_some(end) };
        }
        end += n;
        if class & BOTH != 0 {
            behind_both = Some(end);
        }
    }
}

fn newlines_and_slashes_end(text: &[u8], from: usize) -> usize {
    let n = text[from..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n' | b'/')).count();
    from + n
}

/// Where pre-tokens start in a window, which has no letters without case and no marks.
#[inline(always)]
pub(super) fn starts(window: &Window<'_>) -> u64 {
    let m = &window.masks;
    let letters = m.letters & !(m.letters << 1) & !leads(window).before;
    // Words of lower case end at upper case.
    let humps = m.upper & ((m.letters & !m.upper) << 1);
    let mut starts = letters | humps | numbers(m.numbers, 3) | others_and_spaces(window);
    let apostrophes = m.apostrophes & (m.letters << 1) & (m.letters >> 1);
    // From here on the other scanner is to decide.
    let mut hard = 0;
    if apostrophes != 0 {
        let (two, three) = contractions(window.text, apostrophes, true);
        let all = two | three;
        starts = (starts & !(all | all << 1 | three << 2)) | two << 2 | three << 3;
        // One contraction right behind another, and a letter outside of ASCII.
        hard = apostrophes & (two << 2 | three << 3 | m.wide >> 1);
    }
    // A slash behind newlines may belong to what stands before them.
    hard |= slashes(window, window.other & (m.newlines << 1));
    // All bits below the lowest of `hard`.
    starts & !hard & hard.wrapping_sub(1)
}

/// Those of `candidates` that are slashes.
fn slashes(window: &Window<'_>, candidates: u64) -> u64 {
    let (mut rest, mut slashes) = (candidates, 0);
    while rest != 0 {
        let at = rest.trailing_zeros();
        slashes |= u64::from(window.text[at as usize] == b'/') << at;
        rest &= rest - 1;
    }
    slashes
}
