//! Combinations of parts that `transformers` has no class for: gradients against finite differences of the loss, and
//! what sets each part apart.

use nn::{Block, Linear, Mlp, MlpKind, ModelConfig, Placement, Position, RopeLayoutKind, Transformer};
use tensor::random::Rng;
use tensor::testing::{Tolerance, assert_close};
use tensor::{Tensor, ops};

use crate::models::{ablations, golden, norm, random_ids, random_model};

/// The derivative of the loss along one random direction per parameter tensor: every element takes part.
#[track_caller]
fn check_gradients(name: &str, model: &Transformer) {
    const STEP: f32 = 1e-2;
    let ids = random_ids(model.config(), &[2, 11], 1);
    let targets = random_ids(model.config(), &[2, 11], 2);
    let loss = |model: &Transformer| model.loss(&ids, &targets, targets.len() as f32);

    let tracked = model.tracked();
    let gradients = loss(&tracked).backward();
    for (index, (parameter, x)) in tracked.parameters().into_iter().enumerate() {
        let gradient = gradients.get(x).unwrap_or_else(|| panic!("{name}: {parameter} got no gradient"));
        let direction = Rng::new(8, index as u64).normal(x.shape(), 1.0);
        let products = gradient.f32s().iter().zip(direction.f32s());
        let found: f64 = products.map(|(&g, &u)| f64::from(g) * f64::from(u)).sum();

        let moved = |by: f32| {
            let elements = x.f32s().iter().zip(direction.f32s()).map(|(x, u)| x + by * u).collect();
            let mut moved = model.detached();
            *moved.parameters_mut()[index] = Tensor::from_f32(x.shape(), elements);
            f64::from(loss(&moved).item())
        };
        // Richardson: the error of the central quotient is of order h²; two step sizes cancel it.
        let quotient = |h: f32| (moved(h) - moved(-h)) / f64::from(2.0 * h);
        let expected = (4.0 * quotient(STEP / 2.0) - quotient(STEP)) / 3.0;
        // An f32 loss of about 4 is known to 2e-7: 1e-4 in a quotient.
        let tolerance = 2e-3 * norm(gradient) + 1e-4;
        assert!(
            (found - expected).abs() <= tolerance,
            "{name}: along a random change of {parameter} the loss changes by {expected}, the gradient says {found}"
        );
    }
}

#[test]
fn gradients_of_ablations_equal_finite_differences() {
    for (name, config) in ablations() {
        check_gradients(name, &random_model(&config, 1));
    }
}

#[test]
fn gradients_of_golden_models_equal_finite_differences() {
    for name in ["gpt2", "llama_grouped"] {
        check_gradients(name, &golden(name).0);
    }
}

/// At 1 and −2: the values of the logistic function, of tanh and of the normal distribution in tables.
#[test]
fn each_feed_forward_layer_has_its_activation() {
    for (kind, expected) in [
        (MlpKind::Relu, [1.0, 0.0]),
        (MlpKind::Silu, [0.731_058_6, -0.238_405_84]),
        (MlpKind::GeluErf, [0.841_344_8, -0.045_500_264]),
        (MlpKind::Gelu, [0.841_192, -0.045_402_306]),
    ] {
        let one = || Linear::new(Tensor::full(&[1, 1], 1.0), None);
        let mlp = Mlp { kind, up: one(), down: one() };
        let y = mlp.forward(&Tensor::from_f32(&[2, 1], vec![1.0, -2.0]));
        let tolerance = Tolerance { absolute: 1e-6, relative: 0.0 };
        assert_close(&y, &Tensor::from_f32(&[2, 1], expected.to_vec()), tolerance);
    }
}

/// The formula of Vaswani et al., written out.
#[test]
fn post_norm_is_the_norm_of_the_sum_and_the_last_thing_before_the_head() {
    let post_norm = ModelConfig { placement: Placement::Post, ..ModelConfig::gpt2(29, 24, 24, 2, 4) };
    let config = ModelConfig { position: Position::None, ..post_norm };
    let model = random_model(&config, 1);
    let ids = random_ids(&config, &[2, 24], 1);
    let scale = 1.0 / (config.head_dim() as f32).sqrt();
    let mut x = ops::embedding(&ids, &model.token_embedding);
    for Block { attention_norm, attention, mlp_norm, mlp, .. } in &model.blocks {
        let mixed = ops::attention(&attention.qkv.forward(&x), &config.heads(), scale);
        x = attention_norm.forward(&ops::add(&x, &attention.output.forward(&mixed)));
        x = mlp_norm.forward(&ops::add(&x, &mlp.forward(&x)));
    }
    // The model adds the bias of a branch last.
    let tolerance = Tolerance { absolute: 1e-5, relative: 1e-5 };
    assert_close(&model.forward(&ids, None), &x, tolerance);
}

