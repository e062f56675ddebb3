use rayon::ThreadPoolBuilder;

use super::cpu::reference;
use super::*;
use crate::ops::{add, weighted_sum};
use crate::testing::{Golden, Tolerance, assert_close, cases, check_gradients, devices, placed, random, rounded};

/// `y`, `dx`, `dgain`, `dbias`.
fn all(x: &Tensor, gain: &Tensor, bias: &Tensor, dy: &Tensor, eps: f32) -> [Tensor; 4] {
    let (x, gain, bias) = (x.tracked(), gain.tracked(), bias.tracked());
    let y = layer_norm(&x, &gain, Some(&bias), eps);
    let mut gradients = weighted_sum(&y, dy).backward();
    let [dx, dgain, dbias] = [x, gain, bias].map(|leaf| gradients.remove(&leaf).unwrap());
    [y, dx, dgain, dbias]
}

#[test]
fn it_equals_pytorch() {
    let golden = Golden::load(concat!(env!("CARGO_MANIFEST_DIR"), "/golden"), "layer_norm");
    for device in devices() {
        let [x, gain, bias, dy] = ["x", "gain", "bias", "dy"].map(|name| golden.get(name).to(device));
        for (found, name) in all(&x, &gain, &bias, &dy, 1e-5).iter().zip(["y", "dx", "dgain", "dbias"]) {
            assert_close(found, &golden.get(name), Tolerance::of(DType::F32));
        }
    }
}

#[test]
fn it_equals_the_reference() {
    for (n, d) in [(1, 1), (3, 17), (1000, 3), (100, 100), (7, 1000), (20, 20_000), (2000, 33)] {
        let (x, gain, bias, dy) = (random(&[n, d], 1), random(&[d], 2), random(&[d], 4), random(&[n, d], 3));
        let [y, dx, dgain, dbias] = all(&x, &gain, &bias, &dy, 1e-2);
        let tolerance = Tolerance { absolute: 1e-5, relative: 1e-4 };
        let expected = reference::forward(x.f32s(), gain.f32s(), bias.f32s(), 1e-2);
        assert_close(&y, &Tensor::from_f32(&[n, d], expected), tolerance);
        let [expected_dx, expected_dgain, expected_dbias] = reference::backward(dy.f32s(), x.f32s(), gain.f32s(), 1e-2);
        assert_close(&dx, &Tensor::from_f32(&[n, d], expected_dx), tolerance);
        // Sums over n terms of either sign.
        let tolerance = Tolerance { absolute: 1e-6 * n as f32 + 1e-6, relative: 1e-5 };
        assert_close(&dgain, &Tensor::from_f32(&[d], expected_dgain), tolerance);
        assert_close(&dbias, &Tensor::from_f32(&[d], expected_dbias), tolerance);
    }
}

#[test]
fn every_device_equals_the_reference() {
    for case @ (device, dtype) in cases() {
        for (n, d) in
            [(1, 1), (3, 17), (1000, 3), (7, 1000), (20, 20_000), (2000, 33), (3000, 768), (40, 2048), (9, 8192)]
        {
            let [x, dy] = [1, 2].map(|stream| rounded(&random(&[n, d], stream), dtype));
            let (gain, bias) = (random(&[d], 3), random(&[d], 4));
            let found = all(&placed(&x, case), &gain.to(device), &bias.to(device), &placed(&dy, case), 1e-2);
            let y = reference::forward(x.f32s(), gain.f32s(), bias.f32s(), 1e-2);
            let [dx, dgain, dbias] = reference::backward(dy.f32s(), x.f32s(), gain.f32s(), 1e-2);
            let tolerance = Tolerance { absolute: 1e-5, relative: 1e-4 };
            let of_y = if dtype == DType::Bf16 { Tolerance::of(dtype) } else { tolerance };
            assert_close(&found[0], &Tensor::from_f32(&[n, d], y), of_y);
            // Of a leaf, so in f32.
            assert_close(&found[1], &Tensor::from_f32(&[n, d], dx), tolerance);
            let tolerance = Tolerance { absolute: 1e-6 * n as f32 + 1e-5, relative: 1e-5 };
            assert_close(&found[2], &Tensor::from_f32(&[d], dgain), tolerance);
            assert_close(&found[3], &Tensor::from_f32(&[d], dbias), tolerance);
        }
    }
}

