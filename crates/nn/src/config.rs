//! What a model is made of.

use serde::{Deserialize, Serialize};
use tensor::ops::{Activation, Heads, RopeLayout};

/// A decoder-only transformer. Every switch is written out: nothing that shapes a result has a hidden default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Rows of the embedding table: at least the number of ids of the tokenizer.
    pub vocab_size: usize,
    /// The longest sequence, in tokens.
    pub context_length: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Blocks.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads: `n_heads` for multi-head attention, fewer for grouped queries, 1 for multi-query.
    pub n_kv_heads: usize,
    /// Width inside the feed-forward layer.
    pub d_ff: usize,
    /// How the model knows the order of tokens.
    pub position: Position,
    /// The normalisation layers.
    pub norm: NormKind,
    /// Where in a block the normalisation stands.
    pub placement: Placement,
    /// The feed-forward layer.
    pub mlp: MlpKind,
    /// Whether the linear layers have biases.
    pub bias: bool,
    /// Whether the output head is the embedding table.
    pub tie_embeddings: bool,
    /// How fresh weights are drawn.
    pub init: Init,
}

/// How the model knows the order of tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Position {
    /// Not at all, but for the causal mask (Kazemnejad et al., 2023, <https://arxiv.org/abs/2305.19466>).
    None,
    /// A learned vector per position, added to the embedding.
    Learned,
    /// Rotation of queries and keys (Su et al., 2021, <https://arxiv.org/abs/2104.09864>).
    Rope {
        /// The base of the wavelengths.
        theta: f64,
        /// Which elements of a head form a rotated pair.
        layout: RopeLayoutKind,
    },
}

/// Which elements of a head form a rotated pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RopeLayoutKind {
    /// `(i, i + e/2)`, as Hugging Face's Llama.
    Half,
    /// `(2i, 2i + 1)`, as the paper.
    Interleaved,
}

/// The normalisation layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum NormKind {
    /// None at all: an ablation.
    None,
    /// Root mean square (Zhang and Sennrich, 2019, <https://arxiv.org/abs/1910.07467>).
    Rms {
        /// Added to the mean square.
        eps: f32,
    },
    /// Mean and variance (Ba et al., 2016, <https://arxiv.org/abs/1607.06450>).
    Layer {
        /// Added to the variance.
        eps: f32,
        /// Whether a bias is added after the gain.
        bias: bool,
    },
}

/// Where in a block the normalisation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// `x + f(norm(x))`, and once more before the head (GPT-2, Llama).
    Pre,
    /// `norm(x + f(x))`, and none before the head (Vaswani et al., 2017).
    Post,
}

/// The feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MlpKind {
    /// `W₂(silu(W₁x) · W₃x)` (Shazeer, 2020, <https://arxiv.org/abs/2002.05202>).
    Swiglu,
    /// `W₂ gelu(W₁x)` with the tanh form of GELU, as GPT-2.
    Gelu,
    /// `W₂ gelu(W₁x)` with the exact GELU.
    GeluErf,
    /// `W₂ silu(W₁x)`.
    Silu,
    /// `W₂ relu(W₁x)`.
    Relu,
}

impl MlpKind {
    /// The activation of a layer without gate.
    pub(crate) fn activation(self) -> Option<Activation> {
        match self {
            MlpKind::Swiglu => None,
            MlpKind::Gelu => Some(Activation::GeluTanh),
            MlpKind::GeluErf => Some(Activation::GeluErf),
            MlpKind::Silu => Some(Activation::Silu),
            MlpKind::Relu => Some(Activation::Relu),
        }
    }
}

/// How fresh weights are drawn. Gains are 1, biases 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Init {
    /// N(0, `std`²) for every matrix and table.
    Normal {
        /// The standard deviation.
        std: f32,
        /// Whether matrices that write into the residual stream are divided by √(2·n_layers), as GPT-2 does.
        scale_residual: bool,
    },
    /// Matrices N(0, 2/(in + out)) cut at 3 standard deviations (Glorot and Bengio, 2010), tables N(0, 1) cut at 3.
    Glorot,
}

