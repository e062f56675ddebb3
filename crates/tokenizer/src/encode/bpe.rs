//! Byte-level byte-pair encoding: text to pre-tokens to ids.

use std::sync::{Mutex, OnceLock, PoisonError};

use super::cache::{Cache, Keys};
use super::derivation::Derivations;
use super::lines::Key;
use super::merge::{self, Symbol};
#[cfg(target_arch = "x86_64")]
use super::packed::{self, Packed};
use super::pairs::{Merge, NO_MERGE, Pairs};
use super::prefixes::Prefixes;
use super::whole::Whole;
use crate::pretokenize::{Ends, Pattern};
use crate::{HashMap, TokenId};

/// Pre-tokens from this many bytes on are not merged by scans.
const LONG_FROM_BYTES: usize = 65;
/// Pre-tokens from this many bytes on are worth the making of a tree of all tokens.
const VERY_LONG_FROM_BYTES: usize = 1 << 12;
/// A cache is made once so much text was encoded: clearing it costs about as much as encoding this.
const CACHE_FROM_BYTES: usize = 1 << 15;

/// Byte-level byte-pair encoding.
#[derive(Clone, PartialEq)]
pub(crate) struct Bpe {
    byte_ids: [TokenId; 256],
    /// Left, right and merged token in the order learned; the index is the rank.
    merges: Vec<[TokenId; 2]>,
    /// Pre-tokens that are one token.
    whole: Whole,
    ignores_merges: bool,
    pattern: Pattern,
    /// Whether a space is put before text that does not start with one.
    pub(crate) add_prefix_space: bool,
    /// What follows from the above.
    derived: Derived,
    scratches: Pool,
}

#[derive(Clone)]
struct Derived {
    pairs: Pairs,
    /// `None` if the processor cannot work with it.
    #[cfg(target_arch = "x86_64")]
    packed: Option<Packed>,
    /// `None` if a merge needs the result of a later one.
    derivations: Option<Derivations>,
    /// The tokens that are the encoding of their bytes, made when a long pre-token wants them.
    reachable: OnceLock<Option<Prefixes>>,
}

impl PartialEq for Derived {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Bpe {
    /// `merges`: left, right and merged token, in the order learned. Of a pair given twice the later
    /// rank counts, as in Hugging Face's `tokenizers`.
    pub(crate) fn new(byte_ids: [TokenId; 256], merges: &[[TokenId; 3]], add_prefix_space: bool) -> Self {
        let pairs = Pairs::new(&byte_ids, merges);
        let derivations = Derivations::new(&byte_ids, merges, &pairs);
        #[cfg(target_arch = "x86_64")]
        let packed = Packed::new(&byte_ids, merges, &pairs);
        let mut bpe = Self {
            byte_ids,
            merges: merges.iter().map(|&[left, right, _]| [left, right]).collect(),
            whole: Whole::default(),
            ignores_merges: false,
            pattern: Pattern::Gpt2,
            add_prefix_space,
            derived: Derived {
                pairs,
                #[cfg(target_arch = "x86_64")]
                packed,
                derivations,
                reachable: OnceLock::new(),
            },
            scratches: Pool::default(),
        };
        let reachable: Vec<_> = bpe.reachable(merges).collect();
        bpe.whole.extend(reachable.into_iter());
        bpe
    }

    /// With another pattern of pre-tokens.
    pub(crate) fn with_pattern(self, pattern: Pattern) -> Self {
        Self { pattern, ..self }
    }

