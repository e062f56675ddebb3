//! Which pair is merged next: the most frequent, and of equally frequent ones the first by a rule.
//!
//! Pairs wait in buckets of similar counts and only those of the highest bucket are put in order:
//! most pairs are so rare that a vocabulary is full before their turn. Counts that fall are not
//! looked for; they are corrected when a pair comes up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

use super::text::Pair;

/// Which of equally frequent pairs is merged first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ties {
    /// The greatest by the bytes of its left token, then of its right.
    GreatestBytes,
    /// The lowest by the id of its left token, then of its right, as in Hugging Face's trainers.
    LowestIds,
}

/// Pairs by their counts.
pub(super) struct Queue {
    ties: Ties,
    /// Pairs by [`bucket`] of the count that they had when they were put here.
    buckets: Vec<Vec<Pair>>,
    /// The bucket that is in order now; there is nothing above it.
    current: usize,
    ordered: BinaryHeap<Candidate>,
}

/// A pair that may be next.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    count: u64,
    order: Order,
    pair: Pair,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    Bytes(Rc<[u8]>, Rc<[u8]>),
    Ids(Reverse<Pair>),
}

impl Queue {
    pub(super) fn new(ties: Ties) -> Self {
        Self { ties, buckets: Vec::new(), current: 0, ordered: BinaryHeap::new() }
    }

    /// Puts a pair in with its count; `bytes` are those of all tokens.
    pub(super) fn push(&mut self, pair: Pair, count: u64, bytes: &[Rc<[u8]>]) {
        let bucket = bucket(count);
        if bucket >= self.buckets.len() {
            self.buckets.resize_with(bucket + 1, Vec::new);
        }
        if bucket > self.current {
            // What is in order now has to wait.
            let waiting = self.ordered.drain().map(|candidate| candidate.pair);
            self.buckets[self.current].extend(waiting);
            self.current = bucket;
        }
        match bucket == self.current {
            true => self.ordered.push(self.candidate(pair, count, bytes)),
            false => self.buckets[bucket].push(pair),
        }
    }

    /// Takes out the next pair; `count` says how often a pair occurs now.
    pub(super) fn pop(&mut self, count: impl Fn(Pair) -> u64, bytes: &[Rc<[u8]>]) -> Option<(Pair, u64)> {
        loop {
            while let Some(candidate) = self.ordered.pop() {
                match count(candidate.pair) {
                    0 => {}
                    now if now == candidate.count => return Some((candidate.pair, now)),
                    now => self.push(candidate.pair, now, bytes),
                }
            }
            // A pair may be here twice; the second finds a count of 0, or one that is as good.
            self.current = self.buckets.iter().rposition(|bucket| !bucket.is_empty())?;
            for pair in std::mem::take(&mut self.buckets[self.current]) {
                match count(pair) {
                    0 => {}
                    now => self.push(pair, now, bytes),
                }
            }
        }
    }

    fn candidate(&self, pair: Pair, count: u64, bytes: &[Rc<[u8]>]) -> Candidate {
        let order = match self.ties {
            Ties::GreatestBytes => Order::Bytes(bytes[pair.0 as usize].clone(), bytes[pair.1 as usize].clone()),
            Ties::LowestIds => Order::Ids(Reverse(pair)),
        };
        Candidate { count, order, pair }
    }
}

/// The count's power of two and the two bits below it: monotone, and exact up to 7.
fn bucket(count: u64) -> usize {
    match count {
        0..4 => count as usize,
        _ => {
            let power = count.ilog2() as usize;
            4 * (power - 1) + (count >> (power - 2) & 3) as usize
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_monotone() {
        let counts = (0..4095).chain((12..64).flat_map(|power| [(1 << power) - 1, 1 << power])).chain([u64::MAX]);
        let buckets: Vec<usize> = counts.map(bucket).collect();
        assert!(buckets.is_sorted());
        assert_eq!(buckets[..9], [0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(buckets[buckets.len() - 1] < 256);
    }

    #[test]
    fn pairs_come_by_count_then_by_the_rule() {
        let bytes: Vec<Rc<[u8]>> = [&b"a"[..], b"b", b"c"].map(Into::into).to_vec();
        let counts = [((0, 1), 5), ((1, 0), 5), ((2, 0), 9), ((0, 2), 1), ((1, 2), 1000)];
        let popped = |ties| {
            let mut queue = Queue::new(ties);
            counts.iter().for_each(|&(pair, count)| queue.push(pair, count, &bytes));
            // Grown since it was put in; the old entry is passed over.
            let mut left: std::collections::HashMap<Pair, u64> = counts.into();
            let mut order = Vec::new();
            while let Some((pair, _)) = queue.pop(|pair| left.get(&pair).copied().unwrap_or(0), &bytes) {
                order.push(pair);
                left.remove(&pair);
            }
            order
        };
        assert_eq!(popped(Ties::GreatestBytes), [(1, 2), (2, 0), (1, 0), (0, 1), (0, 2)]);
        assert_eq!(popped(Ties::LowestIds), [(1, 2), (2, 0), (0, 1), (1, 0), (0, 2)]);
    }
}
