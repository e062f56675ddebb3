//! Training in twenty lines: a model learns one sentence by heart and says it.
//!
//! ```sh
//! cargo run --release --example 04_training
//! ```
#![allow(clippy::print_stdout)]

use eval::generate::{GenerateConfig, Session};
use eval::sampler::Sampling;
use nn::{ModelConfig, Transformer};
use tensor::{Gradients, Tensor};
use tokenizer::Tokenizer;
use train::config::{Decay, OptimizerConfig};
use train::optimizer::{Optimizer, clip_scale, global_norm};

fn main() -> Result<(), eval::Error> {
    let text = "A cupola is a furnace that turns raw ore into castings.";
    let tokenizer = Tokenizer::bytes();
    let ids = tokenizer.encode(text.as_bytes());
    let n = ids.len() - 1;
    let inputs_bt = Tensor::from_u32(&[1, n], ids[..n].to_vec());
    let targets_bt = Tensor::from_u32(&[1, n], ids[1..].to_vec());

    let mut model = Transformer::new(&ModelConfig::llama(256, 64, 64, 2, 4, 176), 1).tracked();
    let config = OptimizerConfig::AdamW {
        learning_rate: 3e-3,
        betas: [0.9, 0.95],
        eps: 1e-8,
        weight_decay: 0.0,
        decay: Decay::Matrices,
    };
    let mut optimizer = Optimizer::new(&config, &model);
    for update in 1..=120 {
        let mut gradients = Gradients::new();
        let loss = model.loss(&inputs_bt, &targets_bt, n as f32);
        let nats = loss.item();
        loss.backward_into(1.0, &mut gradients);
        drop(loss);
        let scale = clip_scale(global_norm(&model, &gradients), 1.0);
        optimizer.update(&mut model, &gradients, scale, 3e-3, update);
        if update % 20 == 0 {
            println!("update {update:3}: {nats:.4} nats per byte");
        }
    }

    let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    let config = GenerateConfig { sampling, max_tokens: n, stop: vec![".".to_owned()] };
    let generated = Session::new(&model, &tokenizer)?.generate("A cup", &config, &mut |_| true)?;
    println!("A cup{}.", generated.text);
    assert_eq!(format!("A cup{}.", generated.text), text);
    Ok(())
}