#[test]
fn on_every_device_gradients_of_a_residual_branch_add_up_in_the_dtype_of_activations() {
    for case @ (device, dtype) in cases() {
        let (n, d) = (50, 768);
        let [x, dy] = [1, 2].map(|stream| rounded(&random(&[n, d], stream), dtype));
        let gain = random(&[d], 3);
        let leaf = placed(&x, case).tracked();
        // Not a leaf: its gradient has its dtype and is accumulated into.
        let inner = add(&leaf, &placed(&Tensor::full(&[n, d], 0.0), case));
        let y = add(&layer_norm(&inner, &gain.to(device), None, 1e-2), &inner);
        let found = weighted_sum(&y, &placed(&dy, case)).backward().remove(&leaf).unwrap();
        let [dx, ..] = reference::backward(dy.f32s(), x.f32s(), gain.f32s(), 1e-2);
        let expected = Tensor::from_fn(&[n, d], |i| dx[i] + dy.f32s()[i]);
        assert_close(&found, &expected, Tolerance::of(dtype));
    }
}

#[test]
fn every_device_gives_zero_gradients_of_parameters_over_no_rows() {
    for case @ (device, _) in cases() {
        let [x, dy] = [1, 2].map(|stream| placed(&random(&[0, 5], stream), case));
        let [gain, bias] = [3, 4].map(|stream| random(&[5], stream).to(device));
        let [y, _, dgain, dbias] = all(&x, &gain, &bias, &dy, 1e-6);
        assert!(y.is_empty());
        assert_close(&dgain, &Tensor::full(&[5], 0.0), Tolerance::EXACT);
        assert_close(&dbias, &Tensor::full(&[5], 0.0), Tolerance::EXACT);
    }
}

#[test]
fn every_device_gives_the_same_bits_again() {
    for case @ (device, _) in cases() {
        let [x, dy] = [1, 2].map(|stream| placed(&random(&[5000, 768], stream), case));
        let [gain, bias] = [3, 4].map(|stream| random(&[768], stream).to(device));
        let [first, second] = [(); 2].map(|()| all(&x, &gain, &bias, &dy, 1e-6));
        for (first, second) in first.iter().zip(&second) {
            assert_close(first, second, Tolerance::EXACT);
        }
    }
}

#[test]
fn gradients_equal_finite_differences() {
    check_gradients(
        |[x, gain, bias]| layer_norm(x, gain, Some(bias), 1e-5),
        [random(&[2, 3, 8], 1), random(&[8], 2), random(&[8], 3)],
    );
}

#[test]
fn gradients_without_bias_equal_finite_differences() {
    check_gradients(|[x, gain]| layer_norm(x, gain, None, 1e-5), [random(&[3, 8], 1), random(&[8], 2)]);
}

#[test]
fn gradients_of_a_residual_branch_add_up() {
    let gain = random(&[8], 2);
    check_gradients(|[x]| add(&layer_norm(x, &gain, None, 1e-5), x), [random(&[3, 8], 1)]);
}

#[test]
fn parameters_over_a_constant_get_their_gradients() {
    let x = random(&[3, 8], 1);
    check_gradients(|[gain, bias]| layer_norm(&x, gain, Some(bias), 1e-5), [random(&[8], 2), random(&[8], 3)]);
}

#[test]
fn a_large_mean_does_not_hurt_the_variance() {
    let small = random(&[4, 100], 1);
    // A multiple of 1/64 plus 4096 is exact in f32.
    let small = Tensor::from_f32(&[4, 100], small.f32s().iter().map(|x| (x * 64.0).round() / 64.0).collect());
    let large = Tensor::from_f32(&[4, 100], small.f32s().iter().map(|x| x + 4096.0).collect());
    let gain = Tensor::full(&[100], 1.0);
    let (found, expected) = (layer_norm(&large, &gain, None, 1e-5), layer_norm(&small, &gain, None, 1e-5));
    assert_close(&found, &expected, Tolerance { absolute: 1e-3, relative: 0.0 });
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (x, gain, bias, dy) = (random(&[900, 65], 1), random(&[65], 2), random(&[65], 4), random(&[900, 65], 3));
    let on = |n_threads| {
        let pool = ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| all(&x, &gain, &bias, &dy, 1e-6))
    };
    for n_threads in [2, 3] {
        for (found, expected) in on(n_threads).iter().zip(&on(1)) {
            assert_close(found, expected, Tolerance::EXACT);
        }
    }
}

#[test]
fn no_rows_give_zero_gradients_of_the_parameters() {
    let [y, dx, dgain, dbias] = all(&random(&[0, 5], 1), &random(&[5], 2), &random(&[5], 4), &random(&[0, 5], 3), 1e-6);
    assert!(y.is_empty() && dx.is_empty());
    assert_eq!((dgain.f32s(), dbias.f32s()), (&[0.0; 5][..], &[0.0; 5][..]));
}

#[test]
#[should_panic(expected = "layer_norm: x is [2, 3], so bias must be [3], not [1, 3]")]
fn a_wrong_shape_names_both_shapes() {
    layer_norm(&random(&[2, 3], 1), &random(&[3], 2), Some(&random(&[1, 3], 3)), 1e-6);
}
