//! A linear layer.

use tensor::{Tensor, ops};

/// `x·Wᵀ + b`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Tensor,
    /// `[out]`
    pub bias: Option<Tensor>,
}

impl Linear {
    /// `[..., in]` → `[..., out]`.
    #[track_caller]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        ops::linear(x, &self.weight, self.bias.as_ref())
    }

    pub(crate) fn parameters<'a>(&'a self, name: &str, list: &mut Vec<(String, &'a Tensor)>) {
        list.push((format!("{name}.weight"), &self.weight));
        list.extend(self.bias.iter().map(|bias| (format!("{name}.bias"), bias)));
    }

    pub(crate) fn parameters_mut<'a>(&'a mut self, list: &mut Vec<&'a mut Tensor>) {
        list.push(&mut self.weight);
        list.extend(&mut self.bias);
    }
}
