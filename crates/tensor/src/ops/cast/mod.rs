//! Conversion between dtypes.

use half::slice::HalfFloatSliceExt;

use crate::{DType, Tensor};

/// The elements of `x` as `dtype`; rounds to nearest, ties to even. Not differentiable: casts happen where weights
/// enter and leave the tape.
///
/// # Panics
/// If `x` is tracked and the dtype changes, or either dtype is an integer and the other is not.
#[track_caller]
pub fn cast(x: &Tensor, dtype: DType) -> Tensor {
    if x.dtype() == dtype {
        return x.clone();
    }
    assert!(!x.is_tracked(), "cast: a tracked tensor of {} cannot become {dtype}", x.dtype());
    match (x.dtype(), dtype) {
        (DType::F32, DType::Bf16) => {
            let mut y = Tensor::unspecified(x.shape(), DType::Bf16);
            y.bf16s_mut().convert_from_f32_slice(x.f32s());
            y
        }
        (DType::Bf16, DType::F32) => {
            let mut y = Tensor::unspecified(x.shape(), DType::F32);
            x.bf16s().convert_to_f32_slice(y.f32s_mut());
            y
        }
        (from, to) => panic!("cast: no conversion from {from} to {to}"),
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    #[test]
    fn bf16_rounds_to_nearest_even_and_widens_exactly() {
        // 1 + 2⁻⁸ lies halfway between 1 and 1 + 2⁻⁷; 1 + 3·2⁻⁸ halfway between 1 + 2⁻⁷ and 1 + 2⁻⁶.
        let x = Tensor::from_f32(&[3], vec![1.0 + 0.003_906_25, 1.0 + 0.011_718_75, -2.5]);
        let y = cast(&cast(&x, DType::Bf16), DType::F32);
        assert_eq!(y.f32s(), [1.0, 1.0 + 0.015_625, -2.5]);
        assert_eq!(cast(&x, DType::Bf16).bf16s()[2], bf16::from_f32(-2.5));
    }
}
