//! Pieces with probabilities: all ways to cut a word, the best of them, and what each piece is expected to occur.

use rayon::prelude::*;

use crate::HashMap;
use crate::trie::Trie;

/// How much worse than the worst piece an unknown character is.
const UNKNOWN_PENALTY: f64 = 10.0;
/// Pieces that are expected more rarely are gone.
const MIN_EXPECTED: f64 = 0.5;
/// Words are summed up in so many runs, whatever the number of threads.
const N_LANES: usize = 16;

/// The distinct words of a text with their counts, in one order.
pub(super) struct Words(pub(super) Vec<(String, u64)>);

impl Words {
    /// The most frequent characters that together make up so large a share of the text, with their counts, the most
    /// frequent first.
    pub(super) fn required_chars(&self, coverage: f64) -> Vec<(char, u64)> {
        let mut counts: HashMap<char, u64> = HashMap::default();
        for (word, count) in &self.0 {
            for c in word.chars() {
                *counts.entry(c).or_default() += count;
            }
        }
        let total: u64 = counts.values().sum();
        let mut sorted: Vec<(char, u64)> = counts.into_iter().collect();
        sorted.sort_unstable_by_key(|&(c, count)| (std::cmp::Reverse(count), c));
        let mut covered = 0;
        let is_needed = |&(_, count): &(char, u64)| {
            let is_needed = (covered as f64) < coverage * total as f64;
            covered += count;
            is_needed
        };
        sorted.into_iter().take_while(is_needed).collect()
    }

    /// Runs of the words, in order.
    pub(super) fn lanes(&self) -> impl IndexedParallelIterator<Item = &[(String, u64)]> {
        self.0.par_chunks(self.0.len().div_ceil(N_LANES).max(1))
    }
}

/// A piece in a word: where it starts and ends, and which it is.
#[derive(Clone, Copy)]
pub(super) struct Arc {
    pub(super) start: usize,
    pub(super) end: usize,
    /// None of an unknown character.
    pub(super) piece: Option<u32>,
    score: f64,
}

/// Pieces with the logarithms of their probabilities.
pub(super) struct Model {
    pieces: Vec<(Box<str>, f64)>,
    trie: Trie<u32>,
    unknown_score: f64,
}

impl Model {
    pub(super) fn new(pieces: Vec<(Box<str>, f64)>) -> Self {
        let mut trie = Trie::default();
        for ((piece, _), i) in pieces.iter().zip(0..) {
            trie.insert(piece.as_bytes(), i);
        }
        let worst = pieces.iter().map(|&(_, score)| score).fold(f64::INFINITY, f64::min);
        Self { pieces, trie, unknown_score: worst - UNKNOWN_PENALTY }
    }

    pub(super) fn pieces(&self) -> &[(Box<str>, f64)] {
        &self.pieces
    }

    /// All pieces in a word, by where they start.
    pub(super) fn arcs(&self, word: &str, arcs: &mut Vec<Arc>) {
        arcs.clear();
        for (start, c) in word.char_indices() {
            let single = start + c.len_utf8();
            let mut has_single = false;
            for (len, piece) in self.trie.prefixes(&word.as_bytes()[start..]) {
                let end = start + len;
                has_single |= end == single;
                arcs.push(Arc { start, end, piece: Some(piece), score: self.pieces[piece as usize].1 });
            }
            if !has_single {
                arcs.push(Arc { start, end: single, piece: None, score: self.unknown_score });
            }
        }
    }

    /// The model after one step of expectation maximisation, with Bayes' correction for rare pieces: `exp(digamma(x))`
    /// for `x`, as SentencePiece has it.
    pub(super) fn estimated(&self, words: &Words) -> Self {
        let expected = self.expected(words);
        let kept = self.pieces.iter().zip(expected).filter(|&(_, expected)| expected >= MIN_EXPECTED);
        let kept: Vec<(Box<str>, f64)> = kept.map(|((piece, _), expected)| (piece.clone(), expected)).collect();
        let log_sum = digamma(kept.iter().map(|(_, expected)| expected).sum());
        Self::new(kept.into_iter().map(|(piece, expected)| (piece, digamma(expected) - log_sum)).collect())
    }

