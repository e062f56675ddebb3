use super::*;
use crate::ops::{add, add_with_bias, layer_norm as layer, pull_back, rms_norm as rms};
use crate::testing::{Tolerance, assert_close, cases, check_gradients, placed, random};

type Function<'a> = &'a dyn Fn(&[Tensor; 5]) -> (Tensor, Tensor);

/// Results and gradients with `sum` and `normed` both used, as in a block.
fn all(f: Function<'_>, inputs: [&Tensor; 5], [dsum, dnormed]: [&Tensor; 2]) -> Vec<Tensor> {
    let inputs = inputs.map(Tensor::tracked);
    let (sum, normed) = f(&inputs);
    let mut gradients = crate::Gradients::new();
    // One walk of the tape: the gradients of the sum come from both of its uses.
    add(&pull_back(&sum, dsum), &pull_back(&normed, dnormed)).backward_into(1.0, &mut gradients);
    let mut found = vec![sum, normed];
    found.extend(inputs.iter().filter_map(|leaf| gradients.remove(leaf)));
    found
}

#[test]
fn one_kernel_equals_the_operations_on_every_device() {
    let functions: [(Function<'_>, Function<'_>, usize); 4] = [
        (
            &|[x, y, _, gain, _]| add_rms_norm(x, y, None, gain, 1e-5),
            &|[x, y, _, gain, _]| {
                let sum = add(x, y);
                (sum.clone(), rms(&sum, gain, 1e-5))
            },
            3,
        ),
        (
            &|[x, y, _, gain, bias]| add_layer_norm(x, y, None, gain, Some(bias), 1e-5),
            &|[x, y, _, gain, bias]| {
                let sum = add(x, y);
                (sum.clone(), layer(&sum, gain, Some(bias), 1e-5))
            },
            4,
        ),
        (
            &|[x, y, y_bias, gain, _]| add_rms_norm(x, y, Some(y_bias), gain, 1e-5),
            &|[x, y, y_bias, gain, _]| {
                let sum = add_with_bias(x, y, Some(y_bias));
                (sum.clone(), rms(&sum, gain, 1e-5))
            },
            4,
        ),
        (
            &|[x, y, y_bias, gain, bias]| add_layer_norm(x, y, Some(y_bias), gain, Some(bias), 1e-5),
            &|[x, y, y_bias, gain, bias]| {
                let sum = add_with_bias(x, y, Some(y_bias));
                (sum.clone(), layer(&sum, gain, Some(bias), 1e-5))
            },
            5,
        ),
    ];
    for case @ (device, dtype) in cases() {
        for (n, d) in [(0, 5), (1, 1), (3, 17), (5, 1000), (300, 768), (5000, 768), (40, 2048), (3, 20_000)] {
            let [x, y, dsum, dnormed] = [1, 2, 3, 4].map(|stream| placed(&random(&[n, d], stream), case));
            let [gain, bias] = [5, 6].map(|stream| random(&[d], stream).to(device));
            let y_bias = placed(&random(&[d], 7), case);
            for (fused, apart, n_gradients) in functions {
                let inputs = [&x, &y, &y_bias, &gain, &bias];
                let found = all(fused, inputs, [&dsum, &dnormed]);
                let expected = all(apart, inputs, [&dsum, &dnormed]);
                assert_eq!((found.len(), expected.len()), (2 + n_gradients, 2 + n_gradients));
                for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    // Apart, the gradient of the branch's bias is summed after rounding, and in another order.
                    let rounding = if dtype == DType::Bf16 { 2e-2 } else { 1e-5 };
                    let of_sums = Tolerance { absolute: rounding * (1.0 + n as f32).sqrt(), relative: rounding };
                    // The fifth is the bias's, or, without one, something that is exact anyway.
                    assert_close(found, expected, if i == 4 { of_sums } else { Tolerance::EXACT });
                }
            }
        }
    }
}

#[test]
fn gradients_equal_finite_differences() {
    let inputs = || [random(&[2, 8], 1), random(&[2, 8], 2), random(&[8], 3)];
    check_gradients(
        |[x, y, gain]| {
            let (sum, normed) = add_rms_norm(x, y, None, gain, 1e-5);
            add(&sum, &normed)
        },
        inputs(),
    );
    check_gradients(
        |[x, y, gain]| {
            let (sum, normed) = add_layer_norm(x, y, None, gain, None, 1e-5);
            add(&sum, &normed)
        },
        inputs(),
    );
}

#[test]
#[should_panic(expected = "add_rms_norm: x is [2, 3] of f32, so y must be too, not [3, 3] of f32")]
fn a_wrong_shape_names_both_shapes() {
    add_rms_norm(&random(&[2, 3], 1), &random(&[3, 3], 2), None, &random(&[3], 3), 1e-6);
}
