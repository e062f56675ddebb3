//! The tokens of a text as a person can look at them.

use crate::{TokenId, Tokenizer};

/// A token within a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its id.
    pub id: TokenId,
    /// What it stands for; see [`Tokenizer::token_bytes`].
    pub bytes: Vec<u8>,
    /// The same as text, as far as it is; one after the other they are the bytes.
    pub parts: Vec<SpanPart>,
}

/// A part of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpanPart {
    /// Whole characters.
    Text(String),
    /// Bytes that are no character.
    Bytes {
        /// They.
        bytes: Vec<u8>,
        /// The character that they make together with bytes of the tokens beside; `None` if they make none.
        of: Option<char>,
    },
}

impl Tokenizer {
    /// The tokens `ids` with what each of them shows.
    pub fn spans(&self, ids: &[TokenId]) -> Vec<Span> {
        let tokens: Vec<&[u8]> = ids.iter().map(|&id| self.token_bytes(id).unwrap_or_default()).collect();
        let text = tokens.concat();
        let mut characters = characters(&text).peekable();
        let mut end = 0;
        let mut spans = Vec::with_capacity(ids.len());
        for (&id, bytes) in ids.iter().zip(tokens) {
            let mut at = end;
            end += bytes.len();
            let mut parts = Vec::new();
            while at < end {
                let &(character_end, character) = characters.peek().expect("characters cover the text");
                let reaches = character_end.min(end);
                let len = character_end - at;
                match character {
                    Some(c) if reaches == character_end && len == c.len_utf8() => push_char(&mut parts, c),
                    of => push_bytes(&mut parts, &text[at..reaches], of),
                }
                if reaches == character_end {
                    characters.next();
                }
                at = reaches;
            }
            spans.push(Span { id, bytes: bytes.to_vec(), parts });
        }
        spans
    }
}

/// The end of each character with the character, or of bytes that are none.
fn characters(text: &[u8]) -> impl Iterator<Item = (usize, Option<char>)> {
    let mut end = 0;
    text.utf8_chunks().flat_map(move |chunk| {
        let start = end;
        end += chunk.valid().len() + chunk.invalid().len();
        let valid = chunk.valid().char_indices().map(move |(i, c)| (start + i + c.len_utf8(), Some(c)));
        let invalid = (!chunk.invalid().is_empty()).then_some((end, None));
        valid.chain(invalid)
    })
}

fn push_char(parts: &mut Vec<SpanPart>, c: char) {
    match parts.last_mut() {
        Some(SpanPart::Text(text)) => text.push(c),
        _ => parts.push(SpanPart::Text(c.to_string())),
    }
}

fn push_bytes(parts: &mut Vec<SpanPart>, bytes: &[u8], of: Option<char>) {
    parts.push(SpanPart::Bytes { bytes: bytes.to_vec(), of });
}
