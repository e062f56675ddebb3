//! The normaliser of SentencePiece, Kudo and Richardson, 2018, <https://arxiv.org/abs/1808.06226>.

use super::{Charsmap, META_SPACE};
use crate::special::SpecialTokens;

/// What a SentencePiece model does to a text before it is cut.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SentencePieceNormalizer {
    /// None where text is left as it is.
    pub(crate) charsmap: Option<Charsmap>,
    /// Whether a space is put before the text.
    pub(crate) add_dummy_prefix: bool,
    /// Whether spaces at the ends are left out, and of several spaces all but one.
    pub(crate) remove_extra_whitespaces: bool,
    /// Whether spaces are written `▁`.
    pub(crate) escape_whitespaces: bool,
    /// Whether the space of `add_dummy_prefix` comes behind the text instead.
    pub(crate) treat_whitespace_as_suffix: bool,
    /// Symbols that stay as they are wherever they stand.
    pub(crate) user_defined: SpecialTokens,
}

impl SentencePieceNormalizer {
    pub(super) fn growth(&self) -> usize {
        META_SPACE.len_utf8() * self.charsmap.as_ref().map_or(1, Charsmap::longest_replacement)
    }

    pub(super) fn apply(&self, mut text: &str) -> String {
        let mut output = String::with_capacity(text.len() + META_SPACE.len_utf8());
        if self.remove_extra_whitespaces {
            while let (" ", len) = self.prefix(text) {
                text = &text[len..];
            }
        }
        if text.is_empty() {
            return output;
        }
        let space = if self.escape_whitespaces { META_SPACE } else { ' ' };
        if self.add_dummy_prefix && !self.treat_whitespace_as_suffix {
            output.push(space);
        }
        let mut is_after_space = self.remove_extra_whitespaces;
        while !text.is_empty() {
            let (normalized, len) = self.prefix(text);
            let normalized = if is_after_space { normalized.trim_start_matches(' ') } else { normalized };
            if !normalized.is_empty() {
                output.extend(normalized.chars().map(|c| if c == ' ' { space } else { c }));
                is_after_space = self.remove_extra_whitespaces && normalized.ends_with(' ');
            }
            text = &text[len..];
        }
        if self.remove_extra_whitespaces {
            output.truncate(output.trim_end_matches(space).len());
        }
        if self.add_dummy_prefix && self.treat_whitespace_as_suffix {
            output.push(space);
        }
        output
    }

    /// What the start of `text` becomes, and how many of its bytes that is.
    fn prefix<'a>(&'a self, text: &'a str) -> (&'a str, usize) {
        if text.is_empty() {
            return ("", 0);
        }
        if let Some((_, len)) = self.user_defined.prefix(text.as_bytes()) {
            return (&text[..len], len);
        }
        let charsmap = self.charsmap.as_ref();
        // A damaged table may cut within a character.
        if let Some((len, normalized)) = charsmap.and_then(|charsmap| charsmap.longest(text.as_bytes()))
            && text.is_char_boundary(len)
        {
            return (normalized, len);
        }
        let len = text.chars().next().map_or(0, char::len_utf8);
        (&text[..len], len)
    }
}
