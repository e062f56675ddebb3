//! The feed-forward layer, gated or not.

use tensor::{Tensor, ops};

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
        let up = self.up.forward(x);
        let activated = match self.kind.activation() {
            Some(activation) => ops::activation(&up, activation),
            None => ops::swiglu(&up),
        };
        drop(up);
        self.down.forward(&activated)
    }
}
