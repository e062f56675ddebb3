//! The cleaning of text that BERT does, <https://github.com/google-research/bert/blob/master/tokenization.py>.
//!
//! Which characters are control characters, marks and punctuation is taken from Unicode 8, as
//! `tokenizers` does: what the vocabularies were trained with.

use serde::{Deserialize, Serialize};
use unicode_categories::UnicodeCategories;

use super::{lowercase, nfd};

/// BERT's normaliser with its switches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BertNormalizer {
    /// Whether control characters are left out and all white space becomes spaces.
    pub(crate) clean_text: bool,
    /// Whether spaces are put around CJK ideographs.
    pub(crate) handle_chinese_chars: bool,
    /// Whether accents are left out; if not said, they are where text is lowercased.
    pub(crate) strip_accents: Option<bool>,
    pub(crate) lowercase: bool,
}

impl BertNormalizer {
    pub(super) fn apply(&self, text: &str) -> String {
        let mut text = text.to_string();
        if self.clean_text {
            text = text.chars().filter_map(clean).collect();
        }
        if self.handle_chinese_chars {
            text = space_ideographs(&text);
        }
        if self.strip_accents.unwrap_or(self.lowercase) && !text.is_ascii() {
            text = nfd(&text).chars().filter(|c| !c.is_mark_nonspacing()).collect();
        }
        if self.lowercase {
            text = lowercase(&text);
        }
        text
    }
}

/// Whether BERT and `tokenizers`' `Punctuation` take the character for punctuation.
pub(crate) fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation() || c.is_punctuation()
}

fn clean(c: char) -> Option<char> {
    match c {
        '\t' | '\n' | '\r' => Some(' '),
        '\0' | '\u{FFFD}' => None,
        _ if c.is_other() => None,
        _ if c.is_whitespace() => Some(' '),
        _ => Some(c),
    }
}

fn space_ideographs(text: &str) -> String {
    let mut spaced = String::with_capacity(text.len());
    for c in text.chars() {
        if is_ideograph(c) {
            spaced.extend([' ', c, ' ']);
        } else {
            spaced.push(c);
        }
    }
    spaced
}

/// The blocks that BERT names; Hangul, Hiragana and Katakana are written with spaces or none at all.
fn is_ideograph(c: char) -> bool {
    matches!(
        u32::from(c),
        0x4E00..=0x9FFF
            | 0x3400..=0x4DBF
            | 0x2_0000..=0x2_A6DF
            | 0x2_A700..=0x2_B73F
            | 0x2_B740..=0x2_B81F
            | 0x2_B920..=0x2_CEAF
            | 0xF900..=0xFAFF
            | 0x2_F800..=0x2_FA1F
    )
}
