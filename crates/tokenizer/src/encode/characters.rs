//! A vocabulary of characters.

use crate::pretokenize::first_char;
use crate::{Error, HashMap, TokenId};

/// The id of each character.
#[derive(Clone, PartialEq)]
pub(crate) struct Characters {
    ids: HashMap<char, TokenId>,
}

impl Characters {
    pub(crate) fn new(ids: impl Iterator<Item = (char, TokenId)>) -> Self {
        Self { ids: ids.collect() }
    }

    /// The id of the character that `piece` is.
    pub(crate) fn id(&self, piece: &[u8]) -> Option<TokenId> {
        self.ids.get(&first_char(piece)?).copied()
    }

    /// # Errors
    /// If a character is not in the vocabulary; `before` bytes stand before `text`.
    pub(crate) fn check(&self, text: &[u8], before: u64) -> Result<(), Error> {
        let mut position = 0;
        while position < text.len() {
            let rest = &text[position..];
            if self.id(rest).is_none() {
                return Err(unknown(rest, before + position as u64));
            }
            position += first_char(rest).map_or(1, char::len_utf8);
        }
        Ok(())
    }
}

/// The error for the character at the start of `text`.
pub(crate) fn unknown(text: &[u8], offset: u64) -> Error {
    let found = match first_char(text) {
        Some(c) => format!("{c:?}"),
        None => format!("byte 0x{:02X}, which is not UTF-8", text[0]),
    };
    Error::UnknownCharacter { found, offset }
}
