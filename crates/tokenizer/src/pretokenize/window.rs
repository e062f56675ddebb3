//! Cutting 64 bytes at a time: classes of bytes as bit masks, and pre-tokens by arithmetic on them.
//!
//! A window begins where a pre-token does, and bit `i` of a mask stands for its byte `i`. Nothing is
//! carried from window to window: the next one begins at the last start that is sure. So what is hard to
//! say with masks only ends the part of the window that is known, and at worst one pre-token goes to the
//! scanner that goes character by character.

use super::char_class::{BLANK, LETTER, LOWER, NEWLINE, NUMBER, SPACE, UPPER, class, first_char, table};

/// Bytes of a window.
pub(super) const WINDOW: usize = 64;

/// Which bytes of a window are of a kind; all bytes of a character are of its kind.
#[derive(Clone, Copy, Default, Debug, PartialEq)]
pub(super) struct Masks {
    /// `\p{L}`.
    pub(super) letters: u64,
    /// `[A-Z]` and, outside of ASCII, `\p{Lu}\p{Lt}`.
    pub(super) upper: u64,
    /// `\p{N}`.
    pub(super) numbers: u64,
    /// `\s`.
    pub(super) spaces: u64,
    /// `[\r\n]`.
    pub(super) newlines: u64,
    /// The space itself.
    pub(super) blank: u64,
    /// `'`.
    pub(super) apostrophes: u64,
    /// Bytes outside of ASCII.
    pub(super) wide: u64,
}

/// What the masks say besides where characters outside of ASCII begin, and how far all that is known.
pub(super) struct Window<'a> {
    pub(super) text: &'a [u8; WINDOW],
    pub(super) masks: Masks,
    /// `[^\s\p{L}\p{N}]`.
    pub(super) other: u64,
    /// Where characters of `other` of two, three and four bytes begin.
    pub(super) wide_other: [u64; 3],
    /// The bytes from here on are not classified.
    pub(super) known: usize,
}

impl<'a> Window<'a> {
    /// `caseless_is_hard`: the window ends before the first letter that has no case, and before marks.
    #[inline(always)]
    pub(super) fn new(text: &'a [u8; WINDOW], masks: Masks, caseless_is_hard: bool) -> Self {
        let mut window = Self { text, masks, other: 0, wide_other: [0; 3], known: WINDOW };
        if masks.wide != 0 {
            window.classify_wide(caseless_is_hard);
        }
        let Masks { letters, numbers, spaces, .. } = window.masks;
        window.other = !(letters | numbers | spaces);
        window
    }

    /// Classifies the characters outside of ASCII, up to the first that is hard: white space and numbers,
    /// of which patterns count characters, and what reaches beyond the window.
    #[inline(never)]
    fn classify_wide(&mut self, caseless_is_hard: bool) {
        let table = table();
        let mut wide = self.masks.wide;
        while wide != 0 {
            let at = wide.trailing_zeros() as usize;
            let (class, n) = if at + 4 <= WINDOW {
                table.wide_class(&self.text[at..])
            } else {
                match first_char(&self.text[at..]) {
                    Some(c) => (class(c), c.len_utf8()),
                    // It may go on behind the window.
                    None => return self.known = at,
                }
            };
            let bits = ((1 << n) - 1) << at;
            if class & (NUMBER | SPACE) != 0 {
                return self.known = at;
            }
            if class & LETTER != 0 {
                if caseless_is_hard && class & (UPPER | LOWER) == 0 {
                    return self.known = at;
                }
                self.masks.letters |= bits;
                if class == UPPER {
                    self.masks.upper |= bits;
                }
            } else {
                if caseless_is_hard && class == super::char_class::MARK {
                    return self.known = at;
                }
                if n > 1 {
                    self.wide_other[n - 2] |= 1 << at;
                }
            }
            wide &= !bits;
        }
    }

    /// The pre-tokens that end in the window, by where the next ones start: of `starts`, those that nothing
    /// behind the known bytes can change, without bit 0.
    ///
    /// White space at the end of what is known may go on, and an apostrophe needs two letters.
    #[inline(always)]
    pub(super) fn sure(&self, starts: u64) -> u64 {
        let unknown = (WINDOW - self.known) as u32;
        // A shift by 64 cannot be: a window whose first byte is hard has nothing sure.
        if unknown as usize > WINDOW - 4 {
            return 0;
        }
        let n_spaces = (self.masks.spaces << unknown).leading_ones() as usize;
        let last = (self.known - n_spaces).min(self.known - 4);
        starts & (u64::MAX >> (WINDOW - 1 - last)) & !1
    }
}

/// A way to classify ASCII.
pub(super) trait Classify {
    /// The masks of `text`, whose bytes outside of ASCII are in `wide` alone.
    fn masks(text: &[u8; WINDOW]) -> Masks;

    /// Says that `byte` will be wanted soon, if there is such a place.
    #[inline(always)]
    fn fetch(_byte: *const u8) {}

    /// Writes `at` plus the place of each bit, and some rubbish behind them.
    #[inline(always)]
    fn write_places(places: &mut [u32; WINDOW], at: u32, mut bits: u64) {
        for places in places.chunks_exact_mut(8) {
            for place in places {
                *place = at.wrapping_add(bits.trailing_zeros());
                bits &= bits.wrapping_sub(1);
            }
            if bits == 0 {
                break;
            }
        }
    }
}

/// Without vector instructions.
pub(super) struct Portable;

impl Classify for Portable {
    #[inline(always)]
    fn masks(text: &[u8; WINDOW]) -> Masks {
        let mut masks = Masks::default();
        for (i, &byte) in text.iter().enumerate() {
            let class = if byte < 128 { super::char_class::ASCII[usize::from(byte)] } else { 0 };
            let bit = |is: bool| u64::from(is) << i;
            masks.letters |= bit(class & LETTER != 0);
            masks.upper |= bit(class == UPPER);
            masks.numbers |= bit(class == NUMBER);
            masks.spaces |= bit(class & (NEWLINE | BLANK) != 0);
            masks.newlines |= bit(class == NEWLINE);
            masks.blank |= bit(byte == b' ');
            masks.apostrophes |= bit(byte == b'\'');
            masks.wide |= bit(byte >= 128);
        }
        masks
    }
}

/// Which of the contractions `'s 'd 'm 't 'll 've 're` begin at `apostrophes`: those of two and of three
/// bytes.
#[inline(always)]
pub(super) fn contractions(text: &[u8; WINDOW], apostrophes: u64, any_case: bool) -> (u64, u64) {
    let (mut two, mut three) = (0, 0);
    let mut rest = apostrophes;
    while rest != 0 {
        let at = rest.trailing_zeros() as usize;
        let lower = |i: usize| {
            let byte = text.get(i).copied().unwrap_or(0);
            if any_case { byte.to_ascii_lowercase() } else { byte }
        };
        match (lower(at + 1), lower(at + 2)) {
            (b's' | b'd' | b'm' | b't', _) => two |= 1 << at,
            (b'l', b'l') | (b'v', b'e') | (b'r', b'e') => three |= 1 << at,
            _ => {}
        }
        rest &= rest - 1;
    }
    (two, three)
}
