use rayon::ThreadPoolBuilder;

use super::cpu::reference;
use super::*;
use crate::ops::{add, weighted_sum};
use crate::testing::{Golden, Tolerance, assert_close, cases, check_gradients, devices, placed, random, rounded};

/// `y`, `dx`, `dgain`.
fn all(x: &Tensor, gain: &Tensor, dy: &Tensor, eps: f32) -> [Tensor; 3] {
    let (x, gain) = (x.tracked(), gain.tracked());
    let y = rms_norm(&x, &gain, eps);
    let mut gradients = weighted_sum(&y, dy).backward();
    [y, gradients.remove(&x).unwrap(), gradients.remove(&gain).unwrap()]
}

#[test]
fn it_equals_pytorch() {
    let golden = Golden::load(concat!(env!("CARGO_MANIFEST_DIR"), "/golden"), "rms_norm");
    for device in devices() {
        let [x, gain, dy] = ["x", "gain", "dy"].map(|name| golden.get(name).to(device));
        for (found, name) in all(&x, &gain, &dy, 1e-5).iter().zip(["y", "dx", "dgain"]) {
            assert_close(found, &golden.get(name), Tolerance::of(DType::F32));
        }
    }
}

#[test]
fn it_equals_the_reference() {
    for (n, d) in [(1, 1), (3, 17), (1000, 3), (100, 100), (7, 1000), (20, 20_000), (2000, 33)] {
        let (x, gain, dy) = (random(&[n, d], 1), random(&[d], 2), random(&[n, d], 3));
        let [y, dx, dgain] = all(&x, &gain, &dy, 1e-3);
        let tolerance = Tolerance { absolute: 1e-5, relative: 1e-4 };
        let expected = reference::forward(x.f32s(), gain.f32s(), 1e-3);
        assert_close(&y, &Tensor::from_f32(&[n, d], expected), tolerance);
        let (expected_dx, expected_dgain) = reference::backward(dy.f32s(), x.f32s(), gain.f32s(), 1e-3);
        assert_close(&dx, &Tensor::from_f32(&[n, d], expected_dx), tolerance);
        // Sums over n terms of either sign.
        let tolerance = Tolerance { absolute: 1e-6 * n as f32 + 1e-6, relative: 1e-5 };
        assert_close(&dgain, &Tensor::from_f32(&[d], expected_dgain), tolerance);
    }
}

#[test]
fn every_device_equals_the_reference() {
    for case @ (device, dtype) in cases() {
        for (n, d) in
            [(1, 1), (3, 17), (1000, 3), (7, 1000), (20, 20_000), (2000, 33), (3000, 768), (40, 2048), (9, 8192)]
        {
            let [x, dy] = [1, 2].map(|stream| rounded(&random(&[n, d], stream), dtype));
            let gain = random(&[d], 3);
            let found = all(&placed(&x, case), &gain.to(device), &placed(&dy, case), 1e-3);
            let y = reference::forward(x.f32s(), gain.f32s(), 1e-3);
            let (dx, dgain) = reference::backward(dy.f32s(), x.f32s(), gain.f32s(), 1e-3);
            let tolerance = Tolerance::of(dtype);
            assert_close(&found[0], &Tensor::from_f32(&[n, d], y), tolerance);
            // Of a leaf, so in f32.
            assert_close(&found[1], &Tensor::from_f32(&[n, d], dx), Tolerance { absolute: 2e-5, relative: 1e-4 });
            let tolerance = Tolerance { absolute: 1e-6 * n as f32 + 1e-5, relative: 1e-5 };
            assert_close(&found[2], &Tensor::from_f32(&[d], dgain), tolerance);
        }
    }
}

#[test]
fn gradients_equal_finite_differences() {
    check_gradients(|[x, gain]| rms_norm(x, gain, 1e-5), [random(&[2, 3, 8], 1), random(&[8], 2)]);
}

#[test]
fn gradients_of_a_residual_branch_add_up() {
    let gain = random(&[8], 2);
    check_gradients(|[x]| add(&rms_norm(x, &gain, 1e-5), x), [random(&[3, 8], 1)]);
}

#[test]
fn a_gain_over_a_constant_gets_its_gradient() {
    let x = random(&[3, 8], 1);
    check_gradients(|[gain]| rms_norm(&x, gain, 1e-5), [random(&[8], 2)]);
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (x, gain, dy) = (random(&[900, 65], 1), random(&[65], 2), random(&[900, 65], 3));
    let on = |n_threads| {
        let pool = ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| all(&x, &gain, &dy, 1e-6))
    };
    for n_threads in [2, 3] {
        for (found, expected) in on(n_threads).iter().zip(&on(1)) {
            assert_close(found, expected, Tolerance::EXACT);
        }
    }
}

#[test]
fn a_row_of_zeros_stays_zeros() {
    let x = Tensor::full(&[2, 5], 0.0);
    let [y, dx, _] = all(&x, &Tensor::full(&[5], 1.0), &Tensor::full(&[2, 5], 1.0), 1e-6);
    assert_eq!(y.f32s(), [0.0; 10]);
    assert!(dx.f32s().iter().all(|dx| (dx - 1e3).abs() < 0.1), "1/√eps is the slope at 0");
}

#[test]
fn no_rows_give_a_zero_gradient_of_the_gain() {
    let [y, dx, dgain] = all(&random(&[0, 5], 1), &random(&[5], 2), &random(&[0, 5], 3), 1e-6);
    assert!(y.is_empty() && dx.is_empty());
    assert_eq!(dgain.f32s(), [0.0; 5]);
}

#[test]
#[should_panic(expected = "rms_norm: x is [2, 3], so gain must be [3], not [4]")]
fn a_wrong_shape_names_both_shapes() {
    rms_norm(&random(&[2, 3], 1), &random(&[4], 2), 1e-6);
}
