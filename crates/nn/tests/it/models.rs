//! The models that tests share.

use std::path::PathBuf;

use nn::{Init, MlpKind, ModelConfig, NormKind, Placement, Position, RopeLayoutKind, Transformer, hugging_face};
use tensor::random::Rng;
use tensor::testing::Golden;
use tensor::{Tensor, ops};

/// The golden models: folders that oracle/transformer.py wrote.
pub(crate) const GOLDEN: [&str; 3] = ["gpt2", "llama", "llama_grouped"];

pub(crate) fn golden_folder(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/golden")).join(name)
}

/// A golden model and what `transformers` computed with it.
pub(crate) fn golden(name: &str) -> (Transformer, Golden) {
    let folder = golden_folder(name);
    let model = hugging_face::load(&folder).unwrap();
    (model, Golden::load(folder.to_str().unwrap(), "expected"))
}

/// Combinations of parts that no golden model has.
pub(crate) fn ablations() -> Vec<(&'static str, ModelConfig)> {
    let llama = ModelConfig { init: Init::Glorot, ..ModelConfig::llama(29, 24, 24, 2, 4, 40) };
    let gpt2 = ModelConfig { init: Init::Glorot, ..ModelConfig::gpt2(29, 24, 24, 2, 4) };
    let interleaved = Position::Rope { theta: 1000.0, layout: RopeLayoutKind::Interleaved };
    vec![
        ("post-norm", ModelConfig { placement: Placement::Post, ..llama.clone() }),
        ("no norm", ModelConfig { norm: NormKind::None, ..llama.clone() }),
        ("no positions", ModelConfig { position: Position::None, ..llama.clone() }),
        ("SiLU", ModelConfig { mlp: MlpKind::Silu, ..llama.clone() }),
        ("one key/value head, interleaved, tied", {
            ModelConfig { n_kv_heads: 1, position: interleaved, tie_embeddings: true, ..llama }
        }),
        ("exact GELU, LayerNorm without bias", {
            let norm = NormKind::Layer { eps: 1e-5, bias: false };
            ModelConfig { mlp: MlpKind::GeluErf, norm, tie_embeddings: false, ..gpt2.clone() }
        }),
        ("post-norm GPT-2", ModelConfig { placement: Placement::Post, ..gpt2 }),
    ]
}

/// A model with gains away from 1 and biases away from 0: at their fresh values a wrong use of them would not show.
pub(crate) fn random_model(config: &ModelConfig, seed: u64) -> Transformer {
    let mut model = Transformer::new(config, seed);
    let names: Vec<String> = model.parameters().into_iter().map(|(name, _)| name).collect();
    for (stream, (name, parameter)) in names.iter().zip(model.parameters_mut()).enumerate() {
        let center = match name.rsplit('.').next() {
            Some("gain") => 1.0,
            Some("bias") => 0.0,
            _ => continue,
        };
        *parameter = Rng::new(seed + 1, stream as u64).uniform_tensor(parameter.shape(), center - 0.2, center + 0.2);
    }
    model
}

/// Random ids of a model's vocabulary.
pub(crate) fn random_ids(config: &ModelConfig, shape: &[usize], stream: u64) -> Tensor {
    let mut rng = Rng::new(5, stream);
    let ids = (0..shape.iter().product()).map(|_| rng.next_u32() % config.vocab_size as u32).collect();
    Tensor::from_u32(shape, ids)
}

/// `‖x‖`.
pub(crate) fn norm(x: &Tensor) -> f64 {
    ops::sum_of_squares(x).sqrt()
}
