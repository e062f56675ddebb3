//! What a vocabulary makes of a text, in numbers: for choosing between tokenizers.
//!
//! A text comes in parts of any size, and memory does not grow with it. Special tokens are ordinary text, as in
//! training. Byte-level BPE with a pattern that is known gives the ids of the whole text; the text of other kinds is
//! encoded half a megabyte at a time or more, cut at the end of a line, or of a word.

mod figures;
mod size;
mod spans;
#[cfg(test)]
mod tests;

pub use figures::{Measurement, UsedToken, premium};
pub use size::TextSize;
pub use spans::{Span, SpanPart};

use std::time::{Duration, Instant};

use crate::decode::complete_len;
use crate::vocab::Model;
use crate::{TokenId, Tokenizer};

/// Text that is encoded at a time, so that there is enough for all threads.
const PIECE_BYTES: usize = 4 << 20;
/// The same where one thread encodes, and tokens take many times the memory of the text meanwhile.
const STAGED_PIECE_BYTES: usize = 1 << 19;
/// Text without a place to cut is cut anywhere from so many pieces on.
const MAX_PIECES: usize = 4;

/// Counts what a tokenizer makes of a text that comes in parts.
pub struct Measure<'t> {
    tokenizer: &'t Tokenizer,
    /// Text that waits for what follows.
    waiting: Vec<u8>,
    n_bytes: u64,
    /// Indexed by id.
    counts: Vec<u64>,
    /// Characters that a character vocabulary left out.
    n_left_out: u64,
    first_change: Option<u64>,
    encoding: Duration,
    /// What is encoded at a time, and at most where there is no place to cut.
    piece_bytes: usize,
    max_piece_bytes: usize,
}

impl<'t> Measure<'t> {
    /// Nothing yet.
    pub fn new(tokenizer: &'t Tokenizer) -> Self {
        let piece_bytes = if tokenizer.is_staged() { STAGED_PIECE_BYTES } else { PIECE_BYTES };
        Self {
            tokenizer,
            waiting: Vec::new(),
            n_bytes: 0,
            counts: vec![0; tokenizer.vocab_size()],
            n_left_out: 0,
            first_change: None,
            encoding: Duration::ZERO,
            piece_bytes,
            max_piece_bytes: MAX_PIECES * piece_bytes,
        }
    }

    /// Goes on with `text`; `ends_document`: whether what follows is encoded on its own.
    pub fn add(&mut self, text: &[u8], ends_document: bool) {
        if ends_document && self.waiting.is_empty() && text.len() <= self.piece_bytes {
            return self.add_piece(text);
        }
        for chunk in text.chunks(self.piece_bytes) {
            self.waiting.extend_from_slice(chunk);
            if self.waiting.len() >= self.piece_bytes {
                self.add_start();
            }
        }
        if ends_document {
            let waiting = std::mem::take(&mut self.waiting);
            self.add_piece(&waiting);
        }
    }

    /// Takes what can be encoded on its own off the text that waits.
    fn add_start(&mut self) {
        let end = match place_to_cut(self.tokenizer, &self.waiting) {
            None if self.waiting.len() >= self.max_piece_bytes => complete_len(&self.waiting),
            end => end.unwrap_or(0),
        };
        let mut waiting = std::mem::take(&mut self.waiting);
        self.add_piece(&waiting[..end]);
        waiting.drain(..end);
        self.waiting = waiting;
    }

    fn add_piece(&mut self, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        let start = Instant::now();
        let ids = self.tokenizer.encode_ordinary(text);
        self.encoding += start.elapsed();
        for &id in &ids {
            self.counts[id as usize] += 1;
        }
        if let Model::Characters(_) = self.tokenizer.model {
            let n_characters: usize = text.utf8_chunks().map(size::characters).sum();
            self.n_left_out += n_characters.saturating_sub(ids.len()) as u64;
        }
        if self.first_change.is_none() {
            let decoded = self.tokenizer.decode_bytes(&ids);
            if decoded != text {
                let n_same = decoded.iter().zip(text).take_while(|(a, b)| a == b).count();
                self.first_change = Some(self.n_bytes + n_same as u64);
            }
        }
        self.n_bytes += text.len() as u64;
    }

    /// What was counted; text that waits is the end of a document.
    pub fn finish(mut self) -> Measurement {
        let waiting = std::mem::take(&mut self.waiting);
        self.add_piece(&waiting);
        let Self { tokenizer, n_bytes, counts, n_left_out, first_change, encoding, .. } = self;
        let (unknown, encode_seconds) = (tokenizer.unknown(), encoding.as_secs_f64());
        let n_unknown = n_left_out + unknown.map_or(0, |id| counts.get(id as usize).copied().unwrap_or(0));
        Measurement::new(
            tokenizer,
            counts,
            Measurement { n_bytes, n_unknown, first_change, encode_seconds, ..Measurement::default() },
        )
    }
}

/// Where the start of `text` may be encoded on its own.
fn place_to_cut(tokenizer: &Tokenizer, text: &[u8]) -> Option<usize> {
    match &tokenizer.model {
        Model::Bpe(bpe) if !tokenizer.is_staged() && !bpe.pattern().is_custom() => bpe.pattern().last_safe_cut(text),
        Model::Characters(_) | Model::Bytes if !tokenizer.is_staged() => Some(complete_len(text)),
        _ => memchr::memrchr(b'\n', text).map(|i| i + 1).or_else(|| memchr::memrchr(b' ', text)).filter(|&i| i > 0),
    }
}

impl Tokenizer {
    /// The token of text that the model does not have.
    fn unknown(&self) -> Option<TokenId> {
        match &self.model {
            Model::CharBpe(bpe) => bpe.options.unknown,
            Model::Unigram(unigram) => unigram.options().unknown,
            Model::WordPiece(wordpiece) => Some(wordpiece.unknown()),
            Model::Bpe(_) | Model::Characters(_) | Model::Bytes => None,
        }
    }

    /// The tokens that stand for a byte where the model does not have a character.
    fn fallback_ids(&self) -> Vec<TokenId> {
        match &self.model {
            Model::CharBpe(bpe) => bpe.options.byte_ids.iter().flat_map(|ids| ids.iter().flatten()).copied().collect(),
            Model::Unigram(unigram) => unigram.options().byte_ids.iter().flat_map(|ids| ids.iter()).copied().collect(),
            Model::WordPiece(_) | Model::Bpe(_) | Model::Characters(_) | Model::Bytes => Vec::new(),
        }
    }
}
