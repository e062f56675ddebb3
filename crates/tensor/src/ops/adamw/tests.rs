use rayon::ThreadPoolBuilder;

use super::*;
use crate::DType;
use crate::testing::{Golden, Tolerance, assert_close, random};

/// The settings of the golden numbers.
const SETTINGS: AdamW =
    AdamW { learning_rate: 3e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, step: 1, grad_scale: 1.0 };

/// A parameter with its moments.
struct State {
    parameter: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
}

impl State {
    fn new(parameter: &Tensor) -> Self {
        let zeros = || Tensor::zeros(parameter.shape(), DType::F32);
        let parameter = Tensor::from_f32(parameter.shape(), parameter.f32s().to_vec());
        State { first_moment: zeros(), second_moment: zeros(), parameter }
    }

    fn update(&mut self, gradient: &Tensor, settings: &AdamW) {
        adamw(&mut self.parameter, gradient, &mut self.first_moment, &mut self.second_moment, settings);
    }
}

#[test]
fn ten_steps_equal_pytorch() {
    let golden = Golden::load(concat!(env!("CARGO_MANIFEST_DIR"), "/golden"), "adamw");
    let mut state = State::new(&golden.get("parameter"));
    let (gradients, parameters) = (golden.get("gradients"), golden.get("parameters"));
    let n = state.parameter.len();
    let tolerance = Tolerance { absolute: 1e-6, relative: 1e-6 };
    for (i, (gradient, expected)) in gradients.f32s().chunks(n).zip(parameters.f32s().chunks(n)).enumerate() {
        let gradient = Tensor::from_f32(&[7, 13], gradient.to_vec());
        state.update(&gradient, &AdamW { step: i as u64 + 1, ..SETTINGS });
        assert_close(&state.parameter, &Tensor::from_f32(&[7, 13], expected.to_vec()), tolerance);
    }
    assert_close(&state.first_moment, &golden.get("first_moment"), tolerance);
    assert_close(&state.second_moment, &golden.get("second_moment"), tolerance);
}

#[test]
fn three_steps_by_hand_come_out() {
    // θ = 1, gradients 0.1, −0.2, 0.3, PyTorch's default settings.
    let cases = [
        (0.0, [0.999_000_000_100, 0.999_366_103_604, 0.999_022_862_539]),
        (0.01, [0.998_990_000_100, 0.999_346_113_704, 0.998_992_879_178]),
    ];
    for (weight_decay, expected) in cases {
        let mut state = State::new(&Tensor::full(&[1], 1.0));
        for (i, (gradient, expected)) in [0.1, -0.2, 0.3].into_iter().zip(expected).enumerate() {
            let settings = AdamW { learning_rate: 1e-3, beta2: 0.999, weight_decay, step: i as u64 + 1, ..SETTINGS };
            state.update(&Tensor::full(&[1], gradient), &settings);
            let found = f64::from(state.parameter.item());
            assert!((found - expected).abs() < 1e-6, "step {}: {found}, expected {expected}", i + 1);
        }
    }
}

#[test]
fn each_element_follows_the_formula_in_f64() {
    for n in [1, 3, 17, 100, 1000, 40_001] {
        let (theta, g) = (random(&[n], 1), random(&[n], 2));
        let mut state = State::new(&theta);
        for step in [1, 2] {
            state.update(&g, &AdamW { step, ..SETTINGS });
        }
        let expected = theta.f32s().iter().zip(g.f32s()).map(|(&theta, &g)| {
            let (mut theta, mut m, mut v, g) = (f64::from(theta), 0.0, 0.0, f64::from(g));
            for step in [1, 2] {
                theta *= 1.0 - 3e-3 * 0.1;
                m = 0.9 * m + 0.1 * g;
                v = 0.95 * v + 0.05 * g * g;
                let (m_hat, v_hat) = (m / (1.0 - 0.9f64.powi(step)), v / (1.0 - 0.95f64.powi(step)));
                theta -= 3e-3 * m_hat / (v_hat.sqrt() + 1e-8);
            }
            theta as f32
        });
        let expected = Tensor::from_f32(&[n], expected.collect());
        assert_close(&state.parameter, &expected, Tolerance { absolute: 1e-6, relative: 1e-6 });
    }
}

#[test]
fn the_scale_applies_to_the_gradient() {
    let (theta, g) = (random(&[50], 1), random(&[50], 2));
    let halved = Tensor::from_f32(&[50], g.f32s().iter().map(|g| g / 2.0).collect());
    let (mut scaled, mut expected) = (State::new(&theta), State::new(&theta));
    scaled.update(&g, &AdamW { grad_scale: 0.5, ..SETTINGS });
    expected.update(&halved, &SETTINGS);
    assert_close(&scaled.parameter, &expected.parameter, Tolerance::EXACT);
    assert_close(&scaled.second_moment, &expected.second_moment, Tolerance::EXACT);
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (theta, g) = (random(&[100_001], 1), random(&[100_001], 2));
    let on = |n_threads| {
        let pool = ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        let mut state = State::new(&theta);
        pool.install(|| state.update(&g, &SETTINGS));
        state.parameter
    };
    for n_threads in [2, 3] {
        assert_close(&on(n_threads), &on(1), Tolerance::EXACT);
    }
}

#[test]
#[should_panic(expected = "adamw: the parameter is [3], so the gradient must be too, not [4]")]
fn a_wrong_shape_names_both_shapes() {
    State::new(&random(&[3], 1)).update(&random(&[4], 2), &SETTINGS);
}

#[test]
#[should_panic(expected = "adamw: steps count from 1, not from 0")]
fn step_zero_is_refused() {
    State::new(&random(&[3], 1)).update(&random(&[3], 2), &AdamW { step: 0, ..SETTINGS });
}
