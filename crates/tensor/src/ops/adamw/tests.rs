use half::bf16;
use rayon::ThreadPoolBuilder;

use super::*;
use crate::ops::global_norm;
use crate::testing::{Golden, Tolerance, assert_close, devices, fetched, random, rounded};

/// The settings of the golden numbers.
const SETTINGS: AdamW = AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8, clip: 0.0 };
const LEARNING_RATE: f32 = 3e-3;
const WEIGHT_DECAY: f32 = 0.1;

/// A parameter with its moments.
struct State {
    parameter: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    compute: Option<Tensor>,
}

impl State {
    fn new(parameter: &Tensor) -> Self {
        State::on(Device::Cpu, parameter, None)
    }

    /// With a copy of dtype `compute`, whose elements are wrong at first.
    fn on(device: Device, parameter: &Tensor, compute: Option<DType>) -> Self {
        let zeros = |dtype| Tensor::zeros_on(device, parameter.shape(), dtype);
        State {
            first_moment: zeros(DType::F32),
            second_moment: zeros(DType::F32),
            parameter: Tensor::copied_from(parameter.shape(), parameter.f32s()).to(device),
            compute: compute.map(zeros),
        }
    }

    fn tensors<'a>(&'a mut self, gradient: &'a Tensor) -> AdamWTensors<'a> {
        AdamWTensors {
            parameter: &mut self.parameter,
            gradient,
            first_moment: &mut self.first_moment,
            second_moment: &mut self.second_moment,
            compute: self.compute.as_mut(),
            weight_decay: WEIGHT_DECAY,
        }
    }

    fn update(&mut self, gradient: &Tensor, settings: &AdamW, step: u64) {
        let numbers = numbers(settings, step).to(gradient.device());
        adamw(&mut [self.tensors(gradient)], settings, &numbers, &global_norm(&[gradient]));
    }

    fn all(&self) -> [&Tensor; 3] {
        [&self.parameter, &self.first_moment, &self.second_moment]
    }
}

fn numbers(settings: &AdamW, step: u64) -> Tensor {
    Tensor::from_f32(&[3], adamw_step_numbers(settings, LEARNING_RATE, step).to_vec())
}

#[test]
fn ten_steps_equal_pytorch() {
    let golden = Golden::load(concat!(env!("CARGO_MANIFEST_DIR"), "/golden"), "adamw");
    for device in devices() {
        let mut state = State::on(device, &golden.get("parameter"), None);
        let (gradients, parameters) = (golden.get("gradients"), golden.get("parameters"));
        let n = state.parameter.len();
        let tolerance = Tolerance { absolute: 1e-6, relative: 1e-6 };
        for (i, (gradient, expected)) in gradients.f32s().chunks(n).zip(parameters.f32s().chunks(n)).enumerate() {
            let gradient = Tensor::from_f32(&[7, 13], gradient.to_vec()).to(device);
            state.update(&gradient, &SETTINGS, i as u64 + 1);
            assert_close(&state.parameter, &Tensor::from_f32(&[7, 13], expected.to_vec()), tolerance);
        }
        assert_close(&state.first_moment, &golden.get("first_moment"), tolerance);
        assert_close(&state.second_moment, &golden.get("second_moment"), tolerance);
    }
}

#[test]
fn three_steps_by_hand_come_out() {
    // θ = 1, gradients 0.1, −0.2, 0.3, PyTorch's default settings.
    let cases = [
        (0.0, [0.999_000_000_100, 0.999_366_103_604, 0.999_022_862_539]),
        (0.01, [0.998_990_000_100, 0.999_346_113_704, 0.998_992_879_178]),
    ];
    let settings = AdamW { beta2: 0.999, ..SETTINGS };
    for (weight_decay, expected) in cases {
        let mut state = State::new(&Tensor::full(&[1], 1.0));
        for (step, (gradient, expected)) in (1..).zip([0.1, -0.2, 0.3].into_iter().zip(expected)) {
            let gradient = Tensor::full(&[1], gradient);
            let numbers = Tensor::from_f32(&[3], adamw_step_numbers(&settings, 1e-3, step).to_vec());
            let mut tensors = state.tensors(&gradient);
            tensors.weight_decay = weight_decay;
            adamw(&mut [tensors], &settings, &numbers, &global_norm(&[&gradient]));
            let found = f64::from(state.parameter.item());
            assert!((found - expected).abs() < 1e-6, "step {step}: {found}, expected {expected}");
        }
    }
}

