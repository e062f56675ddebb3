//! Logits, loss, every gradient and ten updates equal those of `transformers` and `torch.optim.AdamW`.

use nn::{Transformer, hugging_face};
use tensor::ops::{self, AdamW, AdamWTensors};
use tensor::testing::{Golden, Tolerance, assert_close};
use tensor::{DType, Gradients, Tensor};

use crate::models::{GOLDEN, golden, norm};

/// Gradients by the names of our parameters.
fn named_gradients(model: &Transformer, gradients: &Gradients) -> Vec<(String, Tensor)> {
    let of = |(name, x): (String, &Tensor)| {
        let gradient = gradients.get(x).unwrap_or_else(|| panic!("{name} got no gradient")).clone();
        (name, gradient)
    };
    model.parameters().into_iter().map(of).collect()
}

fn global_norm(gradients: &[(String, Tensor)]) -> f64 {
    gradients.iter().map(|(_, x)| ops::sum_of_squares(x)).sum::<f64>().sqrt()
}

#[test]
fn logits_and_loss_equal_those_of_transformers() {
    for name in GOLDEN {
        let (model, expected) = golden(name);
        let (ids, targets) = (expected.get("ids"), expected.get("targets"));
        let tolerance = Tolerance { absolute: 1e-4, relative: 0.0 };
        assert_close(&model.logits(&ids), &expected.get("logits"), tolerance);
        let loss = model.loss(&ids, &targets, targets.len() as f32);
        assert_close(&loss, &expected.get("loss"), Tolerance { absolute: 1e-5, relative: 0.0 });
    }
}

#[test]
fn every_gradient_equals_that_of_transformers() {
    for name in GOLDEN {
        let (model, expected) = golden(name);
        let model = model.tracked();
        let targets = expected.get("targets");
        let gradients = model.loss(&expected.get("ids"), &targets, targets.len() as f32).backward();
        let gradients = named_gradients(&model, &gradients);
        // A tensor whose gradient nearly cancels is held to the size of the others.
        let floor = 1e-3 * global_norm(&gradients);
        let stored = hugging_face::name_like_parameters(model.config(), &gradients);

        let mut compared: Vec<String> = Vec::new();
        for (stored_name, gradient) in stored {
            let theirs = expected.get(&format!("gradient.{stored_name}"));
            assert_eq!(gradient.shape(), theirs.shape(), "{name}: {stored_name}");
            let difference = gradient.f32s().iter().zip(theirs.f32s()).map(|(x, y)| f64::from(x - y).powi(2));
            let difference = difference.sum::<f64>().sqrt();
            let size = norm(&theirs);
            assert!(
                difference <= 1e-4 * size.max(floor),
                "{name}: the gradient of {stored_name}, of norm {size}, is off by {difference}"
            );
            compared.push(format!("gradient.{stored_name}"));
        }
        compared.sort();
        let all: Vec<String> = expected.names().into_iter().filter(|name| name.starts_with("gradient.")).collect();
        assert_eq!(compared, all, "{name}: every gradient is compared once");
    }
}

#[test]
fn ten_updates_give_the_losses_of_pytorch() {
    for name in GOLDEN {
        let (model, expected) = golden(name);
        let mut tracked = model.tracked();
        // Nothing else may share the elements of parameters that change.
        drop(model);
        let losses = train(&mut tracked, &expected);
        let theirs = expected.get("train.losses");
        assert!(theirs.f32s()[9] < theirs.f32s()[0] - 1.0, "{name}: the golden run learns");
        assert_close(&losses, &theirs, Tolerance { absolute: 1e-4, relative: 0.0 });
    }
}

/// The run of oracle/transformer.py: the loss before each update.
fn train(model: &mut Transformer, expected: &Golden) -> Tensor {
    let zeros = |model: &Transformer| -> Vec<Tensor> {
        model.parameters().iter().map(|(_, x)| Tensor::zeros(x.shape(), DType::F32)).collect()
    };
    let (mut first_moments, mut second_moments) = (zeros(model), zeros(model));
    let (ids, targets) = (expected.get("train.ids"), expected.get("train.targets"));
    let &[n_steps, b, t] = ids.shape() else { panic!("the ids of steps are [steps, b, t]") };

    let mut losses = Vec::new();
    for step in 0..n_steps {
        let batch = |x: &Tensor| Tensor::from_u32(&[b, t], x.u32s()[step * b * t..(step + 1) * b * t].to_vec());
        let loss = model.loss(&batch(&ids), &batch(&targets), (b * t) as f32);
        losses.push(loss.item());
        let gradients = loss.backward();
        let settings = AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8, clip: 1.0 };
        let numbers = Tensor::from_f32(&[3], ops::adamw_step_numbers(&settings, 3e-3, step as u64 + 1).to_vec());
        let moments = first_moments.iter_mut().zip(&mut second_moments);
        let mut tensors: Vec<AdamWTensors<'_>> = (model.parameters_mut().into_iter().zip(moments))
            .map(|(parameter, (first_moment, second_moment))| {
                let gradient = gradients.get(parameter).expect("every parameter has a gradient");
                AdamWTensors { parameter, gradient, first_moment, second_moment, compute: None, weight_decay: 0.1 }
            })
            .collect();
        let all: Vec<&Tensor> = tensors.iter().map(|tensors| tensors.gradient).collect();
        let norm = ops::global_norm(&all);
        ops::adamw(&mut tensors, &settings, &numbers, &norm);
    }
    Tensor::from_f32(&[n_steps], losses)
}
