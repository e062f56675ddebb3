//! Tensors and the tape: fit a line by gradient descent.
//!
//! ```sh
//! cargo run --release --example 02_tensor
//! ```
#![allow(clippy::print_stdout)]

use tensor::ops::{self, AdamW, AdamWTensors};
use tensor::{DType, Tensor};

fn main() {
    // y = 2·x₀ − 3·x₁ + 1 at a hundred random points.
    let x_nd = tensor::random::Rng::new(1, 0).normal(&[100, 2], 1.0);
    let y_n: Vec<f32> = x_nd.f32s().chunks(2).map(|x| 2.0 * x[0] - 3.0 * x[1] + 1.0).collect();

    // Tracked tensors are leaves of the tape.
    let mut weight_od = Tensor::zeros(&[1, 2], DType::F32).tracked();
    let mut bias_o = Tensor::zeros(&[1], DType::F32).tracked();
    let mut moments = [[1, 2].to_vec(), vec![1]].map(|shape| [0, 1].map(|_| Tensor::zeros(&shape, DType::F32)));

    for step in 1..=300 {
        let predicted_no = ops::linear(&x_nd, &weight_od, Some(&bias_o));
        // The gradient of the mean squared error with respect to the prediction is 2·(p − y) / n; contracting with it
        // as a constant gives the error's gradients.
        let errors: Vec<f32> = predicted_no.f32s().iter().zip(&y_n).map(|(p, y)| p - y).collect();
        let loss = errors.iter().map(|e| e * e).sum::<f32>() / 100.0;
        let dpredicted = Tensor::from_f32(&[100, 1], errors.iter().map(|e| 2.0 * e / 100.0).collect());
        let gradients = ops::weighted_sum(&predicted_no, &dpredicted).backward();
        if step % 50 == 1 {
            println!("step {step:3}: loss {loss:.5}, weight {:?}, bias {:?}", weight_od.f32s(), bias_o.f32s());
        }
        drop(predicted_no); // holds the weights: they can be changed once the tape is gone
        let settings = AdamW { beta1: 0.9, beta2: 0.99, eps: 1e-8, clip: 0.0 };
        let numbers = Tensor::from_f32(&[3], ops::adamw_step_numbers(&settings, 0.1, step).to_vec());
        let mut updates = Vec::new();
        for (parameter, [first_moment, second_moment]) in [&mut weight_od, &mut bias_o].into_iter().zip(&mut moments) {
            let gradient = gradients.get(parameter).expect("it was computed from");
            let (compute, weight_decay) = (None, 0.0);
            updates.push(AdamWTensors { parameter, gradient, first_moment, second_moment, compute, weight_decay });
        }
        let norm = ops::global_norm(&updates.iter().map(|x| x.gradient).collect::<Vec<_>>());
        ops::adamw(&mut updates, &settings, &numbers, &norm);
    }
    println!("found weight {:?}, bias {:?}", weight_od.f32s(), bias_o.f32s());
    assert!((weight_od.f32s()[0] - 2.0).abs() < 0.01 && (bias_o.f32s()[0] - 1.0).abs() < 0.01);
}
