//! Contraction with constants to a scalar: the simplest loss, for gradient checks and research.

use crate::tensor::OnTape;
use crate::{Tensor, ops};

/// `Σ x · weights`. The weights are constants.
///
/// # Shapes
/// `x` and `weights` of one shape → `[]`.
///
/// # Panics
/// If the shapes differ.
#[track_caller]
pub fn weighted_sum(x: &Tensor, weights: &Tensor) -> Tensor {
    assert!(x.shape() == weights.shape(), "weighted_sum: x is {:?}, weights {:?}", x.shape(), weights.shape());
    let [x_cpu, weights_cpu] = [x, weights].map(crate::testing::fetched);
    let sum: f64 = x_cpu.f32s().iter().zip(weights_cpu.f32s()).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
    let x_ = x.place();
    Tensor::from_op(Tensor::from_f32(&[], vec![sum as f32]), &[x], move |dsum, sink| {
        // Computed on the CPU: this loss is for tests and research, not for speed.
        let scale = dsum.item();
        let dx = Tensor::from_fn(weights_cpu.shape(), |i| scale * weights_cpu.f32s()[i]);
        sink.add(&x_, ops::cast(&dx, x_.gradient_dtype()).to(x_.device()));
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradient_is_the_weights() {
        let x = Tensor::from_f32(&[3], vec![1.0, 2.0, 3.0]).tracked();
        let w = Tensor::from_f32(&[3], vec![4.0, -5.0, 6.0]);
        let y = weighted_sum(&x, &w);
        assert_eq!(y.item(), 12.0);
        assert_eq!(y.backward().get(&x).unwrap().f32s(), w.f32s());
    }
}
