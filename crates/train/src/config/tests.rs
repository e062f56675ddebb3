use super::*;

pub(crate) const TINY: &str = r#"
seed = 1

[data]
train = ["book.txt"]
validation = { tail = 0.1 }

[tokenizer.bytes]

[model]
vocab_size = 256
context_length = 32
d_model = 32
n_layers = 2
n_heads = 2
n_kv_heads = 2
d_ff = 64
position = { rope = { theta = 10000.0, layout = "half" } }
norm = { rms = { eps = 1e-5 } }
placement = "pre"
mlp = "swiglu"
bias = false
tie_embeddings = true
init = { normal = { std = 0.02, scale_residual = true } }

[optimizer.adamw]
learning_rate = 3e-3
betas = [0.9, 0.95]
eps = 1e-8
weight_decay = 0.1
decay = "matrices"

[schedule.cosine]
warmup_steps = 2
min_ratio = 0.1

[training]
steps = 10
batch_size = 4
micro_batch_size = "auto"
grad_clip_norm = 1.0
validation_every = 5
validation_sequences = 4
checkpoint_every = 5
keep_checkpoints = 2
device = "auto"
precision = "auto"
matmul = "auto"
kernel = "auto"
"#;

fn parse(text: &str, settings: &[&str]) -> Result<RunConfig, RunConfigError> {
    let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
    RunConfig::from_text(text, Path::new("tiny.toml"), &settings)
}

#[track_caller]
fn message(text: &str, settings: &[&str]) -> String {
    parse(text, settings).unwrap_err().to_string()
}

#[test]
fn a_config_written_out_reads_back_the_same() {
    let config = parse(TINY, &[]).unwrap();
    assert_eq!(parse(&config.to_text(), &[]).unwrap(), config);
}

#[test]
fn an_unknown_key_is_shown_with_its_line_and_the_known_keys() {
    let message = message(&TINY.replace("weight_decay", "weigth_decay"), &[]);
    for part in ["tiny.toml", "line 30", "weigth_decay", "weight_decay, decay", "betas"] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
}

#[test]
fn overrides_are_typed_by_the_same_structs() {
    let settings =
        ["model.n_layers=6", "model.norm=none", "model.position={rope={theta=5e5,layout=\"interleaved\"}}", "seed=7"];
    let config = parse(TINY, &settings).unwrap();
    assert_eq!((config.model.n_layers, config.seed), (6, 7));
    assert_eq!(config.model.norm, nn::NormKind::None);
    assert_eq!(config.model.position, nn::Position::Rope { theta: 5e5, layout: nn::RopeLayoutKind::Interleaved });
    assert!(message(TINY, &["model.n_layer=6"]).contains("n_layer"));
    assert!(message(TINY, &["model.n_layers"]).contains("there is no ="));
    assert!(message(TINY, &["model.n_layers=six"]).contains("six"));
    assert!(message(TINY, &["seed.x=1"]).contains("seed is not a section"));
}

#[test]
fn values_out_of_range_are_refused_by_name() {
    for (setting, part) in [
        ("training.steps=0", "training.steps = 0, expected at least 1"),
        ("training.micro_batch_size=3", "a divisor of training.batch_size"),
        ("model.n_heads=3", "model.d_model = 32 is not a multiple of model.n_heads = 3"),
        ("optimizer.adamw.learning_rate=-1.0", "learning_rate = -1"),
        ("optimizer.adamw.betas=[0.9, 1.0]", "betas = 1"),
        ("data.validation.tail=1.5", "validation.tail = 1.5"),
        ("schedule.cosine.warmup_steps=11", "warmup_steps = 11"),
        ("training.keep_checkpoints=0", "keep_checkpoints"),
        ("training.precision=f16", "expected \"auto\", \"f32\" or \"bf16\""),
        ("training.matmul=int8", "expected \"auto\", \"f32\", \"bf16\" or \"fp8\""),
        ("training.kernel=foo", "expected \"auto\", \"avx512\", \"avx2\" or \"portable\""),
        ("training.micro_batch_size=x", "expected \"auto\" or a whole number"),
        ("data.train=[]", "data.train"),
    ] {
        let message = message(TINY, &[setting]);
        assert!(message.contains(part), "{setting}: {message}");
    }
}

#[test]
fn products_are_as_the_precision_unless_fp8_is_asked_for_where_it_is_refused_without_a_gpu() {
    let choose = |settings: &[&str]| {
        let settings = [&["training.device=cpu"], settings].concat();
        crate::plan::choose(&parse(TINY, &settings).unwrap()).map_err(|error| error.to_string())
    };
    let first_line = |error: String| error.lines().next().unwrap_or_default().to_owned();
    assert_eq!(choose(&[]).unwrap().training.matmul, Auto::Value(Matmul::F32));
    assert_eq!(choose(&["training.matmul=f32"]).unwrap(), choose(&[]).unwrap());
    let error = first_line(choose(&["training.matmul=fp8"]).unwrap_err());
    assert_eq!(error, "training.matmul = fp8, expected f32 on a CPU: products in fp8 need an NVIDIA GPU");
    let error = first_line(choose(&["training.matmul=bf16"]).unwrap_err());
    assert_eq!(error, "training.matmul = bf16, expected f32, as training.precision");
    // Configs of before the key was known.
    let old = parse(&TINY.replace("matmul = \"auto\"\n", ""), &[]).unwrap();
    assert_eq!(old, parse(TINY, &[]).unwrap());
}

#[test]
fn no_damage_to_a_config_makes_a_panic() {
    let mut state = 1u64;
    let mut random = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    let numbers =
        ["0", "-1", "1e400", "nan", "inf", "18446744073709551615", "16777216", "2147483648", "\"\"", "[]", "{}"];
    for _ in 0..3000 {
        let mut text = TINY.as_bytes().to_vec();
        match random(3) {
            0 => text.truncate(random(text.len())),
            1 => {
                for _ in 0..=random(3) {
                    let at = random(text.len());
                    text[at] = random(256) as u8;
                }
            }
            _ => {
                let lines: Vec<&str> = TINY.lines().collect();
                let at = random(lines.len());
                let key = lines[at].split('=').next().unwrap_or_default();
                let damaged = format!("{key} = {}", numbers[random(numbers.len())]);
                let lines = lines.iter().enumerate().map(|(i, line)| if i == at { &damaged } else { *line });
                text = lines.collect::<Vec<_>>().join("\n").into_bytes();
            }
        }
        if let Ok(config) = parse(&String::from_utf8_lossy(&text), &[]) {
            // What passes must be safe to plan.
            if let Ok(chosen) = crate::plan::choose(&config) {
                crate::plan::Plan::of(&chosen);
            }
        }
    }
}
