//! Conversion between dtypes.

#[allow(unsafe_code)]
pub(in crate::ops) mod cuda;

use crate::cpu::element::convert;
use crate::cpu::threads::for_rows;
use crate::tensor::OnTape;
use crate::{DType, Device, Tensor};

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
    let mut y = Tensor::unspecified_on(x.device(), x.shape(), dtype);
    match (x.dtype(), dtype, x.device()) {
        (DType::U32, ..) | (_, DType::U32, _) => panic!("cast: no conversion from {} to {dtype}", x.dtype()),
        (_, _, Device::Cuda(_)) => cuda::cast(&mut y, x),
        (_, DType::Bf16, Device::Cpu) => for_rows(y.bf16s_mut(), x.f32s(), 1, convert),
        (_, DType::F32, Device::Cpu) => for_rows(y.f32s_mut(), x.bf16s(), 1, convert),
    }
    y
}

/// `dx` in the dtype that the gradient of `x` has.
pub(in crate::ops) fn as_gradient(dx: Tensor, x: &impl OnTape) -> Tensor {
    if x.track().is_none() { dx } else { cast(&dx, x.gradient_dtype()) }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::testing::{Tolerance, assert_close, devices, random, rounded};

    #[test]
    fn every_device_rounds_alike() {
        for device in devices() {
            for n in [0, 1, 7, 8, 1000, 4096, 10_001] {
                let x = random(&[n], 1);
                let y = cast(&x.to(device), DType::Bf16);
                assert_eq!((y.dtype(), y.device()), (DType::Bf16, device));
                assert_eq!(y.to(Device::Cpu).bf16s(), cast(&x, DType::Bf16).bf16s());
                assert_close(&cast(&y, DType::F32), &rounded(&x, DType::Bf16), Tolerance::EXACT);
            }
        }
    }

    #[test]
    fn bf16_rounds_to_nearest_even_and_widens_exactly() {
        // 1 + 2⁻⁸ lies halfway between 1 and 1 + 2⁻⁷; 1 + 3·2⁻⁸ halfway between 1 + 2⁻⁷ and 1 + 2⁻⁶.
        let x = Tensor::from_f32(&[3], vec![1.0 + 0.003_906_25, 1.0 + 0.011_718_75, -2.5]);
        let y = cast(&cast(&x, DType::Bf16), DType::F32);
        assert_eq!(y.f32s(), [1.0, 1.0 + 0.015_625, -2.5]);
        assert_eq!(cast(&x, DType::Bf16).bf16s()[2], bf16::from_f32(-2.5));
    }
}
