//! Text to ids.

mod bpe;
mod table;
mod lines;
#[cfg(target_arch = "x86_64")]
mod kernel;
mod ring;
mod cache;
mod whole;
mod pairs;
mod derivation;
mod prefixes;
mod merge;
#[cfg(target_arch = "x86_64")]
mod packed;
mod characters;
mod batch;
mod parallel;
mod specials;
mod offsets;
mod stream;
#[cfg(test)]
mod tests;

pub use batch::FlatIds;
pub(crate) use bpe::Bpe;
pub(crate) use characters::Characters;
pub use specials::{SpecialSet, Specials};
pub use stream::TokenStream;

use std::borrow::Cow;
use std::fs::File;
use std::io::BufRead;
use std::path::Path;

use crate::pretokenize::first_char;
use crate::special::Segment;
use crate::vocab::Model;
use crate::{Error, TokenId, Tokenizer};

/// What room is made for tokens by: there are seldom more of them.
const BYTES_PER_TOKEN: usize = 4;
/// The same where what is not used is given back.
const MIN_BYTES_PER_TOKEN: usize = 2;

impl Tokenizer {
    /// The ids of `text`, special tokens in it recognised (leftmost first, and there the longest).
    ///
    /// Any bytes can be encoded by a BPE or byte vocabulary, and decode to themselves. A character
    /// vocabulary leaves out what it does not have; [`Tokenizer::try_encode`] refuses it.
    pub fn encode(&self, text: &[u8]) -> Vec<TokenId> {
        let mut ids = table::large_vec(text.len() / BYTES_PER_TOKEN);
        self.encode_segments(self.specials.segments(text), text.len(), &mut ids);
        ids
    }

    /// The ids of `text`, in which special tokens are text like any other.
    pub fn encode_ordinary(&self, text: &[u8]) -> Vec<TokenId> {
        let mut ids = table::large_vec(text.len() / BYTES_PER_TOKEN);
        if !text.is_empty() {
            self.encode_segment(text, true, &mut ids);
        }
        ids
    }

    /// [`Tokenizer::encode`] that leaves nothing out.
    ///
    /// # Errors
    /// [`Error::UnknownCharacter`], by a character vocabulary only; [`Error::PatternGaveUp`], by a pattern
    /// that is not known only (what it gives up on is one pre-token for `encode`).
    pub fn try_encode(&self, text: &[u8]) -> Result<Vec<TokenId>, Error> {
        for segment in self.specials.segments(text) {
            let Segment::Text(segment) = segment else { continue };
            match &self.model {
                Model::Characters(characters) => {
                    let before = segment.as_ptr().addr() - text.as_ptr().addr();
                    characters.check(segment, before as u64)?;
                }
                Model::Bpe(bpe) if bpe.pattern().is_custom() => {
                    bpe.pattern().pretokens(segment)?;
                }
                _ => {}
            }
        }
        Ok(self.encode(text))
    }

