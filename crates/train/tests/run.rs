//! Whole runs in one process: stopping, resuming, refusing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use train::config::{Auto, RunConfig};
use train::run::End;
use train::{Error, Event, RunFolder, Trainer, checkpoint, plan, prepare};

const CONFIG: &str = r#"
seed = 3
data = { train = ["TEXT"], validation = { tail = 0.2 } }
tokenizer = { bytes = {} }
[model]
vocab_size = 256
context_length = 16
d_model = 16
n_layers = 2
n_heads = 2
n_kv_heads = 1
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
steps = 12
batch_size = 8
micro_batch_size = "auto"
grad_clip_norm = 1.0
validation_every = 5
validation_sequences = 4
checkpoint_every = 4
keep_checkpoints = 2
device = "cpu"
precision = "auto"
"#;

/// A folder with a text and a config over it.
struct Place {
    folder: tempfile::TempDir,
    config: RunConfig,
}

impl Place {
    fn new(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("text.txt");
        let words = ["the ", "cat ", "sat ", "on ", "a ", "mat ", "and ", "ate\n"];
        let sentence: String =
            (0..2000u32).map(|i| words[(i.wrapping_mul(2_654_435_761) >> 13) as usize % 8]).collect();
        fs::write(&text, sentence).unwrap();
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        let config = CONFIG.replace("TEXT", text.to_str().unwrap());
        let config = RunConfig::from_text(&config, Path::new("test.toml"), &settings).unwrap();
        Place { folder, config: plan::choose(&config).unwrap() }
    }

    fn trainer(&self, run: &str) -> Result<Trainer, Error> {
        let folder = RunFolder::new(&self.path(run));
        let lock = folder.lock()?;
        let inputs = prepare::prepare(&folder, &self.config, &|_| {})?;
        Trainer::new(&folder, lock, &self.config, &inputs, None)
    }

    fn path(&self, run: &str) -> PathBuf {
        self.folder.path().join(run)
    }

    fn weights(&self, run: &str) -> Vec<u8> {
        fs::read(self.path(run).join("model.safetensors")).unwrap()
    }
}

/// Trains until the end, or until `n_steps` steps were made.
fn run(trainer: &mut Trainer, n_steps: u64) -> Result<End, Error> {
    let stop = AtomicBool::new(false);
    let mut made = 0;
    trainer.run(&stop, &|| 0.0, &mut |event| {
        if let Event::Step(_) = event {
            made += 1;
            stop.store(made >= n_steps, Ordering::Relaxed);
        }
    })
}

#[test]
fn a_run_that_stops_after_every_step_ends_with_the_bits_of_one_that_does_not() {
    let place = Place::new(&[]);
    let end = run(&mut place.trainer("whole").unwrap(), u64::MAX).unwrap();
    let End::Finished { validation } = end else { panic!("not stopped") };
    loop {
        match run(&mut place.trainer("broken").unwrap(), 1).unwrap() {
            End::Stopped => {}
            End::Finished { validation: again } => {
                assert_eq!(again, validation);
                break;
            }
        }
    }
    assert_eq!(place.weights("whole"), place.weights("broken"));
    let metrics = |run: &str| train::metrics::read(&place.path(run).join("metrics.jsonl")).unwrap();
    let (whole, broken) = (metrics("whole"), metrics("broken"));
    assert_eq!(whole.len(), 12);
    for (a, b) in whole.iter().zip(&broken) {
        assert_eq!((a.step, a.loss, a.grad_norm, &a.validation), (b.step, b.loss, b.grad_norm, &b.validation));
    }
}

#[test]
fn a_run_on_a_gpu_goes_on_with_the_algorithms_of_its_first_step_and_the_same_bits() {
    if tensor::testing::gpu().is_none() {
        return;
    }
    let place = Place::new(&["training.device=cuda:0"]);
    run(&mut place.trainer("whole").unwrap(), u64::MAX).unwrap();
    let choices = |run: &str| place.path(run).join("matmul_choices.txt");
    // What is fastest may differ from one measurement to the next: the other run gets that of the first.
    fs::create_dir_all(place.path("broken")).unwrap();
    fs::copy(choices("whole"), choices("broken")).unwrap();
    while run(&mut place.trainer("broken").unwrap(), 1).unwrap() == End::Stopped {}
    assert_eq!(place.weights("whole"), place.weights("broken"));
    assert_eq!(fs::read(choices("whole")).unwrap(), fs::read(choices("broken")).unwrap());

    fs::write(choices("broken"), "x = 1").unwrap();
    let error = place.trainer("broken").err().expect("a damaged file").to_string();
    assert!(error.contains("matmul_choices.txt") && error.contains("hint: delete the file"), "{error}");
}

