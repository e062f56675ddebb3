//! The vocabulary: which ids there are, the bytes of each, and the special tokens among them.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;

use crate::char_bpe::CharBpe;
use crate::decode::Decoder;
use crate::encode::{Bpe, Characters};
use crate::files::SentencePieceModel;
use crate::pipeline::Pipeline;
use crate::postprocess;
use crate::pretokenize::Pattern;
use crate::special::{self, AddedToken, Segment, SpecialTokens};
use crate::unigram::Unigram;
use crate::wordpiece::WordPiece;
use crate::{Error, HashMap, alphabet};

/// The number of a token, from 0.
pub type TokenId = u32;

/// The token that ends a document, if a vocabulary has it.
const END_OF_TEXT: &str = "<|endoftext|>";

/// How text becomes tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Byte-level BPE.
    Bpe,
    /// One token per character.
    Characters,
    /// One token per byte; the id is the byte.
    Bytes,
    /// BPE over characters, as SentencePiece has it.
    CharBpe,
    /// SentencePiece's unigram language model.
    Unigram,
    /// WordPiece, as BERT has it.
    WordPiece,
}

/// A vocabulary with all that is needed to encode and decode.
///
/// Ids start from 0 and may have gaps. Nothing in it changes after construction, so it is shared between
/// threads by reference.
#[derive(Clone, PartialEq)]
pub struct Tokenizer {
    /// Indexed by id; an added token's bytes are its text, an id without a token has none.
    pub(crate) tokens: Vec<Box<[u8]>>,
    /// The added tokens that are looked for in the text as it is given.
    pub(crate) specials: SpecialTokens,
    pub(crate) pipeline: Pipeline,
    pub(crate) model: Model,
    pub(crate) decoder: Decoder,
    /// What is put around the ids of a text.
    pub(crate) post_processor: Option<postprocess::Step>,
    /// The file that it was read from, if that is SentencePiece's.
    pub(crate) sentencepiece: Option<Box<SentencePieceModel>>,
}

#[derive(Clone, PartialEq)]
pub(crate) enum Model {
    Bpe(Box<Bpe>),
    Characters(Characters),
    Bytes,
    CharBpe(Box<CharBpe>),
    Unigram(Box<Unigram>),
    WordPiece(Box<WordPiece>),
}

impl Tokenizer {
    /// The vocabulary of the 256 bytes; the id of a byte is its value.
    pub fn bytes() -> Self {
        Self::bytes_with_specials(&[]).expect("no special token is no wrong one")
    }

    /// The 256 bytes, then the special tokens from id 256.
    ///
    /// # Errors
    /// If a special token is empty, is given twice, or is how a single byte is written.
    pub fn bytes_with_specials(special_tokens: &[String]) -> Result<Self, Error> {
        let mut tokens: Vec<Box<[u8]>> = (0..=255).map(|byte| Box::from([byte])).collect();
        check_no_byte(special_tokens)?;
        let specials = append_specials(&mut tokens, special_tokens)?;
        Ok(Self::of_model(tokens, specials, Model::Bytes))
    }

