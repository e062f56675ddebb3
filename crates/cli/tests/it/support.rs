//! Starting the program, and small runs for it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A run that takes a second or two: a byte vocabulary, one layer.
const CONFIG: &str = r#"
seed = 5
tokenizer = { bytes = {} }
[data]
train = ["TEXT"]
validation = { tail = 0.1 }
[model]
vocab_size = 256
context_length = 32
d_model = 16
n_layers = 1
n_heads = 2
n_kv_heads = 2
d_ff = 32
position = { rope = { theta = 10000.0, layout = "half" } }
norm = { rms = { eps = 1e-5 } }
placement = "pre"
mlp = "swiglu"
bias = false
tie_embeddings = false
init = { normal = { std = 0.02, scale_residual = true } }
[optimizer.adamw]
learning_rate = 1e-2
betas = [0.9, 0.95]
eps = 1e-8
weight_decay = 0.1
decay = "matrices"
[schedule.constant]
warmup_steps = 2
[training]
steps = 20
batch_size = 4
micro_batch_size = "auto"
grad_clip_norm = 1.0
validation_every = 10
validation_sequences = 4
checkpoint_every = 10
keep_checkpoints = 2
device = "auto"
precision = "auto"
"#;

/// What a start of the program left.
pub(crate) struct Outcome {
    output: Output,
    command: String,
}

impl Outcome {
    /// What it printed, if it went well.
    #[track_caller]
    pub(crate) fn success(&self) -> String {
        let Output { status, stdout, stderr } = &self.output;
        let stderr = String::from_utf8_lossy(stderr);
        assert!(status.success(), "{} ended with {status}\n{stderr}", self.command);
        String::from_utf8(stdout.clone()).expect("output is UTF-8")
    }

    /// The one JSON object that it printed, if it went well.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let text = self.success();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error} in {text}", self.command))
    }

    /// Its message, if it failed as a program should: with an exit code and without a panic.
    #[track_caller]
    pub(crate) fn failure(&self) -> String {
        let Output { status, stderr, .. } = &self.output;
        let stderr = String::from_utf8_lossy(stderr).into_owned();
        assert!(matches!(status.code(), Some(1 | 2)), "{} ended with {status}\n{stderr}", self.command);
        assert!(!stderr.contains("panicked"), "{}\n{stderr}", self.command);
        assert!(stderr.contains("error: "), "{}\n{stderr}", self.command);
        stderr
    }

    /// What it said on the way.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }
}

/// Runs the program to its end.
pub(crate) fn cupola(arguments: &[&str]) -> Outcome {
    cupola_with_input(arguments, b"")
}

/// Runs the program to its end on this standard input.
pub(crate) fn cupola_with_input(arguments: &[&str], input: &[u8]) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cupola"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("cupola starts");
    // A program that does not read its input may be gone by now.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    let output = child.wait_with_output().expect("cupola ends");
    Outcome { output, command: format!("cupola {}", arguments.join(" ")) }
}

/// Writes a small config and its text into a folder; `settings` change keys, as `--set` would.
pub(crate) fn write_config(folder: &Path, settings: &[(&str, String)]) -> PathBuf {
    let text = folder.join("text.txt");
    fs::write(&text, small_text()).expect("written");
    let mut config: toml::Table = CONFIG.replace("TEXT", &text.display().to_string()).parse().expect("TOML");
    for (key, value) in settings {
        let value: toml::Table = format!("value = {value}").parse().expect("a TOML value");
        let (sections, last) = key.rsplit_once('.').unwrap_or(("", key));
        let mut table = &mut config;
        for section in sections.split('.').filter(|section| !section.is_empty()) {
            table = table[section].as_table_mut().expect("a section");
        }
        table.insert(last.to_owned(), value["value"].clone());
    }
    let path = folder.join("config.toml");
    fs::write(&path, config.to_string()).expect("written");
    path
}

/// A few kilobytes of sentences that repeat words, so that there is something to learn.
pub(crate) fn small_text() -> String {
    let words = ["the", "low", "lower", "widest", "newest", "furnace", "pours", "iron", "into", "sand", "Güte", "and"];
    let mut state = 1u32;
    let mut text = String::new();
    for sentence in 0..200 {
        for _ in 0..4 + sentence % 5 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            text += words[(state >> 16) as usize % words.len()];
            text += " ";
        }
        text += if sentence % 7 == 0 { ".\n\n" } else { ". " };
    }
    text
}