    /// The ids of all that `reader` yields, equal to [`Tokenizer::encode`] of the whole.
    ///
    /// Memory is a few hundred kilobytes plus a few times the longest pre-token, whatever the
    /// length of the text. The iterator yields an error at most once, as its last item: if
    /// `reader` fails, or at a character that a character vocabulary does not have.
    pub fn encode_stream<R: BufRead>(&self, reader: R) -> TokenStream<'_, R> {
        TokenStream::new(self, reader)
    }

    /// The ids of a file, special tokens in it recognised: [`Tokenizer::encode`] of all of it, by all threads
    /// and without a copy in memory.
    ///
    /// What changes the file at the same time may be seen or not.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn encode_file(&self, path: &Path) -> Result<Vec<TokenId>, Error> {
        let fail = |source| Error::Read { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(fail)?;
        if file.metadata().map_err(fail)?.len() == 0 {
            return Ok(Vec::new());
        }
        #[allow(unsafe_code)]
        // SAFETY: the bytes are only read, once each or in ways that bear any value; another process that
        // shortens the file meanwhile would end this one, as the system does with all that map files.
        let text = unsafe { memmap2::Mmap::map(&file) }.map_err(fail)?;
        Ok(self.encode(&text))
    }

    /// `text` is not empty and has no special tokens that count; `is_first`: whether none came before.
    fn encode_segment(&self, text: &[u8], is_first: bool, ids: &mut Vec<TokenId>) {
        match self.is_staged() {
            true => self.encode_in_stages(text, is_first, ids),
            false => self.encode_with_model(text, ids),
        }
    }

    /// `text` as the model over bytes gets it.
    pub(crate) fn encode_with_model(&self, text: &[u8], ids: &mut Vec<TokenId>) {
        if text.len() >= parallel::from_bytes() {
            return self.encode_in_parallel(std::iter::once(Segment::Text(text)), ids);
        }
        ids.reserve(text.len() / BYTES_PER_TOKEN);
        Encoder::new(self).encode(&self.with_prefix_space(text), ids);
    }

    /// All parts of a text of `n_bytes`.
    fn encode_segments<'a>(&self, segments: impl Iterator<Item = Segment<'a>>, n_bytes: usize, ids: &mut Vec<TokenId>) {
        if n_bytes >= parallel::from_bytes() && !self.is_staged() {
            return self.encode_in_parallel(segments, ids);
        }
        let mut is_first = true;
        for segment in segments {
            match segment {
                Segment::Text(text) => self.encode_segment(text, is_first, ids),
                Segment::Special(id) => ids.push(id),
            }
            is_first = false;
        }
    }

    /// `text`, with a space before it if the vocabulary wants one.
    fn with_prefix_space<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        match self.wants_prefix_space(text) {
            true => Cow::Owned([b" ", text].concat()),
            false => Cow::Borrowed(text),
        }
    }

    fn wants_prefix_space(&self, text: &[u8]) -> bool {
        matches!(&self.model, Model::Bpe(bpe) if bpe.add_prefix_space && text.first().is_some_and(|&byte| byte != b' '))
    }
}

/// Encodes text without special tokens; holds what one thread wants to keep between pieces.
struct Encoder<'t> {
    tokenizer: &'t Tokenizer,
    /// Of a BPE vocabulary.
    scratch: Option<Box<bpe::Scratch>>,
}

impl Drop for Encoder<'_> {
    fn drop(&mut self) {
        if let (Model::Bpe(bpe), Some(scratch)) = (&self.tokenizer.model, self.scratch.take()) {
            bpe.give_scratch(scratch);
        }
    }
}

impl<'t> Encoder<'t> {
    fn new(tokenizer: &'t Tokenizer) -> Self {
        let scratch = match &tokenizer.model {
            Model::Bpe(bpe) => Some(bpe.take_scratch()),
            _ => None,
        };
        Self { tokenizer, scratch }
    }

    fn encode(&mut self, mut text: &[u8], ids: &mut Vec<TokenId>) {
        if let (Model::Bpe(bpe), Some(scratch)) = (&self.tokenizer.model, &mut self.scratch) {
            return bpe.encode(text, ids, scratch);
        }
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
            Model::Bpe(bpe) => bpe.pattern().pretoken_len(text),
            Model::Characters(_) => first_char(text).map_or(1, char::len_utf8),
            // Bytes are independent; the bound keeps a stream's memory small.
            Model::Bytes => text.len().min(1 << 12),
            Model::CharBpe(_) | Model::Unigram(_) | Model::WordPiece(_) => text.len(),
        }
    }

    /// Whether the piece of `len` bytes at the start of `text` stays the same whatever is appended.
    fn is_decided(&self, text: &[u8], len: usize) -> bool {
        match &self.tokenizer.model {
            Model::Bpe(bpe) => bpe.pattern().is_decided(text, len),
            // A character has at most four bytes.
            Model::Characters(_) | Model::Bytes => len + 4 <= text.len(),
            Model::CharBpe(_) | Model::Unigram(_) | Model::WordPiece(_) => false,
        }
    }

    /// Says whether the piece is in the vocabulary.
    #[inline]
    fn encode_piece(&mut self, piece: &[u8], ids: &mut Vec<TokenId>) -> bool {
        match &self.tokenizer.model {
            Model::Bpe(bpe) => {
                let scratch = self.scratch.get_or_insert_with(|| bpe.take_scratch());
                bpe.encode_pretoken(piece, ids, scratch);
            }
            Model::Bytes => ids.extend(piece.iter().map(|&byte| TokenId::from(byte))),
            Model::Characters(characters) => match characters.id(piece) {
                Some(id) => ids.push(id),
                None => return false,
            },
            Model::CharBpe(_) | Model::Unigram(_) | Model::WordPiece(_) => {
                unreachable!("models over text are encoded by the pipeline")
            }
        }
        true
    }
}
