use std::error::Error as _;
use std::fs;

use serde_json::{Value, json};
use tensor::random::Rng;
use tensor::testing::Golden;

use super::*;
use crate::{Init, MlpKind, NormKind, Placement, Position, RopeLayoutKind};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/golden");

fn golden_folder(name: &str) -> PathBuf {
    Path::new(GOLDEN).join(name)
}

/// A copy of a golden folder that a test may damage.
struct Copy {
    folder: tempfile::TempDir,
}

impl Copy {
    fn of(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for file in ["config.json", "model.safetensors"] {
            fs::write(folder.path().join(file), fs::read(golden_folder(name).join(file)).unwrap()).unwrap();
        }
        Copy { folder }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn edit_config(&self, edit: impl FnOnce(&mut Map)) {
        let mut config: Value = serde_json::from_slice(&fs::read(self.path("config.json")).unwrap()).unwrap();
        edit(config.as_object_mut().unwrap());
        fs::write(self.path("config.json"), config.to_string()).unwrap();
    }

    fn edit_weights(&self, edit: impl FnOnce(&mut Vec<(String, Tensor)>)) {
        let file = SafetensorsFile::open(&self.path("model.safetensors")).unwrap();
        let mut tensors = file.names().into_iter().map(|name| (name.clone(), file.tensor(&name).unwrap())).collect();
        edit(&mut tensors);
        tensor::io::save(&self.path("model.safetensors"), &tensors, HashMap::new()).unwrap();
    }

    /// The whole chain of messages of the error that loading gives.
    #[track_caller]
    fn refused(&self) -> String {
        message(&load(self.folder.path()).expect_err("a damaged folder was loaded"))
    }
}

type Map = serde_json::Map<String, Value>;

fn message(error: &Error) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        message += ": ";
        message += &error.to_string();
        source = error.source();
    }
    message
}

#[track_caller]
fn assert_contains(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

/// Models of the two published families.
fn published() -> Vec<ModelConfig> {
    let llama = ModelConfig::llama(50, 16, 24, 2, 4, 40);
    let gpt2 = ModelConfig::gpt2(50, 16, 24, 2, 4);
    let rms = NormKind::Rms { eps: 1e-6 };
    vec![
        gpt2.clone(),
        ModelConfig { tie_embeddings: false, d_ff: 30, ..gpt2 },
        llama.clone(),
        ModelConfig { n_kv_heads: 2, tie_embeddings: true, norm: rms, ..llama },
    ]
}

/// Published models with one part of another kind, which they have no name for.
fn own() -> Vec<ModelConfig> {
    let llama = ModelConfig::llama(50, 16, 24, 2, 4, 40);
    let gpt2 = ModelConfig::gpt2(50, 16, 24, 2, 4);
    let interleaved = Position::Rope { theta: 123.456, layout: RopeLayoutKind::Interleaved };
    let layer = |bias| NormKind::Layer { eps: 0.1, bias };
    vec![
        ModelConfig { position: interleaved, n_kv_heads: 1, ..llama.clone() },
        ModelConfig { position: Position::None, ..llama.clone() },
        ModelConfig { placement: Placement::Post, ..llama.clone() },
        ModelConfig { norm: layer(true), ..llama.clone() },
        ModelConfig { mlp: MlpKind::Silu, ..llama.clone() },
        ModelConfig { bias: true, init: Init::Glorot, ..llama },
        ModelConfig { position: Position::None, ..gpt2.clone() },
        ModelConfig { placement: Placement::Post, ..gpt2.clone() },
        ModelConfig { norm: layer(false), ..gpt2.clone() },
        ModelConfig { norm: NormKind::None, ..gpt2.clone() },
        ModelConfig { mlp: MlpKind::GeluErf, ..gpt2.clone() },
        ModelConfig { n_kv_heads: 2, ..gpt2.clone() },
        ModelConfig { bias: false, ..gpt2 },
    ]
}

#[test]
fn saving_and_loading_gives_the_same_bits_in_every_family() {
    for (seed, config) in published().into_iter().chain(own()).enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let mut model = Transformer::new(&config, seed as u64);
        for (stream, parameter) in model.parameters_mut().into_iter().enumerate() {
            *parameter = Rng::new(7, stream as u64).normal(parameter.shape(), 1.0);
        }
        save(folder.path(), &model, SpecialIds::default()).unwrap();
        let loaded = load(folder.path()).unwrap();

        // Published families do not say how weights were drawn.
        let init = config.init.clone();
        let family = Family::of(&config);
        if family == Family::Cupola {
            assert!(!published().contains(&config), "{config:?}");
            assert_eq!(*loaded.config(), config);
        } else {
            assert!(published().contains(&config), "{config:?}");
            assert_eq!(ModelConfig { init, ..loaded.config().clone() }, config);
        }
        for ((name, x), (loaded_name, y)) in model.parameters().into_iter().zip(loaded.parameters()) {
            assert_eq!(name, loaded_name);
            assert_eq!(x.shape(), y.shape(), "{name}");
            let bits = |x: &Tensor| x.f32s().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(x), bits(y), "{family:?}: {name}");
        }
    }
}

