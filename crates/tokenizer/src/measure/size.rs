//! How much text there is, whatever the tokenizer.

use std::str::Utf8Chunk;

use unicode_script::{Script, UnicodeScript};

use crate::decode::complete_len;

/// Bytes, characters and words of a text that comes in parts.
///
/// A word is what stands between white space (Unicode's White_Space). Bytes that are not UTF-8 are one character
/// for each maximal part of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextSize {
    /// Bytes.
    pub n_bytes: u64,
    /// Characters: Unicode's scalar values.
    pub n_characters: u64,
    /// Words.
    pub n_words: u64,
    n_letters: u64,
    /// Letters of scripts that put no spaces between words.
    n_unspaced: u64,
    in_word: bool,
    /// The start of a character, at most 3 bytes.
    incomplete: Vec<u8>,
}

impl TextSize {
    /// Goes on with `text`; `ends_document`: whether a word ends with it.
    pub fn add(&mut self, text: &[u8], ends_document: bool) {
        self.n_bytes += text.len() as u64;
        let joined = match self.incomplete.is_empty() {
            true => None,
            false => Some([&std::mem::take(&mut self.incomplete), text].concat()),
        };
        let text = joined.as_deref().unwrap_or(text);
        let end = if ends_document { text.len() } else { complete_len(text) };
        self.incomplete = text[end..].to_vec();
        for chunk in text[..end].utf8_chunks() {
            self.n_characters += characters(chunk.clone()) as u64;
            chunk.valid().chars().for_each(|c| self.add_to_words(c));
            if !chunk.invalid().is_empty() {
                self.add_to_words(char::REPLACEMENT_CHARACTER);
            }
        }
        if ends_document {
            self.in_word = false;
        }
    }

    #[inline]
    fn add_to_words(&mut self, c: char) {
        let is_space = c.is_whitespace();
        self.n_words += u64::from(!is_space && !self.in_word);
        self.in_word = !is_space;
        if c.is_alphabetic() {
            self.n_letters += 1;
            self.n_unspaced += u64::from(!c.is_ascii() && is_unspaced(c.script()));
        }
    }

    /// Whether most letters are of scripts that put spaces between words, so that words can be counted by them: not
    /// Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan and a few others.
    pub fn has_words(&self) -> bool {
        self.n_words > 0 && 2 * self.n_unspaced <= self.n_letters
    }
}

/// Characters of a part of a text, one for bytes that are not UTF-8.
pub(super) fn characters(chunk: Utf8Chunk<'_>) -> usize {
    chunk.valid().chars().count() + usize::from(!chunk.invalid().is_empty())
}

fn is_unspaced(script: Script) -> bool {
    use Script::{
        Balinese, Bopomofo, Han, Hiragana, Javanese, Katakana, Khmer, Lao, Myanmar, New_Tai_Lue, Tai_Tham, Thai,
        Tibetan,
    };
    matches!(
        script,
        Han | Hiragana
            | Katakana
            | Bopomofo
            | Thai
            | Lao
            | Khmer
            | Myanmar
            | Tibetan
            | Balinese
            | Javanese
            | New_Tai_Lue
            | Tai_Tham
    )
}
