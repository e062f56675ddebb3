//! The backward pass of one operation: from any tensor on, with a given gradient.

use super::cast::as_gradient;
use crate::Tensor;

/// A scalar (of value 0) whose gradient with respect to `y` is `dy`: `pull_back(&y, &dy).backward()` runs the backward pass
/// of what `y` was computed by. Without waiting for a device.
///
/// # Shapes
/// `y` and `dy` of one shape → `[]`.
///
/// # Panics
/// If the shapes differ.
#[track_caller]
pub fn pull_back(y: &Tensor, dy: &Tensor) -> Tensor {
    assert!(y.shape() == dy.shape(), "pull_back: y is {:?}, so dy must be too, not {:?}", y.shape(), dy.shape());
    let (y_, dy_) = (y.place(), dy.detached());
    Tensor::from_op(Tensor::full(&[], 0.0), &[y], move |_, sink| sink.add(&y_, as_gradient(dy_, &y_)))
}

/// `x` as if an operation had computed it: its gradient, in the dtype that gradients of activations have, is handed to
/// `receive`.
pub fn as_activation(x: &Tensor, receive: impl FnOnce(Tensor) + Send + 'static) -> Tensor {
    Tensor::from_op(x.detached(), &[&x.tracked()], |dx, _| receive(dx))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{rms_norm, weighted_sum};
    use crate::testing::{Tolerance, assert_close, random};

    #[test]
    fn gradients_are_those_of_the_weighted_sum() {
        let (x, gain, dy) = (random(&[3, 5], 1).tracked(), random(&[5], 2).tracked(), random(&[3, 5], 3));
        let (send, received) = std::sync::mpsc::channel();
        let inner = as_activation(&x, move |dx| send.send(dx).expect("a receiver"));
        let dgain = pull_back(&rms_norm(&inner, &gain, 1e-5), &dy).backward().remove(&gain).unwrap();

        let expected = weighted_sum(&rms_norm(&x, &gain, 1e-5), &dy).backward();
        assert_close(&dgain, expected.get(&gain).unwrap(), Tolerance::EXACT);
        assert_close(&received.recv().unwrap(), expected.get(&x).unwrap(), Tolerance::EXACT);
    }
}
