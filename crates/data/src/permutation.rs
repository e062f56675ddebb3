//! A shuffle of `0..n` that needs no memory: a Feistel network with cycle walking.
//!
//! Luby and Rackoff, 1988, <https://doi.org/10.1137/0217022> (a Feistel network is a permutation
//! whatever its round function); Black and Rogaway, 2002, <https://doi.org/10.1007/3-540-45760-7_9>
//! (walking cycles restricts a permutation of a larger domain to `0..n`).

/// Luby and Rackoff need 4 rounds for large domains; small ones, such as the 16 points of 4 bits,
/// mix more slowly.
const N_ROUNDS: usize = 8;

/// A bijection of `0..n` chosen by a key.
#[derive(Clone, Debug)]
pub struct Permutation {
    n: u64,
    half_bits: u32,
    round_keys: [u64; N_ROUNDS],
}

impl Permutation {
    /// The permutation of `0..n` that belongs to a seed and an epoch.
    ///
    /// **Panics** if `n` is 0 or beyond 2⁶².
    pub fn new(n: u64, seed: u64, epoch: u64) -> Permutation {
        assert!(0 < n && n <= 1 << 62, "a permutation of {n} points: expected 1 to 2^62");
        // The domain has an even number of bits, hence up to 4·n points: below 4 expected steps per
        // walk.
        let bits = u64::BITS - (n - 1).leading_zeros();
        let mut key = keyed_hash(seed, epoch);
        let round_keys = std::array::from_fn(|_| {
            key = keyed_hash(key, 1);
            key
        });
        Permutation { n, half_bits: bits.div_ceil(2).max(1), round_keys }
    }

    /// Where `i` goes. Takes a few dozen nanoseconds.
    ///
    /// **Panics** if `i` is not in `0..n`.
    pub fn apply(&self, i: u64) -> u64 {
        assert!(i < self.n, "point {i} of a permutation of {}", self.n);
        // Starting within 0..n, the cycle returns to 0..n at the latest at i itself: the walk ends.
        let mut x = self.feistel(i);
        while x >= self.n {
            x = self.feistel(x);
        }
        x
    }

    fn feistel(&self, x: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (x >> self.half_bits, x & mask);
        for &key in &self.round_keys {
            (left, right) = (right, left ^ (keyed_hash(key, right) & mask));
        }
        left << self.half_bits | right
    }
}

/// A 64-bit hash of `value` under `key`: the finaliser of SplitMix64 applied to each in turn.
///
/// Steele, Lea and Flood, 2014, <https://doi.org/10.1145/2660193.2660195>.
pub(crate) fn keyed_hash(key: u64, value: u64) -> u64 {
    const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;
    mix(mix(key.wrapping_add(GOLDEN_RATIO)) ^ value.wrapping_mul(GOLDEN_RATIO))
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_bijection_for_every_size_up_to_5000() {
        let mut seen = vec![0_u64; 5000];
        for n in 1..5000 {
            let permutation = Permutation::new(n, 7, n / 3);
            for i in 0..n {
                let x = permutation.apply(i) as usize;
                assert!(x < n as usize, "{i} of {n} goes to {x}");
                assert_ne!(seen[x], n, "two points of {n} go to {x}");
                seen[x] = n;
            }
        }
    }

    #[test]
    fn the_order_of_a_key_never_changes() {
        // Oracle: the same network written in Python with unbounded integers. An order that changed
        // would break the resumption of runs that exist.
        let order = |n, epoch, points: u64| -> Vec<u64> {
            let permutation = Permutation::new(n, 42, epoch);
            (0..points).map(|i| permutation.apply(i)).collect()
        };
        assert_eq!(order(10, 0, 10), [7, 3, 9, 1, 4, 8, 6, 0, 5, 2]);
        assert_eq!(order(1_000_000, 3, 4), [675_406, 255_897, 674_157, 428_347]);
    }

    #[test]
    fn the_largest_domains_stay_in_range() {
        for n in [(1 << 62) - 1, 1 << 62, (1 << 61) + 1] {
            let permutation = Permutation::new(n, 1, 2);
            assert!((0..100).all(|i| permutation.apply(n - 1 - i) < n));
        }
    }

    #[test]
    fn over_many_keys_each_point_goes_everywhere_equally_often() {
        // Chi-square with (10 - 1)² = 81 degrees of freedom: mean 81, standard deviation √162 ≈
        // 12.7.
        let (n, n_keys) = (10, 20_000);
        let mut counts = [[0_f64; 10]; 10];
        for seed in 0..n_keys {
            let permutation = Permutation::new(n, seed, 0);
            (0..n).for_each(|i| counts[i as usize][permutation.apply(i) as usize] += 1.0);
        }
        let expected = n_keys as f64 / n as f64;
        let chi_square: f64 = counts.iter().flatten().map(|count| (count - expected).powi(2) / expected).sum();
        assert!((81.0 - 5.0 * 12.7..81.0 + 5.0 * 12.7).contains(&chi_square), "{chi_square}");
    }

    #[test]
    fn neighbours_are_scattered_and_epochs_differ() {
        let n = 10_000;
        let (first, second) = (Permutation::new(n, 3, 0), Permutation::new(n, 3, 1));
        // Uniform: the mean distance of two random points is n / 3, and one point in n stays.
        let distance: u64 = (1..n).map(|i| first.apply(i).abs_diff(first.apply(i - 1))).sum();
        let mean = distance as f64 / n as f64;
        assert!((0.3..0.37).contains(&(mean / n as f64)), "{mean}");
        assert!((0..n).filter(|&i| first.apply(i) == second.apply(i)).count() < 10);
    }
}
