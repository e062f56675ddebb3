//! Byte-pair encoding whose first symbols are characters, as SentencePiece has it.
//!
//! Sennrich et al., 2016, <https://arxiv.org/abs/1508.07909>. Text is not cut into words before;
//! characters that no token has become the tokens of their bytes, or unknown.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::normalize::META_SPACE;
use crate::special::SpecialTokens;
use crate::{HashMap, TokenId};

/// What the last symbol, or one that no longer is, has for a next one.
const NONE: usize = usize::MAX;

/// Merges over the characters of a text.
///
/// Symbols are numbered: the tokens by their ids, behind them what is no token.
#[derive(Clone, PartialEq)]
pub(crate) struct CharBpe {
    symbol_of_char: HashMap<char, Symbol>,
    merges: HashMap<(Symbol, Symbol), Merge>,
    /// The same by rank.
    pairs: Vec<[TokenId; 2]>,
    /// The symbols from `n_tokens` on.
    others: Vec<Other>,
    n_tokens: Symbol,
    pub(crate) options: Options,
    /// Whether no merge crosses the border between another character and `▁`, so that what lies on
    /// both sides is encoded on its own.
    is_cut_at_spaces: bool,
}

/// What happens to characters and texts that are not merged.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Options {
    /// The token of characters without one.
    pub(crate) unknown: Option<TokenId>,
    /// Whether a run of unknown characters is one token.
    pub(crate) fuse_unknown: bool,
    /// The tokens of bytes, for characters without one.
    pub(crate) byte_ids: Option<Box<[Option<TokenId>; 256]>>,
    /// The texts that are a token whatever the merges say.
    pub(crate) whole: Option<HashMap<Box<str>, TokenId>>,
    /// Symbols that are found in text first, and never merged.
    pub(crate) user_defined: Option<SpecialTokens>,
}

type Symbol = u32;

/// A symbol that is no token found in text.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Other {
    /// A character that occurs in tokens, but is none.
    Char(char),
    /// A token given by the user, which does not merge as an equal text would.
    UserDefined(TokenId),
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Merge {
    rank: u32,
    symbol: Symbol,
}

/// A token of a SentencePiece model: its text and score, its id being its place.
pub(crate) struct Scored<'a> {
    /// None of control symbols, bytes and the unknown token, which are not found in text.
    pub(crate) text: Option<&'a str>,
    pub(crate) score: f32,
}

impl CharBpe {
    /// `merges`: left, right and merged token, the first one first. Of a pair given twice the later
    /// rank counts.
    pub(crate) fn of_merges(tokens: &[&str], merges: &[[TokenId; 3]], options: Options) -> Self {
        let mut bpe = Self::without_merges(tokens.iter().copied().map(Some), options);
        for (rank, &[left, right, symbol]) in (0..).zip(merges) {
            bpe.merges.insert((left, right), Merge { rank, symbol });
            bpe.is_cut_at_spaces &= !crosses_space(tokens[symbol as usize]);
        }
        bpe.pairs = merges.iter().map(|&[left, right, _]| [left, right]).collect();
        bpe
    }

    /// Two symbols may merge if that gives a token; the one of the highest score comes first, and of
    /// equal ones the leftmost.
    pub(crate) fn of_scores(tokens: &[Scored<'_>], options: Options) -> Self {
        let mut bpe = Self::without_merges(tokens.iter().map(|token| token.text), options);
        let texts = || (0..).zip(tokens).filter_map(|(id, token)| Some((id, token.text?)));
        let mut symbols: HashMap<&str, Symbol> = texts().map(|(id, text)| (text, id)).collect();
        // Merges start from characters, tokens or not.
        for (_, text) in texts() {
            for (at, c) in text.char_indices() {
                let next = bpe.n_tokens + bpe.others.len() as Symbol;
                let symbol = *symbols.entry(&text[at..at + c.len_utf8()]).or_insert(next);
                if symbol == next {
                    bpe.others.push(Other::Char(c));
                    bpe.symbol_of_char.insert(c, symbol);
                }
            }
        }
        let mut scores: Vec<f32> = tokens.iter().map(|token| token.score).collect();
        scores.sort_unstable_by(|a, b| b.total_cmp(a));
        scores.dedup();
        let mut pairs = Vec::new();
        for (id, text) in texts() {
            bpe.is_cut_at_spaces &= !crosses_space(text);
            let score = tokens[id as usize].score;
            let rank = scores.partition_point(|other| other.total_cmp(&score).is_gt()) as u32;
            for (at, _) in text.char_indices().skip(1) {
                let (left, right) = text.split_at(at);
                if let (Some(&left), Some(&right)) = (symbols.get(left), symbols.get(right)) {
                    bpe.merges.insert((left, right), Merge { rank, symbol: id });
                    pairs.push((rank, [left, right]));
                }
            }
        }
        pairs.sort_by_key(|&(rank, _)| rank);
        let tokens_only = pairs.into_iter().filter(|(_, pair)| pair.iter().all(|&half| half < bpe.n_tokens));
        bpe.pairs = tokens_only.map(|(_, pair)| pair).collect();
        bpe
    }

    fn without_merges<'a>(tokens: impl ExactSizeIterator<Item = Option<&'a str>>, options: Options) -> Self {
        let n_tokens = tokens.len() as Symbol;
        let single = |(id, token): (Symbol, Option<&str>)| {
            let mut chars = token?.chars();
            Some((chars.next().filter(|_| chars.next().is_none())?, id))
        };
        let symbol_of_char: HashMap<char, Symbol> = (0..).zip(tokens).filter_map(single).collect();
        let user_defined = options.user_defined.iter().flat_map(SpecialTokens::iter);
        let is_cut_at_spaces = symbol_of_char.contains_key(&META_SPACE)
            && options.user_defined.iter().flat_map(SpecialTokens::iter).all(|(text, _)| !text.contains(META_SPACE));
        let others = user_defined.map(|(_, id)| Other::UserDefined(id)).collect();
        Self {
            symbol_of_char,
            merges: HashMap::default(),
            pairs: Vec::new(),
            others,
            n_tokens,
            options,
            is_cut_at_spaces,
        }
    }

