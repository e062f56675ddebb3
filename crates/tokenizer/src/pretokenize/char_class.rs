//! The class of a character: all that the patterns ask about it.

use std::sync::LazyLock;

use unicode_general_category::{GeneralCategory, get_general_category};

/// Classes are sets of bits with a single bit each, so that a set of classes is one test.
pub(super) type Class = u16;

/// `\p{Lu}\p{Lt}`.
pub(super) const UPPER: Class = 1;
/// `\p{Ll}`.
pub(super) const LOWER: Class = 1 << 1;
/// `\p{Lm}\p{Lo}`: letters without case.
pub(super) const CASELESS: Class = 1 << 2;
/// `\p{M}`.
pub(super) const MARK: Class = 1 << 3;
/// `\p{N}`.
pub(super) const NUMBER: Class = 1 << 4;
/// `[\r\n]`.
pub(super) const NEWLINE: Class = 1 << 5;
/// `[^\S\r\n]`: other characters with Unicode's White_Space.
pub(super) const BLANK: Class = 1 << 6;
/// `\p{P}`.
pub(super) const PUNCTUATION: Class = 1 << 7;
/// `\p{S}`. A byte that does not belong to valid UTF-8 counts as U+FFFD, which is one.
pub(super) const SYMBOL: Class = 1 << 8;
/// Control, format, private-use and unassigned characters that are no white space.
pub(super) const CONTROL: Class = 1 << 9;

/// `\p{L}`.
pub(super) const LETTER: Class = UPPER | LOWER | CASELESS;
/// `\s`.
pub(super) const SPACE: Class = NEWLINE | BLANK;

/// The class of each ASCII character.
pub(super) const ASCII: [Class; 128] = ascii_classes();

/// Characters per block of the table.
const BLOCK: usize = 128;

static TABLE: LazyLock<Table> = LazyLock::new(Table::new);

/// Two levels: most blocks of 128 characters are equal to another one.
pub(super) struct Table {
    /// Which block of `classes` each block of characters is.
    blocks: Vec<u16>,
    classes: Vec<Class>,
}

impl Table {
    /// The class of a character.
    #[inline(always)]
    fn class(&self, code: u32) -> Class {
        let block = usize::from(self.blocks[code as usize / BLOCK]);
        self.classes[block * BLOCK + code as usize % BLOCK]
    }

    /// Class and bytes of the character at the start of `text`, which is not ASCII.
    #[inline(always)]
    pub(super) fn wide_class(&self, text: &[u8]) -> (Class, usize) {
        if let (Some(&bytes), ..0xF0) = (text.first_chunk(), text[0]) {
            return two_or_three_bytes(bytes).map_or((SYMBOL, 1), |(code, n)| (self.class(code), n));
        }
        self.seldom_class(text)
    }

    /// The same for what is rare.
    #[inline(never)]
    fn seldom_class(&self, text: &[u8]) -> (Class, usize) {
        match first_char(text) {
            Some(c) => (self.class(c as u32), c.len_utf8()),
            None => (SYMBOL, 1),
        }
    }

    fn new() -> Self {
        let mut table = Self { blocks: Vec::new(), classes: Vec::new() };
        let n_chars = char::MAX as usize + 1;
        for first in (0..n_chars).step_by(BLOCK) {
            // Surrogates are no characters and never looked up.
            let block: Vec<Class> =
                (first..first + BLOCK).map(|c| char::from_u32(c as u32).map_or(CONTROL, class_by_category)).collect();
            let known = table.classes.chunks_exact(BLOCK).position(|other| other == block);
            let index = known.unwrap_or(table.classes.len() / BLOCK);
            if known.is_none() {
                table.classes.extend(block);
            }
            table.blocks.push(index as u16);
        }
        table
    }
}

/// Class and bytes of the character at `at`; no class and no bytes at the end of the text.
#[inline]
pub(super) fn class_at(text: &[u8], at: usize) -> (Class, usize) {
    match text.get(at) {
        None => (0, 0),
        Some(&byte @ 0..128) => (ASCII[usize::from(byte)], 1),
        Some(_) => wide_class(&text[at..]),
    }
}

/// Class and bytes of the character at the start of `text`, which is not ASCII.
#[inline]
pub(super) fn wide_class(text: &[u8]) -> (Class, usize) {
    TABLE.wide_class(text)
}

/// The classes of all characters, for those who ask often.
pub(super) fn table() -> &'static Table {
    &TABLE
}

/// The class of any character.
#[inline]
pub(super) fn class(c: char) -> Class {
    TABLE.class(c as u32)
}

