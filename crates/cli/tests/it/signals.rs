//! Ctrl-C and SIGTERM during training.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::{cupola, write_config};

/// Trains until some steps were made, then sends the signal.
fn train_and_stop(config: &Path, run: &Path, signal: &str) -> Output {
    let metrics = run.join("metrics.jsonl");
    let n_steps = || std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count());
    let before = n_steps();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cupola"));
    command.arg("train").arg(config).arg("--run").arg(run).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let begin = Instant::now();
    while n_steps() < before + 3 {
        assert!(begin.elapsed() < Duration::from_secs(60), "no step was made");
        std::thread::sleep(Duration::from_millis(5));
    }
    let sent = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    child.wait_with_output().unwrap()
}

#[test]
fn a_signal_ends_training_with_a_checkpoint_and_the_way_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("training.steps", "1000000".to_owned()), ("training.checkpoint_every", "1000000".to_owned())];
    let config = write_config(folder.path(), &settings);
    let run = folder.path().join("run");
    let mut steps = Vec::new();
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let output = train_and_stop(&config, &run, signal);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{message}");
        assert!(message.contains("to go on:") && message.contains("--resume"), "{message}");
        let newest = train::checkpoint::list(&train::RunFolder::new(&run)).unwrap().pop().expect("a checkpoint");
        steps.push(newest);
    }
    assert!(steps[0] < steps[1], "the second part went on from the first: {steps:?}");
    let metrics = train::metrics::read(&run.join("metrics.jsonl")).unwrap();
    assert!(metrics.iter().enumerate().all(|(i, record)| record.step == i as u64), "each step once");
    // An unfinished run can be used.
    cupola(&["generate", run.to_str().unwrap(), "--prompt", "the", "--max-tokens", "3"]).success();
    cupola(&["report", run.to_str().unwrap()]).success();
}
