//! Matrix products of two training steps on an NVIDIA GPU, as cuBLASLt proposes them and as measured:
//! `cargo bench -p tensor --bench cuda_matmul -- [--quick] [--toolkit FOLDER] [--kernels FOLDER] [--choices] [--own]`.
//!
//! With `--own`, our own products beside cuBLASLt's instead.
//!
//! Device times of many launches between two events, on normal random numbers: zeros would draw less power and run
//! faster. `dW` adds to gradients in f32. The sums at the end are what all products of a step take. Without a driver it
//! says so and ends.

#![allow(clippy::print_stdout)]

#[path = "cuda_matmul/own.rs"]
mod own;

use std::path::PathBuf;
use std::sync::Arc;

use half::bf16;
use tensor::cuda::blas::{Epilogue, Matrix, MatrixMut, Product, column_sums, matmul};
use tensor::cuda::{Context, Event, Toolkit, catch, configure, context};
use tensor::random::Rng;
use tensor::{DType, Device, Error, Tensor};

const GPU: Device = Device::Cuda(0);

/// A linear map of a model, with how often a step applies it.
#[derive(Clone, Copy)]
struct Layer {
    name: &'static str,
    n: usize,
    i: usize,
    o: usize,
    bias: bool,
    /// GELU behind it, or in front of it.
    gelu: Gelu,
    times: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Gelu {
    No,
    Behind,
    Before,
}

const fn layer(name: &'static str, [n, i, o]: [usize; 3], bias: bool, gelu: Gelu, times: usize) -> Layer {
    Layer { name, n, i, o, bias, gelu, times }
}

/// GPT-2 124M: 32 sequences of 1024. The head is counted in one of its two variants.
const GPT2: [Layer; 6] = [
    layer("qkv", [32_768, 768, 2304], true, Gelu::No, 12),
    layer("proj", [32_768, 768, 768], true, Gelu::No, 12),
    layer("up", [32_768, 768, 3072], true, Gelu::Behind, 12),
    layer("down", [32_768, 3072, 768], true, Gelu::Before, 12),
    layer("head 4096", [4096, 768, 50_304], false, Gelu::No, 0),
    layer("head 8192", [8192, 768, 50_304], false, Gelu::No, 4),
];

/// A Llama of 953M parameters: 4 sequences of 2048.
const LLAMA: [Layer; 6] = [
    layer("qkv", [8192, 2048, 6144], false, Gelu::No, 16),
    layer("proj", [8192, 2048, 2048], false, Gelu::No, 16),
    layer("up", [8192, 2048, 11_264], false, Gelu::No, 16),
    layer("down", [8192, 5632, 2048], false, Gelu::No, 16),
    layer("head 4096", [4096, 2048, 32_000], false, Gelu::No, 0),
    layer("head 8192", [8192, 2048, 32_000], false, Gelu::No, 1),
];

struct Bench {
    context: Arc<Context>,
    quick: bool,
    /// A few million normal numbers, repeated for whatever is needed.
    normal: Vec<f32>,
    /// Operations, seconds as proposed, seconds as measured of a step.
    step: [f64; 3],
}

impl Bench {
    fn normal(&self, shape: [usize; 2], scale: f32, dtype: DType) -> Tensor {
        let numbers = self.normal.iter().cycle().take(shape.iter().product()).map(|x| scale * x);
        match dtype {
            DType::Bf16 => Tensor::from_bf16(&shape, numbers.map(bf16::from_f32).collect()).to(GPU),
            _ => Tensor::from_f32(&shape, numbers.collect()).to(GPU),
        }
    }

    /// Median of a few series of launches, in seconds per launch.
    fn time(&self, mut launch: impl FnMut()) -> Result<f64, Error> {
        let mut series = |launches: usize| -> Result<f64, Error> {
            let start = Event::record(&self.context)?;
            for _ in 0..launches {
                launch();
            }
            Ok(Event::record(&self.context)?.since(&start)?.as_secs_f64() / launches as f64)
        };
        series(2)?;
        let once = series(3)?;
        let launches = ((if self.quick { 0.004 } else { 0.02 } / once) as usize).clamp(3, 400);
        let mut times = (0..3).map(|_| series(launches)).collect::<Result<Vec<_>, _>>()?;
        times.sort_by(f64::total_cmp);
        Ok(times[1])
    }