#[test]
fn saving_what_transformers_saved_gives_its_tensors_and_settings() {
    for name in ["gpt2", "llama", "llama_grouped"] {
        let folder = tempfile::tempdir().unwrap();
        let special = SpecialIds { begin: Some(3), end: Some(4) };
        save(folder.path(), &load(&golden_folder(name)).unwrap(), special).unwrap();
        let (theirs, ours) = (
            Golden::load(&golden_folder(name).to_string_lossy(), "model"),
            Golden::load(&folder.path().to_string_lossy(), "model"),
        );
        assert_eq!(theirs.names(), ours.names());
        for tensor in theirs.names() {
            assert_eq!(theirs.get(&tensor).shape(), ours.get(&tensor).shape(), "{tensor}");
            assert_eq!(theirs.get(&tensor).f32s(), ours.get(&tensor).f32s(), "{tensor}");
        }
        let config =
            |folder: &Path| -> Map { serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap() };
        let (theirs, ours) = (config(&golden_folder(name)), config(folder.path()));
        for (key, value) in &ours {
            match key.as_str() {
                "bos_token_id" => assert_eq!(*value, json!(3)),
                "eos_token_id" => assert_eq!(*value, json!(4)),
                // Read by earlier releases.
                "torch_dtype" | "rope_theta" => {}
                _ => assert_eq!(theirs.get(key), Some(value), "{key}"),
            }
        }
        let left_over = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left_over, 3, "config.json, generation_config.json, model.safetensors");
    }
}

#[test]
fn a_published_bf16_llama_gives_its_published_logits() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/03_models/hf_llama_tiny_random_bf16");
    let Ok(gold) = fs::read(folder.join("gold_logits.json")) else {
        eprintln!("skipped: there is no {}", folder.display());
        return;
    };
    let gold: Vec<Value> = serde_json::from_slice(&gold).unwrap();
    let model = load(&folder).unwrap();
    let v = model.config().vocab_size;
    for case in gold {
        let numbers = |key: &str| case[key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<_>>();
        let ids: Vec<u32> = numbers("input_ids").into_iter().map(|id| id as u32).collect();
        let logits = model.logits(&Tensor::from_u32(&[1, ids.len()], ids.clone()));
        let last = &logits.f32s()[(ids.len() - 1) * v..];
        for (x, y) in last.iter().zip(numbers("logits_last")) {
            assert!((f64::from(*x) - y).abs() < 2e-5, "{x} is not {y}, which is given with five decimals");
        }
        let largest = |row: &[f32]| row.iter().enumerate().max_by(|(_, x), (_, y)| x.total_cmp(y)).unwrap().0 as f64;
        let argmax: Vec<f64> = logits.f32s().chunks(v).map(largest).collect();
        assert_eq!(argmax, numbers("argmax_all"));
    }
}

#[test]
fn gpt2_without_prefix_and_with_buffers_is_read_as_openai_stored_it() {
    let copy = Copy::of("gpt2");
    copy.edit_weights(|tensors| {
        for (name, _) in tensors.iter_mut() {
            *name = name.strip_prefix("transformer.").unwrap().to_owned();
        }
        tensors.push(("h.0.attn.bias".to_owned(), Tensor::full(&[1, 1, 24, 24], 1.0)));
    });
    let (theirs, bare) = (load(&golden_folder("gpt2")).unwrap(), load(copy.folder.path()).unwrap());
    for ((name, x), (_, y)) in theirs.parameters().into_iter().zip(bare.parameters()) {
        assert_eq!(x.f32s(), y.f32s(), "{name}");
    }
}

