//! Text to ids.

mod bpe;
mod characters;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use bpe::Bpe;
pub(crate) use characters::Characters;
pub use stream::TokenStream;

use std::borrow::Cow;
use std::io::BufRead;

use rayon::prelude::*;

use crate::pretokenize::{first_char, parts, pretoken_len};
use crate::special::Segment;
use crate::vocab::Model;
use crate::{Error, TokenId, Tokenizer};

/// Texts from this many bytes on are encoded by all threads.
const PARALLEL_FROM_BYTES: usize = 1 << 18;
/// What one thread takes at a time.
const PART_BYTES: usize = 1 << 17;

impl Tokenizer {
    /// The ids of `text`, special tokens in it recognised (leftmost first, and there the longest).
    ///
    /// Any bytes can be encoded by a BPE or byte vocabulary, and decode to themselves. A character
    /// vocabulary leaves out what it does not have; [`Tokenizer::try_encode`] refuses it.
    pub fn encode(&self, text: &[u8]) -> Vec<TokenId> {
        let mut ids = Vec::new();
        for segment in self.specials.segments(text) {
            match segment {
                Segment::Text(text) => self.encode_segment(text, &mut ids),
                Segment::Special(id) => ids.push(id),
            }
        }
        ids
    }

    /// The ids of `text`, in which special tokens are text like any other.
    pub fn encode_ordinary(&self, text: &[u8]) -> Vec<TokenId> {
        let mut ids = Vec::new();
        if !text.is_empty() {
            self.encode_segment(text, &mut ids);
        }
        ids
    }

    /// [`Tokenizer::encode`] that leaves nothing out.
    ///
    /// # Errors
    /// [`Error::UnknownCharacter`], by a character vocabulary only.
    pub fn try_encode(&self, text: &[u8]) -> Result<Vec<TokenId>, Error> {
        if let Model::Characters(characters) = &self.model {
            for segment in self.specials.segments(text) {
                if let Segment::Text(segment) = segment {
                    let before = segment.as_ptr().addr() - text.as_ptr().addr();
                    characters.check(segment, before as u64)?;
                }
            }
        }
        Ok(self.encode(text))
    }

    /// [`Tokenizer::encode`] of each text, by all threads.
    pub fn encode_batch(&self, texts: &[&[u8]]) -> Vec<Vec<TokenId>> {
        texts.par_iter().map(|text| self.encode(text)).collect()
    }

    /// The ids of all that `reader` yields, equal to [`Tokenizer::encode`] of the whole.
    ///
    /// Memory is a few hundred kilobytes plus a few times the longest pre-token, whatever the
    /// length of the text. The iterator yields an error at most once, as its last item: if
    /// `reader` fails, or at a character that a character vocabulary does not have.
    pub fn encode_stream<R: BufRead>(&self, reader: R) -> TokenStream<'_, R> {
        TokenStream::new(self, reader)
    }

    /// `text` is not empty and has no special tokens that count.
    fn encode_segment(&self, text: &[u8], ids: &mut Vec<TokenId>) {
        let text = match &self.model {
            Model::Bpe(bpe) if bpe.add_prefix_space && text[0] != b' ' => Cow::Owned([b" ", text].concat()),
            _ => Cow::Borrowed(text),
        };
        if text.len() < PARALLEL_FROM_BYTES {
            return Encoder::new(self, text.len()).encode(&text, ids);
        }
        let encoded: Vec<Vec<TokenId>> = parts(&text, PART_BYTES)
            .par_iter()
            .map_init(
                || Encoder::new(self, text.len()),
                |encoder, part| {
                    let mut ids = Vec::new();
                    encoder.encode(part, &mut ids);
                    ids
                },
            )
            .collect();
        ids.reserve(encoded.iter().map(Vec::len).sum());
        for part in encoded {
            ids.extend(part);
        }
    }
}

/// Encodes text without special tokens; holds what one thread wants to keep between pieces.
struct Encoder<'t> {
    tokenizer: &'t Tokenizer,
    bpe: bpe::Scratch,
}

impl<'t> Encoder<'t> {
    /// `n_bytes`: how much text is expected; a short one is not worth a cache.
    fn new(tokenizer: &'t Tokenizer, n_bytes: usize) -> Self {
        Self { tokenizer, bpe: bpe::Scratch::new(n_bytes) }
    }

    fn encode(&mut self, mut text: &[u8], ids: &mut Vec<TokenId>) {
        while !text.is_empty() {
            let (piece, rest) = text.split_at(self.piece_len(text));
            self.encode_piece(piece, ids);
            text = rest;
        }
    }

    /// Bytes of the piece at the start of `text` that is encoded on its own.
    #[inline]
    fn piece_len(&self, text: &[u8]) -> usize {
        match &self.tokenizer.model {
            Model::Bpe(_) => pretoken_len(text),
            Model::Characters(_) => first_char(text).map_or(1, char::len_utf8),
            // Bytes are independent; the bound keeps a stream's memory small.
            Model::Bytes => text.len().min(1 << 12),
        }
    }

    /// Says whether the piece is in the vocabulary.
    #[inline]
    fn encode_piece(&mut self, piece: &[u8], ids: &mut Vec<TokenId>) -> bool {
        match &self.tokenizer.model {
            Model::Bpe(bpe) => bpe.encode(piece, ids, &mut self.bpe),
            Model::Bytes => ids.extend(piece.iter().map(|&byte| TokenId::from(byte))),
            Model::Characters(characters) => match characters.id(piece) {
                Some(id) => ids.push(id),
                None => return false,
            },
        }
        true
    }
}