/// One layer without positions sees a set of tokens.
#[test]
fn without_positions_the_order_of_earlier_tokens_does_not_matter() {
    let rotary = ModelConfig::llama(29, 24, 24, 1, 4, 40);
    let last = |config: &ModelConfig, ids: [u32; 5]| -> Tensor {
        let logits = random_model(config, 1).logits(&Tensor::from_u32(&[1, 5], ids.to_vec()));
        Tensor::from_f32(&[29], logits.f32s()[4 * 29..].to_vec())
    };
    let (one, other) = ([3, 8, 20, 11, 5], [11, 20, 3, 8, 5]);
    let without = ModelConfig { position: Position::None, ..rotary.clone() };
    let tolerance = Tolerance { absolute: 1e-6, relative: 1e-5 };
    assert_close(&last(&without, one), &last(&without, other), tolerance);
    let (x, y) = (last(&rotary, one), last(&rotary, other));
    assert!(x.f32s().iter().zip(y.f32s()).any(|(x, y)| (x - y).abs() > 1e-5), "rotary positions do");
}

/// The two layouts differ by the order of elements within a head.
#[test]
fn interleaved_pairs_equal_split_halves_with_the_rows_of_queries_and_keys_reordered() {
    let rope = |layout| Position::Rope { theta: 1000.0, layout };
    let config = ModelConfig { n_kv_heads: 2, ..ModelConfig::llama(29, 24, 32, 2, 4, 40) };
    let halves = ModelConfig { position: rope(RopeLayoutKind::Half), ..config.clone() };
    let interleaved = ModelConfig { position: rope(RopeLayoutKind::Interleaved), ..config };
    let (expected, mut reordered) = (random_model(&halves, 1), random_model(&interleaved, 1));
    let (e, d) = (halves.head_dim(), halves.d_model);
    let n_rotated_heads = halves.n_heads + halves.n_kv_heads;
    for block in &mut reordered.blocks {
        let rows: Vec<&[f32]> = block.attention.qkv.weight.f32s().chunks(d).collect();
        let row = |i: usize| match (i / e < n_rotated_heads, i % e) {
            // Elements 2p and 2p + 1 of an interleaved head are p and p + e/2 of a split one.
            (true, within) => rows[i - within + within / 2 + within % 2 * (e / 2)],
            (false, _) => rows[i],
        };
        let elements = (0..rows.len()).flat_map(row).copied().collect();
        block.attention.qkv.weight = Tensor::from_f32(block.attention.qkv.weight.shape(), elements);
    }
    let ids = random_ids(&halves, &[1, 24], 1);
    let tolerance = Tolerance { absolute: 1e-6, relative: 1e-5 };
    assert_close(&reordered.logits(&ids), &expected.logits(&ids), tolerance);
}

#[test]
fn each_switch_changes_what_is_computed() {
    let base = ModelConfig::llama(29, 24, 24, 2, 4, 40);
    let ids = random_ids(&base, &[1, 24], 1);
    let mut seen = vec![random_model(&base, 1).logits(&ids)];
    for (name, config) in ablations() {
        let logits = random_model(&config, 1).logits(&ids);
        assert!(logits.f32s().iter().all(|x| x.is_finite()), "{name}");
        assert!(seen.iter().all(|other| other.f32s() != logits.f32s()), "{name} computes what another does");
        seen.push(logits);
    }
}

#[test]
fn a_model_of_zeros_is_as_unsure_as_can_be() {
    let published = [ModelConfig::gpt2(29, 24, 24, 2, 4), ModelConfig::llama(29, 24, 24, 2, 4, 40)];
    for config in published.into_iter().chain(ablations().into_iter().map(|(_, config)| config)) {
        let mut model = Transformer::new(&config, 0);
        for parameter in model.parameters_mut() {
            parameter.f32s_mut().fill(0.0);
        }
        let (ids, targets) = (random_ids(&config, &[2, 24], 1), random_ids(&config, &[2, 24], 2));
        let loss = model.loss(&ids, &targets, targets.len() as f32).item();
        assert!((loss - (config.vocab_size as f32).ln()).abs() < 1e-6, "{config:?}: {loss}");
    }
}