#[test]
fn each_element_follows_the_formula_in_f64_on_every_device() {
    for device in devices() {
        for n in [1, 3, 17, 100, 1000, 4096, 40_001] {
            let (theta, g) = (random(&[n], 1), random(&[n], 2));
            let mut state = State::on(device, &theta, None);
            for step in [1, 2] {
                state.update(&g.to(device), &SETTINGS, step);
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
}

/// More tensors than one launch takes, of odd lengths, some empty.
fn many_states(device: Device, compute: impl Fn(usize) -> Option<DType>) -> (Vec<State>, Vec<Tensor>) {
    let lengths = (0..150).map(|i| if i == 70 { 100_003 } else { i % 11 * 401 });
    let states = lengths.clone().enumerate().map(|(i, n)| State::on(device, &random(&[n], i as u64), compute(i)));
    let gradients = lengths.enumerate().map(|(i, n)| random(&[n], 1000 + i as u64).to(device));
    (states.collect(), gradients.collect())
}

fn update_many(states: &mut [State], gradients: &[Tensor], settings: &AdamW) {
    let norm = global_norm(&gradients.iter().collect::<Vec<_>>());
    let numbers = numbers(settings, 1).to(norm.device());
    let mut tensors: Vec<_> =
        states.iter_mut().zip(gradients).map(|(state, gradient)| state.tensors(gradient)).collect();
    adamw(&mut tensors, settings, &numbers, &norm);
}

#[test]
fn many_tensors_with_copies_and_clipping_are_updated_as_on_the_cpu_one_by_one() {
    let settings = AdamW { clip: 1.0, ..SETTINGS };
    let compute = |i: usize| [Some(DType::Bf16), None, Some(DType::F32)][i % 3];
    let (mut expected, gradients) = many_states(Device::Cpu, |_| None);
    let norm = global_norm(&gradients.iter().collect::<Vec<_>>());
    for (state, gradient) in expected.iter_mut().zip(&gradients) {
        adamw(&mut [state.tensors(gradient)], &settings, &numbers(&settings, 1), &norm);
    }
    for device in devices() {
        let (mut found, gradients) = many_states(device, compute);
        update_many(&mut found, &gradients, &settings);
        for (found, expected) in found.iter().zip(&expected) {
            for (found, expected) in found.all().into_iter().zip(expected.all()) {
                assert_close(found, expected, Tolerance { absolute: 1e-6, relative: 2e-6 });
            }
            if let Some(compute) = &found.compute {
                let rounded = rounded(&fetched(&found.parameter), compute.dtype());
                assert_close(&fetched(compute), &rounded, Tolerance::EXACT);
            }
        }
    }
}

#[test]
fn a_norm_that_is_not_finite_changes_nothing_on_any_device() {
    for device in devices() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut state = State::on(device, &random(&[1003], 1), Some(DType::Bf16));
            let gradient = random(&[1003], 2).to(device);
            state.update(&gradient, &SETTINGS, 1);
            let before = state.all().map(fetched);
            let compute = state.compute.as_ref().map(fetched).unwrap();
            let norm = Tensor::full(&[], bad).to(device);
            adamw(&mut [state.tensors(&gradient)], &SETTINGS, &numbers(&SETTINGS, 2).to(device), &norm);
            for (found, before) in state.all().into_iter().zip(&before) {
                assert_close(found, before, Tolerance::EXACT);
            }
            assert_close(state.compute.as_ref().unwrap(), &compute, Tolerance::EXACT);
        }
    }
}

#[test]
fn long_gradients_are_scaled_to_the_limit_and_short_ones_are_left() {
    let scale = cpu::clip_scale;
    assert!((scale(4.0, 1.0) - 0.25).abs() < 1e-6);
    assert_eq!(scale(0.5, 1.0), 1.0);
    assert_eq!(scale(0.0, 1.0), 1.0);
    assert_eq!(scale(1e9, 0.0), 1.0);

    for device in devices() {
        let mut state = State::on(device, &Tensor::full(&[2], 0.0), None);
        state.update(&Tensor::from_f32(&[2], vec![3.0, 4.0]).to(device), &AdamW { clip: 1.0, ..SETTINGS }, 1);
        let expected = Tensor::from_f32(&[2], vec![0.06, 0.08]);
        assert_close(&state.first_moment, &expected, Tolerance { absolute: 0.0, relative: 1e-6 });
    }
}

#[test]
fn the_copy_is_rounded_to_nearest_even() {
    // With a learning rate of 0 the parameter stays: 1 + 2⁻⁸ is halfway between 1 and 1 + 2⁻⁷.
    for device in devices() {
        let parameter = Tensor::from_f32(&[2], vec![1.0 + 0.003_906_25, 1.0 + 0.011_718_75]);
        let mut state = State::on(device, &parameter, Some(DType::Bf16));
        let numbers = Tensor::from_f32(&[3], vec![0.0, 0.0, 1.0]).to(device);
        let gradient = Tensor::full(&[2], 1.0).to(device);
        adamw(&mut [state.tensors(&gradient)], &SETTINGS, &numbers, &global_norm(&[&gradient]));
        let found = state.compute.unwrap().to(Device::Cpu);
        assert_eq!(found.bf16s(), [1.0, 1.015_625].map(bf16::from_f32));
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (theta, g) = (random(&[100_001], 1), random(&[100_001], 2));
    let on = |n_threads| {
        let pool = ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        let mut state = State::new(&theta);
        pool.install(|| state.update(&g, &SETTINGS, 1));
        state.parameter
    };
    for n_threads in [2, 3] {
        assert_close(&on(n_threads), &on(1), Tolerance::EXACT);
    }
}

#[test]
#[should_panic(expected = "adamw: the parameter is [3], so the gradient must be too, not [4]")]
fn a_wrong_shape_names_both_shapes() {
    State::new(&random(&[3], 1)).update(&random(&[4], 2), &SETTINGS, 1);
}

#[test]
#[should_panic(expected = "adamw: steps count from 1, not from 0")]
fn step_zero_is_refused() {
    adamw_step_numbers(&SETTINGS, LEARNING_RATE, 0);
}
