use std::path::Path;

use super::*;

const GPU: Device = Device::Cuda(0);

fn config(settings: &[&str]) -> RunConfig {
    let text = include_str!("../../../../configs/shakespeare-char.toml");
    let gpt2 = ["model.d_model=768", "model.n_layers=12", "model.n_heads=12", "model.n_kv_heads=12", "model.d_ff=3072"];
    let settings: Vec<String> = gpt2.iter().chain(settings).map(|&setting| setting.to_owned()).collect();
    RunConfig::from_text(text, Path::new("config.toml"), &settings).unwrap()
}

fn total(config: &RunConfig, device: Device, size: usize, recompute: Recompute) -> usize {
    memory_of(config, device, size, recompute).held()
}

#[test]
fn the_largest_divisor_that_fits_into_nine_tenths_of_a_gpu_is_chosen() {
    let config = config(&["training.batch_size=24", "training.micro_batch_size=auto", "model.context_length=1024"]);
    for (size, next) in [(1, 2), (2, 3), (3, 4), (4, 6), (6, 8), (8, 12), (12, 24)] {
        let [needed, too_much] = [size, next].map(|size| total(&config, GPU, size, Recompute::None) as f64);
        assert!(needed < too_much);
        for available in [needed / 0.9 + 1.0, too_much / 0.9 - 1e6] {
            assert_eq!(fitting(&config, GPU, Some(available as usize)), (size, Recompute::None));
        }
    }
    assert_eq!(fitting(&config, GPU, Some(1 << 40)), (24, Recompute::None));
    assert_eq!(fitting(&config, GPU, None), (24, Recompute::None));
}

#[test]
fn blocks_are_recomputed_if_not_even_one_sequence_fits_otherwise() {
    let config = config(&["training.batch_size=8", "training.micro_batch_size=auto", "model.context_length=8192"]);
    let [kept, recomputed] = [Recompute::None, Recompute::Blocks].map(|how| total(&config, GPU, 1, how));
    assert!(recomputed < kept * 9 / 10, "{recomputed} {kept}");
    assert_eq!(fitting(&config, GPU, Some(kept * 10 / 9 + 10)), (1, Recompute::None));
    let (_, recompute) = fitting(&config, GPU, Some(kept * 10 / 9 - 1_000_000));
    assert_eq!(recompute, Recompute::Blocks);
    // Nothing fits: the least is planned, and refused elsewhere.
    assert_eq!(fitting(&config, GPU, Some(1000)), (1, Recompute::Blocks));
}

#[test]
fn what_the_config_says_is_not_chosen_otherwise() {
    let config = config(&["training.batch_size=24", "training.micro_batch_size=4", "training.recompute=none"]);
    assert_eq!(fitting(&config, GPU, Some(1000)), (4, Recompute::None));
    assert_eq!(fitting(&config, GPU, Some(1 << 40)), (4, Recompute::None));
}

#[test]
fn a_run_that_does_not_fit_is_refused_with_what_to_lower() {
    let mut config = config(&["training.batch_size=8", "training.micro_batch_size=auto", "training.device=cpu"]);
    let refused = |config: &RunConfig, available| {
        let mut plan = Plan::of(config);
        plan.available_memory_bytes = Some(available);
        plan.check_memory().unwrap_err().to_string()
    };
    config.training.precision = Auto::Value(Precision::F32);
    config.training.micro_batch_size = Auto::Value(8);
    config.training.recompute = Auto::Value(Recompute::None);
    assert!(refused(&config, 1000).contains("lower training.micro_batch_size"));
    config.training.micro_batch_size = Auto::Value(1);
    assert!(refused(&config, 1000).contains("lower model.d_model"));
    let Plan { memory_bytes, recompute_saves_bytes, .. } = Plan::of(&config);
    assert!(refused(&config, memory_bytes - recompute_saves_bytes).contains("training.recompute = \"blocks\""));
}

#[test]
fn divisors_are_all_and_ascend() {
    for n in 1..200 {
        assert_eq!(divisors(n), (1..=n).filter(|x| n % x == 0).collect::<Vec<_>>());
    }
}
