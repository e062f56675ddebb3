//! The memory that a run is planned to take against what the system counts.

use crate::support::{cupola, write_config};

/// Runs two steps and returns planned and counted bytes.
fn planned_and_counted(settings: &[(&str, &str)]) -> Option<(f64, f64)> {
    let folder = tempfile::tempdir().unwrap();
    let fixed = [
        ("training.steps", "2"),
        ("training.precision", "\"f32\""),
        ("training.validation_sequences", "1"),
        ("model.context_length", "256"),
        ("data.validation.tail", "0.5"),
    ];
    let settings: Vec<(&str, String)> =
        fixed.iter().chain(settings).map(|&(key, value)| (key, value.to_owned())).collect();
    let config = write_config(folder.path(), &settings);
    let run = folder.path().join("run");
    let (config, run_path) = (config.to_str().unwrap(), run.to_str().unwrap());
    let plan = cupola(&["plan", config, "--json"]).json();
    cupola(&["train", config, "--run", run_path]).success();
    let summary = std::fs::read_to_string(run.join("summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary["planned_memory_bytes"], plan["memory_bytes"], "one plan, wherever it is printed");
    Some((plan["memory_bytes"].as_f64()?, summary["peak_memory_bytes"].as_f64()?))
}

#[test]
fn the_plan_is_within_ten_percent_of_the_peak_that_the_system_counts() {
    let mostly_activations = [
        ("model.d_model", "512"),
        ("model.n_heads", "8"),
        ("model.n_kv_heads", "8"),
        ("model.n_layers", "6"),
        ("model.d_ff", "1344"),
        ("training.batch_size", "16"),
        ("training.micro_batch_size", "16"),
    ];
    let mostly_weights = [
        ("model.vocab_size", "24000"),
        ("model.d_model", "1024"),
        ("model.n_heads", "16"),
        ("model.n_kv_heads", "4"),
        ("model.n_layers", "3"),
        ("model.d_ff", "2816"),
        ("training.batch_size", "2"),
        ("training.micro_batch_size", "1"),
    ];
    for settings in [&mostly_activations[..], &mostly_weights[..]] {
        let Some((planned, counted)) = planned_and_counted(settings) else {
            eprintln!("skipped: this system does not count the peak memory of a process");
            return;
        };
        eprintln!("planned {:.3} GB, counted {:.3} GB", planned / 1e9, counted / 1e9);
        assert!(planned >= 1e9, "planned {planned}: the test is about large runs");
        assert!((planned / counted - 1.0).abs() <= 0.1, "planned {planned}, counted {counted}");
    }
}
