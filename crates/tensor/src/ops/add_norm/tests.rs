use super::*;
use crate::ops::{layer_norm as layer, pull_back, rms_norm as rms};
use crate::testing::{Tolerance, assert_close, cases, check_gradients, placed, random};

/// Results and gradients with `sum` and `normed` both used, as in a block.
fn all(
    f: impl Fn(&Tensor, &Tensor, &Tensor, &Tensor) -> (Tensor, Tensor),
    [x, y, gain, bias]: [&Tensor; 4],
    [dsum, dnormed]: [&Tensor; 2],
) -> Vec<Tensor> {
    let [x, y, gain, bias] = [x, y, gain, bias].map(Tensor::tracked);
    let (sum, normed) = f(&x, &y, &gain, &bias);
    let mut gradients = crate::Gradients::new();
    // One walk of the tape: the gradients of the sum come from both of its uses.
    add(&pull_back(&sum, dsum), &pull_back(&normed, dnormed)).backward_into(1.0, &mut gradients);
    let mut found = vec![sum, normed];
    found.extend([x, y, gain, bias].iter().filter_map(|leaf| gradients.remove(leaf)));
    found
}

#[test]
fn one_kernel_equals_the_two_operations_on_every_device() {
    for case @ (device, _) in cases() {
        for (n, d) in [(0, 5), (1, 1), (3, 17), (5, 1000), (300, 768), (40, 2048), (3, 20_000)] {
            let [x, y, dsum, dnormed] = [1, 2, 3, 4].map(|stream| placed(&random(&[n, d], stream), case));
            let [gain, bias] = [5, 6].map(|stream| random(&[d], stream).to(device));
            let (inputs, outputs) = ([&x, &y, &gain, &bias], [&dsum, &dnormed]);
            let fused = all(|x, y, gain, _| add_rms_norm(x, y, gain, 1e-5), inputs, outputs);
            let apart = |x: &Tensor, y: &Tensor, gain: &Tensor| {
                let sum = add(x, y);
                let normed = rms(&sum, gain, 1e-5);
                (sum, normed)
            };
            let expected = all(|x, y, gain, _| apart(x, y, gain), inputs, outputs);
            assert_eq!(fused.len(), 5);
            for (found, expected) in fused.iter().zip(&expected) {
                assert_close(found, expected, Tolerance::EXACT);
            }

            let fused = all(|x, y, gain, bias| add_layer_norm(x, y, gain, Some(bias), 1e-5), inputs, outputs);
            let apart = |x: &Tensor, y: &Tensor, gain: &Tensor, bias: &Tensor| {
                let sum = add(x, y);
                let normed = layer(&sum, gain, Some(bias), 1e-5);
                (sum, normed)
            };
            let expected = all(apart, inputs, outputs);
            assert_eq!(fused.len(), 6);
            for (found, expected) in fused.iter().zip(&expected) {
                assert_close(found, expected, Tolerance::EXACT);
            }
        }
    }
}

#[test]
fn gradients_equal_finite_differences() {
    let inputs = || [random(&[2, 8], 1), random(&[2, 8], 2), random(&[8], 3)];
    check_gradients(
        |[x, y, gain]| {
            let (sum, normed) = add_rms_norm(x, y, gain, 1e-5);
            add(&sum, &normed)
        },
        inputs(),
    );
    check_gradients(
        |[x, y, gain]| {
            let (sum, normed) = add_layer_norm(x, y, gain, None, 1e-5);
            add(&sum, &normed)
        },
        inputs(),
    );
}

#[test]
#[should_panic(expected = "add_rms_norm: x is [2, 3] of f32, so y must be too, not [3, 3] of f32")]
fn a_wrong_shape_names_both_shapes() {
    add_rms_norm(&random(&[2, 3], 1), &random(&[3, 3], 2), &random(&[3], 3), 1e-6);
}
