//! Sum of two tensors of one shape: the residual connection.

use crate::cpu::threads::for_rows;
use crate::{DType, Tensor};

/// `x + y`, element by element.
///
/// # Shapes
/// `x` and `y` of one shape → that shape.
///
/// # Panics
/// If the shapes differ.
#[track_caller]
pub fn add(x: &Tensor, y: &Tensor) -> Tensor {
    assert!(x.shape() == y.shape(), "add: x is {:?}, so y must be too, not {:?}", x.shape(), y.shape());
    let mut sum = Tensor::unspecified(x.shape(), DType::F32);
    let chunk = crate::cpu::threads::rows_per_task(1);
    {
        use rayon::prelude::*;
        let (x, y) = (x.f32s(), y.f32s());
        sum.f32s_mut().par_chunks_mut(chunk).enumerate().for_each(|(task, sum)| {
            let at = task * chunk;
            for ((sum, x), y) in sum.iter_mut().zip(&x[at..]).zip(&y[at..]) {
                *sum = x + y;
            }
        });
    }
    let (x_, y_) = (x.place(), y.place());
    Tensor::from_op(sum, &[x, y], move |dsum, sink| {
        sink.add(&x_, dsum.clone());
        sink.add(&y_, dsum);
    })
}

/// `sum + x`, in the memory of `sum` if nothing shares it.
pub(crate) fn add_into(mut sum: Tensor, x: &Tensor) -> Tensor {
    if !sum.is_unique() {
        return add(&sum.detached(), &x.detached());
    }
    for_rows(sum.f32s_mut(), x.f32s(), 1, |sum, x| {
        for (sum, x) in sum.iter_mut().zip(x) {
            *sum += x;
        }
    });
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, random};

    #[test]
    fn gradients_equal_finite_differences() {
        check_gradients(|[x, y]| add(x, y), [random(&[2, 5], 1), random(&[2, 5], 2)]);
    }

    #[test]
    fn a_tensor_used_twice_gets_both_gradients() {
        check_gradients(|[x]| add(&add(x, x), x), [random(&[7], 1)]);
    }
}
