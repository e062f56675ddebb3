//! The two 8-bit floating-point formats of matrix products (Micikevicius et al., 2022,
//! <https://arxiv.org/abs/2209.05433>), with readable conversions: what kernels are tested against.

use std::fmt;

/// A format of 8 bits: sign, exponent, mantissa.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fp8Format {
    /// 4 bits of exponent, 3 of mantissa, up to 448, without infinities: weights and activations.
    E4m3,
    /// 5 bits of exponent, 2 of mantissa, up to 57344: gradients, whose sizes are further apart.
    E5m2,
}

impl Fp8Format {
    /// The largest finite number.
    pub fn max(self) -> f32 {
        match self {
            Fp8Format::E4m3 => 448.0,
            Fp8Format::E5m2 => 57344.0,
        }
    }

    fn mantissa_bits(self) -> u32 {
        match self {
            Fp8Format::E4m3 => 3,
            Fp8Format::E5m2 => 2,
        }
    }

    /// Of normal numbers, the smallest exponent of 2.
    fn smallest_exponent(self) -> i32 {
        match self {
            Fp8Format::E4m3 => -6,
            Fp8Format::E5m2 => -14,
        }
    }

    /// The number that a code stands for.
    pub fn decode(self, code: u8) -> f32 {
        let bits = self.mantissa_bits();
        let (exponent, mantissa) = (i32::from(code & 0x7f) >> bits, u32::from(code) & ((1 << bits) - 1));
        let sign = if code & 0x80 == 0 { 1.0 } else { -1.0 };
        let magnitude = match (self, code & 0x7f) {
            (Fp8Format::E4m3, 0x7f) | (Fp8Format::E5m2, 0x7d..=0x7f) => f32::NAN,
            (Fp8Format::E5m2, 0x7c) => f32::INFINITY,
            // Subnormal: no leading 1, and the exponent of the smallest normal number.
            _ if exponent == 0 => mantissa as f32 * exp2(self.smallest_exponent() - bits as i32),
            _ => {
                let leading = (1 << bits) + mantissa;
                leading as f32 * exp2(self.smallest_exponent() + exponent - 1 - bits as i32)
            }
        };
        sign * magnitude
    }

    /// The code of the number nearest to `x`, of two equally near the one with an even mantissa. Numbers beyond the
    /// largest become the largest; NaN becomes NaN.
    pub fn encode(self, x: f32) -> u8 {
        const NAN: u8 = 0x7f;
        if x.is_nan() {
            return NAN;
        }
        let sign = if x.is_sign_negative() { 0x80 } else { 0 };
        let magnitude = x.abs().min(self.max());
        let bits = self.mantissa_bits() as i32;
        // Of an f32; of its subnormal numbers far too large, but those are 0 here anyway.
        let exponent = (magnitude.to_bits() >> 23) as i32 - 127;
        let exponent = exponent.max(self.smallest_exponent());
        // The distance of neighbours is a power of 2: dividing by it is exact.
        let steps = (magnitude / exp2(exponent - bits)).round_ties_even() as u32;
        // Codes of one sign are consecutive, from one exponent to the next too.
        let below = ((exponent - self.smallest_exponent()) as u32) << bits;
        sign | (below + steps) as u8
    }
}

/// 2 to a power within the normal numbers of f32.
fn exp2(power: i32) -> f32 {
    f32::from_bits(((power + 127) as u32) << 23)
}

impl fmt::Display for Fp8Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fp8Format::E4m3 => "e4m3",
            Fp8Format::E5m2 => "e5m2",
        })
    }
}

