//! Computing blocks again in backward against keeping what they computed.

use nn::{MlpKind, ModelConfig, NormKind, Placement, Position, Recompute, Transformer};
use tensor::testing::{Tolerance, assert_close, cases};
use tensor::{DType, Gradients, Tensor};

fn families() -> Vec<(&'static str, ModelConfig)> {
    let llama = ModelConfig::llama(61, 20, 32, 3, 4, 48);
    let gpt2 = ModelConfig::gpt2(61, 20, 32, 3, 4);
    vec![
        ("llama", llama.clone()),
        ("grouped queries, tied", ModelConfig { n_kv_heads: 2, tie_embeddings: true, ..llama.clone() }),
        ("post-norm", ModelConfig { placement: Placement::Post, ..llama.clone() }),
        ("no norm", ModelConfig { norm: NormKind::None, ..llama.clone() }),
        ("no positions, silu", ModelConfig { position: Position::None, mlp: MlpKind::Silu, ..llama }),
        ("gpt2", gpt2.clone()),
        (
            "gpt2, exact GELU, post-norm",
            ModelConfig { mlp: MlpKind::GeluErf, placement: Placement::Post, ..gpt2.clone() },
        ),
        ("heads of 64", ModelConfig { d_model: 128, d_ff: 512, n_heads: 2, n_kv_heads: 2, ..gpt2 }),
    ]
}

#[test]
fn losses_and_gradients_have_the_same_bits_in_every_family_on_every_device() {
    for (device, dtype) in cases() {
        for (name, config) in families() {
            let model = Transformer::new(&config, 5).to(device);
            let model = if dtype == DType::F32 { model.tracked() } else { model.compute_copy(dtype).tracked() };
            let (b, t) = (3, config.context_length);
            let ids = |salt: usize| {
                let ids = (0..b * t).map(|i| ((i * 7 + i * i / 5 + salt) % config.vocab_size) as u32).collect();
                Tensor::from_u32(&[b, t], ids).to(device)
            };
            // Two micro-batches, so that gradients are added to.
            let run = |recompute: Recompute| {
                let model = model.clone().with_recompute(recompute);
                let mut gradients = Gradients::new();
                let losses = [0, 1].map(|micro| {
                    let loss = model.loss(&ids(micro), &ids(micro + 1), 2.0 * (b * t) as f32);
                    loss.backward_into(1.0, &mut gradients);
                    loss.item()
                });
                (losses, gradients)
            };
            let ((losses, found), (plain_losses, expected)) = (run(Recompute::Blocks), run(Recompute::None));
            assert_eq!(losses, plain_losses, "{name} on {device} in {dtype}");
            for (parameter, x) in model.parameters() {
                let (found, expected) = (found.get(x), expected.get(x));
                assert_eq!(found.is_some(), expected.is_some(), "{name}: {parameter}");
                let (Some(found), Some(expected)) = (found, expected) else { continue };
                assert_eq!(found.dtype(), expected.dtype(), "{name}: {parameter}");
                assert_close(found, expected, Tolerance::EXACT);
            }
        }
    }
}
