//! 200 steps of a 124M GPT-2 in bf16 on real tokens, for comparison with PyTorch from the same weights and batches.
//!
//! ```sh
//! cargo bench -p train --bench cuda_losses -- SHARDS FOLDER
//! python3 benches/gpu_losses_peer.py FOLDER
//! ```
//!
//! Writes `weights.bin` (the initial parameters one after another, f32), `weights.json` (their names and shapes),
//! `batches.bin` (ids of `[steps, b, t + 1]`, u32) and `losses.json` into the folder.
#![allow(clippy::print_stdout)]

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;

use data::loader::{Batch, Loader, LoaderConfig};
use data::shard::Dataset;
use nn::{ModelConfig, Transformer};
use tensor::{DType, Device};
use train::config::{Decay, OptimizerConfig};
use train::stepper::{Stepper, TrainState};

const STEPS: u64 = 200;
const BATCH: usize = 32;
const CONTEXT: usize = 1024;
const LEARNING_RATE: f64 = 3e-4;
const WARMUP: u64 = 50;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).filter(|x| x != "--bench").map(PathBuf::from).collect();
    let [shards, folder] = &arguments[..] else {
        println!("skipped: needs a folder of token shards and an output folder");
        return Ok(());
    };
    std::fs::create_dir_all(folder)?;
    let device = Device::from_name("cuda:0")?;
    let config = ModelConfig::gpt2(50304, CONTEXT, 768, 12, 12);
    let model = Transformer::new(&config, 1);

    let mut weights = BufWriter::new(File::create(folder.join("weights.bin"))?);
    let mut shapes = Vec::new();
    for (name, x) in model.parameters() {
        x.f32s().iter().try_for_each(|x| weights.write_all(&x.to_le_bytes()))?;
        shapes.push(serde_json::json!({ "name": name, "shape": x.shape() }));
    }
    weights.flush()?;
    std::fs::write(folder.join("weights.json"), serde_json::to_vec(&shapes)?)?;

    let optimizer = OptimizerConfig::AdamW {
        learning_rate: LEARNING_RATE,
        betas: [0.9, 0.95],
        eps: 1e-8,
        weight_decay: 0.1,
        decay: Decay::Matrices,
    };
    let dataset = Arc::new(Dataset::open(shards)?);
    let loader_config = LoaderConfig { context_length: CONTEXT, global_batch: BATCH, seed: 1 };
    let mut loader = Loader::new(dataset, loader_config)?;
    let mut state = TrainState::fresh(model, &optimizer, 1.0, device, DType::Bf16)?;
    let mut stepper = Stepper::new(device, 1, BATCH, CONTEXT)?;
    let mut batches = BufWriter::new(File::create(folder.join("batches.bin"))?);
    let mut losses = Vec::new();
    for step in 0..STEPS {
        let batch: Batch = loader.next_batch(BATCH);
        for (inputs, targets) in batch.inputs_bt.chunks(CONTEXT).zip(batch.targets_bt.chunks(CONTEXT)) {
            let ids = inputs.iter().chain(targets.last());
            ids.copied().try_for_each(|id| batches.write_all(&id.to_le_bytes()))?;
        }
        let learning_rate = LEARNING_RATE * ((step + 1) as f64 / WARMUP as f64).min(1.0);
        losses.push(stepper.step(&mut state, &[batch], learning_rate, step)?.loss);
    }
    batches.flush()?;
    let settings = serde_json::json!({
        "batch": BATCH, "context": CONTEXT, "steps": STEPS, "learning_rate": LEARNING_RATE, "warmup": WARMUP,
        "losses": losses,
    });
    std::fs::write(folder.join("losses.json"), serde_json::to_vec(&settings)?)?;
    for step in [0, 9, 49, 99, 149, STEPS as usize - 1] {
        println!("step {:3}: {:.4}", step + 1, losses[step]);
    }
    Ok(())
}
