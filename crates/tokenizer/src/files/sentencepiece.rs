//! SentencePiece's `.model` files,
//! <https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto>.

use super::parse::{Problem, Result, invalid, unsupported};
use super::protobuf::{Field, Writer, fields};
use super::read_bpe::bytes_of;
use crate::char_bpe::{self, CharBpe, Scored};
use crate::decode::{self, Decoder, byte_of_token};
use crate::normalize::{Charsmap, META_SPACE, Needle, SentencePieceNormalizer, Step};
use crate::pipeline::Pipeline;
use crate::special::SpecialTokens;
use crate::unigram::{self, Piece, PieceKind, Unigram};
use crate::vocab::Model;
use crate::{TokenId, Tokenizer};

/// Bytes of a piece of BPE, all of whose halves are looked up.
const MAX_PIECE_BYTES: usize = 1024;

/// What a model file says, as far as encoding and decoding need it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SentencePieceModel {
    pieces: Vec<ModelPiece>,
    kind: ModelKind,
    byte_fallback: bool,
    treat_whitespace_as_suffix: bool,
    /// What an unknown token is decoded to.
    unknown_surface: String,
    charsmap: Option<Charsmap>,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    escape_whitespaces: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ModelKind {
    Unigram = 1,
    Bpe = 2,
}

#[derive(Clone, Debug, PartialEq)]
struct ModelPiece {
    text: String,
    score: f32,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// Reads the bytes of a `.model`.
pub(super) fn tokenizer(bytes: &[u8]) -> Result<Tokenizer> {
    SentencePieceModel::read(bytes)?.tokenizer()
}

impl SentencePieceModel {
    fn read(bytes: &[u8]) -> Result<Self> {
        let mut model = Self {
            pieces: Vec::new(),
            kind: ModelKind::Unigram,
            byte_fallback: false,
            treat_whitespace_as_suffix: false,
            unknown_surface: " ⁇ ".to_string(),
            charsmap: None,
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
        };
        for (number, field) in fields(bytes)? {
            match (number, field) {
                (1, Field::Bytes(piece)) => model.pieces.push(ModelPiece::read(piece, model.pieces.len())?),
                (2, Field::Bytes(trainer)) => model.read_trainer(trainer)?,
                (3, Field::Bytes(normalizer)) => model.read_normalizer(normalizer)?,
                (5, Field::Bytes(denormalizer)) => {
                    let has_charsmap = |&(number, field): &(u64, Field<'_>)| number == 2 && field != Field::Bytes(&[]);
                    if fields(denormalizer)?.iter().any(has_charsmap) {
                        return unsupported("denormalizer_spec", &"a table of replacements".into());
                    }
                }
                _ => {}
            }
        }
        match model.pieces.is_empty() {
            true => invalid("it has no pieces"),
            false => Ok(model),
        }
    }

    fn read_trainer(&mut self, message: &[u8]) -> Result<()> {
        for (number, field) in fields(message)? {
            match number {
                3 => {
                    self.kind = match field.number() {
                        Some(1) => ModelKind::Unigram,
                        Some(2) => ModelKind::Bpe,
                        Some(3) => return unsupported("trainer_spec.model_type", &"WORD".into()),
                        Some(4) => return unsupported("trainer_spec.model_type", &"CHAR".into()),
                        _ => return invalid("trainer_spec.model_type is none that there is"),
                    }
                }
                24 => self.treat_whitespace_as_suffix = field.flag().unwrap_or(false),
                35 => self.byte_fallback = field.flag().unwrap_or(false),
                44 => self.unknown_surface = text(field, "trainer_spec.unk_surface")?,
                _ => {}
            }
        }
        Ok(())
    }

    fn read_normalizer(&mut self, message: &[u8]) -> Result<()> {
        for (number, field) in fields(message)? {
            match number {
                2 => {
                    let table = field.bytes().filter(|table| !table.is_empty()).map(Charsmap::from_bytes);
                    self.charsmap = table.transpose().map_err(Problem::Invalid)?;
                }
                3 => self.add_dummy_prefix = field.flag().unwrap_or(true),
                4 => self.remove_extra_whitespaces = field.flag().unwrap_or(true),
                5 => self.escape_whitespaces = field.flag().unwrap_or(true),
                _ => {}
            }
        }
        Ok(())
    }

    /// The bytes of a `.model`.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut model = Writer::default();
        for piece in &self.pieces {
            let mut message = Writer::default();
            message.bytes(1, piece.text.as_bytes());
            message.float(2, piece.score);
            message.number(3, piece.kind as u64);
            model.bytes(1, &message.0);
        }
        let mut trainer = Writer::default();
        trainer.number(3, self.kind as u64);
        trainer.number(4, self.pieces.len() as u64);
        trainer.number(24, self.treat_whitespace_as_suffix.into());
        trainer.number(35, self.byte_fallback.into());
        let place = |kind: Kind| self.pieces.iter().position(|piece| piece.kind == kind);
        let named = |name: &str| self.pieces.iter().position(|piece| piece.text == name && piece.kind == Kind::Control);
        for (field, id) in [(40, place(Kind::Unknown)), (41, named("<s>")), (42, named("</s>")), (43, named("<pad>"))] {
            // No id is -1.
            trainer.number(field, id.map_or(u64::MAX, |id| id as u64));
        }
        trainer.bytes(44, self.unknown_surface.as_bytes());
        model.bytes(2, &trainer.0);
        let mut normalizer = Writer::default();
        if let Some(charsmap) = &self.charsmap {
            normalizer.bytes(2, &charsmap.to_bytes());
        }
        normalizer.number(3, self.add_dummy_prefix.into());
        normalizer.number(4, self.remove_extra_whitespaces.into());
        normalizer.number(5, self.escape_whitespaces.into());
        model.bytes(3, &normalizer.0);
        model.0
    }