/// The factor before rounding that takes the largest magnitude of a tensor to the largest number of the format, and the
/// factor that takes products back, as the kernels compute them. Of a tensor that is not finite neither is what comes out.
pub fn scales(format: Fp8Format, largest_magnitude: f32) -> [f32; 2] {
    // Zeros stay zeros with any factor, but it must be finite.
    let largest = if largest_magnitude < 1e-30 { 1e-30 } else { largest_magnitude };
    [format.max() / largest, largest / format.max()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Rng;

    const FORMATS: [Fp8Format; 2] = [Fp8Format::E4m3, Fp8Format::E5m2];

    fn finite_codes(format: Fp8Format) -> impl Iterator<Item = u8> {
        (0..=255u8).filter(move |&code| format.decode(code).is_finite())
    }

    #[test]
    fn codes_stand_for_the_numbers_of_the_paper() {
        let e4m3 =
            [(0x00, 0.0), (0x01, 1.0 / 512.0), (0x07, 7.0 / 512.0), (0x08, 1.0 / 64.0), (0x38, 1.0), (0x7e, 448.0)];
        for (code, number) in e4m3 {
            assert_eq!(Fp8Format::E4m3.decode(code), number, "{code:#x}");
            assert_eq!(Fp8Format::E4m3.decode(code | 0x80), -number, "{code:#x}");
        }
        let e5m2 = [(0x00, 0.0), (0x01, exp2(-16)), (0x04, exp2(-14)), (0x3c, 1.0), (0x7b, 57344.0)];
        for (code, number) in e5m2 {
            assert_eq!(Fp8Format::E5m2.decode(code), number, "{code:#x}");
        }
        assert_eq!(Fp8Format::E5m2.decode(0xfc), f32::NEG_INFINITY);
        assert_eq!(finite_codes(Fp8Format::E4m3).count(), 254);
        assert_eq!(finite_codes(Fp8Format::E5m2).count(), 248);
    }

    #[test]
    fn every_finite_code_is_the_code_of_its_number() {
        for format in FORMATS {
            for code in finite_codes(format) {
                assert_eq!(format.encode(format.decode(code)), code, "{format} {code:#x}");
            }
            assert!(format.decode(format.encode(f32::NAN)).is_nan());
        }
    }

    /// The definition: of all numbers the nearest, of two the even one.
    fn nearest(format: Fp8Format, x: f32) -> u8 {
        // Of all that is far beyond the largest number, the largest is the nearest; f64 could not tell.
        let clamped = f64::from(x).clamp(-1e6, 1e6);
        let distance = |code: u8| (f64::from(format.decode(code)) - clamped).abs();
        let same_sign = finite_codes(format).filter(|code| (code & 0x80 != 0) == x.is_sign_negative());
        same_sign.min_by(|&a, &b| distance(a).total_cmp(&distance(b)).then((a & 1).cmp(&(b & 1)))).unwrap()
    }

    #[test]
    fn every_number_becomes_the_nearest_with_ties_to_even() {
        for format in FORMATS {
            let mut numbers =
                vec![0.0, -0.0, 1e-45, 1e-30, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, 449.0, 464.0, 60000.0];
            let positive: Vec<u8> = finite_codes(format).filter(|code| code & 0x80 == 0).collect();
            for pair in positive.windows(2) {
                // The middle of neighbours, and what is just beside it.
                let middle = (format.decode(pair[0]) + format.decode(pair[1])) / 2.0;
                numbers.extend([middle, middle.next_up(), middle.next_down(), -middle]);
            }
            for (power, x) in Rng::new(3, 1).normal(&[4000], 1.0).f32s().iter().enumerate() {
                numbers.push(x * exp2(power as i32 % 40 - 22));
            }
            for x in numbers {
                assert_eq!(format.encode(x), nearest(format, x), "{format} of {x}");
            }
        }
    }

    #[test]
    fn scales_take_the_largest_to_the_largest_and_keep_what_is_not_finite() {
        for format in FORMATS {
            let [there, back] = scales(format, 3.0);
            assert_eq!(format.decode(format.encode(3.0 * there)), format.max());
            assert!((there * back - 1.0).abs() < 1e-6);
            assert!(scales(format, 0.0).iter().all(|x| x.is_finite() && *x > 0.0));
            assert!(scales(format, f32::INFINITY)[1].is_infinite() && scales(format, f32::NAN)[1].is_nan());
        }
    }
}