    /// The distinct characters of all documents in code-point order, then the special tokens.
    ///
    /// Without special tokens this is the vocabulary of nanoGPT's character-level example. The
    /// special tokens are cut out of the documents before characters are collected.
    ///
    /// # Errors
    /// If a special token is empty or given twice.
    pub fn characters<'a>(
        documents: impl IntoIterator<Item = &'a str>,
        special_tokens: &[String],
    ) -> Result<Self, Error> {
        let cutter = cutter(special_tokens)?;
        let mut distinct = BTreeSet::new();
        for document in documents {
            for segment in cutter.segments(document.as_bytes()) {
                if let Segment::Text(text) = segment {
                    // A special token is UTF-8, so what lies between two of them is, too.
                    let text = std::str::from_utf8(text).expect("text cut at characters");
                    distinct.extend(text.chars());
                }
            }
        }
        let mut tokens: Vec<Box<[u8]>> = distinct.iter().map(|c| c.to_string().into_bytes().into()).collect();
        let model = Model::Characters(Characters::new(distinct.into_iter().zip(0..)));
        let specials = append_specials(&mut tokens, special_tokens)?;
        Ok(Self::of_model(tokens, specials, model))
    }

    /// A byte-level BPE vocabulary.
    ///
    /// # Errors
    /// If the file format could not tell a special token from another token.
    pub(crate) fn bpe(tokens: Vec<Box<[u8]>>, specials: SpecialTokens, bpe: Bpe) -> Result<Self, Error> {
        // Files key tokens by their text in the printable alphabet, special tokens by their own
        // text: the special token `Ġthe` and the learned token ` the` would be the same key.
        let mut written: HashMap<Box<[u8]>, &str> = HashMap::default();
        for (token, _) in specials.iter() {
            if let Some(bytes) = alphabet::read(token).filter(|b| **b != *token.as_bytes()) {
                written.insert(bytes, token);
            }
        }
        if let Some(token) = tokens.iter().find_map(|bytes| written.get(bytes)) {
            return Err(Error::SpecialToken {
                token: token.to_string(),
                reason: "is how another token is written in tokenizer.json".to_string(),
            });
        }
        Ok(Self::of_model(tokens, specials, Model::Bpe(Box::new(bpe))))
    }

    /// A vocabulary over bytes with nothing before and behind the model.
    pub(crate) fn of_model(tokens: Vec<Box<[u8]>>, specials: SpecialTokens, model: Model) -> Self {
        let (pipeline, decoder) = (Pipeline::none(), Decoder::Bytes);
        Self { tokens, specials, pipeline, model, decoder, post_processor: None, sentencepiece: None }
    }

    /// Which kind of vocabulary this is.
    pub fn kind(&self) -> Kind {
        match self.model {
            Model::Bpe(_) => Kind::Bpe,
            Model::Characters(_) => Kind::Characters,
            Model::Bytes => Kind::Bytes,
            Model::CharBpe(_) => Kind::CharBpe,
            Model::Unigram(_) => Kind::Unigram,
            Model::WordPiece(_) => Kind::WordPiece,
        }
    }

    /// The highest id plus one, special tokens included; a model has that many logits.
    pub fn vocab_size(&self) -> usize {
        self.tokens.len()
    }

    /// The bytes that a token stands for; of an added token, its text. A space may be one that
    /// decoding leaves out (`▁the`) or puts in (`##ing` is no word of its own).
    pub fn token_bytes(&self, id: TokenId) -> Option<&[u8]> {
        self.tokens.get(usize::try_from(id).ok()?).map(|bytes| &**bytes).filter(|bytes| !bytes.is_empty())
    }

    /// The id of a special or another added token.
    pub fn special_token_id(&self, token: &str) -> Option<TokenId> {
        self.added().find(|added| added.content == token).map(|added| added.id)
    }

    /// The special tokens with their ids, lowest id first: what means something to the program around
    /// a model, not to a reader.
    pub fn special_tokens(&self) -> impl ExactSizeIterator<Item = (&str, TokenId)> {
        let special = self.added_sorted().into_iter().filter(|token| token.special);
        let listed: Vec<(&str, TokenId)> = special.map(|token| (token.content.as_str(), token.id)).collect();
        listed.into_iter()
    }

    /// All added tokens with their ids, lowest id first: the special ones, and text that is one token
    /// whatever the model says.
    pub fn added_tokens(&self) -> impl ExactSizeIterator<Item = (&str, TokenId)> {
        self.added_sorted().into_iter().map(|token| (token.content.as_str(), token.id))
    }

    fn added(&self) -> impl Iterator<Item = &AddedToken> {
        self.specials.tokens().iter().chain(self.pipeline.added.tokens())
    }

    pub(crate) fn added_sorted(&self) -> Vec<&AddedToken> {
        let mut added: Vec<&AddedToken> = self.added().collect();
        added.sort_by_key(|token| token.id);
        added
    }

    /// The id of `<|endoftext|>`, if it is a special token of this vocabulary.
    pub fn end_of_text(&self) -> Option<TokenId> {
        self.special_token_id(END_OF_TEXT)
    }

    /// How byte-level BPE cuts text into pre-tokens; of other kinds, none.
    pub fn pattern(&self) -> Option<&Pattern> {
        match &self.model {
            Model::Bpe(bpe) => Some(bpe.pattern()),
            _ => None,
        }
    }

    /// The learned merges, earliest first, as the bytes of both halves; none but for BPE.
    pub fn merges(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        let pairs = match &self.model {
            Model::Bpe(bpe) => bpe.merges(),
            Model::CharBpe(bpe) => bpe.pairs(),
            Model::Characters(_) | Model::Bytes | Model::Unigram(_) | Model::WordPiece(_) => &[],
        };
        let bytes = |id: TokenId| &*self.tokens[id as usize];
        pairs.iter().map(move |&[left, right]| (bytes(left), bytes(right)))
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("kind", &self.kind())
            .field("vocab_size", &self.vocab_size())
            .field("special_tokens", &self.special_tokens().collect::<Vec<_>>())
            .finish()
    }
}

/// Special tokens that only cut text; their ids mean nothing.
pub(crate) fn cutter(special_tokens: &[String]) -> Result<SpecialTokens, Error> {
    SpecialTokens::new(special_tokens.iter().cloned().zip(0..).collect())
}

/// # Errors
/// If a special token is empty, is given twice, or is how `tokenizer.json` writes a single byte
/// (`a`, or `Ġ` for a space), for that is a token already.
pub(crate) fn check_no_byte(special_tokens: &[String]) -> Result<(), Error> {
    special::check(special_tokens)?;
    let is_byte = |token: &str| alphabet::read(token).is_some_and(|bytes| bytes.len() == 1);
    match special_tokens.iter().find(|token| is_byte(token)) {
        Some(token) => Err(Error::SpecialToken {
            token: token.clone(),
            reason: "is how a single byte is written, which is a token already".to_string(),
        }),
        None => Ok(()),
    }
}

fn append_specials(tokens: &mut Vec<Box<[u8]>>, special_tokens: &[String]) -> Result<SpecialTokens, Error> {
    let first = tokens.len();
    tokens.extend(special_tokens.iter().map(|token| token.as_bytes().into()));
    SpecialTokens::new(special_tokens.iter().cloned().zip(first as TokenId..).collect())
}
