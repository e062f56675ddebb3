//! Contraction with constants to a scalar: the simplest loss, for gradient checks and research.

use crate::{DType, Tensor};

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
    let sum: f64 = x.f32s().iter().zip(weights.f32s()).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
    let (x_, weights) = (x.place(), weights.detached());
    Tensor::from_op(Tensor::from_f32(&[], vec![sum as f32]), &[x], move |dsum, sink| {
        let scale = dsum.item();
        sink.accumulate(&x_, |dx, beta| {
            debug_assert!(dx.dtype() == DType::F32);
            for (dx, w) in dx.f32s_mut().iter_mut().zip(weights.f32s()) {
                *dx = if beta == 0.0 { 0.0 } else { *dx } + scale * w;
            }
        });
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
