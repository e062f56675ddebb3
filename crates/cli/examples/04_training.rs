//! Training in twenty lines: a model learns one sentence by heart and says it.
//!
//! ```sh
//! cargo run --release --example 04_training
//! ```
#![allow(clippy::print_stdout)]

use data::loader::Batch;
use eval::generate::{GenerateConfig, Session};
use eval::sampler::Sampling;
use nn::{ModelConfig, Transformer};
use tensor::{DType, Device};
use tokenizer::Tokenizer;
use train::config::{Decay, OptimizerConfig};
use train::stepper::{Stepper, TrainState};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let text = "A cupola is a furnace that turns raw ore into castings.";
    let tokenizer = Tokenizer::bytes();
    let ids = tokenizer.encode(text.as_bytes());
    let n = ids.len() - 1;
    let batch =
        Batch { inputs_bt: ids[..n].to_vec(), targets_bt: ids[1..].to_vec(), n_sequences: 1, context_length: n };

    let model = Transformer::new(&ModelConfig::llama(256, 64, 64, 2, 4, 176), 1);
    let config = OptimizerConfig::AdamW {
        learning_rate: 3e-3,
        betas: [0.9, 0.95],
        eps: 1e-8,
        weight_decay: 0.0,
        decay: Decay::Matrices,
    };
    let mut state = TrainState::fresh(model, &config, 1.0, Device::Cpu, DType::F32)?;
    let mut stepper = Stepper::new(Device::Cpu, 1, 1, n)?;
    for step in 0..120 {
        let result = stepper.step(&mut state, std::slice::from_ref(&batch), 3e-3, step)?;
        if step % 20 == 19 {
            println!("update {:3}: {:.4} nats per byte", step + 1, result.loss);
        }
    }

    let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    let config = GenerateConfig { sampling, max_tokens: n, stop: vec![".".to_owned()] };
    let generated = Session::new(&state.model, &tokenizer)?.generate("A cup", &config, &mut |_| true)?;
    println!("A cup{}.", generated.text);
    assert_eq!(format!("A cup{}.", generated.text), text);
    Ok(())
}
