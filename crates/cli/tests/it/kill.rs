//! A run that is killed at random moments, again and again, ends with the same bits as one that is not.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{cupola, write_config};

/// Kills that must hit a run that goes on afterwards.
const KILLS: usize = 24;

/// Steps: a checkpoint after each, so that many kills hit one being written.
const STEPS: u64 = 60;

fn config(folder: &Path) -> std::path::PathBuf {
    let settings = [
        ("training.steps", STEPS.to_string()),
        ("training.checkpoint_every", "1".to_owned()),
        ("training.validation_every", "7".to_owned()),
        // Large enough that writing a checkpoint takes a good part of a step's time.
        ("model.d_model", "128".to_owned()),
        ("model.d_ff", "352".to_owned()),
    ];
    write_config(folder, &settings)
}

fn start(config: &Path, run: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cupola"));
    command.arg("train").arg(config).arg("--run").arg(run);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("cupola starts")
}

/// Names of what lies in the folder of checkpoints; empty if there is none.
fn checkpoints(run: &Path) -> Vec<String> {
    let entries = fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// A small generator of its own: the moments of the kills need no quality, only variety.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

#[test]
fn a_run_killed_at_random_moments_ends_with_the_bits_of_an_unbroken_one() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    cupola(&["train", config.to_str().unwrap(), "--run", whole.to_str().unwrap()]).success();

    let mut state = 7;
    let (mut n_kills, mut n_during_checkpoint, mut n_before_training) = (0, 0, 0);
    while n_kills < KILLS {
        let before = checkpoints(&broken);
        let mut child = start(&config, &broken);
        // Some die while the inputs are prepared or the checkpoint is read; most after some progress, so that the run
        // moves on from kill to kill.
        let patience =
            if n_kills % 6 == 0 { Duration::from_millis(random(&mut state) % 400) } else { Duration::from_secs(60) };
        let begin = Instant::now();
        while begin.elapsed() < patience && checkpoints(&broken) == before && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(random(&mut state) % 30_000));
        if child.try_wait().unwrap().is_some() {
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        n_kills += 1;
        let after = checkpoints(&broken);
        n_during_checkpoint += usize::from(after.iter().any(|name| name.starts_with('.')));
        n_before_training += usize::from(after.is_empty());
    }
    eprintln!("{n_kills} kills, {n_during_checkpoint} while a checkpoint was written, {n_before_training} before any");
    assert!(n_during_checkpoint >= 1, "no kill hit a checkpoint being written");
    assert!(n_kills >= 20, "the run ended after {n_kills} kills: it needs more steps for this machine");
    cupola(&["train", config.to_str().unwrap(), "--run", broken.to_str().unwrap()]).success();

    for file in ["model.safetensors", "config.toml", "tokenizer.json"] {
        let same = fs::read(whole.join(file)).unwrap() == fs::read(broken.join(file)).unwrap();
        assert!(same, "{file} of the broken run differs from that of the whole one");
    }
    let steps = |run: &Path| -> Vec<(u64, String)> {
        let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        let records = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        records.map(|record| (record["step"].as_u64().unwrap(), record["loss"].to_string())).collect()
    };
    assert_eq!(steps(&whole), steps(&broken), "each step once, with the same loss");
    assert_eq!(steps(&whole).len() as u64, STEPS);
}
