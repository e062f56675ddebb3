//! One layer of the transformer: attention, then feed-forward, each with a norm and a residual connection.

use tensor::{Tensor, ops};

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

impl Block {
    /// `[b, t, d]` → `[b, t, d]`.
    pub(crate) fn forward(&self, x_btd: &Tensor, context: AttentionContext<'_>) -> Tensor {
        match self.placement {
            Placement::Pre => {
                let x = ops::add(x_btd, &self.attention.forward(&self.attention_norm.forward(x_btd), context));
                ops::add(&x, &self.mlp.forward(&self.mlp_norm.forward(&x)))
            }
            Placement::Post => {
                let x = self.attention_norm.forward(&ops::add(x_btd, &self.attention.forward(x_btd, context)));
                self.mlp_norm.forward(&ops::add(&x, &self.mlp.forward(&x)))
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
