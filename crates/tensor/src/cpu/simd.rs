//! Vector code without intrinsics: loops that the compiler vectorises, compiled once per instruction set.
//!
//! `multiversion!` compiles a function for baseline x86-64, AVX2 and AVX-512 and picks at run time. Sums go over
//! [`LANES`] separate accumulators, so that they vectorise and are added in the same order on every instruction set; no
//! fused multiply-add is used here, so the bits are the same too.

use super::element::Element;

/// Separate accumulators of a sum: one AVX-512 register.
pub const LANES: usize = 16;

/// Instruction sets that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What every processor of the architecture has.
    Baseline,
    /// 256-bit vectors with fused multiply-add.
    Avx2,
    /// 512-bit vectors.
    Avx512,
}

/// The highest level that this processor has.
pub fn level() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        // `is_x86_feature_detected!` caches: this is a load and a test.
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
        {
            return Level::Avx512;
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Level::Avx2;
        }
    }
    Level::Baseline
}

/// Defines a function compiled for each [`Level`] and dispatched at run time.
macro_rules! multiversion {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident $(<$($generic:ident: $bound:ident),+>)? ($($arg:ident: $ty:ty),* $(,)?)
        $(-> $ret:ty)? $body:block
    ) => {
        $(#[$meta])*
        $vis fn $name $(<$($generic: $bound),+>)? ($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body $(<$($generic: $bound),+>)? ($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512 $(<$($generic: $bound),+>)? ($($arg: $ty),*) $(-> $ret)? {
                    body($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2 $(<$($generic: $bound),+>)? ($($arg: $ty),*) $(-> $ret)? {
                    body($($arg),*)
                }
                #[allow(unsafe_code)]
                match $crate::cpu::simd::level() {
                    // SAFETY: `level` has found these instruction sets on this processor.
                    $crate::cpu::simd::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::cpu::simd::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::cpu::simd::Level::Baseline => {}
                }
            }
            body($($arg),*)
        }
    };
}
pub(crate) use multiversion;

/// Sums `f(i)` for `i` in `0..n` over [`LANES`] accumulators in a fixed order.
#[inline(always)]
pub fn sum_by(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let whole = n / LANES * LANES;
    let mut i = 0;
    while i < whole {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += f(i + lane);
        }
        i += LANES;
    }
    for i in whole..n {
        lanes[i - whole] += f(i);
    }
    // A tree, as a vector unit would reduce.
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// The largest element; −∞ if there is none.
#[inline(always)]
pub fn max<T: Element>(x: &[T]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (m, x) in lanes.iter_mut().zip(chunk) {
            let x = x.widen();
            *m = if x > *m { x } else { *m };
        }
    }
    rest.iter().map(|x| x.widen()).chain(lanes).fold(f32::NEG_INFINITY, |m, x| if x > m { x } else { m })
}

/// `e^x` to within 2 units in the last place, without branches, so that loops over it vectorise. Underflows to 0 below
/// −87.3, saturates at 1.7e38 above 88.02; NaN stays NaN.
///
/// Cody and Waite's reduction `x = n·ln 2 + r`, then the Taylor polynomial of degree 7 on |r| ≤ ln(2)/2.
#[inline(always)]
#[allow(clippy::excessive_precision)]
pub fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5·2^23: adding it rounds to an integer in the low mantissa bits
    const LN2_HIGH: f32 = 0.693_359_375;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if x > 88.02 { 88.02 } else { x };
    let clamped = if clamped < -87.33 { -87.33 } else { clamped };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (clamped - n * LN2_HIGH) - n * LN2_LOW;
    let p = 1.0 / 5040.0;
    let p = p * r + 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    let y = p * scale;
    if x < -87.33 { 0.0 } else { y }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulps_of_the_exact_value() {
        let mut worst = 0.0f64;
        for i in 0..2_000_000 {
            let x = -87.0 + 175.0 * (i as f32 / 2_000_000.0);
            let exact = f64::from(x).exp();
            let ulp = exact * f64::from(f32::EPSILON) / 2.0;
            worst = worst.max((f64::from(exp(x)) - exact).abs() / ulp);
        }
        assert!(worst <= 4.0, "worst error is {worst} half-ulps");
    }

    #[test]
    fn exp_of_the_extremes_is_right() {
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1e30), 0.0);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(1e30) > 1e38);
        assert!(exp(f32::NAN).is_nan());
    }

    multiversion! {
        fn dot(x: &[f32], y: &[f32]) -> f32 {
            sum_by(x.len(), |i| x[i] * y[i])
        }
    }

    #[test]
    fn a_sum_has_the_same_bits_on_every_instruction_set() {
        let x: Vec<f32> = (0..1003).map(|i| (i as f32).sin()).collect();
        let baseline = sum_by(x.len(), |i| x[i] * x[i]);
        assert_eq!(dot(&x, &x).to_bits(), baseline.to_bits());
        let exact: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
        assert!((f64::from(baseline) - exact).abs() < 1e-3);
    }

    #[test]
    fn max_finds_the_largest_wherever_it_is() {
        for n in 1..70 {
            for at in 0..n {
                let x: Vec<f32> = (0..n).map(|i| if i == at { 5.0 } else { -(i as f32) }).collect();
                assert_eq!(max(&x), 5.0);
            }
        }
        assert_eq!(max::<f32>(&[]), f32::NEG_INFINITY);
    }
}