    fn tokenizer(self) -> Result<Tokenizer> {
        let numbered = || (0 as TokenId..).zip(&self.pieces);
        let of_kind = |kind: Kind| numbered().filter(move |(_, piece)| piece.kind == kind);
        let mut seen = std::collections::HashSet::new();
        if let Some(piece) = self.pieces.iter().find(|piece| !seen.insert(&piece.text)) {
            return invalid(format!("the piece {:?} is there twice", piece.text));
        }
        let Some((unknown, _)) = of_kind(Kind::Unknown).next() else { return invalid("no piece is the unknown one") };
        let special = |kind: Kind| {
            SpecialTokens::new(of_kind(kind).map(|(id, piece)| (piece.text.clone(), id)).collect())
                .map_err(Problem::Other)
        };
        let user_defined = special(Kind::UserDefined)?;
        let byte_ids = self.byte_ids(of_kind(Kind::Byte))?;
        let model = match self.kind {
            ModelKind::Unigram => Model::Unigram(Box::new(self.unigram(unknown, byte_ids))),
            ModelKind::Bpe => Model::CharBpe(Box::new(self.bpe(unknown, byte_ids, &user_defined)?)),
        };
        let written = numbered().map(|(id, piece)| match id == unknown {
            true => self.unknown_surface.as_str().into(),
            false => piece.text.as_str().into(),
        });
        let normalizer = SentencePieceNormalizer {
            charsmap: self.charsmap.clone(),
            add_dummy_prefix: self.add_dummy_prefix,
            remove_extra_whitespaces: self.remove_extra_whitespaces,
            escape_whitespaces: self.escape_whitespaces,
            treat_whitespace_as_suffix: self.treat_whitespace_as_suffix,
            user_defined,
        };
        let decoder = Decoder::Steps {
            steps: vec![decode::Step::SentencePiece {
                add_dummy_prefix: self.add_dummy_prefix,
                remove_extra_whitespaces: self.remove_extra_whitespaces,
            }],
            written: written.collect(),
        };
        let bytes = |piece: &ModelPiece| match piece.kind {
            Kind::Unknown | Kind::Control => piece.text.as_bytes().into(),
            _ => bytes_of(&piece.text, piece.kind == Kind::Byte),
        };
        Ok(Tokenizer {
            tokens: self.pieces.iter().map(bytes).collect(),
            specials: special(Kind::Control)?,
            pipeline: Pipeline { normalizer: vec![Step::SentencePiece(Box::new(normalizer))], ..Pipeline::none() },
            model,
            decoder,
            post_processor: None,
            sentencepiece: Some(Box::new(self)),
        })
    }

    fn byte_ids<'a>(
        &self,
        pieces: impl Iterator<Item = (TokenId, &'a ModelPiece)>,
    ) -> Result<Option<Box<[TokenId; 256]>>> {
        let mut ids = [None; 256];
        for (id, piece) in pieces {
            match byte_of_token(&piece.text).filter(|_| self.byte_fallback) {
                Some(byte) => ids[usize::from(byte)] = Some(id),
                None => return invalid(format!("{:?} is no byte, or byte_fallback is off", piece.text)),
            }
        }
        match ids.iter().copied().collect::<Option<Vec<TokenId>>>() {
            _ if !self.byte_fallback => Ok(None),
            Some(ids) => Ok(ids.try_into().ok().map(Box::new)),
            None => invalid("byte_fallback is on, but not every byte has a piece"),
        }
    }

    fn unigram(&self, unknown: TokenId, byte_ids: Option<Box<[TokenId; 256]>>) -> Unigram {
        let piece = |piece: &ModelPiece| Piece {
            text: piece.text.as_str().into(),
            score: piece.score.into(),
            kind: match piece.kind {
                Kind::Normal => PieceKind::Normal,
                Kind::UserDefined => PieceKind::UserDefined,
                Kind::Unknown | Kind::Control | Kind::Unused | Kind::Byte => PieceKind::Reserved,
            },
        };
        let options = unigram::Options { unknown: Some(unknown), byte_ids, rounds_to_f32: true };
        Unigram::new(self.pieces.iter().map(piece).collect(), options)
    }

