//! All distinct pre-tokens as symbols, and where each pair of neighbours stands.
//!
//! A pre-token of n symbols takes n cells and one before it. A token that covers several cells has
//! its id in the first and in the last of them, so that both neighbours of a token are found by the
//! lengths of tokens, without links; cells in between, and the one before a pre-token, hold no id.
//!
//! A merge looks at the places of its pair and nowhere else. What it changes is summed up by
//! neighbour first, so that each pair is looked up once per merge, however often it stands there.

use crate::{Error, HashMap, TokenId};

/// Left and right token.
pub(super) type Pair = (TokenId, TokenId);

/// The id in a cell that is neither the first nor the last of a token.
const NONE: TokenId = TokenId::MAX;

/// Positions are 32 bits wide.
const MAX_CELLS: usize = u32::MAX as usize;

#[derive(Clone, Copy)]
struct Cell {
    id: TokenId,
    /// Index into [`Text::word_counts`].
    word: u32,
}

/// Where a pair stands, or has stood: places are checked when used.
#[derive(Clone, Copy)]
struct Places {
    /// How often the pair occurs in the text that was counted.
    count: u64,
    /// Index into [`Text::places`].
    start: usize,
    n: u32,
}

/// All distinct pre-tokens as symbols.
pub(super) struct Text {
    cells: Vec<Cell>,
    word_counts: Vec<u64>,
    /// Cells that a token covers, by its id.
    lens: Vec<u32>,
    pairs: HashMap<Pair, Places>,
    /// The cells at which pairs start; each pair has a run of them.
    places: Vec<u32>,
    left: Neighbours,
    right: Neighbours,
}

impl Text {
    /// No pre-tokens yet, but room for so many; `lens` are the symbols that each token covers.
    pub(super) fn with_capacity(n_words: u64, n_symbols: u64, lens: Vec<u32>) -> Result<Self, Error> {
        if n_words.saturating_add(n_symbols) >= MAX_CELLS as u64 {
            return Err(Error::TooMuchText { n_bytes: n_symbols });
        }
        let mut cells = Vec::with_capacity((n_words + n_symbols) as usize + 1);
        cells.push(Cell { id: NONE, word: 0 });
        Ok(Self {
            cells,
            word_counts: Vec::with_capacity(n_words as usize),
            lens,
            pairs: HashMap::default(),
            places: Vec::new(),
            left: Neighbours::default(),
            right: Neighbours::default(),
        })
    }

    /// Appends a pre-token that occurs `count` times.
    pub(super) fn push_word(&mut self, ids: impl Iterator<Item = TokenId>, count: u64) {
        let word = self.word_counts.len() as u32;
        self.word_counts.push(count);
        for id in ids {
            let n_cells = self.lens[id as usize] as usize;
            let last = self.cells.len() + n_cells - 1;
            self.cells.push(Cell { id, word });
            self.cells.resize(last + 1, Cell { id: NONE, word });
            self.cells[last].id = id;
        }
        self.cells.push(Cell { id: NONE, word });
    }

    /// The numbers of pre-tokens and of the symbols that they had at first.
    pub(super) fn size(&self) -> (u64, u64) {
        let n_words = self.word_counts.len();
        (n_words as u64, (self.cells.len() - 1 - n_words) as u64)
    }

    /// The symbols that each token covers.
    pub(super) fn lens(&self) -> impl Iterator<Item = u32> {
        self.lens.iter().copied()
    }

    /// The pre-tokens as they are now, with their counts.
    pub(super) fn words(&self) -> impl Iterator<Item = (Vec<TokenId>, u64)> {
        let mut at = 1;
        self.word_counts.iter().map(move |&count| {
            let mut ids = Vec::new();
            while self.cells[at].id != NONE {
                ids.push(self.cells[at].id);
                at += self.lens[self.cells[at].id as usize] as usize;
            }
            at += 1;
            (ids, count)
        })
    }

    /// Finds all pairs, once all pre-tokens are there.
    pub(super) fn find_pairs(&mut self) {
        let mut at = 1;
        while let Some((pair, place)) = self.next_pair(&mut at) {
            let places = self.pairs.entry(pair).or_insert(Places { count: 0, start: 0, n: 0 });
            places.count += self.word_counts[self.cells[place].word as usize];
            places.n += 1;
        }
        let mut start = 0;
        for places in self.pairs.values_mut() {
            places.start = start;
            start += places.n as usize;
            places.n = 0;
        }
        self.places.resize(start, 0);
        at = 1;
        while let Some((pair, place)) = self.next_pair(&mut at) {
            let places = self.pairs.get_mut(&pair).expect("found above");
            self.places[places.start + places.n as usize] = place as u32;
            places.n += 1;
        }
    }

    /// The first pair whose left token starts at `at` or behind it, and where; `at` moves on to the token behind that one.
    fn next_pair(&self, at: &mut usize) -> Option<(Pair, usize)> {
        loop {
            let place = *at;
            let left = self.cells.get(place)?.id;
            if left == NONE {
                *at += 1;
                continue;
            }
            *at += self.lens[left as usize] as usize;
            let right = self.cells[*at].id;
            if right != NONE {
                return Some(((left, right), place));
            }
        }
    }