#[test]
fn weights_that_do_not_fit_are_named() {
    for (name, tensor) in [
        ("gpt2", "transformer.h.1.mlp.c_fc.bias"),
        ("gpt2", "transformer.wpe.weight"),
        ("llama", "lm_head.weight"),
        ("llama_grouped", "model.layers.0.self_attn.k_proj.weight"),
    ] {
        let copy = Copy::of(name);
        copy.edit_weights(|tensors| tensors.retain(|(name, _)| name != tensor));
        assert_contains(&copy.refused(), &["has no tensor", tensor]);

        let copy = Copy::of(name);
        copy.edit_weights(|tensors| {
            let (_, x) = tensors.iter_mut().find(|(name, _)| name == tensor).unwrap();
            *x = Tensor::full(&[x.len(), 1], 0.0);
        });
        assert_contains(&copy.refused(), &[&format!("tensor {tensor} has shape ["), "expected ["]);
    }

    let copy = Copy::of("llama");
    copy.edit_weights(|tensors| {
        tensors.push(("model.layers.2.mlp.up_proj.weight".to_owned(), Tensor::full(&[44, 32], 0.0)));
        tensors.push(("model.layers.2.mlp.zzz".to_owned(), Tensor::full(&[1], 0.0)));
    });
    let refused = copy.refused();
    assert_contains(&refused, &["has 2 tensors that the model has no place for", "model.layers.2.mlp.up_proj.weight"]);

    // The buffers of GPT-2 that are let through have similar names.
    let copy = Copy::of("gpt2");
    let extra = "transformer.h.2.attn.c_attn.bias";
    copy.edit_weights(|tensors| tensors.push((extra.to_owned(), Tensor::full(&[96], 0.0))));
    assert_contains(&copy.refused(), &["has 1 tensors that the model has no place for", extra]);
}

#[test]
fn a_truncated_or_missing_file_is_named() {
    let copy = Copy::of("llama");
    let whole = fs::read(copy.path("model.safetensors")).unwrap();
    for len in [0, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(copy.path("model.safetensors"), &whole[..len]).unwrap();
        assert_contains(&copy.refused(), &["model.safetensors is not a readable safetensors file"]);
    }
    fs::remove_file(copy.path("model.safetensors")).unwrap();
    assert_contains(&copy.refused(), &["cannot read", "model.safetensors"]);
    fs::remove_file(copy.path("config.json")).unwrap();
    assert_contains(&copy.refused(), &["cannot read", "config.json"]);
}

#[test]
fn a_config_that_is_not_json_is_named() {
    let copy = Copy::of("llama");
    for text in ["", "{", "[]", "null", "{\"model_type\": \"llama\",}", "model_type = \"llama\""] {
        fs::write(copy.path("config.json"), text).unwrap();
        assert_contains(&copy.refused(), &["config.json is not a model configuration"]);
    }
    fs::write(copy.path("config.json"), "[".repeat(1 << 20)).unwrap();
    assert_contains(&copy.refused(), &["config.json is not a model configuration"]);
    fs::write(copy.path("config.json"), [0xff, 0xfe]).unwrap();
    assert_contains(&copy.refused(), &["cannot read", "config.json"]);
}