/// Why a model configuration is impossible.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A size is zero.
    #[error("model.{key} = 0, expected at least 1\nhint: change model.{key}; the files in configs/ have usual values")]
    Zero {
        /// The key.
        key: &'static str,
    },
    /// A size is beyond anything that fits in memory.
    #[error("model.{key} = {value} is larger than {most}, the most that is supported\nhint: lower model.{key}")]
    TooLarge {
        /// The key.
        key: &'static str,
        /// Its value.
        value: usize,
        /// The limit.
        most: usize,
    },
    /// Heads do not divide the width.
    #[error(
        "model.d_model = {d_model} is not a multiple of model.n_heads = {n_heads}\nhint: a head has d_model / n_heads elements; choose n_heads among the divisors of d_model"
    )]
    UnevenHeads {
        /// The width.
        d_model: usize,
        /// The query heads.
        n_heads: usize,
    },
    /// Key/value heads do not divide the query heads.
    #[error(
        "model.n_heads = {n_heads} is not a multiple of model.n_kv_heads = {n_kv_heads}\nhint: each key/value head serves n_heads / n_kv_heads query heads; n_kv_heads = n_heads is plain multi-head attention"
    )]
    UnevenGroups {
        /// The query heads.
        n_heads: usize,
        /// The key/value heads.
        n_kv_heads: usize,
    },
    /// Rotations need pairs.
    #[error(
        "rotary positions need an even head size, but model.d_model / model.n_heads = {head_dim}\nhint: change n_heads, or set model.position to learned or none"
    )]
    OddHead {
        /// Elements of a head.
        head_dim: usize,
    },
    /// A number is not in its range.
    #[error(
        "model.{key} = {value}, expected a finite number above 0\nhint: change model.{key}; the files in configs/ have usual values"
    )]
    NotPositive {
        /// The key.
        key: &'static str,
        /// Its value.
        value: f64,
    },
}

/// Positions times rotated pairs of a head that the table of rotations may have: 512 MiB.
const MOST_ROTATIONS: usize = 1 << 26;

impl ModelConfig {
    /// The architecture of GPT-2 (Radford et al., 2019): learned positions, LayerNorm, GELU of width 4d, biases, tied
    /// head.
    pub fn gpt2(vocab_size: usize, context_length: usize, d_model: usize, n_layers: usize, n_heads: usize) -> Self {
        ModelConfig {
            vocab_size,
            context_length,
            d_model,
            n_layers,
            n_heads,
            n_kv_heads: n_heads,
            d_ff: 4 * d_model,
            position: Position::Learned,
            norm: NormKind::Layer { eps: 1e-5, bias: true },
            placement: Placement::Pre,
            mlp: MlpKind::Gelu,
            bias: true,
            tie_embeddings: true,
            init: Init::Normal { std: 0.02, scale_residual: true },
        }
    }

    /// The architecture of Llama (Touvron et al., 2023, <https://arxiv.org/abs/2302.13971>): rotary positions, RMSNorm,
    /// SwiGLU, no biases, a head of its own.
    pub fn llama(
        vocab_size: usize,
        context_length: usize,
        d_model: usize,
        n_layers: usize,
        n_heads: usize,
        d_ff: usize,
    ) -> Self {
        ModelConfig {
            vocab_size,
            context_length,
            d_model,
            n_layers,
            n_heads,
            n_kv_heads: n_heads,
            d_ff,
            position: Position::Rope { theta: 10_000.0, layout: RopeLayoutKind::Half },
            norm: NormKind::Rms { eps: 1e-5 },
            placement: Placement::Pre,
            mlp: MlpKind::Swiglu,
            bias: false,
            tie_embeddings: false,
            init: Init::Normal { std: 0.02, scale_residual: true },
        }
    }

