//! Products of a training step in fp8 beside bf16 on an NVIDIA GPU, and the rounding that they need:
//! `cargo bench -p tensor --bench cuda_fp8 -- [--quick] [--toolkit FOLDER] [--kernels FOLDER]`.
//!
//! Device times of many launches between two events, on normal random numbers. Products use the algorithm that cuBLASLt
//! proposes, as training does, and the fastest of its proposals. Without a driver, or on a GPU without fp8, it says so and
//! ends.

#![allow(clippy::print_stdout)]

use std::path::PathBuf;
use std::sync::Arc;

use half::bf16;
use tensor::cuda::blas::{Epilogue, Fp8Matrix, Fp8Product, Matrix, MatrixMut, Product, matmul, matmul_fp8};
use tensor::cuda::{Context, Event, Toolkit, catch, configure, context};
use tensor::fp8::Fp8Format;
use tensor::ops::{Fp8Orders, fp8_quantise};
use tensor::random::Rng;
use tensor::{DType, Device, Error, Tensor};

const GPU: Device = Device::Cuda(0);

/// Rows, inputs and outputs of the linear maps of a block, and how many blocks there are.
struct Model {
    name: &'static str,
    layers: [(&'static str, [usize; 3]); 4],
    n_blocks: usize,
}

const MODELS: [Model; 2] = [
    Model {
        name: "Llama 953M, 8192 tokens",
        layers: [
            ("qkv", [8192, 2048, 6144]),
            ("output", [8192, 2048, 2048]),
            ("up", [8192, 2048, 11_264]),
            ("down", [8192, 5632, 2048]),
        ],
        n_blocks: 16,
    },
    Model {
        name: "GPT-2 124M, 32768 tokens",
        layers: [
            ("qkv", [32_768, 768, 2304]),
            ("output", [32_768, 768, 768]),
            ("up", [32_768, 768, 3072]),
            ("down", [32_768, 3072, 768]),
        ],
        n_blocks: 12,
    },
];

/// Seconds of a step.
#[derive(Default)]
struct Step {
    flops: f64,
    bf16: f64,
    fp8: f64,
    /// Of activations and their gradients.
    rounding: f64,
    /// Of weights, once for all micro-batches.
    weights: f64,
}

struct Bench {
    context: Arc<Context>,
    quick: bool,
    normal: Vec<f32>,
}

impl Bench {
    fn normal(&self, shape: [usize; 2], scale: f32) -> Tensor {
        let numbers = self.normal.iter().cycle().take(shape.iter().product()).map(|x| bf16::from_f32(scale * x));
        Tensor::from_bf16(&shape, numbers.collect()).to(GPU)
    }

    /// Median of a few series of launches, in seconds per launch.
    fn time(&self, mut launch: impl FnMut(usize)) -> Result<f64, Error> {
        let mut series = |launches: usize| -> Result<f64, Error> {
            let start = Event::record(&self.context)?;
            (0..launches).for_each(&mut launch);
            Ok(Event::record(&self.context)?.since(&start)?.as_secs_f64() / launches as f64)
        };
        series(2)?;
        let once = series(3)?;
        let launches = ((if self.quick { 0.003 } else { 0.02 } / once) as usize).clamp(3, 400);
        let mut times = (0..3).map(|_| series(launches)).collect::<Result<Vec<_>, _>>()?;
        times.sort_by(f64::total_cmp);
        Ok(times[1])
    }

    /// The fastest of cuBLASLt's proposals for a product, after the first of them.
    fn product(&self, mut launch: impl FnMut()) -> Result<[f64; 2], Error> {
        let proposed = self.time(|_| launch())?;
        self.context.set_autotune(true);
        launch();
        self.context.set_autotune(false);
        Ok([proposed, self.time(|_| launch())?])
    }

    /// Seconds to round a matrix, in turn with its twins so that none is left in the cache.
    fn rounding(&self, name: &str, shape: [usize; 2], format: Fp8Format, copy: f64) -> Result<f64, Error> {
        let bytes = shape[0] * shape[1] * 2;
        let twins: Vec<Tensor> =
            (0..(4 * self.context.l2_bytes()).div_ceil(bytes).max(2)).map(|_| self.normal(shape, 1.0)).collect();
        let mut both = 0.0;
        for (orders, what, moved) in [
            // Read twice; written once in each order.
            (Fp8Orders { transposed: false, ..Fp8Orders::BOTH }, "", 2.5),
            (Fp8Orders::BOTH, " + transpose", 3.0),
        ] {
            let seconds = self.time(|i| drop(fp8_quantise(&twins[i % twins.len()], format, orders)))?;
            let rate = moved * bytes as f64 / seconds;
            println!(
                "{:<34} {:>6} {:>6} {:>9.1} µs {:>6.0} GB/s, {:>5.1} % of a copy",
                format!("{format} {name}{what}"),
                shape[0],
                shape[1],
                seconds * 1e6,
                rate / 1e9,
                100.0 * rate / copy
            );
            both = seconds;
        }
        Ok(both)
    }

    fn layer(&self, name: &str, [n, i, o]: [usize; 3], copy: f64, step: &mut Step) -> Result<(), Error> {
        let rounding_x = self.rounding(&format!("{name} x"), [n, i], Fp8Format::E4m3, copy)?;
        let rounding_dy = self.rounding(&format!("{name} dy"), [n, o], Fp8Format::E5m2, copy)?;
        let rounding_w = self.rounding(&format!("{name} w"), [o, i], Fp8Format::E4m3, copy)?;
        let [x, dy, w] = [([n, i], 1.0), ([n, o], 1.0), ([o, i], 1.0 / (i as f32).sqrt())]
            .map(|(shape, scale)| self.normal(shape, scale));
        let rounded = |x: &Tensor, format| -> [Fp8Matrix; 2] {
            let both = fp8_quantise(x, format, Fp8Orders::BOTH);
            [both.plain, both.transposed].map(|matrix| matrix.expect("asked for"))
        };
        let [x8, x8_t] = rounded(&x, Fp8Format::E4m3);
        let [w8, w8_t] = rounded(&w, Fp8Format::E4m3);
        let [dy8, dy8_t] = rounded(&dy, Fp8Format::E5m2);
        let mut dw = Tensor::zeros_on(GPU, &[o, i], DType::F32);
        let mut y = Tensor::zeros_on(GPU, &[n, o], DType::Bf16);
        let mut dx = Tensor::zeros_on(GPU, &[n, i], DType::Bf16);
        let flops = 2.0 * (n * i * o) as f64;
        // y and dx are each charged with one rounding, dW with none: it uses theirs.
        for (what, rounding, beta, fast_sums) in
            [("y", rounding_x, 0.0, true), ("dx", rounding_dy, 0.0, false), ("dW", 0.0, 1.0, false)]
        {
            let (a, b, a8, b8, out) = match what {
                "y" => (Matrix::of(&x), Matrix::of(&w).transposed(), &x8, &w8, &mut y),
                "dx" => (Matrix::of(&dy), Matrix::of(&w), &dy8, &w8_t, &mut dx),
                _ => (Matrix::of(&dy).transposed(), Matrix::of(&x), &dy8_t, &x8_t, &mut dw),
            };
            let (m, n, k) = (a8.rows, b8.rows, a8.columns);
            let [_, in_bf16] = self.product(|| {
                let (out, epilogue) = (MatrixMut::of(&mut *out), Epilogue::None);
                matmul(Product { m, n, k, a, b, out, beta, epilogue });
            })?;
            let [proposed, measured] = self.product(|| {
                matmul_fp8(Fp8Product { a: a8, b: b8, out: &mut *out, beta, bias: None, fast_sums });
            })?;
            let speed = |seconds: f64| format!("{:>7.1} µs {:>6.1} TFLOP/s", seconds * 1e6, flops / seconds / 1e12);
            println!(
                "{:<14} {m:>6} {n:>6} {k:>6} bf16 {}   fp8 {} → {}   with rounding {}  {:.2}×",
                format!("{name} {what}"),
                speed(in_bf16),
                speed(proposed),
                speed(measured),
                speed(measured + rounding),
                in_bf16 / (measured + rounding)
            );
            step.flops += flops;
            step.bf16 += in_bf16;
            step.fp8 += measured;
            step.rounding += rounding;
        }
        step.weights += rounding_w;
        Ok(())
    }

    fn model(&self, model: &Model, copy: f64) -> Result<(), Error> {
        println!("\n{}", model.name);
        let mut step = Step::default();
        for (name, shape) in model.layers {
            self.layer(name, shape, copy, &mut step)?;
        }
        let blocks = model.n_blocks as f64;
        let Step { flops, bf16, fp8, rounding, weights } = step;
        let line = |seconds: f64| format!("{:.2} ms ({:.0} TFLOP/s)", blocks * seconds * 1e3, flops / seconds / 1e12);
        println!(
            "{}, all blocks: bf16 {}, fp8 {}, with rounding {}, and of weights {}: {:.2}×",
            model.name,
            line(bf16),
            line(fp8),
            line(fp8 + rounding),
            line(fp8 + rounding + weights),
            bf16 / (fp8 + rounding + weights)
        );
        Ok(())
    }
}

fn run(arguments: &[String]) -> Result<(), Error> {
    let value =
        |flag: &str| arguments.iter().position(|x| x == flag).and_then(|at| arguments.get(at + 1)).map(PathBuf::from);
    let has = |flag: &str| arguments.iter().any(|x| x == flag);
    configure(Toolkit::find(&value("--toolkit").into_iter().collect::<Vec<_>>()), value("--kernels"));
    let context = match context(0) {
        Ok(context) => context,
        Err(error @ Error::NoDevice { .. }) => {
            println!("skipped: {error}");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    println!("{} · {} · {} multiprocessors", context.name(), context.arch(), context.n_multiprocessors());
    if !context.has_fp8() {
        println!("skipped: it has no products in fp8");
        return Ok(());
    }
    let normal = Rng::new(7, 1).normal(&[4_194_301], 1.0).f32s().to_vec();
    let bench = Bench { context: context.clone(), quick: has("--quick"), normal };
    let x = Tensor::zeros_on(GPU, &[1 << 28], DType::F32);
    let copy = 2.0 * (x.len() * 4) as f64 / bench.time(|_| drop(x.copied_to(GPU)))?;
    drop(x);
    println!("copy: {:.0} GB/s read and written", copy / 1e9);
    // The second model only where there is time for it.
    for model in MODELS.iter().take(if bench.quick { 1 } else { 2 }) {
        bench.model(model, copy)?;
    }
    for product in context.matmul_refusals() {
        println!("not by cuBLASLt: {product}");
    }
    Ok(())
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Err(error) = catch(|| run(&arguments)).and_then(|result| result) {
        println!("error: {error}");
        std::process::exit(1);
    }
}
