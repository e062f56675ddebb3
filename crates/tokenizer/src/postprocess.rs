//! What is put around the ids of a text: the tokens that begin and end it for a model.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{TokenId, Tokenizer};

/// One step of a `tokenizer.json`'s post-processor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub(crate) enum Step {
    /// Moves offsets only.
    ByteLevel {
        add_prefix_space: bool,
        trim_offsets: bool,
        #[serde(default = "yes")]
        use_regex: bool,
    },
    TemplateProcessing {
        single: Vec<Piece>,
        pair: Vec<Piece>,
        special_tokens: BTreeMap<String, TemplateToken>,
    },
    BertProcessing {
        sep: (String, TokenId),
        cls: (String, TokenId),
    },
    RobertaProcessing {
        sep: (String, TokenId),
        cls: (String, TokenId),
        trim_offsets: bool,
        add_prefix_space: bool,
    },
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Piece {
    /// One of the texts.
    Sequence { id: Sequence, type_id: u32 },
    /// A token, by its name in the template.
    SpecialToken { id: String, type_id: u32 },
}

/// The first or the second text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Sequence {
    A,
    B,
}

/// What a name in a template stands for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TemplateToken {
    pub(crate) id: String,
    pub(crate) ids: Vec<TokenId>,
    pub(crate) tokens: Vec<String>,
}

fn yes() -> bool {
    true
}

impl Tokenizer {
    /// The ids of one text with the tokens around it that the vocabulary's file asks for: `<s>` before
    /// it, `[CLS]` and `[SEP]` around it, `</s>` behind it, or nothing.
    pub fn post_process(&self, ids: &[TokenId]) -> Vec<TokenId> {
        self.post_process_all(&[ids])
    }

    /// The ids of two texts in a row, with tokens around and between them.
    pub fn post_process_pair(&self, first: &[TokenId], second: &[TokenId]) -> Vec<TokenId> {
        self.post_process_all(&[first, second])
    }

    fn post_process_all(&self, texts: &[&[TokenId]]) -> Vec<TokenId> {
        self.post_processor.as_ref().and_then(|step| step.apply(texts)).unwrap_or_else(|| texts.concat())
    }
}

impl Step {
    /// `texts`: one or two. `None` if the step adds no tokens.
    fn apply(&self, texts: &[&[TokenId]]) -> Option<Vec<TokenId>> {
        let frame = |cls: TokenId, sep: TokenId, between: &[TokenId]| {
            let texts = texts.join(&[&[sep], between].concat()[..]);
            [&[cls], &texts[..], &[sep]].concat()
        };
        match self {
            Self::ByteLevel { .. } => None,
            Self::BertProcessing { sep, cls } => Some(frame(cls.1, sep.1, &[])),
            Self::RobertaProcessing { sep, cls, .. } => Some(frame(cls.1, sep.1, &[sep.1])),
            Self::TemplateProcessing { single, pair, special_tokens } => {
                let template = if texts.len() == 1 { single } else { pair };
                let ids = template.iter().map(|piece| match piece {
                    Piece::Sequence { id: Sequence::A, .. } => texts[0],
                    Piece::Sequence { id: Sequence::B, .. } => texts.get(1).copied().unwrap_or_default(),
                    Piece::SpecialToken { id, .. } => special_tokens.get(id).map_or(&[][..], |token| &token.ids),
                });
                Some(ids.flatten().copied().collect())
            }
        }
    }

    /// The ids that the step may add.
    pub(crate) fn ids(&self) -> Vec<TokenId> {
        match self {
            Self::ByteLevel { .. } => Vec::new(),
            Self::BertProcessing { sep, cls } | Self::RobertaProcessing { sep, cls, .. } => vec![sep.1, cls.1],
            Self::TemplateProcessing { special_tokens, .. } => {
                special_tokens.values().flat_map(|token| &token.ids).copied().collect()
            }
        }
    }

    /// Names in the templates that stand for nothing.
    pub(crate) fn unknown_names(&self) -> Vec<&str> {
        let Self::TemplateProcessing { single, pair, special_tokens } = self else { return Vec::new() };
        let names = single.iter().chain(pair).filter_map(|piece| match piece {
            Piece::SpecialToken { id, .. } => Some(id.as_str()),
            Piece::Sequence { .. } => None,
        });
        names.filter(|name| !special_tokens.contains_key(*name)).collect()
    }
}
