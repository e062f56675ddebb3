use super::*;
use crate::testing::{Tolerance, assert_close, check_gradients, random};

/// The definition, in f64.
fn by_definition(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let (n, i) = x.rows();
    let o = weight.shape()[0];
    let mut y = Vec::with_capacity(n * o);
    for x in x.f32s().chunks_exact(i) {
        for (out, w) in weight.f32s().chunks_exact(i).enumerate() {
            let dot: f64 = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
            y.push((dot + bias.map_or(0.0, |b| f64::from(b.f32s()[out]))) as f32);
        }
    }
    let shape: Vec<usize> = x.shape()[..x.shape().len() - 1].iter().copied().chain([o]).collect();
    Tensor::from_f32(&shape, y)
}

#[test]
fn it_equals_the_definition() {
    for (n, i, o) in [(1, 1, 1), (3, 5, 7), (1, 300, 40), (65, 129, 33)] {
        let (x, w, b) = (random(&[n, i], 1), random(&[o, i], 2), random(&[o], 3));
        for bias in [None, Some(&b)] {
            assert_close(&linear(&x, &w, bias), &by_definition(&x, &w, bias), Tolerance::of(DType::F32));
        }
    }
}

#[test]
fn gradients_equal_finite_differences() {
    let inputs = [random(&[2, 3, 4], 1), random(&[5, 4], 2), random(&[5], 3)];
    check_gradients(|[x, w, b]| linear(x, w, Some(b)), inputs);
}

#[test]
fn a_weight_used_twice_accumulates_its_gradient_in_place() {
    check_gradients(|[x, w]| linear(&linear(x, w, None), w, None), [random(&[3, 4], 1), random(&[4, 4], 2)]);
}

#[test]
#[should_panic(expected = "linear: x is [2, 3], so the weight must be [_, 3], not [4, 5]")]
fn a_wrong_shape_names_both_shapes() {
    linear(&random(&[2, 3], 1), &random(&[4, 5], 2), None);
}
