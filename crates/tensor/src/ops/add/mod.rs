//! Sum of two tensors of one shape: the residual connection.

mod cpu;
#[allow(unsafe_code)]
pub(in crate::ops) mod cuda;

use crate::ops::cast::as_gradient;
use crate::{Device, Tensor};

/// `x + y`, element by element.
///
/// # Shapes
/// `x` and `y` of one shape → that shape.
///
/// # Panics
/// If the shapes or the dtypes differ.
#[track_caller]
pub fn add(x: &Tensor, y: &Tensor) -> Tensor {
    assert!(x.shape() == y.shape(), "add: x is {:?}, so y must be too, not {:?}", x.shape(), y.shape());
    assert!(x.dtype() == y.dtype(), "add: x is of {}, so y must be too, not of {}", x.dtype(), y.dtype());
    let mut sum = Tensor::unspecified_on(x.device(), x.shape(), x.dtype());
    match x.device() {
        Device::Cpu => cpu::add(sum.f32s_mut(), x.f32s(), y.f32s()),
        Device::Cuda(_) => cuda::add(&mut sum, x, y),
    }
    on_tape(sum, x, y)
}

/// Puts the sum of `x` and `y` on the tape.
pub(in crate::ops) fn on_tape(sum: Tensor, x: &Tensor, y: &Tensor) -> Tensor {
    let (x_, y_) = (x.place(), y.place());
    Tensor::from_op(sum, &[x, y], move |dsum, sink| {
        sink.add(&x_, as_gradient(dsum.clone(), &x_));
        sink.add(&y_, as_gradient(dsum, &y_));
    })
}

/// `sum + x`, in the memory of `sum` if nothing shares it.
#[track_caller]
pub(crate) fn add_into(mut sum: Tensor, x: &Tensor) -> Tensor {
    if !sum.is_unique() {
        return add(&sum.detached(), &x.detached());
    }
    assert!(sum.dtype() == x.dtype(), "add_into: {} into a sum of {}", x.dtype(), sum.dtype());
    match sum.device() {
        Device::Cpu => cpu::add_into(sum.f32s_mut(), x.f32s()),
        Device::Cuda(_) => cuda::add_into(&mut sum, x),
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::weighted_sum;
    use crate::testing::{Tolerance, assert_close, cases, check_gradients, placed, random, rounded};

    #[test]
    fn every_device_equals_the_rounded_sum() {
        for case @ (_, dtype) in cases() {
            for n in [0, 1, 3, 17, 1000, 4096, 20_001] {
                let [x, y, dsum] = [1, 2, 3].map(|stream| rounded(&random(&[n], stream), dtype));
                let [x_, y_] = [&x, &y].map(|x| placed(x, case).tracked());
                let expected = Tensor::from_fn(&[n], |i| x.f32s()[i] + y.f32s()[i]);
                let sum = add(&x_, &y_);
                assert_close(&sum, &rounded(&expected, dtype), Tolerance::EXACT);
                let gradients = weighted_sum(&sum, &dsum).backward();
                assert_close(gradients.get(&x_).unwrap(), &dsum, Tolerance::EXACT);
                assert_close(gradients.get(&y_).unwrap(), &dsum, Tolerance::EXACT);
                let sum = add_into(placed(&x, case), &placed(&y, case));
                assert_close(&sum, &rounded(&expected, dtype), Tolerance::EXACT);
            }
        }
    }

    #[test]
    fn gradients_equal_finite_differences() {
        check_gradients(|[x, y]| add(x, y), [random(&[2, 5], 1), random(&[2, 5], 2)]);
    }

    #[test]
    fn a_tensor_used_twice_gets_both_gradients() {
        check_gradients(|[x]| add(&add(x, x), x), [random(&[7], 1)]);
    }
}
