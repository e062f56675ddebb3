//! A linear layer.

use tensor::ops::Fp8Weight;
use tensor::{Tensor, ops};

/// `x·Wᵀ + b`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Tensor,
    /// `[out]`
    pub bias: Option<Tensor>,
    /// The weight in 8 bits, if products are to be computed so; see [`Linear::with_fp8`].
    fp8: Option<Fp8Weight>,
}

impl Linear {
    /// With a weight `[out, in]` and a bias `[out]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Linear { weight, bias, fp8: None }
    }

    /// The same layer, in the same place on the tape, with products in fp8, if its weight can be rounded so.
    pub(crate) fn with_fp8(&self) -> Self {
        Linear { fp8: Fp8Weight::new(&self.weight), ..self.clone() }
    }

    /// Whether products are computed in fp8.
    pub(crate) fn is_fp8(&self) -> bool {
        self.fp8.is_some()
    }

    /// `[..., in]` → `[..., out]`.
    #[track_caller]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.forward_with(x, self.bias.as_ref())
    }

    /// The same with another bias: none, where it is added later.
    #[track_caller]
    pub(crate) fn forward_with(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        match &self.fp8 {
            Some(fp8) => ops::fp8_linear(x, &self.weight, fp8, bias),
            None => ops::linear(x, &self.weight, bias),
        }
    }

    pub(crate) fn parameters<'a>(&'a self, name: &str, list: &mut Vec<(String, &'a Tensor)>) {
        list.push((format!("{name}.weight"), &self.weight));
        list.extend(self.bias.iter().map(|bias| (format!("{name}.bias"), bias)));
    }

    pub(crate) fn parameters_mut<'a>(&'a mut self, list: &mut Vec<&'a mut Tensor>) {
        // Whoever changes the weight would leave it as it was.
        self.fp8 = None;
        list.push(&mut self.weight);
        list.extend(&mut self.bias);
    }
}