/// The character of two or three bytes that the bytes begin with, and how many they are: nearly all outside of
/// ASCII are such.
#[inline(always)]
pub(super) fn two_or_three_bytes(bytes: [u8; 4]) -> Option<(u32, usize)> {
    let word = u32::from_le_bytes(bytes);
    let (second, third) = (word >> 8 & 0x3F, word >> 16 & 0x3F);
    if word & 0xC0C0F0 == 0x8080E0 {
        let code = (word & 0xF) << 12 | second << 6 | third;
        // Neither too long for what it is, nor half of a pair of UTF-16.
        return (code >= 0x800 && code & 0xF800 != 0xD800).then_some((code, 3));
    }
    let code = (word & 0x1F) << 6 | second;
    (word & 0xC0E0 == 0x80C0 && code >= 0x80).then_some((code, 2))
}

/// The end of the run of characters of `set` that includes everything before `from`.
#[inline]
pub(super) fn run_end(text: &[u8], from: usize, set: Class) -> usize {
    let table = table();
    let mut end = from;
    loop {
        let (class, n) = match text.get(end) {
            Some(128..) => table.wide_class(&text[end..]),
            _ => class_at(text, end),
        };
        if class & set == 0 {
            return end;
        }
        end += n;
    }
}

/// The character at the start of `text`, if it is valid UTF-8 there.
#[inline]
pub(crate) fn first_char(text: &[u8]) -> Option<char> {
    let tail = |i: usize, lo: u8, hi: u8| match text.get(i) {
        Some(&byte) if lo <= byte && byte <= hi => Some(u32::from(byte & 0x3F)),
        _ => None,
    };
    let lead = u32::from(*text.first()?);
    // Table 3-7 of the Unicode standard: what may follow each lead byte.
    let code = match lead {
        0..0x80 => lead,
        0xC2..=0xDF => (lead & 0x1F) << 6 | tail(1, 0x80, 0xBF)?,
        0xE0..=0xEF => {
            let (lo, hi) = match lead {
                0xE0 => (0xA0, 0xBF),
                0xED => (0x80, 0x9F),
                _ => (0x80, 0xBF),
            };
            (lead & 0xF) << 12 | tail(1, lo, hi)? << 6 | tail(2, 0x80, 0xBF)?
        }
        0xF0..=0xF4 => {
            let (lo, hi) = match lead {
                0xF0 => (0x90, 0xBF),
                0xF4 => (0x80, 0x8F),
                _ => (0x80, 0xBF),
            };
            (lead & 0x7) << 18 | tail(1, lo, hi)? << 12 | tail(2, 0x80, 0xBF)? << 6 | tail(3, 0x80, 0xBF)?
        }
        _ => return None,
    };
    char::from_u32(code)
}

fn class_by_category(c: char) -> Class {
    use GeneralCategory as Category;
    if matches!(c, '\r' | '\n') {
        return NEWLINE;
    }
    if c.is_whitespace() {
        return BLANK;
    }
    match get_general_category(c) {
        Category::UppercaseLetter | Category::TitlecaseLetter => UPPER,
        Category::LowercaseLetter => LOWER,
        Category::ModifierLetter | Category::OtherLetter => CASELESS,
        Category::NonspacingMark | Category::SpacingMark | Category::EnclosingMark => MARK,
        Category::DecimalNumber | Category::LetterNumber | Category::OtherNumber => NUMBER,
        Category::ConnectorPunctuation
        | Category::DashPunctuation
        | Category::OpenPunctuation
        | Category::ClosePunctuation
        | Category::InitialPunctuation
        | Category::FinalPunctuation
        | Category::OtherPunctuation => PUNCTUATION,
        Category::MathSymbol | Category::CurrencySymbol | Category::ModifierSymbol | Category::OtherSymbol => SYMBOL,
        _ => CONTROL,
    }
}

const fn ascii_classes() -> [Class; 128] {
    let mut classes = [CONTROL; 128];
    let mut byte = 0;
    while byte < 128 {
        classes[byte] = match byte as u8 {
            b'A'..=b'Z' => UPPER,
            b'a'..=b'z' => LOWER,
            b'0'..=b'9' => NUMBER,
            b'\r' | b'\n' => NEWLINE,
            b' ' | b'\t' | 0x0B | 0x0C => BLANK,
            b'$' | b'+' | b'<'..=b'>' | b'^' | b'`' | b'|' | b'~' => SYMBOL,
            b'!'..=b'/' | b':'..=b'@' | b'['..=b'_' | b'{'..=b'}' => PUNCTUATION,
            _ => CONTROL,
        };
        byte += 1;
    }
    classes
}