    /// Checks that the parts fit together. A config that passes is trusted everywhere else.
    ///
    /// # Errors
    /// The first impossible key.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let sizes = [
            ("vocab_size", self.vocab_size, 1 << 24),
            ("context_length", self.context_length, 1 << 24),
            ("d_model", self.d_model, 1 << 20),
            ("n_layers", self.n_layers, 1 << 14),
            ("n_heads", self.n_heads, 1 << 14),
            ("n_kv_heads", self.n_kv_heads, 1 << 14),
            ("d_ff", self.d_ff, 1 << 22),
        ];
        for (key, value, most) in sizes {
            if value == 0 {
                return Err(ConfigError::Zero { key });
            }
            if value > most {
                return Err(ConfigError::TooLarge { key, value, most });
            }
        }
        let (d_model, n_heads, n_kv_heads) = (self.d_model, self.n_heads, self.n_kv_heads);
        if !d_model.is_multiple_of(n_heads) {
            return Err(ConfigError::UnevenHeads { d_model, n_heads });
        }
        if !n_heads.is_multiple_of(n_kv_heads) {
            return Err(ConfigError::UnevenGroups { n_heads, n_kv_heads });
        }
        let positive = |key, value: f64| {
            let good = value.is_finite() && value > 0.0;
            if good { Ok(()) } else { Err(ConfigError::NotPositive { key, value }) }
        };
        if let Position::Rope { theta, .. } = self.position {
            positive("position.rope.theta", theta)?;
            if self.head_dim() % 2 == 1 {
                return Err(ConfigError::OddHead { head_dim: self.head_dim() });
            }
            let most = MOST_ROTATIONS / (self.head_dim() / 2);
            if self.context_length > most {
                return Err(ConfigError::TooLarge { key: "context_length", value: self.context_length, most });
            }
        }
        match self.norm {
            NormKind::None => {}
            NormKind::Rms { eps } => positive("norm.rms.eps", f64::from(eps))?,
            NormKind::Layer { eps, .. } => positive("norm.layer.eps", f64::from(eps))?,
        }
        match self.init {
            Init::Normal { std, .. } => positive("init.normal.std", f64::from(std)),
            Init::Glorot => Ok(()),
        }
    }

    /// Elements of a head.
    pub fn head_dim(&self) -> usize {
        self.d_model / self.n_heads
    }

    /// The layout of a fused projection to queries, keys and values.
    pub fn heads(&self) -> Heads {
        Heads::of_one_size(self.n_heads, self.n_kv_heads, self.head_dim())
    }

    /// Width of the first matrix of the feed-forward layer: gate and value side by side in a gated one.
    pub fn d_up(&self) -> usize {
        match self.mlp {
            MlpKind::Swiglu => 2 * self.d_ff,
            _ => self.d_ff,
        }
    }

    /// Whether a norm stands before the head.
    pub fn has_final_norm(&self) -> bool {
        self.placement == Placement::Pre
    }

    /// Every trained number, by closed form.
    pub fn n_parameters(&self) -> usize {
        let (d, f, up) = (self.d_model, self.d_ff, self.d_up());
        let heads = self.heads();
        let bias = |width: usize| if self.bias { width } else { 0 };
        let norm = match self.norm {
            NormKind::None => 0,
            NormKind::Rms { .. } | NormKind::Layer { bias: false, .. } => d,
            NormKind::Layer { bias: true, .. } => 2 * d,
        };
        let attention = heads.qkv_width() * d + bias(heads.qkv_width()) + d * heads.q_width() + bias(d);
        let mlp = up * d + bias(up) + d * f + bias(d);
        let positions = if self.position == Position::Learned { self.context_length * d } else { 0 };
        let head = if self.tie_embeddings { 0 } else { self.vocab_size * d };
        let final_norm = if self.has_final_norm() { norm } else { 0 };
        self.vocab_size * d + positions + self.n_layers * (attention + mlp + 2 * norm) + final_norm + head
    }
}

impl From<RopeLayoutKind> for RopeLayout {
    fn from(kind: RopeLayoutKind) -> Self {
        match kind {
            RopeLayoutKind::Half => RopeLayout::HalfSplit,
            RopeLayoutKind::Interleaved => RopeLayout::Interleaved,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts of the published checkpoints.
    #[test]
    fn the_closed_form_gives_the_published_parameter_counts() {
        let gpt2 = |d, layers, heads| ModelConfig::gpt2(50257, 1024, d, layers, heads).n_parameters();
        assert_eq!(gpt2(768, 12, 12), 124_439_808);
        assert_eq!(gpt2(1024, 24, 16), 354_823_168);
        assert_eq!(gpt2(1280, 36, 20), 774_030_080);
        assert_eq!(gpt2(1600, 48, 25), 1_557_611_200);
        assert_eq!(ModelConfig::llama(32000, 4096, 4096, 32, 32, 11008).n_parameters(), 6_738_415_616);
        let llama_3_8b = ModelConfig { n_kv_heads: 8, ..ModelConfig::llama(128_256, 8192, 4096, 32, 32, 14336) };
        assert_eq!(llama_3_8b.n_parameters(), 8_030_261_248);
        assert_eq!(ModelConfig::llama(10000, 256, 512, 4, 16, 1344).n_parameters(), 22_696_448);
    }

    #[test]
    fn impossible_shapes_are_refused_with_the_key() {
        let good = ModelConfig::llama(100, 16, 24, 2, 4, 32);
        assert_eq!(good.validate(), Ok(()));
        let refused = |config: ModelConfig| config.validate().unwrap_err().to_string();
        assert!(
            refused(ModelConfig { n_heads: 5, ..good.clone() }).starts_with("model.d_model = 24 is not a multiple")
        );
        assert!(refused(ModelConfig { n_kv_heads: 3, ..good.clone() }).contains("n_kv_heads = 3"));
        assert!(refused(ModelConfig { n_heads: 8, n_kv_heads: 8, ..good.clone() }).contains("even head size"));
        assert!(refused(ModelConfig { d_ff: 0, ..good.clone() }).contains("model.d_ff = 0"));
        assert!(refused(ModelConfig { vocab_size: usize::MAX, ..good.clone() }).contains("larger than"));
        assert!(refused(ModelConfig { norm: NormKind::Rms { eps: f32::NAN }, ..good }).contains("norm.rms.eps"));
    }
}
