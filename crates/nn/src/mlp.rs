//! The feed-forward layer, gated or not.

use tensor::{Tensor, ops};

use crate::block::Branch;
use crate::{Linear, MlpKind};

/// Two matrices around an activation.
#[derive(Clone, Debug)]
pub struct Mlp {
    /// Which activation.
    pub kind: MlpKind,
    /// `[f, d]`, or `[2f, d]` with the gate first if gated.
    pub up: Linear,
    /// `[d, f]`
    pub down: Linear,
}

impl Mlp {
    /// `[..., d]` → `[..., d]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.with_last_bias(x, self.down.bias.as_ref())
    }

    /// The same, with the bias of `down` still to be added.
    pub(crate) fn branch(&self, x: &Tensor) -> Branch<'_> {
        Branch { y: self.with_last_bias(x, None), bias: self.down.bias.as_ref() }
    }

    fn with_last_bias(&self, x: &Tensor, down_bias: Option<&Tensor>) -> Tensor {
        if self.up.is_fp8() || self.down.is_fp8() {
            let up = self.up.forward(x);
            let activated = match self.kind.activation() {
                Some(kind) => ops::activation(&up, kind),
                None => ops::swiglu(&up),
            };
            drop(up);
            return self.down.forward_with(&activated, down_bias);
        }
        let layer = ops::Mlp {
            up: &self.up.weight,
            up_bias: self.up.bias.as_ref(),
            down: &self.down.weight,
            down_bias,
            activation: self.kind.activation(),
        };
        ops::mlp(x, &layer)
    }
}
