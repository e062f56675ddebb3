//! The memory plan against what the device's allocator counted. The count is of all of the device's buffers, so this is one
//! test in a binary of its own. Without a GPU it says that it was skipped.

use data::loader::Batch;
use nn::memory::Step;
use nn::{MlpKind, ModelConfig, Placement, Recompute, Transformer};
use tensor::{DType, cuda, testing};
use train::config::{Decay, OptimizerConfig};
use train::stepper::{Stepper, TrainState};

/// The most bytes alive in the first training steps: one that measures algorithms, one that is recorded, one replayed.
fn measured(config: &ModelConfig, step: &Step, context: &cuda::Context) -> usize {
    let settings = OptimizerConfig::AdamW {
        learning_rate: 1e-3,
        betas: [0.9, 0.95],
        eps: 1e-8,
        weight_decay: 0.1,
        decay: Decay::All,
    };
    let Step { micro_batch_size, n_micro_batches, dtype, device, recompute, fp8 } = *step;
    let model = Transformer::new(config, 1).with_recompute(recompute);
    let mut state = TrainState::fresh(model, &settings, 1.0, device, dtype).unwrap();
    let t = config.context_length;
    let mut stepper = Stepper::new(device, n_micro_batches, micro_batch_size, t).unwrap().with_tuning().with_fp8(fp8);
    context.reset_peak_memory();
    let ids: Vec<u32> = (0..micro_batch_size * t).map(|i| (i % config.vocab_size) as u32).collect();
    let batch = Batch { inputs_bt: ids.clone(), targets_bt: ids, n_sequences: micro_batch_size, context_length: t };
    for step in 0..3 {
        stepper.step(&mut state, &vec![batch.clone(); n_micro_batches], 1e-3, step).unwrap();
    }
    context.memory().peak_alive
}

#[test]
fn the_plan_is_within_five_percent_of_what_is_allocated_on_a_gpu() {
    let Some(device) = testing::gpu() else { return };
    let context = cuda::context(0).unwrap();
    let gpt2 = ModelConfig::gpt2(50304, 1024, 768, 4, 12);
    let llama = ModelConfig::llama(32000, 2048, 2048, 3, 16, 5632);
    let small = ModelConfig::llama(32000, 1024, 512, 4, 8, 1408);
    let (bf16, f32) = (DType::Bf16, DType::F32);
    let configs = [
        ("gpt2", gpt2.clone(), 32, 1, bf16),
        ("gpt2, accumulating", gpt2.clone(), 8, 3, bf16),
        ("gpt2 in f32", ModelConfig { n_layers: 2, context_length: 512, ..gpt2.clone() }, 4, 1, f32),
        (
            "gpt2, 24 layers",
            ModelConfig { n_layers: 24, d_model: 512, d_ff: 2048, n_heads: 8, n_kv_heads: 8, ..gpt2 },
            8,
            1,
            bf16,
        ),
        ("llama", llama, 4, 1, bf16),
        ("grouped queries, tied", ModelConfig { n_kv_heads: 2, tie_embeddings: true, ..small.clone() }, 8, 1, bf16),
        ("post-norm, silu", ModelConfig { placement: Placement::Post, mlp: MlpKind::Silu, ..small }, 8, 2, bf16),
    ];
    let mut failures = String::new();
    for (name, config, micro_batch_size, n_micro_batches, dtype) in configs {
        for recompute in [Recompute::None, Recompute::Blocks] {
            let step = Step { micro_batch_size, n_micro_batches, dtype, device, recompute, fp8: false };
            let plan = nn::memory::training(&config, &step);
            let (planned, measured) = (plan.alive() as f64, measured(&config, &step, &context) as f64);
            let ratio = planned / measured;
            eprintln!(
                "{name}, {recompute:?}: planned {:.3} GB ({:.3} held), allocated {:.3} GB: {ratio:.3}",
                planned / 1e9,
                plan.held() as f64 / 1e9,
                measured / 1e9
            );
            if !(0.95..=1.05).contains(&ratio) {
                failures += &format!("{name}, {recompute:?}: {ratio:.3}, {plan:?}\n");
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
}
