//! Standard normal numbers out of random words, with the same bits on every processor and GPU.
//!
//! Box and Muller's transform needs a logarithm, a sine and a cosine, which no two libraries round alike. Those here are
//! polynomials out of multiplications, additions and a square root, each rounded to nearest, without fused operations and
//! without branches: IEEE 754 leaves no choice in any of them, loops over them vectorise, and `random.cu` does the same
//! operations in the same order. A change here is a change there, and of the weights of every seed.

use std::f32::consts::TAU;

/// A number with 24 random bits in [0, 1).
#[inline(always)]
pub(super) fn unit(word: u32) -> f32 {
    (word >> 8) as f32 * UNIT
}

/// 2⁻²⁴
const UNIT: f32 = 1.0 / (1 << 24) as f32;

/// Two independent standard normal numbers from two random words.
#[inline(always)]
pub(super) fn box_muller(a: u32, b: u32) -> [f32; 2] {
    // 1 − u lies in (0, 1], where the logarithm is finite.
    let radius = (-2.0 * ln(1.0 - unit(a))).sqrt();
    let [cos, sin] = cos_sin_of_turn(b >> 8);
    [radius * cos, radius * sin]
}

/// The natural logarithm of a normal positive number, to within 1.5 units in the last place.
///
/// `x = 2^e·(1 + g)` with 1 + g between √½ and √2, where `ln(1 + g) = g − g²/2 + g³·P(g)` with a minimax P.
#[inline(always)]
#[allow(clippy::excessive_precision)]
pub(super) fn ln(x: f32) -> f32 {
    const ROOT_OF_HALF: u32 = 0x3f35_04f3;
    const ONE: u32 = 0x3f80_0000;
    const LN2_HIGH: f32 = 0.693_359_375;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let bits = x.to_bits() + (ONE - ROOT_OF_HALF);
    let e = ((bits >> 23) as i32 - 127) as f32;
    let g = f32::from_bits((bits & 0x007f_ffff) + ROOT_OF_HALF) - 1.0;
    let p = 6.746_644_527e-2;
    let p = p * g + -1.167_564_616e-1;
    let p = p * g + 1.188_815_683e-1;
    let p = p * g + -1.240_558_922e-1;
    let p = p * g + 1.421_955_377e-1;
    let p = p * g + -1.666_799_635e-1;
    let p = p * g + 2.000_211_924e-1;
    let p = p * g + -2.500_000_894e-1;
    let p = p * g + 3.333_331_347e-1;
    let square = g * g;
    // The small parts first: e·ln 2 has a high part of few bits, whose products with e are exact.
    let small = (p * g) * square + e * LN2_LOW;
    let small = small - 0.5 * square;
    (g + small) + e * LN2_HIGH
}

/// Cosine and sine of `turn`/2²⁴ of a full turn, to within 2 units in the last place. `turn` is below 2²⁴.
///
/// The nearest quarter of a turn is taken off in integers, so what is left, at most an eighth, is exact.
#[inline(always)]
#[allow(clippy::excessive_precision)]
pub(super) fn cos_sin_of_turn(turn: u32) -> [f32; 2] {
    const QUARTER: u32 = 1 << 22;
    let quarters = (turn + QUARTER / 2) / QUARTER;
    let rest = turn.wrapping_sub(quarters * QUARTER) as i32;
    let x = rest as f32 * (TAU * UNIT);
    let z = x * x;
    let s = -1.951_528_247e-4;
    let s = s * z + 8.332_160_302e-3;
    let s = s * z + -1.666_665_524e-1;
    let sin = (s * z) * x + x;
    let c = 2.443_315_68e-5;
    let c = c * z + -1.388_731_645e-3;
    let c = c * z + 4.166_664_556e-2;
    let cos = (c * z) * z + (1.0 - 0.5 * z);
    // Each quarter turns (cos, sin) into (−sin, cos).
    let (cos, sin) = if quarters & 1 == 1 { (sin, cos) } else { (cos, sin) };
    let sign = |bit: u32| (bit & 2) << 30;
    [f32::from_bits(cos.to_bits() ^ sign(quarters + 1)), f32::from_bits(sin.to_bits() ^ sign(quarters))]
}
