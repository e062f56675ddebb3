use rayon::ThreadPoolBuilder;

use super::*;
use crate::DType;
use crate::ops::weighted_sum;
use crate::testing::{Golden, Tolerance, assert_close, cases, check_gradients, devices, placed, random, rounded};

/// `y` and `dgate_up`.
fn both(gate_up: &Tensor, dy: &Tensor) -> [Tensor; 2] {
    let gate_up = gate_up.tracked();
    let y = swiglu(&gate_up);
    let dgate_up = weighted_sum(&y, dy).backward().remove(&gate_up).unwrap();
    [y, dgate_up]
}

#[test]
fn it_equals_pytorch() {
    let golden = Golden::load(concat!(env!("CARGO_MANIFEST_DIR"), "/golden"), "swiglu");
    for device in devices() {
        let [y, dgate_up] = both(&golden.get("gate_up").to(device), &golden.get("dy").to(device));
        assert_close(&y, &golden.get("y"), Tolerance::of(DType::F32));
        assert_close(&dgate_up, &golden.get("dgate_up"), Tolerance::of(DType::F32));
    }
}

#[test]
fn it_equals_the_definition() {
    for (n, f) in [(1, 1), (3, 17), (1000, 3), (100, 100), (7, 1000), (3, 20_000)] {
        let (gate_up, dy) = (random(&[n, 2 * f], 1), random(&[n, f], 2));
        let (mut y, mut dgate_up) = (Vec::new(), Vec::new());
        for (gate_up, dy) in gate_up.f32s().chunks_exact(2 * f).zip(dy.f32s().chunks_exact(f)) {
            let element = |i: usize| {
                let (gate, up, dy) = (f64::from(gate_up[i]), f64::from(gate_up[f + i]), f64::from(dy[i]));
                let sigmoid = 1.0 / (1.0 + (-gate).exp());
                let silu_derivative = sigmoid * (1.0 + gate * (1.0 - sigmoid));
                [gate * sigmoid * up, dy * up * silu_derivative, dy * gate * sigmoid].map(|x| x as f32)
            };
            y.extend((0..f).map(|i| element(i)[0]));
            dgate_up.extend((0..f).map(|i| element(i)[1]));
            dgate_up.extend((0..f).map(|i| element(i)[2]));
        }
        let [found_y, found_dgate_up] = both(&gate_up, &dy);
        let tolerance = Tolerance { absolute: 1e-6, relative: 2e-6 };
        assert_close(&found_y, &Tensor::from_f32(&[n, f], y), tolerance);
        assert_close(&found_dgate_up, &Tensor::from_f32(&[n, 2 * f], dgate_up), tolerance);
    }
}

#[test]
fn every_device_equals_the_cpu() {
    for case @ (_, dtype) in cases() {
        for (n, f) in [(0, 3), (1, 1), (3, 17), (1000, 3), (7, 1000), (3, 20_000), (33, 5632)] {
            let (gate_up, dy) = (rounded(&random(&[n, 2 * f], 1), dtype), rounded(&random(&[n, f], 2), dtype));
            let [y, dgate_up] = both(&placed(&gate_up, case), &placed(&dy, case));
            let [expected_y, expected_dgate_up] = both(&gate_up, &dy);
            assert_close(&y, &expected_y, Tolerance::of(dtype));
            // Of a leaf, so in f32.
            assert_close(&dgate_up, &expected_dgate_up, Tolerance { absolute: 5e-6, relative: 5e-6 });
        }
    }
}

#[test]
fn gradients_equal_finite_differences() {
    check_gradients(|[gate_up]| swiglu(gate_up), [random(&[2, 3, 10], 1)]);
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (gate_up, dy) = (random(&[300, 130], 1), random(&[300, 65], 2));
    let on = |n_threads| {
        let pool = ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| both(&gate_up, &dy))
    };
    for n_threads in [2, 3] {
        for (found, expected) in on(n_threads).iter().zip(&on(1)) {
            assert_close(found, expected, Tolerance::EXACT);
        }
    }
}

#[test]
fn no_rows_give_no_rows() {
    let [y, dgate_up] = both(&random(&[0, 6], 1), &random(&[0, 3], 2));
    assert_eq!((y.shape(), dgate_up.shape()), (&[0, 3][..], &[0, 6][..]));
}

#[test]
#[should_panic(expected = "swiglu: gate_up must be [..., 2f], not [2, 5]")]
fn an_odd_width_is_refused() {
    swiglu(&random(&[2, 5], 1));
}
