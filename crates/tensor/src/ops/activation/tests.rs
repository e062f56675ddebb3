use rayon::ThreadPoolBuilder;

use super::*;
use crate::DType;
use crate::ops::{add, weighted_sum};
use crate::testing::{Golden, Tolerance, assert_close, cases, check_gradients, fetched, placed, random, rounded};

const ALL: [(Activation, &str); 4] = [
    (Activation::GeluTanh, "gelu_tanh"),
    (Activation::GeluErf, "gelu_erf"),
    (Activation::Silu, "silu"),
    (Activation::Relu, "relu"),
];

/// `y` and `dx`.
fn both(x: &Tensor, dy: &Tensor, kind: Activation) -> [Tensor; 2] {
    let x = x.tracked();
    let y = activation(&x, kind);
    let dx = weighted_sum(&y, dy).backward().remove(&x).unwrap();
    [y, dx]
}

#[test]
fn each_equals_pytorch() {
    let golden = Golden::load(concat!(env!("CARGO_MANIFEST_DIR"), "/golden"), "activation");
    for (kind, name) in ALL {
        let [y, dx] = both(&golden.get("x"), &golden.get("dy"), kind);
        let tolerance = Tolerance { absolute: 1e-6, relative: 1e-6 };
        assert_close(&y, &golden.get(&format!("{name}.y")), tolerance);
        assert_close(&dx, &golden.get(&format!("{name}.dx")), Tolerance { absolute: 3e-6, relative: 3e-6 });
    }
}

/// erf by its Taylor series, in f64: exact to 1e-10 for |x| ≤ 4.
fn erf(x: f64) -> f64 {
    let (mut sum, mut term) = (0.0, x);
    for n in 0..120 {
        sum += term / f64::from(2 * n + 1);
        term *= -x * x / f64::from(n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

#[test]
fn each_equals_its_formula_at_a_hundred_thousand_points() {
    let x = Tensor::from_f32(&[100_001], (0..100_001).map(|i| -5.0 + i as f32 * 1e-4).collect());
    for (kind, _) in ALL {
        let exact = |x: f64| match kind {
            Activation::GeluTanh => {
                0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
            }
            Activation::GeluErf => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
            Activation::Silu => x / (1.0 + (-x).exp()),
            Activation::Relu => x.max(0.0),
        };
        let expected = x.f32s().iter().map(|&x| exact(f64::from(x)) as f32).collect();
        let tolerance = Tolerance { absolute: 5e-7, relative: 3e-7 };
        assert_close(&activation(&x, kind), &Tensor::from_f32(&[100_001], expected), tolerance);
    }
}

#[test]
fn every_device_equals_the_cpu() {
    for case @ (_, dtype) in cases() {
        for n in [0, 1, 3, 17, 1000, 4096, 20_001] {
            let [x, dy] = [1, 2].map(|stream| rounded(&random(&[n], stream), dtype));
            let x = Tensor::from_fn(&[n], |i| 4.0 * x.f32s()[i]);
            for (kind, _) in ALL {
                let [y, dx] = both(&placed(&x, case), &placed(&dy, case), kind);
                let [expected_y, expected_dx] = both(&x, &dy, kind);
                let tolerance = Tolerance { absolute: 5e-6, relative: 5e-6 };
                assert_close(&y, &expected_y, if dtype == DType::Bf16 { Tolerance::of(dtype) } else { tolerance });
                // Of a leaf, so in f32.
                assert_close(&dx, &expected_dx, tolerance);
            }
        }
    }
}

#[test]
fn on_every_device_gradients_of_activations_keep_their_dtype_and_may_be_shared() {
    for case @ (_, dtype) in cases() {
        let [x, dy] = [1, 2].map(|stream| rounded(&random(&[1000], stream), dtype));
        let gelu = |x: &Tensor| activation(x, Activation::GeluTanh);
        let of = |x: &Tensor, dy: &Tensor| {
            let leaf = x.tracked();
            // Neither activation's input is a leaf; the gradient of their sum is shared by both.
            let inner = add(&leaf, &leaf.detached());
            weighted_sum(&add(&gelu(&inner), &gelu(&inner)), dy).backward().remove(&leaf).unwrap()
        };
        assert_close(
            &of(&placed(&x, case), &placed(&dy, case)),
            &of(&x, &dy),
            Tolerance { absolute: 2.0 * Tolerance::of(dtype).absolute, ..Tolerance::of(dtype) },
        );
    }
}

#[test]
fn on_every_device_extremes_saturate_and_nan_stays_nan() {
    for case @ (_, dtype) in cases() {
        let x = rounded(&Tensor::from_f32(&[5], vec![-1e30, -200.0, 200.0, 1e30, f32::NAN]), dtype);
        for (kind, name) in ALL {
            let [y, dx] = both(&placed(&x, case), &placed(&Tensor::full(&[5], 1.0), case), kind).map(|x| fetched(&x));
            let expected = [0.0, 0.0, 200.0, x.f32s()[3]];
            for (i, (expected, slope)) in expected.into_iter().zip([0.0, 0.0, 1.0, 1.0]).enumerate() {
                assert!((y.f32s()[i] - expected).abs() <= 1e-7 * expected.abs() + 1e-7, "{name} {i}: {}", y.f32s()[i]);
                assert!((dx.f32s()[i] - slope).abs() <= 1e-6, "slope of {name} {i}: {}", dx.f32s()[i]);
            }
            assert!(y.f32s()[4].is_nan(), "{name}");
        }
    }
}

#[test]
fn gradients_equal_finite_differences() {
    for (kind, _) in ALL {
        // Away from the kink of relu at 0.
        let x = Tensor::from_f32(&[40], (0..40).map(|i| -4.03 + i as f32 * 0.2).collect());
        check_gradients(|[x]| activation(x, kind), [x]);
    }
}

#[test]
fn a_shared_gradient_is_not_changed_in_place() {
    let gelu = |x: &Tensor| activation(x, Activation::GeluTanh);
    check_gradients(|[x, y]| add(&gelu(x), &gelu(y)), [random(&[9], 1), random(&[9], 2)]);
}

#[test]
fn extremes_saturate_and_nan_stays_nan() {
    let x = Tensor::from_f32(&[5], vec![-1e30, -200.0, 200.0, 1e30, f32::NAN]);
    for (kind, name) in ALL {
        let [y, dx] = both(&x, &Tensor::full(&[5], 1.0), kind);
        let expected = Tensor::from_f32(&[4], vec![0.0, 0.0, 200.0, 1e30]);
        let finite = |x: &Tensor| Tensor::from_f32(&[4], x.f32s()[..4].to_vec());
        assert_close(&finite(&y), &expected, Tolerance { absolute: 1e-7, relative: 0.0 });
        let slopes = Tensor::from_f32(&[4], vec![0.0, 0.0, 1.0, 1.0]);
        assert_close(&finite(&dx), &slopes, Tolerance { absolute: 1e-7, relative: 0.0 });
        assert!(y.f32s()[4].is_nan(), "{name}");
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (x, dy) = (random(&[50_001], 1), random(&[50_001], 2));
    for (kind, _) in ALL {
        let on = |n_threads| {
            let pool = ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            pool.install(|| both(&x, &dy, kind))
        };
        for n_threads in [2, 3] {
            for (found, expected) in on(n_threads).iter().zip(&on(1)) {
                assert_close(found, expected, Tolerance::EXACT);
            }
        }
    }
}
