//! Random numbers that do not depend on the order they are drawn in.
//!
//! Philox 4×32-10 (Salmon et al., 2011, <https://www.thesalmons.org/john/random123/papers/random123sc11.pdf>) turns a
//! key and a counter into four random words. So the value at position `i` of stream `s` under seed `k` is a pure
//! function of `(k, s, i)`: any number of threads, and any device, fills a tensor with the same numbers.

use rayon::prelude::*;

use crate::{DType, Tensor};

/// Four random words for a counter under a key: ten rounds of multiply, swap and xor.
fn philox(key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    let [mut k0, mut k1] = key;
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    for _ in 0..10 {
        let p0 = u64::from(MULTIPLIERS[0]) * u64::from(c0);
        let p1 = u64::from(MULTIPLIERS[1]) * u64::from(c2);
        (c0, c1, c2, c3) = ((p1 >> 32) as u32 ^ c1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c3 ^ k1, p0 as u32);
        k0 = k0.wrapping_add(WEYL[0]);
        k1 = k1.wrapping_add(WEYL[1]);
    }
    [c0, c1, c2, c3]
}

/// A stream of random numbers: a seed, the number of a stream under it (one per tensor, one per purpose), a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng {
    key: [u32; 2],
    stream: u64,
    position: u64,
}

impl Rng {
    /// The start of stream `stream` under `seed`.
    pub fn new(seed: u64, stream: u64) -> Self {
        Rng { key: [seed as u32, (seed >> 32) as u32], stream, position: 0 }
    }

    fn block(&self, index: u64) -> [u32; 4] {
        let counter = [index as u32, (index >> 32) as u32, self.stream as u32, (self.stream >> 32) as u32];
        philox(self.key, counter)
    }

    /// The next 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        let word = self.block(self.position / 4)[(self.position % 4) as usize];
        self.position += 1;
        word
    }

    /// The next number uniform in [0, 1), with 24 bits of precision.
    pub fn uniform(&mut self) -> f32 {
        unit(self.next_u32())
    }

    /// A tensor of numbers from N(0, `std`²), from the stream's start.
    pub fn normal(&self, shape: &[usize], std: f32) -> Tensor {
        self.filled(shape, |words| {
            let [a, b] = box_muller(words[0], words[1]);
            let [c, d] = box_muller(words[2], words[3]);
            [a * std, b * std, c * std, d * std]
        })
    }

    /// A tensor of numbers from N(0, `std`²) conditioned on |x| ≤ `cut`·`std`.
    ///
    /// Element `i` is the first of the four numbers of its own counter's blocks that falls inside, so the result is
    /// independent of the other elements.
    pub fn truncated_normal(&self, shape: &[usize], std: f32, cut: f32) -> Tensor {
        let mut x = Tensor::unspecified(shape, DType::F32);
        x.f32s_mut().par_iter_mut().with_min_len(1 << 12).enumerate().for_each(|(i, x)| {
            // Attempt t of element i uses block t·2^40 + i; at a cut of 3 one attempt in 10^10 fails.
            let candidates = (0u64..).flat_map(|attempt| {
                let [a, b, c, d] = self.block((attempt << 40) + i as u64);
                box_muller(a, b).into_iter().chain(box_muller(c, d))
            });
            let inside = candidates.take(256).find(|z| z.abs() <= cut);
            *x = inside.unwrap_or(0.0) * std;
        });
        x
    }

    /// A tensor of numbers uniform in [`low`, `high`), from the stream's start.
    pub fn uniform_tensor(&self, shape: &[usize], low: f32, high: f32) -> Tensor {
        self.filled(shape, |words| words.map(|word| low + (high - low) * unit(word)))
    }

    fn filled(&self, shape: &[usize], f: impl Fn([u32; 4]) -> [f32; 4] + Sync) -> Tensor {
        let mut x = Tensor::unspecified(shape, DType::F32);
        x.f32s_mut().par_chunks_mut(4).with_min_len(1 << 10).enumerate().for_each(|(i, x)| {
            x.copy_from_slice(&f(self.block(i as u64))[..x.len()]);
        });
        x
    }
}

/// The upper 24 bits as a number in [0, 1).
fn unit(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / (1 << 24) as f32)
}

/// Two independent standard normal numbers from two random words.
fn box_muller(a: u32, b: u32) -> [f32; 2] {
    // 1 − u lies in (0, 1], where the logarithm is finite.
    let radius = (-2.0 * (1.0 - unit(a)).ln()).sqrt();
    let angle = std::f32::consts::TAU * unit(b);
    [radius * angle.cos(), radius * angle.sin()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known-answer vectors of the authors' distribution (Random123, kat_vectors).
    #[test]
    fn philox_gives_the_published_answers() {
        assert_eq!(philox([0; 2], [0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 2], [u32::MAX; 4]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }

    #[test]
    fn normal_numbers_have_the_moments_asked_for() {
        let x = Rng::new(1, 2).normal(&[1 << 18], 0.5);
        let n = x.len() as f64;
        let mean = x.f32s().iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let second = x.f32s().iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n;
        assert!(mean.abs() < 5.0 * 0.5 / n.sqrt(), "mean {mean}");
        assert!((second - 0.25).abs() < 5.0 * 0.25 * (2.0 / n).sqrt(), "second moment {second}");
    }

    #[test]
    fn truncated_numbers_stay_inside_the_cut_and_keep_their_spread() {
        let x = Rng::new(7, 0).truncated_normal(&[1 << 16], 2.0, 3.0);
        assert!(x.f32s().iter().all(|x| x.abs() <= 6.0));
        let variance = x.f32s().iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / x.len() as f64;
        // Var of N(0,1) cut at ±3: 1 − 2·3·φ(3)/(2Φ(3) − 1) = 0.97334.
        assert!((variance / 4.0 - 0.97334).abs() < 0.02, "{variance}");
    }

    #[test]
    fn streams_and_seeds_differ_and_repeat() {
        let draw = |seed, stream| Rng::new(seed, stream).normal(&[64], 1.0).f32s().to_vec();
        assert_eq!(draw(1, 1), draw(1, 1));
        assert_ne!(draw(1, 1), draw(1, 2));
        assert_ne!(draw(1, 1), draw(2, 1));
    }
}