    /// How often a pair occurs.
    pub(super) fn count(&self, pair: Pair) -> u64 {
        self.pairs.get(&pair).map_or(0, |places| places.count)
    }

    /// All pairs with their counts, in no order.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (Pair, u64)> {
        self.pairs.iter().map(|(&pair, places)| (pair, places.count))
    }

    /// Makes a token known that covers what `pair` covers; its id is the next one.
    pub(super) fn push_token(&mut self, pair: Pair) {
        self.lens.push(self.lens[pair.0 as usize] + self.lens[pair.1 as usize]);
    }

    /// Merges all occurrences of `pair` into `id`, from left to right in each pre-token, and calls
    /// `grown` with each pair that became more frequent.
    pub(super) fn merge(&mut self, pair: Pair, id: TokenId, grown: &mut dyn FnMut(Pair, u64)) {
        let Some(Places { start, n, .. }) = self.pairs.remove(&pair) else { return };
        let (left_len, right_len) = (self.lens[pair.0 as usize] as usize, self.lens[pair.1 as usize] as usize);
        self.left.begin(self.lens.len());
        self.right.begin(self.lens.len());
        for i in start..start + n as usize {
            let at = self.places[i] as usize;
            let middle = at + left_len;
            if (self.cells[at].id, self.cells[middle].id) != pair {
                continue;
            }
            let end = middle + right_len;
            let count = self.word_counts[self.cells[at].word as usize];
            self.cells[middle - 1].id = NONE;
            self.cells[middle].id = NONE;
            self.cells[at].id = id;
            self.cells[end - 1].id = id;
            let before = self.cells[at - 1].id;
            if before != NONE {
                self.left.add(before, at - self.lens[before as usize] as usize, count);
            }
            let behind = self.cells[end].id;
            if behind != NONE {
                self.right.add(behind, at, count);
            }
        }
        self.left.count_and_place(&mut self.pairs, &mut self.places, |before| (before, id), grown);
        self.right.count_and_place(&mut self.pairs, &mut self.places, |behind| (id, behind), grown);
        // After what was added, for a pair may be added on one side and taken away on the other.
        self.left.take_away(&mut self.pairs, |before| (before, pair.0));
        self.right.take_away(&mut self.pairs, |behind| (pair.1, behind));
    }
}

/// The neighbours that the occurrences of one pair have on one side.
#[derive(Default)]
struct Neighbours {
    /// By token id; zero between merges.
    by_token: Vec<Sum>,
    /// The distinct neighbours in the order met.
    tokens: Vec<TokenId>,
    /// Neighbour and the place of the new pair, from left to right.
    met: Vec<(TokenId, u32)>,
}

#[derive(Clone, Copy, Default)]
struct Sum {
    count: u64,
    n: u32,
    /// Where the next place goes.
    next: usize,
}

impl Neighbours {
    fn begin(&mut self, n_tokens: usize) {
        self.by_token.resize(n_tokens.max(self.by_token.len()), Sum::default());
        self.tokens.clear();
        self.met.clear();
    }

    fn add(&mut self, token: TokenId, place: usize, count: u64) {
        let sum = &mut self.by_token[token as usize];
        if sum.n == 0 {
            self.tokens.push(token);
        }
        sum.count += count;
        sum.n += 1;
        self.met.push((token, place as u32));
    }

    /// Adds the pairs that the merged token makes with its neighbours.
    fn count_and_place(
        &mut self,
        pairs: &mut HashMap<Pair, Places>,
        all_places: &mut Vec<u32>,
        pair_with: impl Fn(TokenId) -> Pair,
        grown: &mut dyn FnMut(Pair, u64),
    ) {
        let mut moved = Vec::new();
        for &token in &self.tokens {
            let sum = &mut self.by_token[token as usize];
            let pair = pair_with(token);
            let start = all_places.len();
            let places = pairs.entry(pair).or_insert(Places { count: 0, start, n: 0 });
            if places.n > 0 {
                // The token was made in another way before: the places of the pair move here.
                all_places.extend_from_within(places.start..places.start + places.n as usize);
                places.start = start;
                moved.push(pair);
            }
            sum.next = all_places.len();
            all_places.resize(sum.next + sum.n as usize, 0);
            places.count += sum.count;
            places.n += sum.n;
            grown(pair, places.count);
        }
        for &(token, place) in &self.met {
            let next = &mut self.by_token[token as usize].next;
            all_places[*next] = place;
            *next += 1;
        }
        // Places ascend within a pre-token, so that it is merged from left to right.
        for pair in moved {
            let Places { start, n, .. } = pairs[&pair];
            all_places[start..start + n as usize].sort_unstable();
        }
    }

    /// Subtracts the pairs that the neighbours made before, and forgets them.
    fn take_away(&mut self, pairs: &mut HashMap<Pair, Places>, pair_with: impl Fn(TokenId) -> Pair) {
        for &token in &self.tokens {
            let sum = std::mem::take(&mut self.by_token[token as usize]);
            let pair = pair_with(token);
            if let Some(places) = pairs.get_mut(&pair) {
                places.count -= sum.count;
                if places.count == 0 {
                    pairs.remove(&pair);
                }
            }
        }
    }
}
