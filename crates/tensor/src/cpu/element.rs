//! The types of activations on the CPU: kernels are written once, load what they read as `f32`, compute in `f32`, and
//! round what they store.

use bytemuck::Pod;
use half::bf16;

use super::simd::multiversion;
use crate::{DType, Tensor};

/// An element of a tensor of numbers: `f32`, or bf16, which stands for an `f32`.
///
/// The conversions have no branches, so that loops over them vectorise.
pub trait Element: Pod + Send + Sync + std::fmt::Debug {
    /// The same as a value.
    const DTYPE: DType;

    /// The number, exactly.
    fn widen(self) -> f32;

    /// The nearest element; the one with an even last bit if two are as near. NaN stays NaN.
    fn narrow(x: f32) -> Self;

    /// The elements of a tensor on the CPU.
    ///
    /// # Panics
    /// If they are of another type.
    fn of(x: &Tensor) -> &[Self];

    /// [`Element::of`], to be changed in place.
    ///
    /// # Panics
    /// As there, or if the elements are shared.
    fn of_mut(x: &mut Tensor) -> &mut [Self];
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(x: f32) -> Self {
        x
    }

    #[track_caller]
    fn of(x: &Tensor) -> &[Self] {
        x.f32s()
    }

    #[track_caller]
    fn of_mut(x: &mut Tensor) -> &mut [Self] {
        x.f32s_mut()
    }
}

impl Element for bf16 {
    const DTYPE: DType = DType::Bf16;

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn narrow(x: f32) -> Self {
        let bits = x.to_bits();
        // Half of the last bit that stays, or a little less if that bit is even: then a tie is not carried.
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        // A carry would make infinity of a NaN, and dropping its lower half might.
        let quiet = (bits >> 16) | 0x40;
        let is_nan = bits & 0x7fff_ffff > 0x7f80_0000;
        bf16::from_bits(if is_nan { quiet } else { rounded } as u16)
    }

    #[track_caller]
    fn of(x: &Tensor) -> &[Self] {
        x.bf16s()
    }

    #[track_caller]
    fn of_mut(x: &mut Tensor) -> &mut [Self] {
        x.bf16s_mut()
    }
}

/// Evaluates an expression in which `$T` is the [`Element`] of a dtype.
macro_rules! for_dtype {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::DType::Bf16 => {
                type $T = half::bf16;
                $body
            }
            $crate::DType::U32 => panic!("expected a tensor of f32 or bf16, not of u32"),
        }
    };
}
pub(crate) use for_dtype;

multiversion! {
    /// `y = x`, rounded or widened.
    pub(crate) fn convert<D: Element, T: Element>(y: &mut [D], x: &[T]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = D::narrow(x.widen());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_are_those_of_the_half_crate() {
        let mut bits = 0x1234_5678_u32;
        for i in 0..1_000_000_u32 {
            bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Ties and their neighbours as well as anything.
            let x = f32::from_bits(if i % 2 == 0 { bits } else { bits & 0xffff_0000 | 0x8000 | (bits & 1) });
            let (found, expected) = (bf16::narrow(x), bf16::from_f32(x));
            assert_eq!(found.to_bits(), expected.to_bits(), "{x}");
            assert!(found.widen() == expected.to_f32() || x.is_nan(), "{x}");
        }
    }
}
