//! Training in bf16 on the CPU against training in f32, and against itself.

use data::loader::Batch;
use nn::{ModelConfig, Transformer};
use tensor::random::Rng;
use tensor::{DType, Device};
use train::config::{Decay, OptimizerConfig};
use train::stepper::{Stepper, TrainState};

const OPTIMIZER: OptimizerConfig = OptimizerConfig::AdamW {
    learning_rate: 1e-3,
    betas: [0.9, 0.95],
    eps: 1e-8,
    weight_decay: 0.1,
    decay: Decay::Matrices,
};
const B: usize = 8;

/// Ids that count up in steps of their sequence's own, with noise, so that there is something to learn.
fn batch(config: &ModelConfig, step: u64) -> Batch {
    let (t, v) = (config.context_length, config.vocab_size);
    let noise = Rng::new(7, step).uniform_tensor(&[B, t + 1], 0.0, 1.0);
    let id = |b: usize, i: usize| {
        let noise = noise.f32s()[b * (t + 1) + i];
        let exact = step as usize * 13 + i * (1 + b % 3);
        (if noise < 0.1 { (noise * 10.0 * v as f32) as usize } else { exact } % v) as u32
    };
    let ids = |from: usize| (0..B * t).map(|i| id(i / t, from + i % t)).collect();
    Batch { inputs_bt: ids(0), targets_bt: ids(1), n_sequences: B, context_length: t }
}

/// Loss of each step.
fn losses(config: &ModelConfig, dtype: DType, n_steps: u64) -> Vec<f64> {
    let mut state = TrainState::fresh(Transformer::new(config, 1), &OPTIMIZER, 1.0, Device::Cpu, dtype).unwrap();
    let mut stepper = Stepper::new(Device::Cpu, 1, B, config.context_length).unwrap();
    (0..n_steps).map(|step| stepper.step(&mut state, &[batch(config, step)], 1e-3, step).unwrap().loss).collect()
}

#[test]
fn two_hundred_losses_in_bf16_stay_close_to_those_in_f32() {
    let llama = ModelConfig::llama(61, 32, 64, 2, 4, 96);
    let gpt2 = ModelConfig::gpt2(61, 32, 64, 2, 4);
    for (name, config) in [("llama", llama), ("gpt2", gpt2)] {
        let [expected, found] = [DType::F32, DType::Bf16].map(|dtype| losses(&config, dtype, 200));
        let distances = || found.iter().zip(&expected).map(|(x, y)| (x - y).abs());
        let (largest, mean) = (distances().fold(0.0, f64::max), distances().sum::<f64>() / 200.0);
        eprintln!(
            "{name}: {:.3} → {:.3}, apart {mean:.4} on average, {largest:.4} at most",
            expected[0], expected[199]
        );
        assert!(expected[199] < 0.7 * expected[0], "{name} has learnt: {} → {}", expected[0], expected[199]);
        assert!(largest < 0.02, "{name}: {largest}");
    }
}

#[test]
fn losses_in_bf16_have_the_same_bits_on_any_number_of_threads() {
    let config = ModelConfig::llama(300, 70, 64, 2, 2, 160);
    let on = |n_threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| losses(&config, DType::Bf16, 4))
    };
    let expected = on(1);
    assert_eq!(on(2), expected);
    assert_eq!(on(3), expected);
}