    /// Times a product before and after measuring it, and prints both.
    fn product(
        &mut self,
        name: &str,
        [m, n, k]: [usize; 3],
        times: usize,
        mut launch: impl FnMut(),
    ) -> Result<(), Error> {
        let flops = 2.0 * (m * n * k) as f64;
        let proposed = self.time(&mut launch)?;
        self.context.set_autotune(true);
        launch();
        self.context.set_autotune(false);
        let measured = self.time(&mut launch)?;
        let speed = |seconds: f64| format!("{:>9.1} µs {:>6.1} TFLOP/s", seconds * 1e6, flops / seconds / 1e12);
        let share = match self.context.bf16_peak() {
            Some(peak) => format!(" {:>5.1} %", 100.0 * flops / measured / peak),
            None => String::new(),
        };
        println!("{name:<28} {m:>6} {n:>6} {k:>6} {} → {}{share}", speed(proposed), speed(measured));
        for (sum, part) in self.step.iter_mut().zip([flops, proposed, measured]) {
            *sum += times as f64 * part;
        }
        Ok(())
    }

    /// The three products of a layer.
    fn layer(&mut self, layer: &Layer) -> Result<(), Error> {
        let Layer { name, n, i, o, bias, gelu, times } = *layer;
        let x = self.normal([n, i], 1.0, DType::Bf16);
        let weight = self.normal([o, i], 1.0 / (i as f32).sqrt(), DType::Bf16);
        let bias_o = self.normal([1, o], 1.0, DType::Bf16);
        let mut y = Tensor::zeros_on(GPU, &[n, o], DType::Bf16);
        let forward = |y: &mut Tensor, epilogue: Epilogue<'_>| {
            let (a, b) = (Matrix::of(&x), Matrix::of(&weight).transposed());
            matmul(Product { m: n, n: o, k: i, a, b, out: MatrixMut::of(y), beta: 0.0, epilogue });
        };
        if gelu == Gelu::Behind {
            let mut kept = Tensor::zeros_on(GPU, &[n, o], DType::Bf16);
            self.product(&format!("{name} y, GELU kept"), [n, o, i], times, || {
                forward(&mut y, Epilogue::Gelu { bias: Some(&bias_o), pre_activation: Some(&mut kept) });
            })?;
        }
        let times_plain = if gelu == Gelu::Behind { 0 } else { times };
        let with = if bias { " + bias" } else { "" };
        self.product(&format!("{name} y{with}"), [n, o, i], times_plain, || {
            forward(&mut y, if bias { Epilogue::Bias(&bias_o) } else { Epilogue::None });
        })?;

        // The result serves as the gradient of the result: it is normal too.
        let dy = y;
        let mut dx = Tensor::zeros_on(GPU, &[n, i], DType::Bf16);
        let mut input_gradient = |epilogue: Epilogue<'_>| {
            let (a, b) = (Matrix::of(&dy), Matrix::of(&weight));
            matmul(Product { m: n, n: i, k: o, a, b, out: MatrixMut::of(&mut dx), beta: 0.0, epilogue });
        };
        if gelu == Gelu::Before {
            self.product(&format!("{name} dx · GELU′"), [n, i, o], times, || {
                input_gradient(Epilogue::GeluGradient { pre_activation: &x, column_sums: None });
            })?;
            let mut sums = Tensor::zeros_on(GPU, &[i], DType::Bf16);
            self.product(&format!("{name} dx · GELU′, dbias"), [n, i, o], 0, || {
                input_gradient(Epilogue::GeluGradient { pre_activation: &x, column_sums: Some(&mut sums) });
            })?;
        }
        let times_plain = if gelu == Gelu::Before { 0 } else { times };
        self.product(&format!("{name} dx"), [n, i, o], times_plain, || input_gradient(Epilogue::None))?;

