//! Loss and optimizer on an NVIDIA GPU, timed: `cargo bench -p tensor --bench cuda_loss -- [--quick]`.
//!
//! Device times of many launches between two events, on buffers far larger than the L2. Memory-bound kernels are set
//! against a copy of a gibibyte. Without a driver it says so and ends. Results are tested elsewhere.

#![allow(clippy::print_stdout)]

use std::sync::Arc;

use tensor::cuda::{self, Context, Event};
use tensor::ops::{self, AdamW, AdamWTensors};
use tensor::{DType, Device, Error, Gradients, Tensor};

const GPU: Device = Device::Cuda(0);

/// Median of a few series of launches, in seconds per launch.
fn time(context: &Arc<Context>, quick: bool, mut launch: impl FnMut()) -> Result<f64, Error> {
    let mut series = |launches: usize| -> Result<f64, Error> {
        let start = Event::record(context)?;
        (0..launches).for_each(|_| launch());
        Ok(Event::record(context)?.since(&start)?.as_secs_f64() / launches as f64)
    };
    series(2)?;
    let once = series(3)?;
    let launches = ((0.03 / once) as usize).clamp(2, 100);
    let n_series = if quick { 3 } else { 7 };
    let mut times = (0..n_series).map(|_| series(launches)).collect::<Result<Vec<_>, _>>()?;
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn print_bandwidth(what: &str, seconds: f64, bytes: f64, copy: f64) {
    let rate = bytes / seconds;
    println!("{what:<58} {:>9.1} µs {:>7.0} GB/s {:>5.1} %", seconds * 1e6, rate / 1e9, 100.0 * rate / copy);
}

/// The parameters of GPT-2 124M with a padded vocabulary.
fn gpt2_shapes() -> Vec<Vec<usize>> {
    let mut shapes = vec![vec![50_304, 768], vec![1024, 768]];
    for _ in 0..12 {
        let matrices = [(2304, 768), (768, 768), (3072, 768), (768, 3072)];
        shapes.extend(matrices.iter().flat_map(|&(o, i)| [vec![o, i], vec![o]]));
        shapes.extend([vec![768], vec![768], vec![768], vec![768]]);
    }
    shapes.extend([vec![768], vec![768]]);
    shapes
}

fn optimizer(context: &Arc<Context>, quick: bool, copy: f64) -> Result<(), Error> {
    let shapes = gpt2_shapes();
    let make = |dtype| -> Vec<Tensor> { shapes.iter().map(|shape| Tensor::zeros_on(GPU, shape, dtype)).collect() };
    let [mut parameters, gradients, mut first_moments, mut second_moments] = [DType::F32; 4].map(make);
    let mut computes = make(DType::Bf16);
    let n = parameters.iter().map(Tensor::len).sum::<usize>() as f64;
    let settings = AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8, clip: 1.0 };
    let numbers = Tensor::from_f32(&[3], ops::adamw_step_numbers(&settings, 1e-3, 10).to_vec()).to(GPU);
    let all: Vec<&Tensor> = gradients.iter().collect();
    let norm = ops::global_norm(&all);

    let seconds = time(context, quick, || drop(ops::global_norm(&all)))?;
    print_bandwidth("global_norm of GPT-2 124M", seconds, 4.0 * n, copy);

    let moments = first_moments.iter_mut().zip(&mut second_moments);
    let mut tensors: Vec<AdamWTensors<'_>> = parameters
        .iter_mut()
        .zip(&gradients)
        .zip(moments.zip(&mut computes))
        .map(|((parameter, gradient), ((first_moment, second_moment), compute))| AdamWTensors {
            parameter,
            gradient,
            first_moment,
            second_moment,
            compute: Some(compute),
            weight_decay: 0.1,
        })
        .collect();
    let seconds = time(context, quick, || ops::adamw(&mut tensors, &settings, &numbers, &norm))?;
    print_bandwidth("adamw of GPT-2 124M with copies in bf16", seconds, 30.0 * n, copy);
    Ok(())
}

