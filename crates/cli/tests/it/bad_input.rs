//! Whatever is wrong with what the program is given, it says what, where and what to do, and damages nothing.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{cupola, cupola_with_input, small_text, write_config};

/// A folder with a small text.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Place(tempfile::tempdir().unwrap());
        place.write("text.txt", small_text().as_bytes());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A path in the folder as an argument.
    fn at(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, content: &[u8]) -> String {
        fs::write(self.path(name), content).unwrap();
        self.at(name)
    }

    /// A byte tokenizer.
    fn tokenizer(&self) -> String {
        let path = self.at("bytes.json");
        cupola(&["tokenizer", "train", "--kind", "bytes", "--output", &path]).success();
        path
    }

    /// Trains a small run.
    fn run(&self, name: &str) -> String {
        let config = write_config(self.0.path(), &[("training.steps", "2".to_owned())]);
        cupola(&["train", config.to_str().unwrap(), "--run", &self.at(name)]).success();
        self.at(name)
    }
}

/// Runs a command that must fail, and looks for parts of its message.
#[track_caller]
fn check(arguments: &[&str], parts: &[&str]) {
    let message = cupola(arguments).failure();
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
fn text_that_cannot_be_read_is_named() {
    let place = Place::new();
    let packed = zstd::bulk::compress(small_text().as_bytes(), 3).unwrap();
    let cases: [(String, &[&str]); 6] = [
        (place.at("missing.txt"), &["missing.txt does not exist"]),
        (place.write("empty.txt", b""), &["empty.txt is empty"]),
        (place.write("bad.txt", b"good\nbad \xff\xfe text"), &["bad.txt, line 2", "offset 9", "--raw-bytes"]),
        (place.write("cut.txt.zst", &packed[..packed.len() / 2]), &["cut.txt.zst is cut short"]),
        (place.write("text.csv", b"text"), &["text.csv has a format that is not read", ".jsonl"]),
        (place.write("a.jsonl", b"{\"text\": \"a\"}\n{\"txt\": 1}\n"), &["a.jsonl, line 2", "`text`"]),
    ];
    let output = place.write("tokenizer.json", b"what was here before");
    let tokenizer = place.tokenizer();
    let (shards, config) = (place.at("shards"), write_config(place.0.path(), &[]));
    let run = place.run("finished");
    for (input, parts) in cases {
        check(&["tokenizer", "train", "--input", &input, "--vocab-size", "260", "--output", &output], parts);
        check(&["data", "prepare", "--tokenizer", &tokenizer, "--input", &input, "--output", &shards], parts);
        check(&["eval", &run, "--text", &input], parts);
        let setting = format!("data.train=[\"{input}\"]");
        let failed = place.at("failed");
        check(&["train", config.to_str().unwrap(), "--set", &setting, "--run", &failed], parts);
        assert!(!Path::new(&shards).exists());
    }
    assert_eq!(fs::read(&output).unwrap(), b"what was here before");
    // Once the text is good, the same folder is good, too.
    let setting = ["--set", "training.steps=2"];
    cupola(&[&["train", config.to_str().unwrap(), "--run", &place.at("failed")], &setting[..]].concat()).success();
}

#[test]
fn bytes_that_are_not_utf8_are_taken_only_on_purpose() {
    let place = Place::new();
    let tokenizer = place.tokenizer();
    let bad = place.write("bad.txt", b"good\nbad \xff\xfe text");
    let encode = ["tokenizer", "encode", "--tokenizer", &tokenizer];
    check(&[&encode[..], &["--input", &bad]].concat(), &["bad.txt", "offset 9", "--raw-bytes"]);
    let message = cupola_with_input(&encode, b"\x80").failure();
    assert!(message.contains("standard input") && message.contains("offset 0"), "{message}");
    let ids = cupola(&[&encode[..], &["--input", &bad, "--raw-bytes"]].concat()).success();
    assert!(ids.contains("255 254"), "{ids}");
    let decode = ["tokenizer", "decode", "--tokenizer", &tokenizer];
    assert!(cupola_with_input(&decode, ids.as_bytes()).success().contains("bad \u{FFFD}\u{FFFD} text"));
    let prepare = ["data", "prepare", "--tokenizer", &tokenizer, "--input", &bad, "--output"];
    cupola(&[&prepare[..], &[&place.at("shards"), "--raw-bytes"]].concat()).success();
}

#[test]
fn every_refusal_says_what_to_do() {
    let place = Place::new();
    let (tokenizer, run) = (place.tokenizer(), place.run("finished"));
    let config = write_config(place.0.path(), &[]).to_str().unwrap().to_owned();
    let packed = zstd::bulk::compress(small_text().as_bytes(), 3).unwrap();
    let (bad, empty) = (place.write("bad.toml", b"a\xff\xfe"), place.write("empty.txt", b""));
    let cut = place.write("cut.txt.zst", &packed[..packed.len() / 2]);
    let (missing, text, output) = (place.at("missing"), place.at("text.txt"), place.at("output"));
    let cases: [(&[&str], &str); 20] = [
        (&["train", &missing], "cannot read"),
        (&["train", &bad], "TOML file in UTF-8"),
        (&["train", &empty], "missing field"),
        (&["train", &config, "--set", "model.n_layers=0", "--run", &output], "model.n_layers = 0"),
        (&["train", &config, "--set", "training.batch_size=0", "--run", &output], "training.batch_size = 0"),
        (&["train", &config, "--set", "data.train=[\"missing.txt\"]", "--run", &output], "missing.txt does not exist"),
        (&["train", &config, "--set", "model.vocab_size=100", "--run", &output], "the tokenizer has 256 ids"),
        (&["tokenizer", "encode", "--tokenizer", &tokenizer, "--input", &missing], "does not exist"),
        (&["tokenizer", "encode", "--tokenizer", &tokenizer, "--input", &empty], "is empty"),
        (&["tokenizer", "encode", "--tokenizer", &tokenizer, "--input", &cut], "is cut short"),
        (&["tokenizer", "encode", "--tokenizer", &missing, "--text", "a"], "cannot read"),
        (&["tokenizer", "decode", "--tokenizer", &tokenizer, "--ids", "40 99999"], "token id 99999"),
        (&["data", "prepare", "--tokenizer", &missing, "--input", &text, "--output", &output], "cannot read"),
        (&["data", "prepare", "--tokenizer", &empty, "--input", &text, "--output", &output], "is not JSON"),
        (&["generate", &run, "--prompt", "a", "--top-p", "0"], "top_p = 0"),
        (&["generate", &run, "--prompt", "a", "--temperature", "-1"], "temperature = -1"),
        (&["generate", &missing, "--prompt", "a"], "missing"),
        (&["eval", &run, "--text", &empty], "is empty"),
        (&["report", &missing], "missing"),
        (&["plan", &missing], "cannot read"),
    ];
    for (arguments, part) in cases {
        check(arguments, &[part, "\nhint: "]);
        assert!(!Path::new(&output).exists(), "{arguments:?} left something behind");
    }
    let shards = place.at("shards");
    let prepare = ["data", "prepare", "--tokenizer", &tokenizer, "--input", &text, "--output", &shards];
    cupola(&prepare).success();
    check(&prepare, &["already holds a dataset", "--overwrite"]);
}

#[test]
fn an_output_is_never_one_of_the_inputs() {
    let place = Place::new();
    let (tokenizer, text) = (place.tokenizer(), place.at("text.txt"));
    let train = ["tokenizer", "train", "--input", &text, "--vocab-size", "300", "--output", &text];
    check(&train, &["is also read", "\nhint: "]);
    let compare = ["tokenizer", "compare", "--tokenizer", &tokenizer, "--input", &text, "--output", &text];
    check(&compare, &["is also read", "\nhint: "]);
    assert_eq!(fs::read_to_string(&text).unwrap(), small_text());
}

#[test]
fn a_run_that_starts_from_weights_takes_their_tokenizer() {
    let place = Place::new();
    let config = write_config(place.0.path(), &[("tokenizer", "{ characters = {} }".to_owned())]);
    let from = place.at("from");
    let train = ["train", config.to_str().unwrap(), "--set", "training.steps=2", "--run"];
    cupola(&[&train[..], &[&from]].concat()).success();
    let new = place.write("new.txt", "the low lower sand ".repeat(200).as_bytes());
    let (data, to) = (format!("data.train=[\"{new}\"]"), place.at("to"));
    let arguments = [&train[..], &[&to, "--init-from", &from, "--set", &data]].concat();
    let other = format!("tokenizer={{ file = {{ path = \"{}\" }} }}", place.tokenizer());
    check(&[&arguments[..], &["--set", &other]].concat(), &["is not the tokenizer of the weights", "\nhint: "]);
    cupola(&arguments).success();
    let tokenizer = |run: &str| fs::read(Path::new(run).join("tokenizer.json")).unwrap();
    assert_eq!(tokenizer(&to), tokenizer(&from));
}

#[test]
fn a_model_folder_that_contradicts_itself_says_what_to_do() {
    let place = Place::new();
    let run = place.run("finished");
    let config = Path::new(&run).join("config.json");
    let good = fs::read_to_string(&config).unwrap();
    let generate = ["generate", &run, "--prompt", "a"];
    for (from, to, part) in [
        ("\"model_type\": \"llama\"", "\"model_type\": \"mamba\"", "model_type = mamba"),
        ("\"intermediate_size\": ", "\"intermediate_size\": 1", "expected ["),
    ] {
        assert!(good.contains(from), "{from} is not in {good}");
        fs::write(&config, good.replace(from, to)).unwrap();
        check(&generate, &[part, "\nhint: "]);
    }
}

#[test]
fn ids_and_vocabularies_out_of_range_are_refused() {
    let place = Place::new();
    let (tokenizer, text, output) = (place.tokenizer(), place.at("text.txt"), place.at("out.json"));
    let decode = ["tokenizer", "decode", "--tokenizer", &tokenizer, "--ids"];
    check(&[&decode[..], &["1 256"]].concat(), &["token id 256", "256"]);
    check(&[&decode[..], &["1 x"]].concat(), &["\"x\" is not a token id"]);
    let train = ["tokenizer", "train", "--input", &text, "--output", &output, "--vocab-size"];
    check(&[&train[..], &["100"]].concat(), &["vocab_size = 100 is too small", "minimum is 256"]);
    check(&[&train[..], &["100000"]].concat(), &["vocab_size = 100000", "supports only", "lower vocab_size to"]);
    assert!(!Path::new(&output).exists());
    check(&["tokenizer", "inspect", &text], &["text.txt is not JSON"]);
    let config = write_config(place.0.path(), &[]);
    let set = ["--set", "model.vocab_size=100", "--run", &place.at("run")];
    check(&[&["train", config.to_str().unwrap()], &set[..]].concat(), &["the tokenizer has 256 ids", "100"]);
}

#[test]
fn a_config_that_cannot_be_is_refused_with_its_key() {
    let place = Place::new();
    let path = write_config(place.0.path(), &[]);
    let config = path.to_str().unwrap();
    let run = place.at("run");
    let with = |setting: &str, parts: &[&str]| check(&["train", config, "--run", &run, "--set", setting], parts);
    with("model.n_heads=3", &["model.d_model = 16 is not a multiple of model.n_heads = 3"]);
    with(
        "model.n_head=3",
        &["unknown field `n_head`", "known are vocab_size, context_length, d_model, n_layers, n_heads"],
    );
    with("model.n_heads=six", &["invalid type", "--print-config shows this key"]);
    with("seed.x=1", &["seed is not a section", "--print-config shows which keys"]);
    with("training.batch_size=0", &["training.batch_size = 0", "at least 1"]);
    with("nonsense", &["--set nonsense", "no =", "hint: write --set section.key=value"]);
    with("training.device=tpu", &["no device tpu", "--device cpu"]);
    check(&["plan", config, "--device", "cuda:0"], &["no device cuda:0"]);
    check(&["plan", &place.at("no.toml")], &["cannot read", "no.toml", "No such file"]);
    assert!(!Path::new(&run).exists(), "nothing was made");

    let text = fs::read_to_string(&path).unwrap().replace("weight_decay", "weigth_decay");
    let line = 1 + text.lines().position(|line| line.contains("weigth_decay")).unwrap();
    let misspelt = place.write("misspelt.toml", text.as_bytes());
    check(
        &["train", &misspelt, "--run", &run],
        &["misspelt.toml", &format!("line {line}"), "weigth_decay", "weight_decay"],
    );
}

#[test]
fn a_model_that_does_not_fit_in_memory_is_refused_before_anything_is_made() {
    let place = Place::new();
    let config = write_config(place.0.path(), &[]);
    let run = place.at("run");
    let set = ["--set", "model.d_model=65536", "--set", "model.d_ff=262144", "--set", "model.n_layers=64"];
    check(
        &[&["train", config.to_str().unwrap(), "--run", &run], &set[..]].concat(),
        &["of memory", "lower model.d_model"],
    );
    let plan = cupola(&[&["plan", config.to_str().unwrap(), "--json"], &set[..]].concat()).json();
    assert_eq!(plan["fits"], false);
    assert!(!Path::new(&run).join("config.toml").exists());
}

#[test]
fn damaged_shards_are_refused() {
    let place = Place::new();
    let (tokenizer, text, shards) = (place.tokenizer(), place.at("text.txt"), place.at("shards"));
    cupola(&["data", "prepare", "--tokenizer", &tokenizer, "--input", &text, "--output", &shards]).success();
    let config = write_config(
        place.0.path(),
        &[
            ("tokenizer", format!("{{ file = {{ path = \"{tokenizer}\" }} }}")),
            ("data.train", format!("[\"{shards}\"]")),
            ("data.validation", format!("{{ files = [\"{text}\"] }}")),
        ],
    );
    let run = place.at("run");
    let train = ["train", config.to_str().unwrap(), "--run", &run];
    let shard = Path::new(&shards).join("shard_00000.bin");
    let good = fs::read(&shard).unwrap();
    fs::write(&shard, &good[..good.len() - 2]).unwrap();
    check(&train, &["shard_00000.bin has", "index.json says", "cut short"]);
    let mut bad = good.clone();
    bad[10] ^= 1;
    fs::write(&shard, bad).unwrap();
    check(&train, &["shard_00000.bin has checksum", "damaged"]);
    fs::remove_file(&shard).unwrap();
    check(&train, &["shard_00000.bin is missing"]);
    fs::write(&shard, good).unwrap();
    cupola(&train).success();
}

#[test]
fn weights_that_miss_a_tensor_or_are_cut_short_are_refused() {
    let place = Place::new();
    let run = place.run("run");
    let weights = Path::new(&run).join("model.safetensors");
    let good = fs::read(&weights).unwrap();
    let generate = ["generate", &run, "--prompt", "a", "--max-tokens", "2"];

    let file = tensor::io::SafetensorsFile::open(&weights).unwrap();
    let missing = "model.layers.0.mlp.down_proj.weight";
    let kept = file.names().into_iter().filter(|name| name != missing);
    let kept: Vec<(String, tensor::Tensor)> = kept.map(|name| (name.clone(), file.tensor(&name).unwrap())).collect();
    drop(file);
    tensor::io::save(&weights, &kept, HashMap::new()).unwrap();
    check(&generate, &["model.safetensors has no tensor model.layers.0.mlp.down_proj.weight"]);
    fs::write(&weights, &good[..good.len() / 2]).unwrap();
    check(&generate, &["model.safetensors", "cut short"]);
    fs::write(&weights, good).unwrap();
    cupola(&generate).success();
}

#[test]
fn a_damaged_checkpoint_stops_the_resume_with_its_name() {
    let place = Place::new();
    let run = place.run("run");
    for file in ["summary.json", "model.safetensors"] {
        fs::remove_file(Path::new(&run).join(file)).unwrap();
    }
    let weights = Path::new(&run).join("checkpoints/step-000000002/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    check(
        &["train", "--run", &run, "--resume"],
        &["step-000000002 is damaged", "model.safetensors has checksum", "hint:"],
    );
}

#[test]
fn folders_that_are_no_runs_are_refused_and_left_alone() {
    let place = Place::new();
    let config = write_config(place.0.path(), &[]);
    let config = config.to_str().unwrap();
    let foreign = place.path("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("tokenizer.json"), "mine").unwrap();
    let foreign = foreign.to_str().unwrap();
    check(&["train", config, "--run", foreign], &["foreign holds tokenizer.json, but no run", "--run"]);
    assert_eq!(fs::read_dir(foreign).unwrap().count(), 1, "nothing was added");
    check(&["generate", foreign, "--prompt", "a"], &["foreign holds no model", "config.json"]);
    check(&["eval", &place.at("nowhere"), "--text", &place.at("text.txt")], &["there is no folder", "nowhere"]);
    check(&["report", foreign], &["there is no run in"]);
    check(&["train", config, "--run", config], &["config.toml is a file, expected a folder", "--run"]);
    check(&["train", "--run", config, "--resume"], &["config.toml is a file, expected a folder"]);
    check(&["train", config, "--init-from", config, "--run", foreign], &["config.toml is a file, expected a folder"]);
    check(&["quickstart", "--run", config], &["config.toml is a file, expected a folder"]);
    check(&["generate", config, "--prompt", "a"], &["config.toml is a file, expected a folder", "tokenizer.json"]);
    check(&["train", "--run", &place.at("nowhere"), "--resume"], &["no run to resume in"]);
    check(&["train", "--resume"], &["--run"]);
}

#[test]
fn the_quickstart_leaves_other_runs_alone() {
    let place = Place::new();
    let run = place.run("run");
    let parts = ["the run in", "is not the quickstart's", "hint: choose another folder with --run"];
    check(&["quickstart", "--run", &run], &parts);
    let config = fs::read(place.path("run/config.toml")).unwrap();
    fs::remove_file(place.path("run/summary.json")).unwrap();
    check(&["quickstart", "--run", &run], &parts);
    assert_eq!(fs::read(place.path("run/config.toml")).unwrap(), config);
}

#[test]
fn a_file_that_a_model_lacks_is_named() {
    let place = Place::new();
    let run = place.run("run");
    for file in ["tokenizer.json", "config.json"] {
        let (there, away) = (place.path("run").join(file), place.path("away"));
        fs::rename(&there, &away).unwrap();
        check(&["generate", &run, "--prompt", "a"], &[&format!("has no {file}"), "hint: copy it"]);
        if file == "config.json" {
            let train = ["train", &place.at("config.toml"), "--run", &place.at("other"), "--init-from", &run];
            check(&train, &["run has no config.json", "hint: copy it"]);
        }
        fs::rename(&away, &there).unwrap();
    }
    cupola(&["generate", &run, "--prompt", "a", "--max-tokens", "2"]).success();
}

#[test]
fn training_on_text_that_is_not_utf8_points_to_shards() {
    let place = Place::new();
    let bad = place.write("bad.txt", b"good\nbad \xff\xfe text");
    for tokenizer in ["{ bytes = {} }", "{ bpe = { vocab_size = 260, special_tokens = [] } }"] {
        let settings = [("tokenizer", tokenizer.to_owned()), ("model.vocab_size", "260".to_owned())];
        let config = write_config(place.0.path(), &settings);
        let set = ["--set", &format!("data.train=[\"{bad}\"]"), "--run", &place.at("run")];
        let message = cupola(&[&["train", config.to_str().unwrap()], &set[..]].concat()).failure();
        assert_eq!(message.matches("hint: ").count(), 1, "{message}");
        for part in ["bad.txt, line 2", "offset 9", "data prepare --raw-bytes", "data.train"] {
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
    }
}

#[test]
fn a_full_disk_behind_standard_output_is_an_error_with_a_hint() {
    let place = Place::new();
    let config = write_config(place.0.path(), &[]);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_cupola"));
    let output = command.args(["plan", config.to_str().unwrap(), "--json"]).stdout(full).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("standard output") && message.contains("hint: free some space"), "{message}");
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let place = Place::new();
    let config = write_config(place.0.path(), &[]);
    let tokenizer = place.tokenizer();
    // A path below a file cannot be made, whoever runs the tests.
    let (run, file) = (place.at("text.txt/run"), place.at("text.txt/tokenizer.json"));
    check(&["train", config.to_str().unwrap(), "--run", &run], &["text.txt/run", "Not a directory"]);
    let text = place.at("text.txt");
    check(&["tokenizer", "train", "--kind", "bytes", "--output", &file], &["cannot write", "tokenizer.json"]);
    check(&["data", "prepare", "--tokenizer", &tokenizer, "--input", &text, "--output", &run], &["text.txt"]);
    assert_eq!(fs::read_to_string(text).unwrap(), small_text());
}

#[test]
fn a_run_does_not_go_on_with_another_config() {
    let place = Place::new();
    let run = place.run("run");
    let config = place.at("config.toml");
    let before = fs::read(Path::new(&run).join("config.toml")).unwrap();
    let set = ["--set", "training.steps=2", "--set", "model.d_ff=48"];
    let message = ["was started with another config", "model.d_ff = 32 in its config.toml, 48 is asked for", "--run"];
    check(&[&["train", &config, "--run", &run], &set[..]].concat(), &message);
    assert_eq!(fs::read(Path::new(&run).join("config.toml")).unwrap(), before);
}

#[test]
fn sampling_out_of_range_is_refused() {
    let place = Place::new();
    let run = place.run("run");
    let generate = ["generate", &run, "--prompt", "a"];
    check(&[&generate[..], &["--temperature=-1"]].concat(), &["temperature = -1"]);
    check(&[&generate[..], &["--top-p", "1.5"]].concat(), &["top_p = 1.5"]);
    check(&[&generate[..], &["--top-k", "0"]].concat(), &["top_k = 0"]);
    check(&["generate", &run, "--prompt", ""], &["the prompt is empty"]);
}
