//! Drawn on all cores, many blocks at a time in the lanes of vectors.

use rayon::prelude::*;

use super::normal::box_muller;
use super::{Law, Rng};
use crate::cpu::simd::multiversion;

/// Blocks that are computed side by side.
const LANES: usize = 64;
/// Elements that a thread takes at a time: whole blocks of all lanes.
const CHUNK: usize = 1 << 14;

/// Fills `x` with the numbers of a law, those of block `first` first.
pub(super) fn fill(x: &mut [f32], rng: &Rng, law: Law, first: u64) {
    x.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, x)| {
        let start = (chunk * CHUNK) as u64;
        match law {
            Law::Normal { std } => normal(x, rng, std, first.wrapping_add(start / 4)),
            Law::Truncated { std, cut } => truncated(x, rng, std, cut, first.wrapping_add(start)),
        }
    });
}

/// Fills `x` with the four numbers of each block, from block 0 on.
pub(super) fn fill_blocks(x: &mut [f32], block: impl Fn(u64) -> [f32; 4] + Sync) {
    x.par_chunks_mut(4).with_min_len(CHUNK / 4).enumerate().for_each(|(i, x)| {
        x.copy_from_slice(&block(i as u64)[..x.len()]);
    });
}

/// The words of [`LANES`] blocks, each kind of word together.
#[inline(always)]
fn words(rng: &Rng, first: u64) -> [[u32; LANES]; 4] {
    let mut words = [[0; LANES]; 4];
    for lane in 0..LANES {
        let block = rng.block(first.wrapping_add(lane as u64));
        for (words, word) in words.iter_mut().zip(block) {
            words[lane] = word;
        }
    }
    words
}

multiversion! {
    fn normal(x: &mut [f32], rng: &Rng, std: f32, first: u64) {
        for (i, x) in x.chunks_mut(4 * LANES).enumerate() {
            let [a, b, c, d] = words(rng, first.wrapping_add((i * LANES) as u64));
            let mut numbers = [[0.0; LANES]; 4];
            for lane in 0..LANES {
                let [z0, z1] = box_muller(a[lane], b[lane]);
                let [z2, z3] = box_muller(c[lane], d[lane]);
                numbers[0][lane] = z0 * std;
                numbers[1][lane] = z1 * std;
                numbers[2][lane] = z2 * std;
                numbers[3][lane] = z3 * std;
            }
            for (lane, x) in x.chunks_mut(4).enumerate() {
                for (x, numbers) in x.iter_mut().zip(&numbers) {
                    *x = numbers[lane];
                }
            }
        }
    }
}

multiversion! {
    fn truncated(x: &mut [f32], rng: &Rng, std: f32, cut: f32, first: u64) {
        for (i, x) in x.chunks_mut(LANES).enumerate() {
            let first = first.wrapping_add((i * LANES) as u64);
            let [a, b, ..] = words(rng, first);
            let mut numbers = [0.0; LANES];
            for lane in 0..LANES {
                [numbers[lane], _] = box_muller(a[lane], b[lane]);
            }
            for (lane, (x, &z)) in x.iter_mut().zip(&numbers).enumerate() {
                // Most are inside at once.
                let inside = z.abs() <= cut;
                *x = std * if inside { z } else { rng.truncated(cut, first.wrapping_add(lane as u64)) };
            }
        }
    }
}
