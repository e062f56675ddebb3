use super::*;
use crate::DType;
use crate::ops::{add, weighted_sum};
use crate::testing::{Tolerance, assert_close, cases, check_gradients, placed, random, rounded};

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

fn transposed(x: &Tensor) -> Tensor {
    let (n, d) = x.rows();
    Tensor::from_fn(&[d, n], |at| x.f32s()[at % n * d + at / n])
}

/// `scale` times normal numbers that `dtype` holds.
fn numbers(shape: &[usize], stream: u64, scale: f32, dtype: DType) -> Tensor {
    let x = random(shape, stream);
    rounded(&Tensor::from_fn(shape, |i| scale * x.f32s()[i]), dtype)
}

/// Any shape: even, odd, one, none, small and larger than a tile. `[n, i, o]`
const SHAPES: [[usize; 3]; 12] = [
    [1, 1, 1],
    [3, 5, 7],
    [1, 300, 40],
    [65, 129, 33],
    [64, 128, 256],
    [17, 8, 1000],
    [1000, 3, 17],
    [130, 72, 1],
    [33, 1, 24],
    [300, 768, 264],
    [0, 16, 8],
    [1, 1000, 1000],
];

#[test]
fn every_device_equals_the_definition() {
    for case @ (device, dtype) in cases() {
        for [n, i, o] in SHAPES {
            // Scaled so that results are of order 1.
            let x = numbers(&[n, i], 1, 1.0, dtype);
            let weight = numbers(&[o, i], 2, 1.0 / (i as f32).sqrt(), dtype);
            let bias = numbers(&[o], 3, 1.0, dtype);
            let dy = numbers(&[n, o], 4, 1.0 / (n.max(o) as f32).sqrt(), dtype);
            for bias in [None, Some(&bias)] {
                let inputs = [Some(&x), Some(&weight), bias].map(|x| x.map(|x| placed(x, case).tracked()));
                let [Some(x_), Some(weight_), bias_] = &inputs else { unreachable!() };
                let y = linear(x_, weight_, bias_.as_ref());
                assert_eq!((y.device(), y.dtype()), case);
                let tolerance = Tolerance::of(dtype);
                assert_close(&y, &by_definition(&x, &weight, bias), tolerance);

                let gradients = weighted_sum(&y, &dy).backward();
                let dweight = gradients.get(weight_).expect("a gradient");
                assert_eq!((dweight.device(), dweight.dtype()), (device, DType::F32), "gradients of leaves are f32");
                let [x_t, w_t, dy_t] = [&x, &weight, &dy].map(transposed);
                // Sums of exact products in f32, whatever the inputs.
                let tight = Tolerance { absolute: 1e-4, relative: 1e-4 };
                if n > 0 {
                    assert_close(dweight, &by_definition(&dy_t, &x_t, None), tight);
                } else {
                    assert_close(dweight, &Tensor::full(&[o, i], 0.0), Tolerance::EXACT);
                }
                assert_close(gradients.get(x_).expect("a gradient"), &by_definition(&dy, &w_t, None), tight);
                if let Some(bias_) = bias_ {
                    let ones = Tensor::full(&[1, n.max(1)], 1.0);
                    let dy_t = if n > 0 { dy_t } else { Tensor::full(&[o, 1], 0.0) };
                    let expected = Tensor::from_f32(&[o], by_definition(&ones, &dy_t, None).f32s().to_vec());
                    assert_close(gradients.get(bias_).expect("a gradient"), &expected, tight);
                }
            }
        }
    }
}

#[test]
fn gradients_of_several_passes_add_up_on_every_device() {
    for case @ (_, dtype) in cases() {
        let [n, i, o] = [40, 24, 56];
        let [x, dy] = [numbers(&[n, i], 1, 1.0, dtype), numbers(&[n, o], 2, 0.2, dtype)];
        let weight = placed(&numbers(&[o, i], 3, 0.2, dtype), case).tracked();
        let bias = placed(&numbers(&[o], 4, 1.0, dtype), case).tracked();
        let mut gradients = crate::Gradients::new();
        for _ in 0..3 {
            weighted_sum(&linear(&placed(&x, case), &weight, Some(&bias)), &dy).backward_into(1.0, &mut gradients);
        }
        let three = |x: Tensor| Tensor::from_fn(x.shape(), |i| 3.0 * x.f32s()[i]);
        let tolerance = Tolerance { absolute: 1e-4, relative: 1e-4 };
        let expected = three(by_definition(&transposed(&dy), &transposed(&x), None));
        assert_close(gradients.get(&weight).expect("a gradient"), &expected, tolerance);
        let ones = Tensor::full(&[1, n], 1.0);
        let expected = three(by_definition(&ones, &transposed(&dy), None));
        let expected = Tensor::from_f32(&[o], expected.f32s().to_vec());
        assert_close(gradients.get(&bias).expect("a gradient"), &expected, tolerance);
    }
}

#[test]
fn a_bias_over_a_constant_weight_gets_its_gradient_on_every_device() {
    for case in cases() {
        let [x, weight] = [random(&[5, 4], 1), random(&[3, 4], 2)].map(|x| placed(&x, case));
        let bias = placed(&random(&[3], 3), case).tracked();
        let dy = Tensor::full(&[5, 3], 0.5);
        let gradients = weighted_sum(&linear(&x, &weight, Some(&bias)), &dy).backward();
        assert_close(gradients.get(&bias).expect("a gradient"), &Tensor::full(&[3], 2.5), Tolerance::EXACT);
    }
}

#[test]
fn an_input_used_twice_gets_both_gradients_on_every_device() {
    for case @ (_, dtype) in cases() {
        let x = numbers(&[16, 8], 1, 1.0, dtype);
        let weights = [2, 3].map(|stream| numbers(&[24, 8], stream, 0.3, dtype));
        let dy = numbers(&[16, 24], 4, 0.2, dtype);
        let gradient = |case| {
            let x = placed(&x, case).tracked();
            let shared = linear(&x, &placed(&Tensor::from_fn(&[8, 8], |i| f32::from(i % 9 == 0)), case), None);
            let [a, b] = weights.each_ref().map(|w| linear(&shared, &placed(w, case), None));
            weighted_sum(&add(&a, &b), &dy).backward().remove(&x).expect("a gradient")
        };
        assert_close(&gradient(case), &gradient(cases()[0]), Tolerance::of(dtype));
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
