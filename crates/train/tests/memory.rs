//! The memory plan against what the allocator counted. The count is of the whole process, so this is one test in a
//! binary of its own.

use data::loader::Batch;
use nn::memory::Step;
use nn::{MlpKind, ModelConfig, NormKind, Placement, Recompute, Transformer};
use tensor::{DType, Device, memory};
use train::config::{Decay, OptimizerConfig};
use train::stepper::{Stepper, TrainState};

/// The most bytes alive in a training step.
fn measured(config: &ModelConfig, step: &Step) -> usize {
    let Step { micro_batch_size, n_micro_batches, dtype, recompute, .. } = *step;
    memory::trim();
    let settings = OptimizerConfig::AdamW {
        learning_rate: 1e-3,
        betas: [0.9, 0.95],
        eps: 1e-8,
        weight_decay: 0.1,
        decay: Decay::All,
    };
    let model = Transformer::new(config, 1).with_recompute(recompute);
    let mut state = TrainState::fresh(model, &settings, 1.0, Device::Cpu, dtype).unwrap();
    let t = config.context_length;
    let mut stepper = Stepper::new(Device::Cpu, n_micro_batches, micro_batch_size, t).unwrap();
    memory::reset_peak();
    let ids: Vec<u32> = (0..micro_batch_size * t).map(|i| (i % config.vocab_size) as u32).collect();
    let batch = Batch { inputs_bt: ids.clone(), targets_bt: ids, n_sequences: micro_batch_size, context_length: t };
    stepper.step(&mut state, &vec![batch; n_micro_batches], 1e-3, 0).unwrap();
    memory::stats().peak_alive
}

#[test]
fn the_plan_is_within_three_percent_of_what_is_allocated() {
    let llama = ModelConfig::llama(2000, 128, 128, 4, 4, 352);
    let configs = [
        ("llama", llama.clone(), 16, 1),
        ("llama, accumulating", llama.clone(), 8, 2),
        ("grouped queries, tied", ModelConfig { n_kv_heads: 1, tie_embeddings: true, ..llama.clone() }, 16, 1),
        ("large vocabulary", ModelConfig { vocab_size: 30_000, ..llama.clone() }, 4, 1),
        ("large vocabulary, tied", ModelConfig { vocab_size: 30_000, tie_embeddings: true, ..llama.clone() }, 4, 2),
        ("wide", ModelConfig { d_model: 512, d_ff: 2048, n_layers: 2, ..llama.clone() }, 2, 1),
        ("gpt2", ModelConfig::gpt2(2000, 128, 128, 4, 4), 16, 1),
        ("post-norm", ModelConfig { placement: Placement::Post, ..llama.clone() }, 16, 1),
        ("no norm", ModelConfig { norm: NormKind::None, ..llama.clone() }, 16, 1),
        ("silu, deep", ModelConfig { mlp: MlpKind::Silu, n_layers: 12, ..llama }, 8, 1),
    ];
    let mut failures = String::new();
    let kinds = [DType::F32, DType::Bf16].map(|dtype| [Recompute::None, Recompute::Blocks].map(|kind| (dtype, kind)));
    for (name, config, micro_batch_size, n_micro_batches) in configs {
        for (dtype, recompute) in kinds.into_iter().flatten() {
            let step = Step { micro_batch_size, n_micro_batches, dtype, device: Device::Cpu, recompute, fp8: false };
            let plan = nn::memory::training(&config, &step);
            let measured = measured(&config, &step) as f64;
            let ratio = plan.alive() as f64 / measured;
            eprintln!(
                "{name}, {dtype}, {recompute:?}: planned {:.2} MB, allocated {:.2} MB: {ratio:.3}",
                plan.alive() as f64 / 1e6,
                measured / 1e6
            );
            if !(0.97..=1.03).contains(&ratio) {
                failures += &format!("{name}, {dtype}, {recompute:?}: {ratio:.3}, {plan:?}\n");
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
}
