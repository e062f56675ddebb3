//! Special tokens in text that may not be trusted.

use crate::special::{AddedToken, SpecialTokens};
use crate::{Error, TokenId, Tokenizer};

/// Some of the special tokens of a vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialSet<'a> {
    /// None of them.
    None,
    /// All of them.
    All,
    /// These.
    These(&'a [&'a str]),
}

/// What the special tokens in a text are, as in tiktoken: those allowed become their ids, those disallowed
/// are an error, and all others are text like any other.
///
/// By default all are disallowed: what a stranger writes can neither end a document nor speak for the
/// system, and whoever tries is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Specials<'a> {
    /// Those that become their ids.
    pub allowed: SpecialSet<'a>,
    /// Those that are an error, unless they are allowed.
    pub disallowed: SpecialSet<'a>,
}

impl Default for Specials<'_> {
    fn default() -> Self {
        Self { allowed: SpecialSet::None, disallowed: SpecialSet::All }
    }
}

impl SpecialSet<'_> {
    fn has(&self, token: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::These(tokens) => tokens.contains(&token),
        }
    }
}

impl Tokenizer {
    /// The ids of `text`, in which special tokens are what `specials` says.
    ///
    /// Added tokens that are not special are tokens wherever they stand.
    ///
    /// # Errors
    /// [`Error::SpecialInText`] with the first special token that is disallowed, and
    /// [`Error::SpecialToken`] if one named in `specials` is none of the vocabulary.
    pub fn encode_with(&self, text: &[u8], specials: Specials<'_>) -> Result<Vec<TokenId>, Error> {
        for set in [specials.allowed, specials.disallowed] {
            if let SpecialSet::These(tokens) = set {
                self.check_known(tokens)?;
            }
        }
        // What is looked for in normalised text cannot be text like any other.
        let is_in_pipeline = |token: &AddedToken| self.pipeline.added.tokens().iter().any(|other| other.id == token.id);
        let is_refused = |token: &AddedToken| {
            !specials.allowed.has(&token.content) && (specials.disallowed.has(&token.content) || is_in_pipeline(token))
        };
        let added = || self.specials.tokens().iter().chain(self.pipeline.added.tokens());
        let refused: Vec<AddedToken> = added().filter(|token| token.special && is_refused(token)).map(bare).collect();
        let refused = SpecialTokens::of_added(refused)?;
        if let Some(found) = refused.find(text, 0, text.len()) {
            let token = added().find(|token| token.id == found.id).map(|token| token.content.clone());
            return Err(Error::SpecialInText { token: token.unwrap_or_default(), offset: found.start as u64 });
        }
        let kept = self.specials.tokens().iter().filter(|token| !token.special || specials.allowed.has(&token.content));
        let kept = SpecialTokens::of_added(kept.cloned().collect())?;
        let mut ids = Vec::new();
        self.encode_segments(kept.segments(text), text.len(), &mut ids);
        Ok(ids)
    }

    fn check_known(&self, tokens: &[&str]) -> Result<(), Error> {
        match tokens.iter().find(|token| !self.special_tokens().any(|(known, _)| known == **token)) {
            Some(token) => {
                Err(Error::SpecialToken { token: token.to_string(), reason: "is none of this vocabulary".to_string() })
            }
            None => Ok(()),
        }
    }
}

/// The token wherever it stands, without what it takes along.
fn bare(token: &AddedToken) -> AddedToken {
    AddedToken { single_word: false, lstrip: false, rstrip: false, ..token.clone() }
}
