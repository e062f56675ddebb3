//! A normalisation layer.

use tensor::{Tensor, ops};

/// One of the normalisations of [`crate::NormKind`], with its parameters.
#[derive(Clone, Debug)]
pub enum Norm {
    /// The identity.
    None,
    /// See [`ops::rms_norm`].
    Rms {
        /// `[d]`
        gain: Tensor,
        /// Added to the mean square.
        eps: f32,
    },
    /// See [`ops::layer_norm`].
    Layer {
        /// `[d]`
        gain: Tensor,
        /// `[d]`
        bias: Option<Tensor>,
        /// Added to the variance.
        eps: f32,
    },
}

impl Norm {
    /// `[..., d]` → `[..., d]`.
    #[track_caller]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Norm::None => x.clone(),
            Norm::Rms { gain, eps } => ops::rms_norm(x, gain, *eps),
            Norm::Layer { gain, bias, eps } => ops::layer_norm(x, gain, bias.as_ref(), *eps),
        }
    }

    /// `x + y + y_bias`, with one bias `[d]` for all rows, and the norm of the sum: twice `[..., d]`.
    #[track_caller]
    pub fn forward_sum(&self, x: &Tensor, y: &Tensor, y_bias: Option<&Tensor>) -> (Tensor, Tensor) {
        match self {
            Norm::None => {
                let sum = ops::add_with_bias(x, y, y_bias);
                (sum.clone(), sum)
            }
            Norm::Rms { gain, eps } => ops::add_rms_norm(x, y, y_bias, gain, *eps),
            Norm::Layer { gain, bias, eps } => ops::add_layer_norm(x, y, y_bias, gain, bias.as_ref(), *eps),
        }
    }

    pub(crate) fn parameters<'a>(&'a self, name: &str, list: &mut Vec<(String, &'a Tensor)>) {
        match self {
            Norm::None => {}
            Norm::Rms { gain, .. } => list.push((format!("{name}.gain"), gain)),
            Norm::Layer { gain, bias, .. } => {
                list.push((format!("{name}.gain"), gain));
                list.extend(bias.iter().map(|bias| (format!("{name}.bias"), bias)));
            }
        }
    }

    pub(crate) fn parameters_mut<'a>(&'a mut self, list: &mut Vec<&'a mut Tensor>) {
        match self {
            Norm::None => {}
            Norm::Rms { gain, .. } => list.push(gain),
            Norm::Layer { gain, bias, .. } => {
                list.push(gain);
                list.extend(bias);
            }
        }
    }
}