    /// The halves of all merges between tokens, the first one first.
    pub(crate) fn pairs(&self) -> &[[TokenId; 2]] {
        &self.pairs
    }

    /// Bytes of the part at the start of `text` that is encoded on its own.
    pub(crate) fn part_len(&self, text: &str) -> usize {
        if !self.is_cut_at_spaces || self.options.whole.is_some() {
            return text.len();
        }
        let word = text.trim_start_matches(META_SPACE);
        text.len() - word.len() + word.find(META_SPACE).unwrap_or(word.len())
    }

    /// Appends the ids of a part of a text.
    pub(crate) fn encode(&self, text: &str, ids: &mut Vec<TokenId>) {
        if let Some(&id) = self.options.whole.as_ref().and_then(|whole| whole.get(text)) {
            return ids.push(id);
        }
        let mut symbols = Vec::with_capacity(text.len());
        self.first_symbols(text, &mut symbols);
        self.merge(&mut symbols);
        let start = ids.len();
        for symbol in symbols {
            match symbol.checked_sub(self.n_tokens).map(|other| self.others[other as usize]) {
                None => self.push(symbol, start, ids),
                Some(Other::UserDefined(id)) => ids.push(id),
                Some(Other::Char(c)) => match self.byte_symbols(c) {
                    Some(bytes) => ids.extend(bytes),
                    None => self.options.unknown.into_iter().for_each(|id| self.push(id, start, ids)),
                },
            }
        }
    }

    /// Appends an id, unless it goes on a run of unknown characters that is one token.
    fn push(&self, id: TokenId, start: usize, ids: &mut Vec<TokenId>) {
        let goes_on = self.options.fuse_unknown && Some(id) == self.options.unknown && ids[start..].last() == Some(&id);
        if !goes_on {
            ids.push(id);
        }
    }

    /// Characters, and what stands for those that are no symbols.
    fn first_symbols(&self, text: &str, symbols: &mut Vec<Symbol>) {
        let mut rest = text;
        // `tokenizers` keeps an unknown token back until a known character, but not the bytes of one.
        let mut unknown = None;
        while let Some(c) = rest.chars().next() {
            let user_defined = self.options.user_defined.as_ref().and_then(|tokens| tokens.prefix(rest.as_bytes()));
            let len = user_defined.map_or(c.len_utf8(), |(_, len)| len);
            rest = &rest[len..];
            let symbol = match user_defined {
                Some((at, _)) => Some(self.n_tokens + at as Symbol),
                None => self.symbol_of_char.get(&c).copied(),
            };
            if let Some(symbol) = symbol {
                symbols.extend(unknown.take());
                symbols.push(symbol);
            } else if let Some(bytes) = self.byte_symbols(c) {
                symbols.extend(bytes);
            } else if unknown.is_none() || !self.options.fuse_unknown {
                symbols.extend(std::mem::replace(&mut unknown, self.options.unknown));
            }
        }
        symbols.extend(unknown);
    }

    /// The tokens of the bytes of `c`, if each of them has one.
    fn byte_symbols(&self, c: char) -> Option<impl Iterator<Item = Symbol>> {
        let byte_ids = self.options.byte_ids.as_ref()?;
        let mut utf8 = [0; 4];
        let len = c.encode_utf8(&mut utf8).len();
        let symbols = utf8.map(|byte| byte_ids[usize::from(byte)]);
        symbols[..len].iter().all(Option::is_some).then(|| symbols.into_iter().take(len).flatten())
    }

    /// Merges the pair of the lowest rank, of equal ones the leftmost, until none is left.
    fn merge(&self, symbols: &mut Vec<Symbol>) {
        let n = symbols.len();
        let merge_at = |symbols: &[Symbol], at: usize, next: usize| self.merges.get(&(symbols[at], symbols[next]));
        let mut heap: BinaryHeap<Reverse<(u32, usize, Symbol)>> = (1..n)
            .filter_map(|next| {
                merge_at(symbols, next - 1, next).map(|merge| Reverse((merge.rank, next - 1, merge.symbol)))
            })
            .collect();
        if heap.is_empty() {
            return;
        }
        let mut next: Vec<usize> = (1..n).chain([NONE]).collect();
        let mut previous: Vec<usize> = std::iter::once(NONE).chain(0..n - 1).collect();
        let mut is_gone = vec![false; n];
        while let Some(Reverse((rank, at, symbol))) = heap.pop() {
            // An entry is stale once its pair has changed.
            let is_current = !is_gone[at]
                && next[at] != NONE
                && merge_at(symbols, at, next[at]).is_some_and(|merge| *merge == Merge { rank, symbol });
            if !is_current {
                continue;
            }
            let gone = next[at];
            is_gone[gone] = true;
            next[at] = next[gone];
            symbols[at] = symbol;
            if next[at] != NONE {
                previous[next[at]] = at;
            }
            for left in [previous[at], at] {
                if left != NONE
                    && next[left] != NONE
                    && let Some(merge) = merge_at(symbols, left, next[left])
                {
                    heap.push(Reverse((merge.rank, left, merge.symbol)));
                }
            }
        }
        let mut index = 0..;
        symbols.retain(|_| !is_gone[index.next().expect("a range without end")]);
    }
}

/// Whether `▁` stands behind another character.
fn crosses_space(text: &str) -> bool {
    text.trim_start_matches(META_SPACE).contains(META_SPACE)
}
