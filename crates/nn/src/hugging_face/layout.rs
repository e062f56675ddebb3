//! Under which names, and in which layout, each family stores its tensors.

use tensor::io::SafetensorsFile;
use tensor::{DType, Tensor, ops};

use crate::{MlpKind, ModelConfig, NormKind, Placement, Position, RopeLayoutKind};

/// Whose names a model is stored under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Gpt2,
    Llama,
    /// Our own: for combinations that no published family has.
    Cupola,
}

/// How one of our parameters is stored.
pub(super) struct Stored {
    /// Names and numbers of rows of the tensors that one fused parameter is split into; one piece if it is whole.
    pieces: Vec<(String, usize)>,
    /// Stored as `[in, out]`, as GPT-2's Conv1D.
    transposed: bool,
}

impl Family {
    pub(super) fn of(config: &ModelConfig) -> Self {
        let rotates_halves = matches!(config.position, Position::Rope { layout: RopeLayoutKind::Half, .. });
        let is_llama = rotates_halves
            && matches!(config.norm, NormKind::Rms { .. })
            && config.placement == Placement::Pre
            && config.mlp == MlpKind::Swiglu
            && !config.bias;
        let is_gpt2 = config.position == Position::Learned
            && matches!(config.norm, NormKind::Layer { bias: true, .. })
            && config.placement == Placement::Pre
            && config.mlp == MlpKind::Gelu
            && config.n_kv_heads == config.n_heads
            && config.bias;
        match (is_llama, is_gpt2) {
            (true, _) => Family::Llama,
            (_, true) => Family::Gpt2,
            _ => Family::Cupola,
        }
    }

    /// How the parameter of this name is stored.
    pub(super) fn stored(self, config: &ModelConfig, name: &str) -> Stored {
        match self {
            Family::Llama => llama(config, name),
            Family::Gpt2 => gpt2(name),
            Family::Cupola => Stored::whole(name.to_owned()),
        }
    }

    /// Buffers that some exporters write beside the weights.
    pub(super) fn ignores(self, name: &str) -> bool {
        match self {
            Family::Gpt2 => name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias"),
            Family::Llama => name.ends_with(".rotary_emb.inv_freq"),
            Family::Cupola => false,
        }
    }

    /// GPT-2's own files lack the prefix that later exporters add.
    pub(super) fn canonical(self, name: &str) -> String {
        match self {
            Family::Gpt2 if !name.starts_with("transformer.") && name != "lm_head.weight" => {
                format!("transformer.{name}")
            }
            _ => name.to_owned(),
        }
    }
}

/// `blocks.3.mlp.up.weight` → `(3, "mlp.up.weight")`.
fn in_block(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix("blocks.")?.split_once('.')
}

fn llama(config: &ModelConfig, name: &str) -> Stored {
    let Some((layer, part)) = in_block(name) else {
        return Stored::whole(match name {
            "token_embedding" => "model.embed_tokens.weight".to_owned(),
            "final_norm.gain" => "model.norm.weight".to_owned(),
            "head" => "lm_head.weight".to_owned(),
            other => unreachable!("a Llama has no parameter {other}"),
        });
    };
    let heads = config.heads();
    let pieces: &[(&str, usize)] = match part {
        "attention_norm.gain" => &[("input_layernorm", 0)],
        "attention.qkv.weight" => &[
            ("self_attn.q_proj", heads.q_width()),
            ("self_attn.k_proj", heads.k_width()),
            ("self_attn.v_proj", heads.v_width()),
        ],
        "attention.output.weight" => &[("self_attn.o_proj", 0)],
        "mlp_norm.gain" => &[("post_attention_layernorm", 0)],
        "mlp.up.weight" => &[("mlp.gate_proj", config.d_ff), ("mlp.up_proj", config.d_ff)],
        "mlp.down.weight" => &[("mlp.down_proj", 0)],
        other => unreachable!("a Llama block has no parameter {other}"),
    };
    let full = |(piece, rows): &(&str, usize)| (format!("model.layers.{layer}.{piece}.weight"), *rows);
    Stored { pieces: pieces.iter().map(full).collect(), transposed: false }
}

