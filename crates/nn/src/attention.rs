//! Causal self-attention with grouped queries (Vaswani et al., 2017; Ainslie et al., 2023,
//! <https://arxiv.org/abs/2305.13245>).

use tensor::Tensor;
use tensor::ops::{self, Heads, KeyValueCache, RopeTable};

use crate::Linear;
use crate::block::Branch;

/// The projections of one attention layer.
#[derive(Clone, Debug)]
pub struct Attention {
    /// Queries, keys and values in one product: `[(h + 2g)·e, d]`, heads in that order.
    pub qkv: Linear,
    /// `[d, h·e]`
    pub output: Linear,
}

/// What attention needs beside its weights.
pub(crate) struct AttentionContext<'a> {
    pub(crate) heads: Heads,
    /// The rotation, if positions are rotary.
    pub(crate) rope: Option<&'a RopeTable>,
    /// The position of the first row.
    pub(crate) start: usize,
    /// What was computed for earlier positions, if anything can have been.
    pub(crate) cache: Option<&'a mut KeyValueCache>,
}

impl Attention {
    /// `[b, t, d]` → `[b, t, d]`, with the bias of `output` still to be added.
    pub(crate) fn branch(&self, x_btd: &Tensor, context: AttentionContext<'_>) -> Branch<'_> {
        let AttentionContext { heads, rope, start, cache } = context;
        let scale = 1.0 / (heads.head_dim as f32).sqrt();
        let Linear { weight, bias, .. } = &self.qkv;
        let y = match (rope, cache) {
            (None, None) if !self.qkv.is_fp8() => ops::projected_attention(x_btd, weight, bias.as_ref(), &heads, scale),
            (rope, cache) => {
                let qkv = self.qkv.forward(x_btd);
                let qkv = match rope {
                    Some(rope) => ops::rope_into(qkv, &heads, rope, start),
                    None => qkv,
                };
                match cache {
                    Some(cache) => ops::attention_with_cache(&qkv, &heads, scale, cache),
                    None => ops::attention(&qkv, &heads, scale),
                }
            }
        };
        Branch { y: self.output.forward_with(&y, None), bias: self.output.bias.as_ref() }
    }
}
