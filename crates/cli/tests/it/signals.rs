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

/// Starts the program, sends the signal once `path` exists, and waits for the end.
fn stop_at(arguments: &[&str], path: &Path, signal: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cupola"));
    let mut child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begin = Instant::now();
    while !path.exists() && begin.elapsed() < Duration::from_secs(120) && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(path.exists(), "{} was not made", path.display());
    assert!(Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap().success());
    child.wait_with_output().unwrap()
}

/// Looks at how a program ended, and returns what it said.
#[track_caller]
fn ended(output: &Output, code: i32, part: &str) -> String {
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert!(message.contains(part), "{part:?} is not in: {message}");
    message
}

#[test]
fn a_signal_before_the_first_step_ends_the_program_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let run = folder.path().join(signal);
        let arguments = ["quickstart", "--json", "--run", run.to_str().unwrap()];
        let output = stop_at(&arguments, &run.join("config.toml"), signal);
        ended(&output, code, "nothing is lost");
        let stopped: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&stopped["status"], &stopped["step"]), (&"stopped".into(), &serde_json::Value::Null));
    }
}

#[test]
fn a_signal_after_the_last_step_ends_the_program_and_the_same_command_does_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    // So large that writing samples takes a while.
    let settings = [
        ("training.steps", "1".to_owned()),
        ("training.batch_size", "1".to_owned()),
        ("schedule.constant.warmup_steps", "0".to_owned()),
        ("model.n_layers", "12".to_owned()),
        ("model.d_model", "256".to_owned()),
        ("model.d_ff", "704".to_owned()),
    ];
    let config = write_config(folder.path(), &settings);
    let run = folder.path().join("run");
    let arguments = ["train", config.to_str().unwrap(), "--run", run.to_str().unwrap()];
    let output = stop_at(&arguments, &run.join("model.safetensors"), "TERM");
    ended(&output, 143, "the same command does the rest");
    assert!(!run.join("summary.json").exists());
    cupola(&arguments).success();
    assert!(run.join("summary.json").is_file() && run.join("report.html").is_file());
    assert_eq!(train::metrics::read(&run.join("metrics.jsonl")).unwrap().len(), 1);
}

#[test]
fn a_signal_is_answered_at_once_though_the_step_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("training.steps", "1000".to_owned()), ("training.batch_size", "8192".to_owned())];
    let config = write_config(folder.path(), &settings);
    let output = train_and_stop(&config, &folder.path().join("run"), "INT");
    let message = ended(&output, 130, "stopping after this step");
    let (asked, stopped) = (message.find("stopping after"), message.find("stopped after step"));
    assert!(asked < stopped, "{message}");
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
