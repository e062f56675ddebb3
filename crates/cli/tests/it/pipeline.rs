//! From a text to a model that writes, step by step, as a user would.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{cupola, cupola_with_input, small_text, write_config};

/// Paths as arguments.
fn text_of(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_text_becomes_a_tokenizer_shards_a_model_and_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (text, tokenizer, shards, run) = (at("text.txt"), at("tokenizer.json"), at("shards"), at("run"));
    let (text, tokenizer, shards, run) = (text_of(&text), text_of(&tokenizer), text_of(&shards), text_of(&run));
    let config = write_config(
        folder.path(),
        &[
            ("tokenizer", format!("{{ file = {{ path = \"{tokenizer}\" }} }}")),
            ("data.train", format!("[\"{shards}\"]")),
            ("data.validation", format!("{{ files = [\"{text}\"] }}")),
            ("model.vocab_size", "300".to_owned()),
        ],
    );
    let config = text_of(&config);

    let special = ["--special-token", "<|endoftext|>"];
    let train = ["tokenizer", "train", "--input", text, "--vocab-size", "300", "--output", tokenizer, "--json"];
    let made = cupola(&[&train[..], &special].concat()).json();
    assert_eq!((&made["vocab_size"], &made["n_merges"]), (&300.into(), &43.into()));
    let inspected = cupola(&["tokenizer", "inspect", tokenizer, "--json"]).json();
    assert_eq!((&inspected["kind"], &inspected["special_tokens"][0]["text"]), (&"bpe".into(), &"<|endoftext|>".into()));
    assert!(cupola(&["tokenizer", "inspect", tokenizer]).success().contains("tokens by length"));

    let ids = cupola(&["tokenizer", "encode", "--tokenizer", tokenizer, "--input", text, "--json"]);
    let library = tokenizer::Tokenizer::from_file(Path::new(tokenizer)).unwrap();
    let expected = library.encode(small_text().as_bytes());
    assert_eq!(ids.json()["ids"], serde_json::json!(expected));
    let decode = ["tokenizer", "decode", "--tokenizer", tokenizer];
    assert_eq!(cupola_with_input(&decode, ids.success().as_bytes()).success(), small_text());
    let plain =
        cupola_with_input(&["tokenizer", "encode", "--tokenizer", tokenizer], small_text().as_bytes()).success();
    let decoded = cupola_with_input(&[&decode[..], &["--json"]].concat(), plain.as_bytes()).json();
    assert_eq!(decoded["text"], small_text());

    let prepare = ["data", "prepare", "--tokenizer", tokenizer, "--input", text, "--output", shards];
    let prepared = cupola(&[&prepare[..], &["--json"]].concat()).json();
    assert_eq!(prepared["n_tokens"], expected.len() as u64 + 1, "and the end of the text");
    assert!(cupola(&prepare).failure().contains("already holds a dataset"));
    cupola(&[&prepare[..], &["--overwrite"]].concat()).success();

    let printed = cupola(&["train", config, "--print-config"]).success();
    assert!(printed.contains("micro_batch_size = 4") && printed.contains("device = \"cpu\""), "{printed}");
    let trained = cupola(&["train", config, "--run", run, "--json"]).json();
    assert_eq!((&trained["status"], &trained["steps"]), (&"finished".into(), &20.into()));
    assert!(Path::new(run).join("tokenizer_config.json").is_file(), "for transformers");
    let report = fs::read_to_string(Path::new(run).join("report.html")).unwrap();
    assert!(report.contains("held-out loss") && report.contains("Memory of a training step"));

    let evaluated = cupola(&["eval", run, "--text", text, "--json"]).json();
    let loss = evaluated["loss"].as_f64().unwrap();
    assert!(loss < 300f64.ln(), "better than a uniform guess: {loss}");
    assert_eq!(evaluated["n_bytes"], small_text().len());
    assert!((evaluated["perplexity"].as_f64().unwrap() - loss.exp()).abs() < 1e-9);
    let bits = loss * evaluated["n_tokens"].as_f64().unwrap() / 2f64.ln() / small_text().len() as f64;
    assert!((evaluated["bits_per_byte"].as_f64().unwrap() - bits).abs() < 1e-9);

    let copy = at("copy");
    fs::create_dir(&copy).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(Path::new(run).join(file), copy.join(file)).unwrap();
    }
    let elsewhere = cupola(&["eval", text_of(&copy), "--text", text, "--json"]).json();
    assert_eq!(elsewhere, evaluated, "three files are the model");

    let write = |seed: &str| {
        cupola(&["generate", run, "--prompt", "the ", "--max-tokens", "30", "--temperature", "1", "--seed", seed])
            .success()
    };
    assert_eq!(write("1"), write("1"));
    assert_ne!(write("1"), write("2"));
    assert!(write("1").starts_with("the "));
    let json =
        cupola(&["generate", run, "--prompt", "the ", "--max-tokens", "30", "--temperature", "1", "--json"]).json();
    assert_eq!(format!("the {}\n", json["text"].as_str().unwrap()), write("1"), "streamed or not, the same text");

    let chat = cupola_with_input(&["chat", run, "--max-tokens", "5"], b"the low\nand\n/quit\nnever read\n");
    let said = chat.success();
    assert!(said.starts_with("the low") && said.contains("\nand") && !said.contains("never"), "{said}");
    assert!(chat.stderr().contains("no chat template"), "{}", chat.stderr());
    let turns = cupola_with_input(&["chat", run, "--max-tokens", "5", "--json"], b"the low\nand\n").json();
    assert_eq!(turns["turns"].as_array().unwrap().len(), 2);

    fs::remove_file(Path::new(run).join("report.html")).unwrap();
    assert!(cupola(&["report", run]).success().contains("report.html"));
    assert_eq!(fs::read_to_string(Path::new(run).join("report.html")).unwrap(), report, "the same report again");
}