        let mut dweight = Tensor::zeros_on(GPU, &[o, i], DType::F32);
        let mut dbias = Tensor::zeros_on(GPU, &[o], DType::F32);
        let mut weight_gradient = |epilogue: Epilogue<'_>| {
            let (a, b) = (Matrix::of(&dy).transposed(), Matrix::of(&x));
            matmul(Product { m: o, n: i, k: n, a, b, out: MatrixMut::of(&mut dweight), beta: 1.0, epilogue });
        };
        self.product(&format!("{name} dW"), [o, i, n], if bias { 0 } else { times }, || {
            weight_gradient(Epilogue::None);
        })?;
        if bias {
            self.product(&format!("{name} dW, dbias"), [o, i, n], times, || {
                weight_gradient(Epilogue::RowSums(&mut dbias));
            })?;
            let seconds = self.time(|| column_sums(&mut dbias, 1.0, &dy))?;
            let rate = (n * o * 2) as f64 / seconds / 1e9;
            println!("{:<28} {:>53.1} µs {rate:>6.0} GB/s", format!("{name} dbias alone"), seconds * 1e6);
        }
        Ok(())
    }

    fn step(&mut self, name: &str, layers: &[Layer]) -> Result<(), Error> {
        println!("\n{name}");
        self.step = [0.0; 3];
        for layer in layers.iter().filter(|layer| !self.quick || layer.times > 0).copied().collect::<Vec<_>>() {
            self.layer(&layer)?;
        }
        let [flops, proposed, measured] = self.step;
        let speed = |seconds: f64| format!("{:.2} ms, {:.1} TFLOP/s", seconds * 1e3, flops / seconds / 1e12);
        println!("{name}: all products {} → {}", speed(proposed), speed(measured));
        Ok(())
    }

    fn square(&mut self, size: usize, dtype: DType) -> Result<(), Error> {
        let [a, b] = [1.0, 1.0].map(|scale| self.normal([size, size], scale, dtype));
        let mut out = Tensor::zeros_on(GPU, &[size, size], dtype);
        self.product(&format!("{dtype}"), [size; 3], 0, || {
            let (m, n, k) = (size, size, size);
            let (a, b, out) = (Matrix::of(&a), Matrix::of(&b).transposed(), MatrixMut::of(&mut out));
            matmul(Product { m, n, k, a, b, out, beta: 0.0, epilogue: Epilogue::None });
        })
    }
}

fn run(arguments: &[String]) -> Result<(), Error> {
    let value =
        |flag: &str| arguments.iter().position(|x| x == flag).and_then(|at| arguments.get(at + 1)).map(PathBuf::from);
    let has = |flag: &str| arguments.iter().any(|x| x == flag);
    let is_child = has("--own-child");
    // So that no child compiles again what another one has.
    let folder = value("--kernels").or_else(|| is_child.then(|| std::env::temp_dir().join("cupola-bench-kernels")));
    configure(Toolkit::find(&value("--toolkit").into_iter().collect::<Vec<_>>()), folder);
    if has("--own") && !is_child {
        own::supervise(arguments);
        return Ok(());
    }
    let context = match context(0) {
        Ok(context) => context,
        Err(error @ Error::NoDevice { .. }) => {
            println!("skipped: {error}");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    println!("{} · {} · {} multiprocessors", context.name(), context.arch(), context.n_multiprocessors());
    if is_child {
        let skip = arguments.iter().position(|x| x == "--skip").and_then(|at| arguments.get(at + 1));
        return own::run(&context, has("--quick"), skip.map_or("", String::as_str));
    }
    println!("{:<28} {:>6} {:>6} {:>6} as proposed → as measured", "product", "m", "n", "k");
    let normal = Rng::new(7, 1).normal(&[4_194_301], 1.0).f32s().to_vec();
    let mut bench = Bench { context: context.clone(), quick: has("--quick"), normal, step: [0.0; 3] };
    bench.square(4096, DType::Bf16)?;
    bench.square(8192, DType::Bf16)?;
    bench.square(2048, DType::F32)?;
    bench.step("GPT-2 124M, 32768 tokens", &GPT2)?;
    bench.step("Llama 953M, 8192 tokens", &LLAMA)?;
    for product in context.matmul_refusals() {
        println!("not by cuBLASLt, or not in one step: {product}");
    }
    if has("--choices") {
        println!("\n{}", context.matmul_choices());
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
