//! Random numbers that do not depend on the order they are drawn in.
//!
//! Philox 4×32-10 (Salmon et al., 2011, <https://www.thesalmons.org/john/random123/papers/random123sc11.pdf>) turns a
//! key and a counter into four random words. So the value at position `i` of stream `s` under seed `k` is a pure
//! function of `(k, s, i)`: any number of threads, and any device, fills a tensor with the same bits.

mod normal;
mod cpu;
#[allow(unsafe_code)]
pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use crate::{DType, Device, Tensor};
use normal::{box_muller, unit};

/// Four random words for a counter under a key: ten rounds of multiply, swap and xor.
#[inline(always)]
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

/// What a tensor is filled with.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Law {
    /// N(0, `std`²): four numbers of a block lie side by side.
    Normal { std: f32 },
    /// N(0, `std`²) conditioned on |x| ≤ `cut`·`std`.
    ///
    /// Element `i` is the first number that falls inside of the four of block `i`, then of block 2⁴⁰ + i, and so on: the
    /// result is independent of the other elements.
    Truncated { std: f32, cut: f32 },
}

/// Blocks that an element of [`Law::Truncated`] tries before it is 0; at a cut of 3 a number in 400 falls outside.
const ATTEMPTS: u64 = 64;
/// Between the blocks of two attempts.
const ATTEMPT_BITS: u32 = 40;

impl Rng {
    /// The start of stream `stream` under `seed`.
    pub fn new(seed: u64, stream: u64) -> Self {
        Rng { key: [seed as u32, (seed >> 32) as u32], stream, position: 0 }
    }

    #[inline(always)]
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
        self.normal_on(Device::Cpu, shape, std)
    }

    /// [`Rng::normal`], drawn on a device: the same bits on each.
    pub fn normal_on(&self, device: Device, shape: &[usize], std: f32) -> Tensor {
        self.drawn(device, shape, Law::Normal { std }, 0)
    }

    /// A tensor of numbers from N(0, `std`²) conditioned on |x| ≤ `cut`·`std`.
    pub fn truncated_normal(&self, shape: &[usize], std: f32, cut: f32) -> Tensor {
        self.truncated_normal_on(Device::Cpu, shape, std, cut)
    }

    /// [`Rng::truncated_normal`], drawn on a device: the same bits on each.
    pub fn truncated_normal_on(&self, device: Device, shape: &[usize], std: f32, cut: f32) -> Tensor {
        self.drawn(device, shape, Law::Truncated { std, cut }, 0)
    }

    /// A tensor of numbers uniform in [`low`, `high`), from the stream's start.
    pub fn uniform_tensor(&self, shape: &[usize], low: f32, high: f32) -> Tensor {
        let mut x = Tensor::unspecified(shape, DType::F32);
        cpu::fill_blocks(x.f32s_mut(), |i| self.block(i).map(|word| low + (high - low) * unit(word)));
        x
    }

    /// The numbers of a law, those of block `first` first.
    fn drawn(&self, device: Device, shape: &[usize], law: Law, first: u64) -> Tensor {
        let mut x = Tensor::unspecified_on(device, shape, DType::F32);
        match device {
            Device::Cpu => cpu::fill(x.f32s_mut(), self, law, first),
            Device::Cuda(_) => cuda::fill(&mut x, self, law, first),
        }
        x
    }

    /// Element `i` of [`Law::Truncated`] under a `std` of 1.
    fn truncated(&self, cut: f32, i: u64) -> f32 {
        let candidates = (0..ATTEMPTS).flat_map(|attempt| {
            let [a, b, c, d] = self.block((attempt << ATTEMPT_BITS).wrapping_add(i));
            box_muller(a, b).into_iter().chain(box_muller(c, d))
        });
        candidates.into_iter().find(|z| z.abs() <= cut).unwrap_or(0.0)
    }
}
