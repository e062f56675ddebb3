//! The attention kernels that run on any GPU from sm_80 on, compared with Hopper's where it has them, and timed:
//! `cargo bench -p tensor --bench cuda_attention_portable -- [--quick] [--toolkit FOLDER] [--kernels FOLDER]`.
//!
//! Times are device times of many launches between two events, of inputs that rotate through more memory than the
//! second-level cache holds. Operations are counted as in FlashAttention: half of the scores if causal, the backward pass
//! as 2.5 forward passes. Without a driver it says so and ends.

#![allow(clippy::print_stdout)]

use std::path::PathBuf;
use std::sync::Arc;

use tensor::cuda::{self, Arch, Context, Event, Toolkit};
use tensor::ops::attention_cuda::{Problem, portable_backward, portable_forward};
use tensor::ops::{self, AttentionOptions, Heads};
use tensor::random::Rng;
use tensor::testing::{fetched, placed};
use tensor::{DType, Device, Error, Tensor};

/// b, t, h, g, e.
type Shape = (usize, usize, usize, usize, usize);

const SHAPES: [(DType, Shape); 12] = [
    (DType::Bf16, (16, 1024, 12, 12, 64)),
    (DType::Bf16, (16, 1024, 12, 12, 32)),
    (DType::Bf16, (16, 1024, 12, 12, 80)),
    (DType::Bf16, (16, 1024, 12, 12, 96)),
    (DType::Bf16, (4, 2048, 16, 16, 128)),
    (DType::Bf16, (4, 4096, 16, 4, 128)),
    (DType::Bf16, (4, 2048, 8, 8, 256)),
    (DType::Bf16, (4, 1024, 12, 12, 72)),
    (DType::F32, (4, 1024, 12, 12, 64)),
    (DType::F32, (4, 1024, 12, 12, 128)),
    (DType::F32, (2, 1024, 6, 6, 256)),
    (DType::F32, (12, 64, 4, 4, 32)),
];

struct Inputs {
    qkv: Tensor,
    dy: Tensor,
}

fn inputs(device: Device, dtype: DType, (b, t, h, g, e): Shape, stream: u64) -> Inputs {
    let random = |width, stream| placed(&Rng::new(7, stream).normal(&[b, t, width], 1.0), (device, dtype));
    Inputs { qkv: random((h + 2 * g) * e, 2 * stream), dy: random(h * e, 2 * stream + 1) }
}

/// Seconds per call of `call(i)`, for rising `i`.
fn time(context: &Arc<Context>, quick: bool, mut call: impl FnMut(usize)) -> Result<f64, Error> {
    let mut i = 0;
    let mut series = |calls: usize| -> Result<f64, Error> {
        let start = Event::record(context)?;
        for _ in 0..calls {
            call(i);
            i += 1;
        }
        Ok(Event::record(context)?.since(&start)?.as_secs_f64() / calls as f64)
    };
    series(2)?;
    let calls = ((if quick { 0.005 } else { 0.03 } / series(2)?) as usize).clamp(2, 200);
    let mut times = (0..5).map(|_| series(calls)).collect::<Result<Vec<_>, _>>()?;
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn print_speed(what: &str, seconds: f64, flops: f64) {
    println!("{what} {:>9.1} µs {:>6.1} TFLOP/s", seconds * 1e6, flops / seconds / 1e12);
}

/// ‖x − y‖ / ‖y‖; a NaN stays one.
fn difference(x: &Tensor, y: &Tensor) -> f64 {
    let (x, y) = (fetched(x), fetched(y));
    let pairs = || x.f32s().iter().zip(y.f32s()).map(|(&x, &y)| (f64::from(x), f64::from(y)));
    let norm: f64 = pairs().map(|(_, y)| y * y).sum();
    (pairs().map(|(x, y)| (x - y).powi(2)).sum::<f64>() / norm.max(1e-30)).sqrt()
}

fn run_shape(context: &Arc<Context>, quick: bool, dtype: DType, shape: Shape) -> Result<(), Error> {
    let (b, t, h, g, e) = shape;
    let device = Device::Cuda(context.ordinal());
    let heads = Heads::of_one_size(h, g, e);
    let problem = Problem { b, t, heads, causal: true, scale: 1.0 / (e as f32).sqrt() };
    let name = format!("{dtype:<4} b {b:<2} t {t:<4} h {h:<2} g {g:<2} e {e:<3}");
    let bytes = (problem.qkv_len() + problem.y_len()) * dtype.bytes();
    let n_inputs = (2 * context.l2_bytes()).div_ceil(bytes).clamp(1, 6);
    let all: Vec<Inputs> = (0..n_inputs).map(|i| inputs(device, dtype, shape, i as u64)).collect();

    let seconds = time(context, quick, |i| drop(portable_forward(&problem, &all[i % n_inputs].qkv)))?;
    print_speed(&format!("{name} forward          "), seconds, problem.forward_flops());
    let outputs: Vec<_> = all.iter().map(|x| portable_forward(&problem, &x.qkv)).collect();
    let seconds = time(context, quick, |i| {
        let (Inputs { qkv, dy }, (y, log_sum_exp)) = (&all[i % n_inputs], &outputs[i % n_inputs]);
        portable_backward(&problem, qkv, y, log_sum_exp, dy);
    })?;
    print_speed(&format!("{name} backward         "), seconds, 2.5 * problem.forward_flops());

    let window = AttentionOptions { window: Some(t / 4), ..AttentionOptions::new(problem.scale) };
    let seconds = time(context, quick, |i| drop(ops::attention_with(&all[i % n_inputs].qkv, &heads, &window)))?;
    print_speed(&format!("{name} forward, window  "), seconds, problem.forward_flops());

    if context.arch() == Arch::Sm90a && dtype == DType::Bf16 && [64, 128].contains(&e) {
        let qkv = all[0].qkv.tracked();
        let y = ops::attention(&qkv, &heads, problem.scale);
        println!("{name} y differs from Hopper's by {:.1e}", difference(&outputs[0].0, &y));
    }
    Ok(())
}

fn run(arguments: &[String]) -> Result<(), Error> {
    let value =
        |flag: &str| arguments.iter().position(|x| x == flag).and_then(|at| arguments.get(at + 1)).map(PathBuf::from);
    let quick = arguments.iter().any(|x| x == "--quick");
    cuda::configure(Toolkit::find(&value("--toolkit").into_iter().collect::<Vec<_>>()), value("--kernels"));
    let context = match cuda::context(0) {
        Ok(context) => context,
        Err(error @ Error::NoDevice { .. }) => {
            println!("skipped: {error}");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    println!("{} · {} · {} multiprocessors", context.name(), context.arch(), context.n_multiprocessors());
    for (dtype, shape) in SHAPES {
        cuda::catch(|| run_shape(&context, quick, dtype, shape))??;
    }
    Ok(())
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Err(error) = run(&arguments) {
        println!("error: {error}");
        std::process::exit(1);
    }
}
