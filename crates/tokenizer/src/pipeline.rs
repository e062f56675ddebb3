//! From a text to the model: normalisation, added tokens, words.
//!
//! Byte-level BPE without any of it, the common case, does not come through here.

use std::borrow::Cow;

use crate::normalize::{self, normalize};
use crate::special::{Segment, SpecialTokens};
use crate::split::{self, split};
use crate::vocab::Model;
use crate::{HashMap, TokenId, Tokenizer};

/// Words whose ids are remembered at a time, and the bytes of the longest of them.
const CACHED_WORDS: usize = 1 << 14;
const CACHED_WORD_BYTES: usize = 64;

/// What happens to a text before the model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pipeline {
    pub(crate) normalizer: Vec<normalize::Step>,
    /// The added tokens that are looked for in the normalised text, normalised themselves.
    pub(crate) added: SpecialTokens,
    pub(crate) splits: Vec<split::Step>,
    /// Whether bytes that are not UTF-8 become U+FFFD: the model does not have them.
    pub(crate) is_lossy: bool,
}

impl Pipeline {
    /// Nothing happens.
    pub(crate) fn none() -> Self {
        let added = SpecialTokens::new(Vec::new()).expect("no token is no wrong one");
        Self { normalizer: Vec::new(), added, splits: Vec::new(), is_lossy: false }
    }

    pub(crate) fn is_none(&self) -> bool {
        self.normalizer.is_empty() && self.added.tokens().is_empty() && self.splits.is_empty() && !self.is_lossy
    }

    /// Calls `encode` with the parts of `text` that the model encodes, and `push` with added tokens.
    ///
    /// `is_first`: whether `text` is at the very start. Bytes that are not UTF-8 are parts as they are.
    pub(crate) fn run(&self, text: &[u8], is_first: bool, sink: &mut dyn Sink) {
        let text = self.normalize(text);
        let mut position = 0;
        for segment in self.added.segments(&text) {
            match segment {
                Segment::Special(id) => {
                    position = usize::MAX;
                    sink.push(id);
                }
                Segment::Text(part) => {
                    self.split(part, is_first && position == 0, sink);
                    position = usize::MAX;
                }
            }
        }
    }

    fn normalize<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        if self.normalizer.is_empty() && !self.is_lossy {
            return Cow::Borrowed(text);
        }
        match std::str::from_utf8(text) {
            Ok(text) => match normalize(&self.normalizer, text) {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            },
            Err(_) if self.is_lossy => {
                let text = String::from_utf8_lossy(text);
                Cow::Owned(normalize(&self.normalizer, &text).into_owned().into_bytes())
            }
            Err(_) => {
                let mut normalized = Vec::with_capacity(text.len());
                for chunk in text.utf8_chunks() {
                    normalized.extend_from_slice(normalize(&self.normalizer, chunk.valid()).as_bytes());
                    normalized.extend_from_slice(chunk.invalid());
                }
                Cow::Owned(normalized)
            }
        }
    }

    fn split(&self, text: &[u8], is_first: bool, sink: &mut dyn Sink) {
        if self.splits.is_empty() {
            return sink.encode(text);
        }
        let mut position = 0;
        for chunk in text.utf8_chunks() {
            split(&self.splits, chunk.valid(), is_first && position == 0, &mut |word| sink.encode(word.as_bytes()));
            if !chunk.invalid().is_empty() {
                sink.encode(chunk.invalid());
            }
            position += chunk.valid().len() + chunk.invalid().len();
        }
    }
}

impl Tokenizer {
    /// Whether there is more to encoding than a model over bytes.
    pub(crate) fn is_staged(&self) -> bool {
        let is_over_text = matches!(self.model, Model::CharBpe(_) | Model::Unigram(_) | Model::WordPiece(_));
        is_over_text || !self.pipeline.is_none()
    }

    /// `text` has no added tokens of the first kind; `is_first`: whether none came before.
    pub(crate) fn encode_in_stages(&self, text: &[u8], is_first: bool, ids: &mut Vec<TokenId>) {
        match &self.model {
            Model::Bpe(_) | Model::Characters(_) | Model::Bytes => {
                self.pipeline.run(text, is_first, &mut ByteEncoder { tokenizer: self, ids });
            }
            model => self.pipeline.run(text, is_first, &mut WordEncoder { model, cache: HashMap::default(), ids }),
        }
    }
}

/// Takes what a text is cut into.
pub(crate) trait Sink {
    /// A part of the text for the model, not empty.
    fn encode(&mut self, text: &[u8]);
    /// An added token.
    fn push(&mut self, id: TokenId);
}

/// Encodes with a model over bytes.
struct ByteEncoder<'t> {
    tokenizer: &'t Tokenizer,
    ids: &'t mut Vec<TokenId>,
}

impl Sink for ByteEncoder<'_> {
    fn encode(&mut self, text: &[u8]) {
        self.tokenizer.encode_with_model(text, self.ids);
    }

    fn push(&mut self, id: TokenId) {
        self.ids.push(id);
    }
}

/// Encodes with a model over characters and remembers what became of words.
struct WordEncoder<'t> {
    model: &'t Model,
    cache: HashMap<Box<str>, Box<[TokenId]>>,
    ids: &'t mut Vec<TokenId>,
}

impl WordEncoder<'_> {
    fn encode_word(&mut self, word: &str) {
        if word.len() > CACHED_WORD_BYTES {
            return self.model.encode_word(word, self.ids);
        }
        if let Some(ids) = self.cache.get(word) {
            return self.ids.extend_from_slice(ids);
        }
        let start = self.ids.len();
        self.model.encode_word(word, self.ids);
        if self.cache.len() == CACHED_WORDS {
            self.cache.clear();
        }
        self.cache.insert(word.into(), self.ids[start..].into());
    }
}

impl Sink for WordEncoder<'_> {
    fn encode(&mut self, text: &[u8]) {
        // What is no character becomes one, U+FFFD.
        let text = String::from_utf8_lossy(text);
        let mut rest = &*text;
        while !rest.is_empty() {
            let (word, behind) = rest.split_at(self.model.word_len(rest));
            self.encode_word(word);
            rest = behind;
        }
    }

    fn push(&mut self, id: TokenId) {
        self.ids.push(id);
    }
}

impl Model {
    /// Bytes of the part at the start of `text` that is encoded on its own.
    fn word_len(&self, text: &str) -> usize {
        match self {
            Self::CharBpe(bpe) => bpe.part_len(text),
            _ => text.len(),
        }
    }

    /// Appends the ids of a word; of no other models than those over characters.
    fn encode_word(&self, word: &str, ids: &mut Vec<TokenId>) {
        match self {
            Self::CharBpe(bpe) => bpe.encode(word, ids),
            Self::Unigram(unigram) => unigram.encode(word, ids),
            Self::WordPiece(wordpiece) => wordpiece.encode(word, ids),
            Self::Bpe(_) | Self::Characters(_) | Self::Bytes => unreachable!("models over bytes"),
        }
    }
}
