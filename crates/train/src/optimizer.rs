//! The state of AdamW over all parameters of a model.

use nn::Transformer;
use tensor::ops::{self, AdamW, AdamWTensors};
use tensor::{DType, Device, Gradients, Tensor};

use crate::config::{Decay, OptimizerConfig};

/// First and second moments, in the order of the model's parameters, on the parameters' device.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    /// The largest norm of the gradient; longer ones are scaled down to it. 0 for no limit.
    grad_clip_norm: f64,
    /// Running means of gradients, each of its parameter's shape.
    pub first_moments: Vec<Tensor>,
    /// Running means of squared gradients.
    pub second_moments: Vec<Tensor>,
}

impl Optimizer {
    /// The state before the first update: zeros.
    pub fn new(config: &OptimizerConfig, grad_clip_norm: f64, model: &Transformer) -> Self {
        let zeros = || {
            let parameters = model.parameters();
            parameters.iter().map(|(_, x)| Tensor::zeros_on(x.device(), x.shape(), DType::F32)).collect()
        };
        Optimizer { config: config.clone(), grad_clip_norm, first_moments: zeros(), second_moments: zeros() }
    }

    /// The same state on `device`.
    pub fn to(&self, device: Device) -> Self {
        let moved = |moments: &[Tensor]| moments.iter().map(|x| x.to(device)).collect();
        Optimizer {
            config: self.config.clone(),
            grad_clip_norm: self.grad_clip_norm,
            first_moments: moved(&self.first_moments),
            second_moments: moved(&self.second_moments),
        }
    }

    /// The learning rate at the peak of the schedule.
    pub fn peak_learning_rate(&self) -> f64 {
        let OptimizerConfig::AdamW { learning_rate, .. } = self.config;
        learning_rate
    }

    /// What changes from one update to the next, for [`Optimizer::update`]. `update` counts from 1.
    pub fn step_numbers(&self, learning_rate: f64, update: u64) -> [f32; ops::ADAMW_STEP_NUMBERS] {
        ops::adamw_step_numbers(&self.settings(), learning_rate as f32, update)
    }

    fn settings(&self) -> AdamW {
        let OptimizerConfig::AdamW { betas, eps, .. } = self.config;
        let [beta1, beta2] = betas.map(|beta| beta as f32);
        AdamW { beta1, beta2, eps: eps as f32, clip: self.grad_clip_norm as f32 }
    }

    /// Updates every parameter that has a gradient, and the copy of it that is computed with; returns the norm of the
    /// gradient before clipping, on the device. If it is not finite, nothing is changed.
    ///
    /// The gradients are those of `compute`, if there is one.
    pub fn update(
        &mut self,
        model: &mut Transformer,
        compute: Option<&mut Transformer>,
        gradients: &Gradients,
        numbers: &Tensor,
    ) -> Tensor {
        let settings = self.settings();
        let OptimizerConfig::AdamW { weight_decay, decay, .. } = self.config;
        let parameters = model.parameters_mut();
        let copies: Vec<Option<&mut Tensor>> = match compute {
            Some(compute) => compute.parameters_mut().into_iter().map(Some).collect(),
            None => parameters.iter().map(|_| None).collect(),
        };
        let moments = self.first_moments.iter_mut().zip(&mut self.second_moments);
        let all = parameters.into_iter().zip(copies).zip(moments);
        let mut updates: Vec<AdamWTensors<'_>> = all
            .filter_map(|((parameter, compute), (first_moment, second_moment))| {
                let gradient = gradients.get(compute.as_deref().unwrap_or(parameter))?;
                let decays = decay == Decay::All || parameter.shape().len() >= 2;
                let weight_decay = if decays { weight_decay as f32 } else { 0.0 };
                Some(AdamWTensors { parameter, gradient, first_moment, second_moment, compute, weight_decay })
            })
            .collect();
        let gradients: Vec<&Tensor> = updates.iter().map(|tensors| tensors.gradient).collect();
        let norm = ops::global_norm(&gradients);
        ops::adamw(&mut updates, &settings, numbers, &norm);
        norm
    }
}
