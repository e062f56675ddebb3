//! The state of AdamW over all parameters of a model.

use nn::Transformer;
use tensor::ops::{self, AdamW};
use tensor::{DType, Gradients, Tensor};

use crate::config::{Decay, OptimizerConfig};

/// First and second moments, in the order of the model's parameters.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    /// Running means of gradients, each of its parameter's shape.
    pub first_moments: Vec<Tensor>,
    /// Running means of squared gradients.
    pub second_moments: Vec<Tensor>,
}

impl Optimizer {
    /// The state before the first update: zeros.
    pub fn new(config: &OptimizerConfig, model: &Transformer) -> Self {
        let zeros = || model.parameters().iter().map(|(_, x)| Tensor::zeros(x.shape(), DType::F32)).collect();
        Optimizer { config: config.clone(), first_moments: zeros(), second_moments: zeros() }
    }

    /// The learning rate at the peak of the schedule.
    pub fn peak_learning_rate(&self) -> f64 {
        let OptimizerConfig::AdamW { learning_rate, .. } = self.config;
        learning_rate
    }

    /// Updates every parameter that has a gradient, with the gradients scaled by `gradient_scale` (from clipping).
    /// `update` counts from 1.
    pub fn update(
        &mut self,
        model: &mut Transformer,
        gradients: &Gradients,
        gradient_scale: f64,
        learning_rate: f64,
        update: u64,
    ) {
        let OptimizerConfig::AdamW { betas, eps, weight_decay, decay, .. } = self.config;
        let moments = self.first_moments.iter_mut().zip(&mut self.second_moments);
        for (parameter, (first_moment, second_moment)) in model.parameters_mut().into_iter().zip(moments) {
            let Some(gradient) = gradients.get(parameter) else { continue };
            let decays = decay == Decay::All || parameter.shape().len() >= 2;
            let settings = AdamW {
                learning_rate: learning_rate as f32,
                beta1: betas[0] as f32,
                beta2: betas[1] as f32,
                eps: eps as f32,
                weight_decay: if decays { weight_decay as f32 } else { 0.0 },
                step: update,
                grad_scale: gradient_scale as f32,
            };
            ops::adamw(parameter, gradient, first_moment, second_moment, &settings);
        }
    }
}

/// The Euclidean norm over all gradients of a model.
pub fn global_norm(model: &Transformer, gradients: &Gradients) -> f64 {
    let squares = model.parameters().into_iter().filter_map(|(_, x)| gradients.get(x)).map(ops::sum_of_squares);
    squares.sum::<f64>().sqrt()
}

/// By what to scale a gradient of norm `norm` so that it is no longer than `limit` (0: no limit).
///
/// Pascanu et al., 2013, <https://arxiv.org/abs/1211.5063>; the 1e-6 is PyTorch's.
pub fn clip_scale(norm: f64, limit: f64) -> f64 {
    if limit > 0.0 { (limit / (norm + 1e-6)).min(1.0) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_gradients_are_scaled_to_the_limit_and_short_ones_are_left() {
        assert!((clip_scale(4.0, 1.0) - 0.25).abs() < 1e-6);
        assert_eq!(clip_scale(0.5, 1.0), 1.0);
        assert_eq!(clip_scale(0.0, 1.0), 1.0);
        assert_eq!(clip_scale(1e9, 0.0), 1.0);
    }
}
