use super::*;
use crate::ops::weighted_sum;
use crate::testing::{Tolerance, assert_close, cases, check_gradients, placed, random, rounded};

const KINDS: [Option<Activation>; 5] =
    [Some(Activation::GeluTanh), Some(Activation::GeluErf), Some(Activation::Silu), Some(Activation::Relu), None];

/// x, up, its bias, down, its bias: scaled so that everything is of order 1.
fn inputs(n: usize, d: usize, f: usize, kind: Option<Activation>) -> [Tensor; 5] {
    let width = if kind.is_some() { f } else { 2 * f };
    let scaled = |shape: &[usize], stream, scale: f32| {
        let x = random(shape, stream);
        Tensor::from_fn(shape, |i| scale * x.f32s()[i])
    };
    [
        scaled(&[n, d], 1, 1.0),
        scaled(&[width, d], 2, 1.0 / (d as f32).sqrt()),
        scaled(&[width], 3, 0.5),
        scaled(&[d, f], 4, 1.0 / (f as f32).sqrt()),
        scaled(&[d], 5, 0.5),
    ]
}

fn apply(inputs: [&Tensor; 5], biases: bool, activation: Option<Activation>) -> Tensor {
    let [x, up, up_bias, down, down_bias] = inputs;
    let [up_bias, down_bias] = [up_bias, down_bias].map(|bias| biases.then_some(bias));
    mlp(x, &Mlp { up, up_bias, down, down_bias, activation })
}

#[test]
fn gradients_equal_finite_differences() {
    // Not across the kink of relu at 0.
    for kind in KINDS.into_iter().filter(|kind| *kind != Some(Activation::Relu)) {
        check_gradients(|all| apply(all, true, kind), inputs(3, 4, 6, kind));
    }
}

#[test]
fn every_device_equals_the_cpu() {
    for case @ (device, dtype) in cases() {
        for kind in KINDS {
            for (n, d, f) in [(1, 8, 16), (33, 17, 5), (64, 64, 256), (300, 24, 40), (7, 768, 1000)] {
                let host = inputs(n, d, f, kind).map(|x| rounded(&x, dtype));
                let dy = random(&[n, d], 6);
                let scale = 1.0 / (n.max(d) as f32).sqrt();
                let dy = rounded(&Tensor::from_fn(&[n, d], |i| scale * dy.f32s()[i]), dtype);
                for biases in [true, false] {
                    let all = |case| {
                        let inputs = host.each_ref().map(|x| placed(x, case).tracked());
                        let y = apply(inputs.each_ref(), biases, kind);
                        let mut gradients = weighted_sum(&y, &dy).backward();
                        let gradients: Vec<_> = inputs.iter().filter_map(|x| gradients.remove(x)).collect();
                        (y, gradients)
                    };
                    let ((y, found), (y_cpu, expected)) = (all(case), all((Device::Cpu, DType::F32)));
                    let tolerance = match dtype {
                        DType::Bf16 => Tolerance { absolute: 2e-2, relative: 2e-2 },
                        // The two devices' exponentials differ in their last digits.
                        _ => Tolerance { absolute: 1e-4, relative: 1e-4 },
                    };
                    assert_eq!((y.device(), y.dtype()), case);
                    assert_close(&y, &y_cpu, tolerance);
                    assert_eq!(found.len(), if biases { 5 } else { 3 });
                    for (found, expected) in found.iter().zip(&expected) {
                        assert_eq!((found.device(), found.dtype()), (device, DType::F32));
                        assert_close(found, expected, tolerance);
                    }
                }
            }
        }
    }
}

#[test]
fn constants_get_no_gradient_and_give_the_same_result_on_every_device() {
    for case @ (_, dtype) in cases() {
        let kind = Some(Activation::GeluTanh);
        let host = inputs(40, 32, 64, kind).map(|x| rounded(&x, dtype));
        let constants = host.each_ref().map(|x| placed(x, case));
        let y = apply(constants.each_ref(), true, kind);
        assert!(!y.is_tracked());
        for tracked in 0..5 {
            let mut all = constants.clone();
            all[tracked] = all[tracked].tracked();
            let y_tracked = apply(all.each_ref(), true, kind);
            assert_close(&y_tracked, &y, Tolerance::of(dtype));
            let gradients = weighted_sum(&y_tracked, &random(&[40, 32], 6)).backward();
            assert!(gradients.get(&all[tracked]).is_some());
        }
    }
}

#[test]
fn no_rows_give_no_rows_on_every_device() {
    for case in cases() {
        let all = inputs(0, 8, 16, Some(Activation::Silu)).map(|x| placed(&x, case));
        assert_eq!(apply(all.each_ref(), true, Some(Activation::Silu)).shape(), [0, 8]);
    }
}

#[test]
#[should_panic(expected = "the weight must be [_, 8], not [16, 7]")]
fn a_wrong_shape_names_both_shapes() {
    let mut all = inputs(2, 8, 16, Some(Activation::Silu));
    all[1] = random(&[16, 7], 1);
    apply(all.each_ref(), true, Some(Activation::Silu));
}