    fn bpe(
        &self,
        unknown: TokenId,
        byte_ids: Option<Box<[TokenId; 256]>>,
        user_defined: &SpecialTokens,
    ) -> Result<CharBpe> {
        if let Some(piece) = self.pieces.iter().find(|piece| piece.kind == Kind::Unused) {
            return unsupported("pieces (of type UNUSED, of a BPE model)", &piece.text.as_str().into());
        }
        if let Some(piece) = self.pieces.iter().find(|piece| piece.text.len() > MAX_PIECE_BYTES) {
            return invalid(format!("a piece has {} bytes, more than {MAX_PIECE_BYTES}", piece.text.len()));
        }
        let scored = |piece: &'_ ModelPiece| -> bool { matches!(piece.kind, Kind::Normal | Kind::UserDefined) };
        let tokens: Vec<Scored<'_>> = self
            .pieces
            .iter()
            .map(|piece| Scored { text: scored(piece).then_some(&*piece.text), score: piece.score })
            .collect();
        let options = char_bpe::Options {
            unknown: Some(unknown),
            fuse_unknown: true,
            byte_ids: byte_ids.map(|ids| Box::new(ids.map(Some))),
            whole: None,
            user_defined: Some(user_defined.clone()).filter(|tokens| !tokens.tokens().is_empty()),
        };
        Ok(CharBpe::of_scores(&tokens, options))
    }

    /// The same model with the steps of a `tokenizer.json` around it.
    ///
    /// They do what SentencePiece does, but for two things: the table of replacements is applied to
    /// graphemes, and text behind a symbol of the user starts with a space of its own.
    pub(super) fn to_hugging_face(&self, tokenizer: &Tokenizer) -> Tokenizer {
        let space = META_SPACE.to_string();
        let replace = |pattern: Needle, content: &str| Step::Replace { pattern, content: content.to_string() };
        let mut normalizer = Vec::new();
        if let Some(charsmap) = &self.charsmap {
            normalizer.push(Step::Precompiled { precompiled_charsmap: charsmap.clone() });
        }
        if self.remove_extra_whitespaces {
            // Other white space than spaces stays, so this is not `Strip`.
            for (pattern, content) in [(r"\A +| +\z", ""), (" {2,}", " ")] {
                let regex = pattern.to_string().try_into().expect("a regular expression");
                normalizer.push(replace(Needle::Regex(regex), content));
            }
        }
        if self.add_dummy_prefix && !self.treat_whitespace_as_suffix {
            normalizer.push(Step::Prepend { prepend: space.clone() });
        }
        normalizer.push(replace(Needle::String(" ".to_string()), &space));
        let mut steps = vec![decode::Step::Replace { pattern: Needle::String(space), content: " ".to_string() }];
        steps.extend(self.byte_fallback.then_some(decode::Step::ByteFallback));
        steps.push(decode::Step::Fuse);
        if self.add_dummy_prefix {
            steps.push(decode::Step::Strip { content: ' ', start: 1, stop: 0 });
        }
        let mut special = tokenizer.specials.tokens().to_vec();
        special.extend(
            (0..)
                .zip(&self.pieces)
                .filter(|(_, piece)| piece.kind == Kind::Unknown)
                .map(|(id, piece)| crate::special::AddedToken::special(piece.text.clone(), id)),
        );
        special.extend((0..).zip(&self.pieces).filter(|(_, piece)| piece.kind == Kind::UserDefined).map(
            |(id, piece)| crate::special::AddedToken {
                special: false,
                ..crate::special::AddedToken::special(piece.text.clone(), id)
            },
        ));
        Tokenizer {
            tokens: tokenizer.tokens.clone(),
            specials: SpecialTokens::of_added(special).expect("no piece is there twice"),
            pipeline: Pipeline { normalizer, ..Pipeline::none() },
            model: tokenizer.model.clone(),
            decoder: Decoder::Steps {
                steps,
                written: self.pieces.iter().map(|piece| piece.text.as_str().into()).collect(),
            },
            post_processor: None,
            sentencepiece: None,
        }
    }
}

impl ModelPiece {
    fn read(message: &[u8], id: usize) -> Result<Self> {
        let mut piece = Self { text: String::new(), score: 0.0, kind: Kind::Normal };
        for (number, field) in fields(message)? {
            match number {
                1 => piece.text = text(field, "a piece")?,
                2 => piece.score = field.float().unwrap_or(0.0),
                3 => {
                    piece.kind = match field.number() {
                        Some(1) => Kind::Normal,
                        Some(2) => Kind::Unknown,
                        Some(3) => Kind::Control,
                        Some(4) => Kind::UserDefined,
                        Some(5) => Kind::Unused,
                        Some(6) => Kind::Byte,
                        _ => return invalid(format!("piece {id} is of no type that there is")),
                    }
                }
                _ => {}
            }
        }
        match piece.text.is_empty() {
            true => invalid(format!("piece {id} is empty")),
            false => Ok(piece),
        }
    }
}

fn text(field: Field<'_>, name: &str) -> Result<String> {
    match field.bytes().map(|bytes| std::str::from_utf8(bytes)) {
        Some(Ok(text)) => Ok(text.to_string()),
        _ => invalid(format!("{name} is not UTF-8")),
    }
}
