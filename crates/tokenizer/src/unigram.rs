//! Unigram language model: of all ways to cut a text into pieces, the one of highest probability.
//!
//! Kudo, 2018, <https://arxiv.org/abs/1804.10959>, section 3: the score of a piece is the logarithm
//! of its probability, and Viterbi's algorithm finds the best path, in time linear in the text.

#[cfg(test)]
mod tests;

use crate::trie::Trie;
use crate::{HashMap, TokenId};

/// How much worse than the worst piece an unknown character is.
const UNKNOWN_PENALTY: f32 = 10.0;

/// A vocabulary of pieces with scores.
#[derive(Clone, PartialEq)]
pub(crate) struct Unigram {
    /// Indexed by id; all ids of the model.
    pieces: Vec<Piece>,
    trie: Trie<(TokenId, f64)>,
    ids: HashMap<Box<str>, TokenId>,
    options: Options,
    unknown_score: f64,
}

/// What a piece is, and its logarithm of probability.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Piece {
    pub(crate) text: Box<str>,
    pub(crate) score: f64,
    pub(crate) kind: PieceKind,
}

/// What a piece is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PieceKind {
    /// Found in text.
    Normal,
    /// Found in text wherever it stands.
    UserDefined,
    /// Never found in text: control symbols, bytes, the unknown piece.
    Reserved,
}

/// How the two programs that use such models differ, and what a model may be asked to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Options {
    /// The token of characters that no piece has.
    pub(crate) unknown: Option<TokenId>,
    /// The tokens of bytes, for characters that no piece has.
    pub(crate) byte_ids: Option<Box<[TokenId; 256]>>,
    /// Whether scores of paths are kept in 32 bits, as by SentencePiece, rather than in 64, as by
    /// `tokenizers`. Between paths of (nearly) equal score the rounding decides.
    pub(crate) rounds_to_f32: bool,
}

/// A run of unknown characters.
type Run = std::ops::Range<usize>;

/// The best path that ends at a place.
#[derive(Clone, Copy)]
struct Node {
    score: f64,
    start: usize,
    /// None of an unknown character.
    id: Option<TokenId>,
}

impl Unigram {
    pub(crate) fn new(pieces: Vec<Piece>, options: Options) -> Self {
        let normal = pieces.iter().filter(|piece| !options.rounds_to_f32 || piece.kind == PieceKind::Normal);
        let scores: Vec<f64> = normal.map(|piece| piece.score).collect();
        let worst = scores.iter().copied().fold(f64::INFINITY, f64::min);
        // The sum is rounded as its parts are.
        let unknown_score = match options.rounds_to_f32 {
            true => f64::from(worst as f32 - UNKNOWN_PENALTY),
            false => worst - f64::from(UNKNOWN_PENALTY),
        };
        let best = scores.iter().copied().fold(f64::from(f32::MIN_POSITIVE), f64::max) as f32;
        let mut trie = Trie::default();
        for (id, piece) in (0..).zip(&pieces) {
            let score = match piece.kind {
                PieceKind::Reserved => continue,
                PieceKind::Normal => piece.score,
                // So good that it is always chosen.
                PieceKind::UserDefined => f64::from(piece.text.len() as f32 * best) - 0.1,
            };
            trie.insert(piece.text.as_bytes(), (id, score));
        }
        let ids = (0..).zip(&pieces).map(|(id, piece)| (piece.text.clone(), id)).collect();
        Self { pieces, trie, ids, options, unknown_score }
    }

    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// Appends the ids of `text`, which is not cut any further.
    ///
    /// Characters that no piece has become the tokens of their bytes or, a run of them, one unknown
    /// token; without either they are left out.
    pub(crate) fn encode(&self, text: &str, ids: &mut Vec<TokenId>) {
        let mut unknown = Run::default();
        // Where no piece reaches across a place, the best path to there is settled.
        let mut settled = 0;
        let mut ends: Vec<Option<Node>> = vec![None];
        let mut score_here = 0.0;
        for (start, c) in text.char_indices() {
            if start > 0 {
                score_here = ends[start - settled].expect("every character starts a piece, known or not").score;
            }
            if start - settled + 1 == ends.len() && start > settled {
                self.settle(&ends, settled, text, &mut unknown, ids);
                settled = start;
                ends.truncate(1);
            }
            let mut reach = |len: usize, score: f64, id: Option<TokenId>| {
                let end = start - settled + len;
                ends.resize(ends.len().max(end + 1), None);
                let score = if self.options.rounds_to_f32 { f64::from(score as f32) } else { score };
                // The first of equally good paths stays.
                if ends[end].is_none_or(|node| score > node.score) {
                    ends[end] = Some(Node { score, start, id });
                }
            };
            let mut has_single = false;
            for (len, (id, score)) in self.trie.prefixes(&text.as_bytes()[start..]) {
                reach(len, score + score_here, Some(id));
                has_single |= len == c.len_utf8();
            }
            if !has_single {
                reach(c.len_utf8(), self.unknown_score + score_here, None);
            }
        }
        self.settle(&ends, settled, text, &mut unknown, ids);
        self.end_run(&mut unknown, text, ids);
    }

    /// Appends the ids of the best path from `settled` to the last of `ends`, but for the unknown
    /// characters at its end.
    fn settle(&self, ends: &[Option<Node>], settled: usize, text: &str, unknown: &mut Run, ids: &mut Vec<TokenId>) {
        let mut path = Vec::new();
        let mut end = settled + ends.len() - 1;
        while end > settled {
            let node = ends[end - settled].expect("paths lead back to the start");
            path.push((node.start..end, node.id));
            end = node.start;
        }
        for (range, id) in path.into_iter().rev() {
            match id.filter(|_| id != self.options.unknown) {
                None if unknown.end == range.start => unknown.end = range.end,
                None => *unknown = range,
                Some(id) => {
                    self.end_run(unknown, text, ids);
                    ids.push(id);
                }
            }
        }
    }

    /// Appends the ids of a run of unknown characters.
    fn end_run(&self, run: &mut Run, text: &str, ids: &mut Vec<TokenId>) {
        let unknown = &text[std::mem::take(run)];
        if unknown.is_empty() {
            return;
        }
        // `tokenizers` looks the run up as a whole: it may be a piece, though not a likely one.
        match self.ids.get(unknown).filter(|_| !self.options.rounds_to_f32) {
            Some(&id) => ids.push(id),
            None => match &self.options.byte_ids {
                Some(byte_ids) => ids.extend(unknown.bytes().map(|byte| byte_ids[usize::from(byte)])),
                None => ids.extend(self.options.unknown),
            },
        }
    }
}