/// Targets spread over `v` classes.
fn targets(n: usize, v: usize) -> Tensor {
    Tensor::from_u32(&[n], (0..n).map(|i| (i * 7919 % v) as u32).collect()).to(GPU)
}

/// Uniform numbers around 0; a million are repeated.
fn numbers(shape: &[usize], size: f32) -> Tensor {
    let few = tensor::random::Rng::new(7, 0).normal(&[1_000_003], size);
    let x = Tensor::from_fn(shape, |i| few.f32s()[i % 1_000_003]);
    ops::cast(&x, DType::Bf16).to(GPU)
}

fn cross_entropy(context: &Arc<Context>, quick: bool, copy: f64) -> Result<(), Error> {
    for v in [50_304, 32_000] {
        let n = 8192;
        let (mut logits, targets) = (numbers(&[n, v], 2.0), targets(n, v));
        let bytes = 2.0 * (n * v) as f64;
        let seconds = time(context, quick, || drop(ops::cross_entropy(&logits, &targets, n as f32)))?;
        print_bandwidth(&format!("cross_entropy [{n}, {v}] bf16, loss only"), seconds, bytes, copy);
        // In place: after the first launch the logits are gradients, which changes nothing about the time.
        let seconds = time(context, quick, || drop(ops::cross_entropy_in_place(&mut logits, &targets, n as f32)))?;
        print_bandwidth(&format!("cross_entropy [{n}, {v}] bf16, gradient in place"), seconds, 2.0 * bytes, copy);
    }
    Ok(())
}

fn linear_cross_entropy(context: &Arc<Context>, quick: bool) -> Result<(), Error> {
    for (n, d, v) in [(32_768, 768, 50_304), (8192, 2048, 32_000)] {
        let (x, weight, targets) = (numbers(&[n, d], 1.0), numbers(&[v, d], 0.05), targets(n, v));
        let (tracked_x, tracked_weight) = (x.tracked(), weight.tracked());
        let forward = 2.0 * (n * d) as f64 * v as f64;
        let report = |what: &str, seconds: f64, flops: f64| {
            println!(
                "linear_cross_entropy n {n} d {d} v {v} bf16, {what:<14} {:>9.1} µs {:>7.1} TFLOP/s",
                seconds * 1e6,
                flops / seconds / 1e12
            );
        };
        let seconds = time(context, quick, || drop(ops::linear_cross_entropy(&x, &weight, &targets, n as f32)))?;
        report("loss only", seconds, forward);
        let seconds = time(context, quick, || {
            let loss = ops::linear_cross_entropy(&tracked_x, &tracked_weight, &targets, n as f32);
            loss.backward_into(1.0, &mut Gradients::new());
        })?;
        report("with gradients", seconds, 3.0 * forward);
    }
    Ok(())
}

fn run(quick: bool) -> Result<(), Error> {
    let context = cuda::context(0)?;
    println!("{}", context.name());
    let mut x = Tensor::zeros_on(GPU, &[1 << 28], DType::F32);
    let bytes = 2.0 * 4.0 * x.len() as f64;
    let copy = bytes / time(&context, quick, || drop(x.copied_to(GPU)))?;
    print_bandwidth("copy of 1 GiB", bytes / copy, bytes, copy);
    let seconds = time(&context, quick, || ops::scale_in_place(&mut x, 1.0))?;
    print_bandwidth("scale_in_place of 1 GiB", seconds, bytes, copy);
    drop(x);
    optimizer(&context, quick, copy)?;
    cross_entropy(&context, quick, copy)?;
    linear_cross_entropy(&context, quick)
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    match cuda::catch(|| run(quick)) {
        Ok(Ok(())) => {}
        Ok(Err(error)) | Err(error) => println!("{error}"),
    }
}
