//! The complete runs that ship.

use std::fs;
use std::path::{Path, PathBuf};

use train::RunConfig;

use crate::support::cupola;

fn configs() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn every_config_is_valid_and_equals_itself_written_out() {
    assert!(configs().len() >= 3);
    for path in configs() {
        let config = RunConfig::from_file(&path, &[]).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let again = RunConfig::from_text(&config.to_text(), &path, &[]).unwrap();
        assert_eq!(config, again, "{}", path.display());
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("# ") && text.contains("cargo run --release -- "),
            "{} says what it is",
            path.display()
        );
    }
}

#[test]
fn the_files_that_configs_name_ship_with_the_repository() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for path in configs() {
        let config = RunConfig::from_file(&path, &[]).unwrap();
        for file in config.data.train {
            assert!(root.join(&file).is_file(), "{} of {}", file.display(), path.display());
        }
    }
}

#[test]
fn the_plan_of_the_course_s_model_has_its_published_numbers() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/cs336-17m.toml");
    // A micro-batch of one keeps the timed step short.
    let settings = ["--set", "training.micro_batch_size=1"];
    let plan = cupola(&[&["plan", config.to_str().unwrap(), "--json"], &settings[..]].concat()).json();
    assert_eq!(plan["parameters"], 22_696_448);
    assert_eq!(plan["tokens"], 40_960_000);
    let parts = plan["memory_by_category_bytes"].as_object().unwrap();
    let sum: u64 = parts.values().map(|part| part.as_u64().unwrap()).sum();
    assert_eq!(plan["memory_bytes"].as_u64(), Some(sum));
    assert!(plan["estimated_seconds"].as_f64().unwrap() > 0.0);
}
