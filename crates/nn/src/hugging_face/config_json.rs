//! `config.json`: our configuration in the words of `transformers`, and back.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Error, SpecialIds, layout::Family};
use crate::{Init, MlpKind, ModelConfig, NormKind, Placement, Position, RopeLayoutKind};

/// The content of `config.json`.
pub(super) fn to_json(config: &ModelConfig, special: SpecialIds) -> Value {
    let std = match config.init {
        Init::Normal { std, .. } => std,
        Init::Glorot => 0.02,
    };
    let mut json = match (Family::of(config), &config.position, &config.norm) {
        (Family::Llama, Position::Rope { theta, .. }, NormKind::Rms { eps }) => json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": config.vocab_size,
            "max_position_embeddings": config.context_length,
            "hidden_size": config.d_model,
            "intermediate_size": config.d_ff,
            "num_hidden_layers": config.n_layers,
            "num_attention_heads": config.n_heads,
            "num_key_value_heads": config.n_kv_heads,
            "head_dim": config.head_dim(),
            "hidden_act": "silu",
            "rms_norm_eps": short(*eps),
            // Releases before 5 read the first key, later ones the second.
            "rope_theta": theta,
            "rope_parameters": { "rope_type": "default", "rope_theta": theta },
            "attention_bias": false,
            "mlp_bias": false,
        }),
        (Family::Gpt2, _, NormKind::Layer { eps, .. }) => json!({
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "vocab_size": config.vocab_size,
            "n_positions": config.context_length,
            "n_embd": config.d_model,
            "n_layer": config.n_layers,
            "n_head": config.n_heads,
            "n_inner": config.d_ff,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": short(*eps),
            "attn_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "resid_pdrop": 0.0,
        }),
        _ => json!({
            "architectures": ["CupolaForCausalLM"],
            "model_type": "cupola",
            "cupola": config,
        }),
    };
    let shared = json!({
        "initializer_range": short(std),
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": special.begin,
        "eos_token_id": special.end,
        "dtype": "float32",
        "torch_dtype": "float32",
        "use_cache": true,
    });
    if let (Value::Object(json), Value::Object(shared)) = (&mut json, shared) {
        json.extend(shared);
    }
    json
}

/// An f32 as the shortest decimal that reads back to it, not as its f64 expansion.
fn short(x: f32) -> f64 {
    x.to_string().parse().expect("a printed number is a number")
}

/// The content of `generation_config.json`.
pub(super) fn generation(special: SpecialIds) -> Value {
    json!({ "bos_token_id": special.begin, "eos_token_id": special.end, "do_sample": true })
}

/// What a model is made of, from the text of its `config.json`.
pub(super) fn from_json(path: &Path, text: &str) -> Result<ModelConfig, Error> {
    let broken = |reason: String| Error::Json { path: path.to_owned(), reason };
    let object: Map<String, Value> = serde_json::from_str(text).map_err(|e| broken(e.to_string()))?;
    let keys = Keys { path, object: &object };
    let config = match keys.text("model_type")? {
        "llama" => llama(&keys)?,
        "gpt2" => gpt2(&keys)?,
        "cupola" => {
            let own = object.get("cupola").ok_or_else(|| broken("it has no key cupola".to_owned()))?;
            serde_json::from_value(own.clone()).map_err(|e| broken(e.to_string()))?
        }
        other => return Err(keys.unsupported("model_type", other, "llama, gpt2 or cupola")),
    };
    config.validate().map_err(|source| Error::Config { path: path.to_owned(), source })?;
    Ok(config)
}

