//! What is done to a text before it is cut: normal forms, case, accents, white space, replacements.
//!
//! The steps are those of a `tokenizer.json`, one variant each, with its keys as their fields, so
//! that a file is read and written by their derived serialisation. SentencePiece's own normaliser is
//! one more.

mod bert;
mod charsmap;
mod needle;
mod newer;
mod sentencepiece;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick, is_nfd_quick};

pub(crate) use bert::{BertNormalizer, is_punctuation};
pub(crate) use charsmap::Charsmap;
pub(crate) use needle::Needle;
pub(crate) use sentencepiece::SentencePieceNormalizer;

/// The character by which SentencePiece stands for a space.
pub(crate) const META_SPACE: char = '▁';

/// One step of normalisation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub(crate) enum Step {
    #[serde(rename = "NFC")]
    Nfc,
    #[serde(rename = "NFD")]
    Nfd,
    #[serde(rename = "NFKC")]
    Nfkc,
    #[serde(rename = "NFKD")]
    Nfkd,
    Lowercase,
    /// Leaves out all combining marks.
    StripAccents,
    /// The characters that the Neural Machine Translation rules of SentencePiece leave out or make spaces.
    Nmt,
    /// Leaves out white space at the ends.
    Strip {
        strip_left: bool,
        strip_right: bool,
    },
    /// Puts a text before what is not empty.
    Prepend {
        prepend: String,
    },
    Replace {
        pattern: Needle,
        content: String,
    },
    BertNormalizer(BertNormalizer),
    /// SentencePiece's replacements, as `tokenizers` applies them.
    Precompiled {
        precompiled_charsmap: Charsmap,
    },
    /// All that SentencePiece does; no step of a `tokenizer.json`.
    #[serde(skip)]
    SentencePiece(Box<SentencePieceNormalizer>),
}

/// The text after all steps, one after the other.
pub(crate) fn normalize<'t>(steps: &[Step], text: &'t str) -> Cow<'t, str> {
    steps.iter().fold(Cow::Borrowed(text), |text, step| match step.apply(&text) {
        Some(normalized) => Cow::Owned(normalized),
        None => text,
    })
}

impl Step {
    /// The text after this step, or `None` where it stays as it is.
    fn apply(&self, text: &str) -> Option<String> {
        if text.is_empty() {
            return None;
        }
        match self {
            // All that the four forms would change lies beyond ASCII.
            Self::Nfc | Self::Nfd | Self::Nfkc | Self::Nfkd | Self::StripAccents if text.is_ascii() => None,
            // The first character that NFC may change or reorder is U+0300.
            Self::Nfc if text.bytes().all(|byte| byte < 0xCC) => None,
            Self::Nfc if is_nfc_quick(text.chars()) == IsNormalized::Yes => None,
            Self::Nfd if is_nfd_quick(text.chars()) == IsNormalized::Yes => None,
            Self::Nfc => Some(form(text, |part, output| output.extend(part.nfc()))),
            Self::Nfd => Some(nfd(text)),
            Self::Nfkc => Some(form(text, |part, output| output.extend(part.nfkc()))),
            Self::Nfkd => Some(form(text, |part, output| output.extend(part.nfkd()))),
            Self::Lowercase => Some(lowercase(text)),
            Self::StripAccents => Some(text.chars().filter(|&c| !is_mark(c)).collect()),
            Self::Nmt => Some(text.chars().filter_map(nmt).collect()),
            Self::Strip { strip_left, strip_right } => {
                let start = if *strip_left { text.trim_start() } else { text };
                let stripped = if *strip_right { start.trim_end() } else { start };
                (stripped.len() < text.len()).then(|| stripped.to_string())
            }
            Self::Prepend { prepend } => Some([prepend, text].concat()),
            Self::Replace { pattern, content } => pattern.replace(text, content),
            Self::BertNormalizer(bert) => Some(bert.apply(text)),
            Self::Precompiled { precompiled_charsmap } => precompiled_charsmap.replace_graphemes(text),
            Self::SentencePiece(sentencepiece) => Some(sentencepiece.apply(text)),
        }
    }

    /// How many times longer the step can make a text of many bytes.
    pub(crate) fn growth(&self) -> usize {
        match self {
            // U+FDFA is 3 bytes and becomes 33; most normal forms of others are shorter.
            Self::Nfkc | Self::Nfkd => 11,
            Self::Nfc | Self::Nfd | Self::Lowercase => 4,
            Self::StripAccents | Self::Nmt | Self::Strip { .. } => 1,
            Self::Prepend { prepend } => prepend.len() + 1,
            // An empty match may be at every byte.
            Self::Replace { content, .. } => content.len() + 1,
            Self::BertNormalizer(_) => 6,
            Self::Precompiled { precompiled_charsmap } => precompiled_charsmap.longest_replacement(),
            Self::SentencePiece(sentencepiece) => sentencepiece.growth(),
        }
    }
}

/// A normal form, applied between the characters that have none in Unicode 9.
fn form(text: &str, mut apply: impl FnMut(&str, &mut String)) -> String {
    let mut output = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((at, c)) = rest.char_indices().find(|&(_, c)| newer::is_inert(c)) {
        apply(&rest[..at], &mut output);
        output.push(c);
        rest = &rest[at + c.len_utf8()..];
    }
    apply(rest, &mut output);
    output
}

fn nfd(text: &str) -> String {
    form(text, |part, output| output.extend(part.nfd()))
}

/// Character by character: a final sigma is a sigma like others.
fn lowercase(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

fn is_mark(c: char) -> bool {
    unicode_normalization::char::is_combining_mark(c) != newer::has_changed_mark(c)
}

fn nmt(c: char) -> Option<char> {
    match c {
        '\u{1}'..='\u{8}' | '\u{B}' | '\u{E}'..='\u{1F}' | '\u{7F}' | '\u{8F}' | '\u{9F}' => None,
        '\t' | '\n' | '\u{C}' | '\r' | '\u{1680}' | '\u{200B}'..='\u{200F}' | '\u{2028}' | '\u{2029}' => Some(' '),
        META_SPACE | '\u{FEFF}' | '\u{FFFD}' => Some(' '),
        _ => Some(c),
    }
}