    /// How often each piece is expected to occur, over all ways to cut the words, by the forward-backward algorithm.
    fn expected(&self, words: &Words) -> Vec<f64> {
        let of_lane = |lane: &[(String, u64)]| {
            let mut expected = vec![0.0; self.pieces.len()];
            let (mut arcs, mut forward, mut backward) = (Vec::new(), Vec::new(), Vec::new());
            for (word, count) in lane {
                self.arcs(word, &mut arcs);
                for (sums, at) in [(&mut forward, 0), (&mut backward, word.len())] {
                    sums.clear();
                    sums.resize(word.len() + 1, f64::NEG_INFINITY);
                    sums[at] = 0.0;
                }
                for arc in &arcs {
                    forward[arc.end] = ln_add(forward[arc.end], forward[arc.start] + arc.score);
                }
                for arc in arcs.iter().rev() {
                    backward[arc.start] = ln_add(backward[arc.start], backward[arc.end] + arc.score);
                }
                let total = forward[word.len()];
                for arc in &arcs {
                    if let Some(piece) = arc.piece {
                        let share = (forward[arc.start] + arc.score + backward[arc.end] - total).exp();
                        expected[piece as usize] += *count as f64 * share;
                    }
                }
            }
            expected
        };
        let lanes: Vec<Vec<f64>> = words.lanes().map(of_lane).collect();
        let mut sums = vec![0.0; self.pieces.len()];
        for lane in lanes {
            sums.iter_mut().zip(lane).for_each(|(sum, n)| *sum += n);
        }
        sums
    }

    /// The best way to cut a word of which `arcs` are the pieces, without `skip`; none if there is no way.
    pub(super) fn best(word: &str, arcs: &[Arc], skip: Option<u32>) -> Option<(Vec<Arc>, f64)> {
        let mut ends: Vec<(f64, Option<Arc>)> = vec![(f64::NEG_INFINITY, None); word.len() + 1];
        ends[0].0 = 0.0;
        for arc in arcs.iter().filter(|arc| skip.is_none() || arc.piece != skip) {
            let score = ends[arc.start].0 + arc.score;
            if score > ends[arc.end].0 {
                ends[arc.end] = (score, Some(*arc));
            }
        }
        let mut path = Vec::new();
        let mut at = word.len();
        while at > 0 {
            let arc = ends[at].1?;
            path.push(arc);
            at = arc.start;
        }
        path.reverse();
        Some((path, ends[word.len()].0))
    }
}

fn ln_add(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// The derivative of the logarithm of the gamma function, for `x` above 0.
fn digamma(mut x: f64) -> f64 {
    let mut result = 0.0;
    while x < 7.0 {
        result -= 1.0 / x;
        x += 1.0;
    }
    x -= 0.5;
    let square = 1.0 / (x * x);
    let series = [1.0 / 24.0, -7.0 / 960.0, 31.0 / 8064.0, -127.0 / 30720.0];
    result + x.ln() + series.iter().rev().fold(0.0, |sum, term| (sum + term) * square)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digamma_has_its_known_values() {
        const EULER: f64 = 0.577_215_664_901_532_9;
        for (x, expected) in
            [(1.0, -EULER), (2.0, 1.0 - EULER), (0.5, -EULER - 2.0 * 2_f64.ln()), (100.0, 4.600_161_852_738_087)]
        {
            assert!((digamma(x) - expected).abs() < 1e-7, "{x}: {}", digamma(x));
        }
    }

    #[test]
    fn expectations_are_those_of_all_cuts_written_out() {
        let pieces = [("a", 0.4), ("b", 0.3), ("ab", 0.2), ("ba", 0.1)];
        let model = Model::new(pieces.iter().map(|&(piece, p): &(&str, f64)| (piece.into(), p.ln())).collect());
        let expected = model.expected(&Words(vec![("aba".to_owned(), 10)]));
        // a b a: 0.4 * 0.3 * 0.4; ab a: 0.2 * 0.4; a ba: 0.4 * 0.1.
        let [three, left, right] = [0.048, 0.08, 0.04];
        let total = three + left + right;
        let by_hand = [2.0 * three + left + right, three, left, right].map(|p: f64| 10.0 * p / total);
        for (found, by_hand) in expected.iter().zip(by_hand) {
            assert!((found - by_hand).abs() < 1e-9, "{expected:?}");
        }
    }

    #[test]
    fn characters_beyond_the_coverage_are_not_required() {
        let words = Words(vec![("aab".to_owned(), 100), ("cz".to_owned(), 1)]);
        assert_eq!(words.required_chars(0.99), [('a', 200), ('b', 100)]);
        assert_eq!(words.required_chars(1.0).len(), 4);
    }
}