fn llama(keys: &Keys<'_>) -> Result<ModelConfig, Error> {
    keys.expect("hidden_act", json!("silu"))?;
    keys.expect("attention_bias", json!(false))?;
    keys.expect("mlp_bias", json!(false))?;
    keys.expect("rope_scaling", Value::Null)?;
    keys.expect("pretraining_tp", json!(1))?;
    let rope = keys.object.get("rope_parameters").and_then(Value::as_object);
    if let Some(rope_type) = rope.and_then(|rope| rope.get("rope_type")).filter(|kind| **kind != json!("default")) {
        return Err(keys.unsupported("rope_parameters.rope_type", rope_type, "default"));
    }
    let theta = rope.and_then(|rope| rope.get("rope_theta")).or_else(|| keys.object.get("rope_theta"));
    let theta = theta.map_or(Some(10_000.0), Value::as_f64);
    let theta = theta.ok_or_else(|| keys.broken("rope_theta", "a number"))?;
    let n_heads = keys.size("num_attention_heads")?;
    let config = ModelConfig {
        vocab_size: keys.size("vocab_size")?,
        context_length: keys.size("max_position_embeddings")?,
        d_model: keys.size("hidden_size")?,
        n_layers: keys.size("num_hidden_layers")?,
        n_heads,
        n_kv_heads: keys.size_or("num_key_value_heads", n_heads)?,
        d_ff: keys.size("intermediate_size")?,
        position: Position::Rope { theta, layout: RopeLayoutKind::Half },
        norm: NormKind::Rms { eps: keys.number_or("rms_norm_eps", 1e-6)? as f32 },
        placement: Placement::Pre,
        mlp: MlpKind::Swiglu,
        bias: false,
        tie_embeddings: keys.flag_or("tie_word_embeddings", false)?,
        init: Init::Normal { std: keys.number_or("initializer_range", 0.02)? as f32, scale_residual: false },
    };
    // Heads that do not divide the width are left to `validate`, which says so.
    let divides = config.d_model.checked_rem(config.n_heads) == Some(0);
    if divides && keys.size_or("head_dim", config.head_dim())? != config.head_dim() {
        return Err(keys.unsupported("head_dim", keys.size("head_dim")?, "hidden_size / num_attention_heads"));
    }
    Ok(config)
}

fn gpt2(keys: &Keys<'_>) -> Result<ModelConfig, Error> {
    keys.expect("activation_function", json!("gelu_new"))?;
    keys.expect("scale_attn_weights", json!(true))?;
    keys.expect("scale_attn_by_inverse_layer_idx", json!(false))?;
    keys.expect("add_cross_attention", json!(false))?;
    let (d_model, n_heads) = (keys.size("n_embd")?, keys.size("n_head")?);
    Ok(ModelConfig {
        vocab_size: keys.size("vocab_size")?,
        context_length: keys.size("n_positions")?,
        d_model,
        n_layers: keys.size("n_layer")?,
        n_heads,
        n_kv_heads: n_heads,
        d_ff: keys.size_or("n_inner", d_model.saturating_mul(4))?,
        position: Position::Learned,
        norm: NormKind::Layer { eps: keys.number_or("layer_norm_epsilon", 1e-5)? as f32, bias: true },
        placement: Placement::Pre,
        mlp: MlpKind::Gelu,
        bias: true,
        tie_embeddings: keys.flag_or("tie_word_embeddings", true)?,
        init: Init::Normal { std: keys.number_or("initializer_range", 0.02)? as f32, scale_residual: true },
    })
}

/// Typed access to the keys of a JSON object; a null counts as absent.
struct Keys<'a> {
    path: &'a Path,
    object: &'a Map<String, Value>,
}

impl<'a> Keys<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    fn broken(&self, key: &str, expected: &str) -> Error {
        let found = self.object.get(key).map_or("nothing".to_owned(), Value::to_string);
        Error::Json { path: self.path.to_owned(), reason: format!("{key} is {found}, expected {expected}") }
    }

    fn unsupported(&self, key: &str, value: impl ToString, expected: &str) -> Error {
        let (key, value, expected) = (key.to_owned(), value.to_string(), expected.to_owned());
        Error::Unsupported { path: self.path.to_owned(), key, value, expected }
    }

    /// Refuses any value of `key` but `only`.
    fn expect(&self, key: &str, only: Value) -> Result<(), Error> {
        match self.get(key) {
            Some(value) if *value != only => Err(self.unsupported(key, value, &only.to_string())),
            _ => Ok(()),
        }
    }

    fn text(&self, key: &str) -> Result<&'a str, Error> {
        self.get(key).and_then(Value::as_str).ok_or_else(|| self.broken(key, "a text"))
    }

    fn size(&self, key: &str) -> Result<usize, Error> {
        let size = self.get(key).and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok());
        size.ok_or_else(|| self.broken(key, "a whole number"))
    }

    fn size_or(&self, key: &str, default: usize) -> Result<usize, Error> {
        if self.get(key).is_some() { self.size(key) } else { Ok(default) }
    }

    fn number_or(&self, key: &str, default: f64) -> Result<f64, Error> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_f64().ok_or_else(|| self.broken(key, "a number"))
    }

    fn flag_or(&self, key: &str, default: bool) -> Result<bool, Error> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.broken(key, "true or false"))
    }
}