#[test]
fn training_learns_and_the_micro_batch_changes_rounding_only() {
    let place = Place::new(&["training.steps=40", "training.precision=f32"]);
    let End::Finished { validation } = run(&mut place.trainer("eight").unwrap(), u64::MAX).unwrap() else {
        panic!("not stopped")
    };
    // Eight words of about four letters: far below the 5.5 nats of a uniform guess.
    assert!(validation.loss < 2.0, "{validation:?}");
    let settings = ["training.steps=40", "training.precision=f32", "training.micro_batch_size=2"];
    let mut small = Place::new(&settings);
    small.config.data = place.config.data.clone();
    assert_eq!(small.config.training.micro_batch_size, Auto::Value(2));
    run(&mut small.trainer("two").unwrap(), u64::MAX).unwrap();
    let loss = |place: &Place, run: &str| train::metrics::read(&place.path(run).join("metrics.jsonl")).unwrap();
    for (a, b) in loss(&place, "eight").iter().zip(&loss(&small, "two")) {
        assert!((a.loss - b.loss).abs() < 1e-3 * a.loss, "step {}: {} and {}", a.step, a.loss, b.loss);
    }
}

#[test]
fn only_the_newest_checkpoints_are_kept() {
    let place = Place::new(&["training.steps=20", "training.keep_checkpoints=3"]);
    run(&mut place.trainer("run").unwrap(), u64::MAX).unwrap();
    let names: Vec<String> = checkpoint::list(&RunFolder::new(&place.path("run")))
        .unwrap()
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["step-000000012", "step-000000016", "step-000000020"]);
}

#[test]
fn a_run_that_diverges_stops_before_the_update_and_its_checkpoint_stays_good() {
    let place = Place::new(&[
        "optimizer.adamw.learning_rate=1e38",
        "schedule.constant.warmup_steps=6",
        "training.grad_clip_norm=0.0",
    ]);
    let mut trainer = place.trainer("run").unwrap();
    let message = run(&mut trainer, u64::MAX).unwrap_err().to_string();
    assert!(message.contains("stops before the update") && message.contains("learning_rate"), "{message}");
    assert!(trainer.model().unwrap().n_parameters() > 0);
}

#[test]
fn a_damaged_checkpoint_is_named_with_what_is_wrong() {
    let place = Place::new(&[]);
    run(&mut place.trainer("run").unwrap(), 4).unwrap();
    let folder = checkpoint::list(&RunFolder::new(&place.path("run"))).unwrap().pop().unwrap();
    let weights = folder.join("model.safetensors");
    let good = fs::read(&weights).unwrap();
    let refused = || match place.trainer("run") {
        Ok(_) => panic!("a damaged checkpoint was accepted"),
        Err(error) => error.to_string(),
    };

    let mut flipped = good.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    fs::write(&weights, flipped).unwrap();
    assert!(refused().contains("model.safetensors has checksum"));
    fs::write(&weights, &good[..good.len() / 2]).unwrap();
    assert!(refused().contains("model.safetensors has checksum"));
    fs::remove_file(&weights).unwrap();
    assert!(refused().contains("cannot read model.safetensors"));
    fs::write(&weights, &good).unwrap();
    fs::write(folder.join("state.json"), "{").unwrap();
    assert!(refused().contains("state.json"));
}

#[test]
fn shards_of_another_tokenizer_are_refused() {
    let place = Place::new(&[]);
    run(&mut place.trainer("run").unwrap(), 1).unwrap();
    let other = tokenizer::Tokenizer::bytes_with_specials(&["<|endoftext|>".to_owned()]).unwrap();
    let path = place.path("run").join("tokenizer.json");
    other.save(&path).unwrap();
    let mut changed = Place::new(&["model.vocab_size=300"]);
    changed.config.data = place.config.data.clone();
    let folder = RunFolder::new(&place.path("run"));
    let error = prepare::prepare(&folder, &changed.config, &|_| {}).err().expect("another tokenizer");
    assert!(error.to_string().contains("another tokenizer"), "{error}");
}
