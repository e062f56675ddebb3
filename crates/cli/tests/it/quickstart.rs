//! The quickstart, with a model so small that it takes seconds.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::cupola;

const SMALL: [&str; 10] = [
    "--set",
    "training.steps=3",
    "--set",
    "schedule={ constant = { warmup_steps = 1 } }",
    "--set",
    "model={ vocab_size = 4096, context_length = 64, d_model = 16, n_layers = 1, n_heads = 2, n_kv_heads = 1, d_ff = 16, \
     position = \"none\", norm = \"none\", placement = \"pre\", mlp = \"relu\", bias = false, tie_embeddings = true, \
     init = \"glorot\" }",
    "--set",
    "training.batch_size=4",
    "--set",
    "training.checkpoint_every=1",
];

fn exists_within(path: &Path, patience: Duration) -> bool {
    let begin = Instant::now();
    while !path.exists() && begin.elapsed() < patience {
        std::thread::sleep(Duration::from_millis(2));
    }
    path.exists()
}

#[test]
fn a_killed_quickstart_goes_on_and_a_finished_one_is_offered() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let arguments = [&["quickstart", "--run", run.to_str().unwrap()], &SMALL[..]].concat();
    // Killed once while the texts are unpacked or read, once while they are tokenised.
    for file in ["config.toml", "tokenizer.json"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cupola"));
        command.args(&arguments).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        assert!(exists_within(&run.join(file), Duration::from_secs(120)));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let made = cupola(&arguments);
    let text = made.success();
    for part in ["What it writes", "It was a dark night, and", "this model", "gzip -9", "chat "] {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
    assert!(text.contains("cargo run"), "the command as it is typed here: {text}");
    assert!(run.join("report.html").is_file() && run.join("config.json").is_file());

    // Another start, even of a version with another config, offers what is there.
    let again = cupola(&["quickstart", "--run", run.to_str().unwrap()]).success();
    assert!(again.contains("is finished with") && again.contains("--run OTHER"), "{again}");
    let summary = cupola(&["quickstart", "--run", run.to_str().unwrap(), "--json"]).json();
    let compression = summary["compression"].as_array().unwrap();
    let bits = |name: &str| {
        let one = compression.iter().find(|one| one["name"].as_str().unwrap().starts_with(name)).unwrap();
        one["bits_per_byte"].as_f64().unwrap()
    };
    // Of `gzip -9` and a bigram model by hand, on this very book: 2.98 and about 3.5.
    assert!((bits("gzip") - 2.98).abs() < 0.05 && (bits("byte bigram") - 3.5).abs() < 0.2, "{compression:?}");
    assert!(bits("this model") < 8.0);
}