fn gpt2(name: &str) -> Stored {
    let Some((layer, part)) = in_block(name) else {
        return Stored::whole(match name {
            "token_embedding" => "transformer.wte.weight".to_owned(),
            "position_embedding" => "transformer.wpe.weight".to_owned(),
            "final_norm.gain" => "transformer.ln_f.weight".to_owned(),
            "final_norm.bias" => "transformer.ln_f.bias".to_owned(),
            "head" => "lm_head.weight".to_owned(),
            other => unreachable!("a GPT-2 has no parameter {other}"),
        });
    };
    let (module, kind) = part.rsplit_once('.').expect("a block's parameters have a module and a kind");
    let module = match module {
        "attention_norm" => "ln_1",
        "attention.qkv" => "attn.c_attn",
        "attention.output" => "attn.c_proj",
        "mlp_norm" => "ln_2",
        "mlp.up" => "mlp.c_fc",
        "mlp.down" => "mlp.c_proj",
        other => unreachable!("a GPT-2 block has no module {other}"),
    };
    let transposed = kind == "weight";
    let kind = if kind == "gain" { "weight" } else { kind };
    Stored { pieces: vec![(format!("transformer.h.{layer}.{module}.{kind}"), 0)], transposed }
}

impl Stored {
    fn whole(name: String) -> Self {
        Stored { pieces: vec![(name, 0)], transposed: false }
    }

    /// The names in the file.
    pub(super) fn names(&self) -> impl Iterator<Item = String> + '_ {
        self.pieces.iter().map(|(name, _)| name.clone())
    }

    /// Our parameter, as it is stored.
    pub(super) fn split(&self, x: &Tensor) -> Vec<(String, Tensor)> {
        if let [(name, _)] = &self.pieces[..] {
            let stored = if self.transposed { transpose(x) } else { x.detached() };
            return vec![(name.clone(), stored)];
        }
        let (_, columns) = x.rows();
        let mut row = 0;
        let piece = |(name, rows): &(String, usize)| {
            let elements = &x.f32s()[row * columns..(row + rows) * columns];
            row += rows;
            (name.clone(), Tensor::copied_from(&[*rows, columns], elements))
        };
        self.pieces.iter().map(piece).collect()
    }

    /// Our parameter of shape `shape`, from how it is stored.
    pub(super) fn load(&self, file: &SafetensorsFile, shape: &[usize]) -> Result<Tensor, tensor::Error> {
        if let [(name, _)] = &self.pieces[..] {
            let name = match file.shape(name) {
                Some(_) => name.as_str(),
                None => name.strip_prefix("transformer.").filter(|bare| file.shape(bare).is_some()).unwrap_or(name),
            };
            return match (self.transposed, shape) {
                (true, &[out, inputs]) => Ok(transpose(&file.f32_tensor(name, &[inputs, out])?)),
                _ => file.f32_tensor(name, shape),
            };
        }
        // All pieces are read, and so their sizes known to be those of the file, before the whole is allocated.
        let columns = shape[1];
        let pieces = self.pieces.iter().map(|(name, rows)| file.f32_tensor(name, &[*rows, columns]));
        let pieces = pieces.collect::<Result<Vec<_>, _>>()?;
        let elements: Vec<&[f32]> = pieces.iter().map(Tensor::f32s).collect();
        Ok(Tensor::from_f32(shape, elements.concat()))
    }
}

/// `[m, n]` → `[n, m]`.
fn transpose(x: &Tensor) -> Tensor {
    let (m, n) = x.rows();
    let x = ops::cast(&x.detached(), DType::F32);
    let elements = x.f32s();
    Tensor::from_fn(&[n, m], |i| elements[(i % m) * n + i / m])
}
