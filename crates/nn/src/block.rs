//! One layer of the transformer: attention, then feed-forward, each with a norm and a residual connection.

use tensor::ops::{self, Heads, RopeTable};
use tensor::{Tensor, recompute};

use crate::attention::AttentionContext;
use crate::{Attention, Mlp, Norm, Placement};

/// The weights of one block.
#[derive(Clone, Debug)]
pub struct Block {
    /// Before or after, see [`Placement`].
    pub placement: Placement,
    /// The norm of attention.
    pub attention_norm: Norm,
    /// Mixes positions.
    pub attention: Attention,
    /// The norm of the feed-forward layer.
    pub mlp_norm: Norm,
    /// Mixes features.
    pub mlp: Mlp,
}

/// The residual stream and what its newest branch adds to it. The addition waits for the norm behind it, because both
/// are one pass over memory.
pub(crate) struct Stream<'a> {
    pub(crate) x: Tensor,
    pub(crate) branch: Option<Branch<'a>>,
}

/// What is added to the residual stream: `y + bias`, with one bias for all rows. The bias is added together with `y`: then
/// its gradient, the sum of the columns of the stream's, is made in the same pass as that.
pub(crate) struct Branch<'a> {
    pub(crate) y: Tensor,
    pub(crate) bias: Option<&'a Tensor>,
}

impl Stream<'_> {
    /// The stream with its branch added, and the norm of that.
    pub(crate) fn normed(self, norm: &Norm) -> (Tensor, Tensor) {
        match self.branch {
            Some(Branch { y, bias }) => norm.forward_sum(&self.x, &y, bias),
            None => (self.x.clone(), norm.forward(&self.x)),
        }
    }
}

impl Block {
    /// `[b, t, d]` → `[b, t, d]`: [`Block::forward`] of which backward keeps `x` alone.
    pub(crate) fn forward_recomputed(&self, x: &Tensor, heads: Heads, rope: Option<&RopeTable>) -> Tensor {
        let (block, rope) = (self.clone(), rope.cloned());
        let forward = move |inputs: &[Tensor]| {
            let context = AttentionContext { heads, rope: rope.as_ref(), start: 0, cache: None };
            let Stream { x, branch } = block.forward(Stream { x: inputs[0].clone(), branch: None }, context);
            branch.map_or(x.clone(), |Branch { y, bias }| ops::add_with_bias(&x, &y, bias))
        };
        recompute(forward, std::slice::from_ref(x))
    }

    /// `[b, t, d]` → `[b, t, d]`.
    pub(crate) fn forward<'a>(&'a self, stream: Stream<'a>, context: AttentionContext<'_>) -> Stream<'a> {
        match self.placement {
            Placement::Pre => {
                let (x, normed) = stream.normed(&self.attention_norm);
                let attended = Stream { branch: Some(self.attention.branch(&normed, context)), x };
                drop(normed);
                let (x, normed) = attended.normed(&self.mlp_norm);
                Stream { x, branch: Some(self.mlp.branch(&normed)) }
            }
            Placement::Post => {
                // Here a branch never waits: its norm is its own.
                let x = stream.x;
                let branch = self.attention.branch(&x, context);
                let (_, x) = Stream { x, branch: Some(branch) }.normed(&self.attention_norm);
                let branch = self.mlp.branch(&x);
                let (_, x) = Stream { x, branch: Some(branch) }.normed(&self.mlp_norm);
                Stream { x, branch: None }
            }
        }
    }

    pub(crate) fn parameters<'a>(&'a self, name: &str, list: &mut Vec<(String, &'a Tensor)>) {
        self.attention_norm.parameters(&format!("{name}.attention_norm"), list);
        self.attention.qkv.parameters(&format!("{name}.attention.qkv"), list);
        self.attention.output.parameters(&format!("{name}.attention.output"), list);
        self.mlp_norm.parameters(&format!("{name}.mlp_norm"), list);
        self.mlp.up.parameters(&format!("{name}.mlp.up"), list);
        self.mlp.down.parameters(&format!("{name}.mlp.down"), list);
    }

    pub(crate) fn parameters_mut<'a>(&'a mut self, list: &mut Vec<&'a mut Tensor>) {
        self.attention_norm.parameters_mut(list);
        self.attention.qkv.parameters_mut(list);
        self.attention.output.parameters_mut(list);
        self.mlp_norm.parameters_mut(list);
        self.mlp.up.parameters_mut(list);
        self.mlp.down.parameters_mut(list);
    }
}