/// One key changed, and what the message must name.
#[test]
fn an_impossible_or_unsupported_config_is_refused_with_the_key() {
    let huge = json!(1u64 << 62);
    let cases: &[(&str, &str, Value, &[&str])] = &[
        ("llama", "model_type", json!("mamba"), &["model_type = mamba", "llama, gpt2 or cupola"]),
        ("llama", "model_type", Value::Null, &["model_type is null, expected a text"]),
        ("llama", "model_type", json!("cupola"), &["no key cupola"]),
        ("llama", "num_attention_heads", json!(5), &["d_model = 32 is not a multiple of model.n_heads = 5"]),
        ("llama", "num_attention_heads", json!(0), &["model.n_heads = 0"]),
        ("llama", "num_attention_heads", json!(8), &["head_dim = 8", "hidden_size / num_attention_heads"]),
        ("llama", "num_key_value_heads", json!(3), &["model.n_heads = 4", "model.n_kv_heads = 3"]),
        ("llama", "head_dim", json!(16), &["head_dim = 16"]),
        ("llama", "hidden_act", json!("gelu"), &["hidden_act", "gelu", "silu"]),
        ("llama", "attention_bias", json!(true), &["attention_bias = true"]),
        ("llama", "rope_scaling", json!({ "factor": 2.0 }), &["rope_scaling"]),
        ("llama", "rope_parameters", json!({ "rope_type": "yarn" }), &["rope_parameters.rope_type", "yarn"]),
        ("llama", "rope_parameters", json!({ "rope_theta": "x" }), &["rope_theta", "expected a number"]),
        ("llama", "rope_parameters", json!({ "rope_theta": -1 }), &["position.rope.theta = -1"]),
        ("llama", "vocab_size", json!(0), &["model.vocab_size = 0"]),
        ("llama", "vocab_size", json!(-1), &["vocab_size is -1, expected a whole number"]),
        ("llama", "vocab_size", json!(1e30), &["vocab_size is 1e+30, expected a whole number"]),
        ("llama", "vocab_size", json!("61"), &["vocab_size is \"61\", expected a whole number"]),
        ("llama", "vocab_size", huge.clone(), &["model.vocab_size = 4611686018427387904 is larger than"]),
        ("llama", "vocab_size", json!(1 << 24), &["embed_tokens.weight has shape [61, 32], expected [16777216, 32]"]),
        ("llama", "hidden_size", huge.clone(), &["hidden_size / num_attention_heads"]),
        (
            "llama",
            "intermediate_size",
            json!(1 << 22),
            &["gate_proj.weight has shape [44, 32], expected [4194304, 32]"],
        ),
        ("llama", "num_hidden_layers", huge.clone(), &["model.n_layers = 4611686018427387904 is larger than"]),
        ("llama", "num_hidden_layers", json!(1 << 14), &["has no tensor model.layers.2"]),
        ("llama", "max_position_embeddings", json!(u64::MAX), &["model.context_length", "is larger than"]),
        ("llama", "rms_norm_eps", json!(1e300), &["norm.rms.eps = inf"]),
        ("llama", "rms_norm_eps", json!(0.0), &["norm.rms.eps = 0"]),
        ("llama", "tie_word_embeddings", json!("no"), &["tie_word_embeddings", "expected true or false"]),
        ("llama", "tie_word_embeddings", json!(true), &["no place for", "lm_head.weight"]),
        ("gpt2", "activation_function", json!("gelu"), &["activation_function", "gelu_new"]),
        ("gpt2", "n_head", json!(5), &["d_model = 32 is not a multiple of model.n_heads = 5"]),
        ("gpt2", "n_embd", huge, &["model.d_model = 4611686018427387904 is larger than"]),
        ("gpt2", "n_inner", json!(1 << 22), &["c_fc.weight has shape [32, 72], expected [32, 4194304]"]),
        ("gpt2", "n_positions", json!(1 << 24), &["wpe.weight has shape [24, 32], expected [16777216, 32]"]),
        ("gpt2", "layer_norm_epsilon", json!([]), &["layer_norm_epsilon is [], expected a number"]),
    ];
    for (name, key, value, parts) in cases {
        let copy = Copy::of(name);
        copy.edit_config(|config| {
            config.insert((*key).to_owned(), value.clone());
        });
        assert_contains(&copy.refused(), parts);
    }
}

#[test]
fn heads_that_do_not_divide_are_named_when_the_head_size_is_not_given() {
    let copy = Copy::of("llama");
    copy.edit_config(|config| {
        config.remove("head_dim");
        config.insert("num_attention_heads".to_owned(), json!(5));
    });
    assert_contains(&copy.refused(), &["d_model = 32 is not a multiple of model.n_heads = 5"]);
}

#[test]
fn a_context_whose_rotations_would_fill_the_memory_is_refused() {
    let config = ModelConfig { context_length: 1 << 24, ..ModelConfig::llama(8, 16, 1024, 1, 4, 8) };
    assert!(
        config.validate().unwrap_err().to_string().contains("model.context_length = 16777216 is larger than 524288")
    );
}

#[test]
fn flipped_bytes_of_a_config_give_a_model_or_an_error_never_a_panic() {
    let own = tempfile::tempdir().unwrap();
    let post_norm = ModelConfig { placement: Placement::Post, ..ModelConfig::llama(20, 8, 8, 1, 2, 8) };
    save(own.path(), &Transformer::new(&post_norm, 0), SpecialIds::default()).unwrap();
    let mut rng = Rng::new(11, 0);
    for folder in [golden_folder("gpt2"), golden_folder("llama_grouped"), own.path().to_owned()] {
        let whole = fs::read(folder.join("config.json")).unwrap();
        let weights = folder.join("model.safetensors");
        for _ in 0..3000 {
            let mut damaged = whole.clone();
            for _ in 0..1 + rng.next_u32() % 3 {
                let position = rng.next_u32() as usize % damaged.len();
                // Mostly digits for digits: those pass the parser.
                damaged[position] = match damaged[position].is_ascii_digit() && rng.uniform() < 0.75 {
                    true => b'0' + (rng.next_u32() % 10) as u8,
                    false => rng.next_u32() as u8,
                };
            }
            let Ok(text) = String::from_utf8(damaged) else { continue };
            if let Ok(config) = config_json::from_json(Path::new("config.json"), &text) {
                assert_eq!(config.validate(), Ok(()));
                if config.context_length < 1000 {
                    let _ = load_weights(&weights, &config);
                }
            }
        }
    }
}
