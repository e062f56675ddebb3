//! Ids to text.

mod steps;
#[cfg(test)]
mod tests;

pub(crate) use steps::{Step, byte_of_token};

use crate::{Error, HashMap, TokenId, Tokenizer};

const REPLACEMENT: &str = "\u{FFFD}";
/// Ids of which a stream waits for the text before it takes what there is.
const MAX_WAITING_IDS: usize = 64;

/// How ids become text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decoder {
    /// The bytes of all tokens in a row.
    Bytes,
    /// By steps over the tokens as they are written.
    Steps {
        steps: Vec<Step>,
        /// Indexed by id.
        written: Vec<Box<str>>,
    },
}

impl Tokenizer {
    /// The bytes of all ids, one after the other; an id outside of the vocabulary gives those of
    /// U+FFFD. Where decoding is more than that (`▁` and `##` are spaces or none), those of the text.
    pub fn decode_bytes(&self, ids: &[TokenId]) -> Vec<u8> {
        match &self.decoder {
            Decoder::Bytes => {
                let bytes = |&id| self.token_bytes(id).unwrap_or(REPLACEMENT.as_bytes());
                ids.iter().flat_map(bytes).copied().collect()
            }
            Decoder::Steps { steps, written } => {
                let known = |id: TokenId| written.get(id as usize).filter(|token| !token.is_empty());
                let token = |&id: &TokenId| known(id).map_or(REPLACEMENT, |token| token).to_string();
                steps::text(steps, ids.iter().map(token).collect()).into_bytes()
            }
        }
    }

    /// The text of all ids, special tokens included: bytes that are not UTF-8 become U+FFFD, one for
    /// each maximal part of a character (as Python's `errors="replace"`), and so does an id outside of
    /// the vocabulary.
    pub fn decode(&self, ids: &[TokenId]) -> String {
        String::from_utf8_lossy(&self.decode_bytes(ids)).into_owned()
    }

    /// [`Tokenizer::decode`] of what is left without special tokens.
    pub fn decode_without_special(&self, ids: &[TokenId]) -> String {
        let special: HashMap<TokenId, ()> = self.special_tokens().map(|(_, id)| (id, ())).collect();
        let ids: Vec<TokenId> = ids.iter().copied().filter(|id| !special.contains_key(id)).collect();
        self.decode(&ids)
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
/// All that is yielded, one after the other, is [`Tokenizer::decode`] of all ids; but where a
/// vocabulary falls back to bytes, a run of them that is not UTF-8 may have fewer or more U+FFFD.
#[derive(Debug)]
pub struct DecodeStream<'t> {
    tokenizer: &'t Tokenizer,
    /// The start of a character, at most 3 bytes.
    incomplete: Vec<u8>,
    /// For steps over tokens: the ids whose text was yielded last, and those that wait.
    window: Vec<TokenId>,
    n_yielded: usize,
}

impl<'t> DecodeStream<'t> {
    /// A stream at its start.
    pub fn new(tokenizer: &'t Tokenizer) -> Self {
        Self { tokenizer, incomplete: Vec::new(), window: Vec::new(), n_yielded: 0 }
    }

    /// The text that `id` completes, empty if it ends within a character.
    pub fn push(&mut self, id: TokenId) -> String {
        if let Decoder::Steps { .. } = self.tokenizer.decoder {
            self.window.push(id);
            return self.step(self.window.len() - self.n_yielded >= MAX_WAITING_IDS);
        }
        let mut bytes = std::mem::take(&mut self.incomplete);
        bytes.extend(self.tokenizer.decode_bytes(&[id]));
        let complete = complete_len(&bytes);
        self.incomplete = bytes.split_off(complete);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What is left at the end: U+FFFD if the last character is incomplete, else nothing.
    pub fn finish(mut self) -> String {
        self.step(true) + &String::from_utf8_lossy(&self.incomplete)
    }

    /// What the ids that wait add to the text of those before them, which decide about spaces.
    fn step(&mut self, is_final: bool) -> String {
        let before = self.tokenizer.decode(&self.window[..self.n_yielded]);
        let text = self.tokenizer.decode(&self.window);
        let n_same = before.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count();
        let new = &text[text.floor_char_boundary(n_same)..];
        if !is_final && (new.is_empty() || new.ends_with(REPLACEMENT)) {
            return String::new();
        }
        let new = new.to_string();
        // What is left must have text, or what follows would seem to be at the very start.
        if !self.tokenizer.decode(&self.window[self.n_yielded..]).is_empty() {
            self.window.drain(..self.n_yielded);
        }
        self.n_yielded = self.window.len();
        new
    }
}

/// Bytes before a character that further bytes may complete.
pub(crate) fn complete_len(bytes: &[u8]) -> usize {
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
