//! Ids to text.

#[cfg(test)]
mod tests;

use crate::{Error, TokenId, Tokenizer};

const REPLACEMENT: &str = "\u{FFFD}";

impl Tokenizer {
    /// The bytes of all ids, one after the other; an id outside of the vocabulary gives those of
    /// U+FFFD.
    pub fn decode_bytes(&self, ids: &[TokenId]) -> Vec<u8> {
        let bytes = |&id| self.token_bytes(id).unwrap_or(REPLACEMENT.as_bytes());
        ids.iter().flat_map(bytes).copied().collect()
    }

    /// The text of all ids: bytes that are not UTF-8 become U+FFFD, one for each maximal part of a
    /// character (as Python's `errors="replace"`), and so does an id outside of the vocabulary.
    pub fn decode(&self, ids: &[TokenId]) -> String {
        String::from_utf8_lossy(&self.decode_bytes(ids)).into_owned()
    }

    /// [`Tokenizer::decode`] that refuses ids outside of the vocabulary.
    ///
    /// # Errors
    /// [`Error::UnknownId`].
    pub fn try_decode(&self, ids: &[TokenId]) -> Result<String, Error> {
        match ids.iter().find(|&&id| self.token_bytes(id).is_none()) {
            Some(&id) => Err(Error::UnknownId { id, vocab_size: self.vocab_size() }),
            None => Ok(self.decode(ids)),
        }
    }
}

/// Decodes ids one by one and yields text as soon as its characters are complete.
///
/// All that is yielded, one after the other, is [`Tokenizer::decode`] of all ids.
#[derive(Debug)]
pub struct DecodeStream<'t> {
    tokenizer: &'t Tokenizer,
    /// The start of a character, at most 3 bytes.
    incomplete: Vec<u8>,
}

impl<'t> DecodeStream<'t> {
    /// A stream at its start.
    pub fn new(tokenizer: &'t Tokenizer) -> Self {
        Self { tokenizer, incomplete: Vec::new() }
    }

    /// The text that `id` completes, empty if it ends within a character.
    pub fn push(&mut self, id: TokenId) -> String {
        let mut bytes = std::mem::take(&mut self.incomplete);
        bytes.extend(self.tokenizer.decode_bytes(&[id]));
        let complete = complete_len(&bytes);
        self.incomplete = bytes.split_off(complete);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What is left at the end: U+FFFD if the last character is incomplete, else nothing.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.incomplete).into_owned()
    }
}

/// Bytes before a character that further bytes may complete.
fn complete_len(bytes: &[u8]) -> usize {
    let mut position = 0;
    loop {
        match std::str::from_utf8(&bytes[position..]) {
            Ok(_) => return bytes.len(),
            Err(error) => match error.error_len() {
                Some(n) => position += error.valid_up_to() + n,
                None => return position + error.valid_up_to(),
            },
        }
    }
}