#[test]
fn a_finished_run_is_offered_and_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), &[]);
    let run = folder.path().join("run");
    let train = ["train", text_of(&config), "--run", text_of(&run)];
    cupola(&train).success();
    let weights = fs::metadata(run.join("model.safetensors")).unwrap().modified().unwrap();
    let again = cupola(&train);
    assert!(again.success().contains("bits per byte"));
    assert!(again.stderr().contains("is finished") && again.stderr().contains("--run"), "{}", again.stderr());
    assert_eq!(fs::metadata(run.join("model.safetensors")).unwrap().modified().unwrap(), weights);
    cupola(&["train", "--run", text_of(&run), "--resume"]).success();
}

#[test]
fn a_run_goes_on_from_weights_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), &[]);
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let trained = cupola(&["train", text_of(&config), "--run", text_of(&first), "--json"]).json();
    let from =
        ["--init-from", text_of(&first), "--set", "training.steps=1", "--set", "schedule.constant.warmup_steps=0"];
    let train = ["train", text_of(&config), "--run", text_of(&second)];
    cupola(&[&train[..], &from].concat()).success();
    let records = train::metrics::read(&second.join("metrics.jsonl")).unwrap();
    let reached = trained["validation"]["loss"].as_f64().unwrap();
    assert!((records[0].loss - reached).abs() < 0.7, "begins near {reached}: {}", records[0].loss);
    assert!(records[0].loss < 4.5, "and far below the 5.55 of fresh weights");

    let other = folder.path().join("other");
    let train = ["train", text_of(&config), "--run", text_of(&other), "--set", "model.d_ff=48"];
    let message = cupola(&[&train[..], &["--init-from", text_of(&first)]].concat()).failure();
    assert!(
        message.contains("not that of the config")
            && message.contains("model.d_ff = 32 in")
            && message.contains("48 in the config"),
        "{message}"
    );
}

#[test]
fn a_conversation_goes_on_after_a_line_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), &[("tokenizer", "{ characters = {} }".to_owned())]);
    let run = folder.path().join("run");
    let run = text_of(&run);
    cupola(&["train", text_of(&config), "--run", run, "--set", "training.steps=2"]).success();
    let input = b"the low\n\xe2\x82\xac is unknown\nbad \xff\r\nand\n";
    let chat = cupola_with_input(&["chat", run, "--max-tokens", "2", "--json"], input);
    let turns = chat.json()["turns"].as_array().unwrap().clone();
    assert_eq!(turns.iter().map(|turn| turn["prompt"].as_str().unwrap()).collect::<Vec<_>>(), ["the low", "and"]);
    let stderr = chat.stderr();
    assert!(stderr.contains('€') && stderr.contains("invalid UTF-8 at byte 4"), "{stderr}");
    let mut generate = Command::new(env!("CARGO_BIN_EXE_cupola"));
    let output = generate.args(["generate", run, "--prompt", "the €"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("cannot encode the prompt"), "{stderr}");
    assert!(output.stdout.is_empty(), "nothing was printed before");
}

#[test]
fn output_that_nobody_reads_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = folder.path().join("bytes.json");
    cupola(&["tokenizer", "train", "--kind", "bytes", "--output", text_of(&tokenizer)]).success();
    let text = folder.path().join("text.txt");
    fs::write(&text, small_text().repeat(200)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cupola"));
    command.args(["tokenizer", "encode", "--tokenizer", text_of(&tokenizer), "--input", text_of(&text)]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
