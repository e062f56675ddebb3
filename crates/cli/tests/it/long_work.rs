//! Training a tokenizer and preparing shards as long work: within a memory, and killed again and again.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::support::cupola;

/// What the trainer of the memory test may use.
const MEMORY_LIMIT: u64 = 64 << 20;

fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

fn start(arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cupola"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().expect("cupola starts")
}

/// Peak memory of a process, if the system tells.
fn peak_memory_bytes(child: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

#[test]
fn counting_ever_new_words_of_ten_times_the_limit_stays_within_it() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("tokenizer.json");
    let limit = MEMORY_LIMIT.to_string();
    let mut child = start(&[
        "tokenizer",
        "train",
        "--input",
        "-",
        "--vocab-size",
        "300",
        "--memory-limit",
        &limit,
        "--output",
        output.to_str().unwrap(),
    ]);
    let mut input = child.stdin.take().unwrap();
    let writer = thread::spawn(move || {
        let mut state = 3;
        for _ in 0..10 * MEMORY_LIMIT / (1 << 20) {
            let mut text = Vec::with_capacity(1 << 20);
            while text.len() + 10 <= 1 << 20 {
                let word = random(&mut state) << 31 | random(&mut state);
                text.extend((0..9).map(|i| b'a' + (word >> (6 * i) & 15) as u8));
                text.push(b' ');
            }
            // The trainer is gone only if it failed, which the message below tells.
            let _ = input.write_all(&text);
        }
    });
    let mut peak = None;
    while child.try_wait().unwrap().is_none() {
        peak = peak_memory_bytes(&child).or(peak);
        thread::sleep(Duration::from_millis(20));
    }
    writer.join().unwrap();
    let message = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
    // The words are too many to learn from, which is found out once all are counted.
    assert!(message.contains("with a minimum count of 2 it fits (--min-count 2)"), "{message}");
    assert!(!output.exists());
    let Some(peak) = peak else {
        eprintln!("skipped: this system does not count the peak memory of a process");
        return;
    };
    eprintln!("peak {peak} of {MEMORY_LIMIT} bytes");
    assert!(peak as f64 <= 1.1 * MEMORY_LIMIT as f64, "peak {peak} of {MEMORY_LIMIT} bytes");
}

/// Kills `arguments` at random moments of its first `longest` milliseconds, then lets it finish.
fn kill_again_and_again(arguments: &[&str], n_kills: usize, longest: u64) -> usize {
    let mut state = 11;
    let mut n_killed = 0;
    for _ in 0..n_kills {
        let mut child = start(arguments);
        thread::sleep(Duration::from_millis(random(&mut state) % longest));
        if child.try_wait().unwrap().is_some() {
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        n_killed += 1;
    }
    // A kill may have come between the end of the work and that of the process: then nothing is left to do.
    let output = start(arguments).wait_with_output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() || message.contains("already holds a dataset"), "{message}");
    n_killed
}

fn write_text(path: &Path, n_lines: u64) {
    let mut state = 5;
    let mut text = String::new();
    for i in 0..n_lines {
        let word = |state: &mut u64| format!("w{}", random(state) % 3000);
        let words: Vec<String> = (0..30).map(|_| word(&mut state)).collect();
        text += &format!("{{\"text\":\"{i} {}\"}}\n", words.join(" "));
    }
    fs::write(path, text).unwrap();
}

#[test]
fn shards_that_were_killed_while_prepared_are_those_of_an_unbroken_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    write_text(Path::new(&path("text.jsonl")), 60_000);
    cupola(&["tokenizer", "train", "--kind", "bytes", "--output", &path("bytes.json")]).success();
    let arguments = |output: &str| -> Vec<String> {
        let fixed = ["data", "prepare", "--tokenizer", &path("bytes.json"), "--input", &path("text.jsonl")];
        let more = ["--tokens-per-shard", "300000", "--output", output];
        fixed.iter().chain(&more).map(ToString::to_string).collect()
    };
    let (whole, broken) = (path("whole"), path("broken"));
    let [for_whole, for_broken] = [arguments(&whole), arguments(&broken)];
    cupola(&for_whole.iter().map(String::as_str).collect::<Vec<_>>()).success();
    let for_broken: Vec<&str> = for_broken.iter().map(String::as_str).collect();
    let n_killed = kill_again_and_again(&for_broken, 12, 250);
    eprintln!("{n_killed} kills");
    let files = |folder: &str| {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(files(&whole), files(&broken));
    for name in files(&whole) {
        let same =
            fs::read(Path::new(&whole).join(&name)).unwrap() == fs::read(Path::new(&broken).join(&name)).unwrap();
        assert!(same, "{name:?} differs");
    }
    assert!(!folder.path().join(".broken.tmp").exists());
}

#[test]
fn a_tokenizer_whose_training_was_killed_is_that_of_an_unbroken_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    write_text(Path::new(&path("text.jsonl")), 60_000);
    let (input, work) = (path("text.jsonl"), path("work"));
    let (whole, broken) = (path("whole.json"), path("broken.json"));
    let train = ["tokenizer", "train", "--vocab-size", "2000", "--input", &input];
    cupola(&[&train[..], &["--output", &whole]].concat()).success();
    let n_killed = kill_again_and_again(&[&train[..], &["--work", &work, "--output", &broken]].concat(), 8, 400);
    eprintln!("{n_killed} kills");
    assert!(fs::read(whole).unwrap() == fs::read(broken).unwrap());
    assert!(!Path::new(&work).exists());
}

#[test]
fn explain_tells_the_merges_of_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let words = [("low", 5), ("lower", 2), ("widest", 3), ("newest", 6)];
    fs::write(path("text.txt"), words.map(|(word, n)| format!("{word}\n").repeat(n)).concat()).unwrap();
    let train =
        ["tokenizer", "train", "--vocab-size", "262", "--input", &path("text.txt"), "--output", &path("t.json")];
    cupola(&train).success();
    let explained = cupola(&["tokenizer", "explain", "newest", "--tokenizer", &path("t.json"), "--json"]).json();
    let steps = explained["pretokens"][0]["steps"].as_array().unwrap();
    let told: Vec<String> = steps
        .iter()
        .map(|step| {
            let tokens: Vec<&str> = step["tokens"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
            format!("{} {}", step["rank"], tokens.join(" "))
        })
        .collect();
    assert_eq!(told, ["1 n e w e st", "2 n e w est", "5 n e west", "6 ne west"]);
}
