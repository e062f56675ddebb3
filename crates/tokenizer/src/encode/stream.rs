//! Encoding in constant memory.
//!
//! A piece is encoded once enough of the text behind it is known that nothing further can change
//! it: no special token can start within it, and its end is far enough from the unknown.

use std::io::{BufRead, ErrorKind};

use super::{Encoder, characters};
use crate::special::{AddedToken, Match};
use crate::vocab::Model;
use crate::{Error, TokenId, Tokenizer};

/// Read at least this much before encoding goes on.
const READ_BYTES: usize = 1 << 16;
/// Hand out ids once there are so many.
const READY_IDS: usize = 1 << 12;

/// The ids of a text that is being read; see [`Tokenizer::encode_stream`].
pub struct TokenStream<'t, R> {
    encoder: Encoder<'t>,
    reader: R,
    buffer: Vec<u8>,
    /// Where in `buffer` the text that is not yet encoded starts.
    start: usize,
    /// Bytes of the text that are no longer in `buffer`.
    dropped: u64,
    /// No special token starts in `buffer[start..searched]` ...
    searched: usize,
    /// ... and this one starts there.
    special: Option<Match>,
    at_segment_start: bool,
    end_of_input: bool,
    ids: Vec<TokenId>,
    n_handed_out: usize,
    /// What went wrong behind `ids`.
    error: Option<Error>,
    done: bool,
}

impl<'t, R: BufRead> TokenStream<'t, R> {
    pub(super) fn new(tokenizer: &'t Tokenizer, reader: R) -> Self {
        Self {
            encoder: Encoder::new(tokenizer),
            reader,
            buffer: Vec::new(),
            start: 0,
            dropped: 0,
            searched: 0,
            special: None,
            at_segment_start: true,
            end_of_input: false,
            ids: Vec::new(),
            n_handed_out: 0,
            error: None,
            done: false,
        }
    }

    /// Fills `ids`; leaves them empty at the end of the text.
    fn advance(&mut self) -> Result<(), Error> {
        self.ids.clear();
        self.n_handed_out = 0;
        let sees_all = match &self.encoder.tokenizer.model {
            Model::Bpe(bpe) => bpe.pattern().is_custom(),
            _ => false,
        };
        let takes_spaces = self.encoder.tokenizer.specials.tokens().iter().any(AddedToken::has_context);
        if sees_all || takes_spaces || self.encoder.tokenizer.is_staged() {
            return self.advance_to_end();
        }
        loop {
            let (limit, is_final) = self.find_limit();
            self.encode_until(limit, is_final)?;
            if self.ids.len() >= READY_IDS {
                return Ok(());
            }
            match self.special.take_if(|special| special.start == self.start) {
                Some(special) => {
                    self.ids.push(special.id);
                    self.start = special.end;
                    self.searched = special.end;
                    self.at_segment_start = true;
                }
                None if !self.ids.is_empty() || self.end_of_input => return Ok(()),
                None => self.read()?,
            }
        }
    }

    /// Normalisation, models over text, patterns that are not known and tokens that take spaces along see all of it.
    fn advance_to_end(&mut self) -> Result<(), Error> {
        while !self.end_of_input {
            self.read()?;
        }
        self.ids = self.encoder.tokenizer.encode(&std::mem::take(&mut self.buffer));
        Ok(())
    }

    /// Up to where `buffer` is known to be free of special tokens, and whether the text between two
    /// special tokens ends there.
    fn find_limit(&mut self) -> (usize, bool) {
        let specials = &self.encoder.tokenizer.specials;
        // A special token that starts from here on may not be in the buffer as a whole.
        let decidable = match self.end_of_input {
            true => self.buffer.len(),
            false => self.buffer.len().saturating_sub(specials.max_len().saturating_sub(1)),
        };
        if self.special.is_none() && self.searched < decidable {
            self.special = specials.find(&self.buffer, self.searched, decidable);
            self.searched = self.special.map_or(decidable, |special| special.start);
        }
        (self.searched, self.special.is_some() || self.end_of_input)
    }

    fn encode_until(&mut self, mut limit: usize, is_final: bool) -> Result<(), Error> {
        if self.at_segment_start && self.start < limit {
            self.at_segment_start = false;
            limit += self.add_prefix_space();
        }
        if let (Model::Bpe(bpe), true) = (&self.encoder.tokenizer.model, self.start < limit) {
            let text = &self.buffer[self.start..limit];
            let end = if is_final { Some(text.len()) } else { bpe.pattern().last_safe_cut(text) };
            let end = end.unwrap_or(0);
            self.encoder.encode(&text[..end], &mut self.ids);
            self.start += end;
        }
        while self.start < limit && self.ids.len() < READY_IDS {
            let text = &self.buffer[self.start..limit];
            let len = self.encoder.piece_len(text);
            if !is_final && !self.encoder.is_decided(text, len) {
                break;
            }
            if !self.encoder.encode_piece(&text[..len], &mut self.ids) {
                return Err(characters::unknown(text, self.dropped + self.start as u64));
            }
            self.start += len;
        }
        Ok(())
    }

    /// Puts a space before the text if the vocabulary wants one; says how many bytes that were.
    fn add_prefix_space(&mut self) -> usize {
        match &self.encoder.tokenizer.model {
            Model::Bpe(bpe) if bpe.add_prefix_space && self.buffer[self.start] != b' ' => {}
            _ => return 0,
        }
        self.buffer.insert(self.start, b' ');
        self.searched += 1;
        if let Some(special) = &mut self.special {
            special.start += 1;
            special.end += 1;
        }
        1
    }

    /// Reads as much again as is waiting, so that a long piece is looked at a few times only.
    fn read(&mut self) -> Result<(), Error> {
        self.buffer.drain(..self.start);
        self.dropped += self.start as u64;
        self.searched -= self.start;
        self.start = 0;
        let wanted = self.buffer.len() + self.buffer.len().max(READ_BYTES);
        while self.buffer.len() < wanted {
            let text = match self.reader.fill_buf() {
                Ok(text) => text,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(source) => return Err(Error::Stream { source }),
            };
            if text.is_empty() {
                self.end_of_input = true;
                break;
            }
            let n = text.len().min(wanted - self.buffer.len());
            self.buffer.extend_from_slice(&text[..n]);
            self.reader.consume(n);
        }
        Ok(())
    }
}

impl<R: BufRead> Iterator for TokenStream<'_, R> {
    type Item = Result<TokenId, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.n_handed_out == self.ids.len() && !self.done {
            if let Err(error) = self.advance() {
                self.error = Some(error);
            }
            self.done = self.error.is_some() || self.ids.is_empty();
        }
        match self.ids.get(self.n_handed_out) {
            Some(&id) => {
                self.n_handed_out += 1;
                Some(Ok(id))
            }
            None => self.error.take().map(Err),
        }
    }
}
