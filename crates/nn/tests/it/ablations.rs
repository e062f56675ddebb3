//! Combinations of parts that `transformers` has no class for: gradients against finite differences of the loss.

use nn::{ModelConfig, Transformer};
use tensor::Tensor;
use tensor::random::Rng;

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