    /// A pre-token that is one of `tokens` becomes its id at once, as with `ignore_merges` in `tokenizer.json`
    /// and always in tiktoken.
    pub(crate) fn ignoring_merges<'a>(mut self, tokens: impl IntoIterator<Item = (&'a [u8], TokenId)>) -> Self {
        self.whole.extend(tokens.into_iter().map(|(bytes, id)| (bytes.into(), id)));
        Self { ignores_merges: true, ..self }
    }

    pub(crate) fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    pub(crate) fn ignores_merges(&self) -> bool {
        self.ignores_merges
    }

    pub(crate) fn merges(&self) -> &[[TokenId; 2]] {
        &self.merges
    }

    /// The tokens that are the encoding of their bytes; none if that cannot be told.
    fn reachable(&self, merges: &[[TokenId; 3]]) -> impl Iterator<Item = (Box<[u8]>, TokenId)> + use<> {
        let mut bytes: HashMap<TokenId, Box<[u8]>> = HashMap::default();
        if let Some(derivations) = &self.derived.derivations {
            bytes.extend((0..=255).zip(self.byte_ids).map(|(byte, id)| (id, Box::from([byte]))));
            for (rank, &[left, right, id]) in (0..).zip(merges) {
                if derivations.rank(id) == Some(rank) {
                    let whole = [&*bytes[&left], &*bytes[&right]].concat().into();
                    bytes.insert(id, whole);
                }
            }
            bytes.retain(|_, bytes| derivations.hold_for(bytes));
        }
        bytes.into_iter().map(|(id, bytes)| (bytes, id))
    }

    /// Appends the ids of `text`.
    pub(crate) fn encode(&self, mut text: &[u8], ids: &mut Vec<TokenId>, scratch: &mut Scratch) {
        scratch.expect(text.len());
        if self.pattern.is_custom() {
            // Where the engine of regular expressions gives up, the text is one pre-token.
            let pretokens = self.pattern.pretokens(text).unwrap_or_else(|_| vec![text]);
            pretokens.into_iter().for_each(|pretoken| self.encode_pretoken(pretoken, ids, scratch));
            return;
        }
        while !text.is_empty() {
            self.pattern.cut(text, &mut scratch.ends);
            let n_bytes = self.encode_cut(text, ids, scratch);
            text = &text[n_bytes..];
        }
    }

    /// Appends the ids of the pre-tokens whose ends `scratch` has, and says how many bytes they are.
    fn encode_cut(&self, text: &[u8], ids: &mut Vec<TokenId>, scratch: &mut Scratch) -> usize {
        let n = scratch.ends.as_slice().len();
        if let Some(cache) = &scratch.cache {
            cache.make_keys(text, scratch.ends.as_slice(), &mut scratch.keys);
        }
        let mut i = 0;
        while i < n {
            if let Some(cache) = &scratch.cache {
                i += cache.find(&scratch.keys, i, n, ids);
            }
            if i < n {
                let ends = scratch.ends.as_slice();
                let start = if i == 0 { 0 } else { ends[i - 1] };
                let pretoken = &text[start as usize..ends[i] as usize];
                self.encode_unseen(pretoken, scratch.key(i, pretoken), ids, scratch);
                i += 1;
            }
        }
        scratch.ends.as_slice().last().map_or(0, |&end| end as usize)
    }

    /// Appends the ids of one pre-token.
    pub(crate) fn encode_pretoken(&self, pretoken: &[u8], ids: &mut Vec<TokenId>, scratch: &mut Scratch) {
        self.encode_unseen(pretoken, Key::of(pretoken), ids, scratch);
    }

    /// Appends the ids of one pre-token that is not found at once.
    #[inline(never)]
    fn encode_unseen(&self, pretoken: &[u8], key: Key, ids: &mut Vec<TokenId>, scratch: &mut Scratch) {
        let Some(cache) = &mut scratch.cache else {
            return self.merge(pretoken, key, ids, &mut scratch.symbols);
        };
        if cache.find_one(pretoken, key, ids) {
            return;
        }
        let start = ids.len();
        self.merge(pretoken, key, ids, &mut scratch.symbols);
        cache.insert(pretoken, key, &ids[start..]);
    }

    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))]
    fn merge(&self, pretoken: &[u8], key: Key, ids: &mut Vec<TokenId>, symbols: &mut Vec<Symbol>) {
        if let Some(id) = self.whole.get(pretoken, key) {
            return ids.push(id);
        }
        let Derived { pairs, derivations, reachable, .. } = &self.derived;
        let is_ready = reachable.get().is_some();
        let from_bytes = if is_ready { LONG_FROM_BYTES } else { VERY_LONG_FROM_BYTES };
        let holds = |derivations: &&Derivations| pretoken.len() >= from_bytes && derivations.hold_for(pretoken);
        if let Some(derivations) = derivations.as_ref().filter(holds)
            && let Some(tokens) = reachable.get_or_init(|| self.prefixes(derivations))
        {
            return merge::by_neighbours(pretoken, tokens, derivations, pairs, ids);
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(packed) = self.derived.packed.as_ref().filter(|_| pretoken.len() <= packed::MAX_BYTES) {
            return packed.merge(pairs, pretoken, key, ids);
        }
        if pretoken.len() <= merge::FEW {
            return merge::few(pairs, &self.byte_ids, pretoken, ids);
        }
        self.start(pretoken, symbols);
        if symbols.len() < LONG_FROM_BYTES {
            merge::by_scan(pairs, symbols);
            ids.extend(symbols.iter().map(|symbol| symbol.id));
        } else {
            merge::by_heap(pairs, symbols, ids);
        }
    }

    /// A symbol for each byte.
    fn start(&self, pretoken: &[u8], symbols: &mut Vec<Symbol>) {
        let Derived { pairs, .. } = &self.derived;
        symbols.clear();
        symbols.extend(
            pretoken.iter().map(|&byte| Symbol {
                id: self.byte_ids[usize::from(byte)],
                next_merge: Merge { rank: NO_MERGE, id: 0 },
            }),
        );
        for i in 1..symbols.len() {
            symbols[i - 1].next_merge = pairs.get(symbols[i - 1].id, symbols[i].id);
        }
    }

    /// The ids of one pre-token by each of the ways to merge that can do it.
    #[cfg(test)]
    pub(super) fn merge_each_way(&self, pretoken: &[u8]) -> Vec<Vec<TokenId>> {
        let Derived { pairs, derivations, .. } = &self.derived;
        let mut ways = vec![Vec::new(), Vec::new()];
        let mut symbols = self.symbols(pretoken);
        merge::by_heap(pairs, &mut symbols, &mut ways[0]);
        let mut symbols = self.symbols(pretoken);
        merge::by_scan(pairs, &mut symbols);
        ways[1] = symbols.iter().map(|symbol| symbol.id).collect();
        if pretoken.len() <= merge::FEW {
            ways.push(Vec::new());
            merge::few(pairs, &self.byte_ids, pretoken, &mut ways[2]);
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(packed) = self.derived.packed.as_ref().filter(|_| pretoken.len() <= packed::MAX_BYTES) {
            let mut ids = Vec::new();
            packed.merge(pairs, pretoken, Key::of(pretoken), &mut ids);
            ways.push(ids);
        }
        if let Some(derivations) = derivations.as_ref().filter(|derivations| derivations.hold_for(pretoken)) {
            let (mut ids, tokens) = (Vec::new(), self.prefixes(derivations).unwrap());
            merge::by_neighbours(pretoken, &tokens, derivations, pairs, &mut ids);
            ways.push(ids);
        }
        ways
    }

    /// Whether long pre-tokens take linear time.
    #[cfg(test)]
    pub(super) fn is_linear(&self) -> bool {
        self.derived.derivations.is_some()
    }

    #[cfg(test)]
    fn symbols(&self, pretoken: &[u8]) -> Vec<Symbol> {
        let mut symbols = Vec::new();
        self.start(pretoken, &mut symbols);
        symbols
    }

    fn prefixes(&self, derivations: &Derivations) -> Option<Prefixes> {
        Prefixes::new(self.whole.iter().filter(|&(_, id)| derivations.is_reachable(id)))
    }

    /// Memory to encode with, as it was left by an earlier text if there was one.
    pub(crate) fn take_scratch(&self) -> Box<Scratch> {
        self.scratches.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Takes the memory back.
    pub(crate) fn give_scratch(&self, scratch: Box<Scratch>) {
        self.scratches.0.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
    }
}

/// Memory of threads that encode nothing at present: as many as have encoded at once.
#[derive(Default)]
struct Pool(Mutex<Vec<Box<Scratch>>>);

impl Clone for Pool {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Pool {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Memory that one thread reuses: some 34 MiB once it has encoded a bit of text, never more.
pub(crate) struct Scratch {
    ends: Ends,
    keys: Keys,
    symbols: Vec<Symbol>,
    cache: Option<Cache>,
    n_bytes_seen: usize,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { ends: Ends::new(), keys: Keys::default(), symbols: Vec::new(), cache: None, n_bytes_seen: 0 }
    }
}

impl Scratch {
    /// The key of the pre-token of index `i`.
    fn key(&self, i: usize, pretoken: &[u8]) -> Key {
        if self.cache.is_some() { self.keys.keys[i] } else { Key::of(pretoken) }
    }

    /// Says how much text is coming.
    pub(crate) fn expect(&mut self, n_bytes: usize) {
        self.n_bytes_seen = self.n_bytes_seen.saturating_add(n_bytes);
        if self.cache.is_none() && self.n_bytes_seen >= CACHE_FROM_BYTES {
            self.cache = Cache::new();
        }
    }
}
