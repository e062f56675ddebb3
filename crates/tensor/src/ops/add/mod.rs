//! Sum of two tensors of one shape: the residual connection.

pub(in crate::ops) mod cpu;
#[allow(unsafe_code)]
pub(in crate::ops) mod cuda;

use std::sync::{Arc, Mutex, PoisonError};

use crate::cpu::element::{Element, for_dtype};
use crate::cuda::blas::column_sums;
use crate::ops::cast::{as_gradient, cast};
use crate::ops::linear::column_sums_on_cpu;
use crate::tensor::OnTape;
use crate::{DType, Device, Tensor};

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
        Device::Cpu => for_dtype!(x.dtype(), T => cpu::add(T::of_mut(&mut sum), T::of(x), T::of(y))),
        Device::Cuda(_) => cuda::add(&mut sum, x, y),
    }
    on_tape(sum, x, y)
}

/// Puts the sum of `x` and `y` on the tape.
pub(in crate::ops) fn on_tape(sum: Tensor, x: &Tensor, y: &Tensor) -> Tensor {
    with_bias_on_tape(sum, x, y, None, SumsOfColumns::default())
}

/// The sums of the columns of a gradient, if who completes it also sums them; else there is nothing in it.
pub(in crate::ops) type SumsOfColumns = Arc<Mutex<Option<Tensor>>>;

/// `sums` if the norm behind a sum with `bias` is to leave the sums of the columns there: on a GPU, where it has the
/// gradient in registers. On the CPU they are a pass of their own, by all cores.
pub(in crate::ops) fn summing(bias: Option<&Tensor>, sums: SumsOfColumns) -> Option<SumsOfColumns> {
    bias.filter(|bias| bias.is_tracked() && bias.device() != Device::Cpu).map(|_| sums)
}

/// Puts `x + y + bias` on the tape, with one `bias: [d]` for all rows, whose gradient is the sum of the columns of the
/// sum's.
pub(in crate::ops) fn with_bias_on_tape(
    sum: Tensor,
    x: &Tensor,
    y: &Tensor,
    bias: Option<&Tensor>,
    sums: SumsOfColumns,
) -> Tensor {
    let (x_, y_, bias_) = (x.place(), y.place(), bias.map(Tensor::place));
    let inputs: Vec<&Tensor> = [x, y].into_iter().chain(bias).collect();
    Tensor::from_op(sum, &inputs, move |dsum, sink| {
        if let Some(bias) = bias_.filter(|bias| sink.wants(bias)) {
            let known = sums.lock().unwrap_or_else(PoisonError::into_inner).take();
            match (known, dsum.device()) {
                (Some(dbias), _) => sink.add(&bias, cast(&dbias, bias.gradient_dtype())),
                (None, Device::Cpu) => {
                    let mut dbias = Tensor::unspecified(bias.shape(), DType::F32);
                    for_dtype!(dsum.dtype(), T => column_sums_on_cpu(dbias.f32s_mut(), T::of(&dsum)));
                    sink.add(&bias, cast(&dbias, bias.gradient_dtype()));
                }
                (None, Device::Cuda(_)) => sink.accumulate(&bias, |dbias, beta| column_sums(dbias, beta, &dsum)),
            }
        }
        sink.add(&x_, as_gradient(dsum.clone(), &x_));
        sink.add(&y_, as_gradient(dsum, &y_));
    })
}

/// `x + y + bias`, with one bias for all rows: the residual connection of a branch that ends in a linear map.
///
/// # Shapes
/// `x` and `y` of one shape `[..., d]`, `bias: [d]`, all of one dtype → that shape.
///
/// # Panics
/// If the shapes or the dtypes differ.
#[track_caller]
pub fn add_with_bias(x: &Tensor, y: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let Some(bias) = bias else { return add(x, y) };
    check_bias("add_with_bias", x, y, bias);
    let mut sum = Tensor::unspecified_on(x.device(), x.shape(), x.dtype());
    match x.device() {
        Device::Cpu => for_dtype!(x.dtype(), T => {
            cpu::add_with_bias(T::of_mut(&mut sum), T::of(x), T::of(y), T::of(bias));
        }),
        Device::Cuda(_) => cuda::add_with_bias(&mut sum, x, y, bias),
    }
    with_bias_on_tape(sum, x, y, Some(bias), SumsOfColumns::default())
}

#[track_caller]
pub(in crate::ops) fn check_bias(operation: &str, x: &Tensor, y: &Tensor, bias: &Tensor) {
    let (_, d) = x.rows();
    assert!(x.shape() == y.shape(), "{operation}: x is {:?}, so y must be too, not {:?}", x.shape(), y.shape());
    assert!(
        bias.shape() == [d] && y.dtype() == x.dtype() && bias.dtype() == x.dtype(),
        "{operation}: x is {:?} of {}, so the bias must be [{d}] of {}, not {:?} of {}",
        x.shape(),
        x.dtype(),
        x.dtype(),
        bias.shape(),
        bias.dtype()
    );
}

/// `sum + x`, in the memory of `sum` if nothing shares it.
#[track_caller]
pub(crate) fn add_into(mut sum: Tensor, x: &Tensor) -> Tensor {
    if !sum.is_unique() {
        return add(&sum.detached(), &x.detached());
    }
    assert!(sum.dtype() == x.dtype(), "add_into: {} into a sum of {}", x.dtype(), sum.dtype());
    match sum.device() {
        Device::Cpu => for_dtype!(x.dtype(), T => cpu::add_into(T::of_mut(&mut sum), T::of(x))),
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
    fn a_bias_for_all_rows_is_added_and_has_their_sum_as_gradient_on_every_device() {
        for case @ (_, dtype) in cases() {
            for (n, d) in [(0, 5), (1, 1), (3, 17), (300, 768), (1000, 33)] {
                let [x, y, dsum] = [1, 2, 3].map(|stream| rounded(&random(&[n, d], stream), dtype));
                let bias = rounded(&random(&[d], 4), dtype);
                let [x_, y_, bias_] = [&x, &y, &bias].map(|x| placed(x, case).tracked());
                let expected = Tensor::from_fn(&[n, d], |i| x.f32s()[i] + y.f32s()[i] + bias.f32s()[i % d]);
                let sum = add_with_bias(&x_, &y_, Some(&bias_));
                assert_close(&sum, &rounded(&expected, dtype), Tolerance::EXACT);
                let gradients = weighted_sum(&sum, &dsum).backward();
                assert_close(gradients.get(&x_).unwrap(), &dsum, Tolerance::EXACT);
                let column = |j| (0..n).map(|i| f64::from(dsum.f32s()[i * d + j])).sum::<f64>() as f32;
                let tolerance = Tolerance { absolute: 1e-4, relative: 1e-5 };
                assert_close(gradients.get(&bias_).unwrap(), &Tensor::from_fn(&[d], column), tolerance);
            }
        }
    }

    #[test]
    fn gradients_equal_finite_differences() {
        check_gradients(
            |[x, y, b]| add_with_bias(x, y, Some(b)),
            [random(&[2, 5], 1), random(&[2, 5], 2), random(&[5], 3)],
        );
        check_gradients(|[x, y]| add(x, y), [random(&[2, 5], 1), random(&[2, 5], 2)]);
    }

    #[test]
    fn a_tensor_used_twice_gets_both_gradients() {
        check_gradients(|[x]| add(&add(x, x), x), [random(&[7], 1)]);
    }
}
