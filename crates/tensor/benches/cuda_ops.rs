//! The memory-bound operations on an NVIDIA GPU, in bf16, against the bandwidth of a plain copy:
//! `cargo bench -p tensor --bench cuda_ops -- [--quick] [--toolkit FOLDER] [--kernels FOLDER] [NAME…]`.
//!
//! Times are device times of recorded graphs of many launches. Inputs and outputs rotate over more memory than the
//! second-level cache holds. Bytes are those that an operation must read and write; the tables of rotation angles, gains and
//! partial sums are not counted. Without a driver it says so and ends.

#![allow(clippy::print_stdout, unsafe_code)]

use std::collections::VecDeque;
use std::ffi::c_void;
use std::path::PathBuf;
use std::sync::Arc;

use half::bf16;
use tensor::cuda::{Buffer, Context, Event, Graph, Module, Source, Toolkit, configure, context};
use tensor::ops::{self, Activation, Heads, RopeLayout, RopeTable};
use tensor::random::Rng;
use tensor::{Device, Error, Gradients, Tensor};

const GPU: Device = Device::Cuda(0);
/// Bytes over which inputs rotate.
const ROTATION: usize = 512 << 20;

const COPY: &str = r#"
extern "C" __global__ __launch_bounds__(256) void copy(uint4* y, const uint4* x) {
    unsigned long long at = blockIdx.x * 512ull + threadIdx.x;
    uint4 a = x[at], b = x[at + 256];
    y[at] = a;
    y[at + 256] = b;
}
"#;

/// A model's shapes.
struct Shapes {
    name: &'static str,
    /// Sequences and their length.
    b: usize,
    t: usize,
    d: usize,
    v: usize,
    heads: Heads,
}

const GPT2: Shapes =
    Shapes { name: "GPT-2 124M", b: 32, t: 1024, d: 768, v: 50_304, heads: Heads::of_one_size(12, 12, 64) };
const LLAMA: Shapes =
    Shapes { name: "Llama 953M", b: 4, t: 2048, d: 2048, v: 32_000, heads: Heads::of_one_size(16, 16, 128) };

struct Bench {
    context: Arc<Context>,
    quick: bool,
    only: Vec<String>,
    /// Bytes per second of a copy.
    copy: f64,
    normal: Vec<bf16>,
}

impl Bench {
    fn open(arguments: &[String]) -> Result<Self, Error> {
        let value = |flag: &str| {
            arguments.iter().position(|x| x == flag).and_then(|at| arguments.get(at + 1)).map(PathBuf::from)
        };
        let toolkit = Toolkit::find(&value("--toolkit").into_iter().collect::<Vec<_>>());
        configure(toolkit, value("--kernels"));
        let context = context(0)?;
        let values = Rng::new(7, 1).normal(&[4_194_301], 1.0);
        let normal = values.f32s().iter().map(|&x| bf16::from_f32(x)).collect();
        let flags = ["--toolkit", "--kernels"];
        let only = arguments
            .iter()
            .enumerate()
            .filter(|&(at, x)| !x.starts_with("--") && (at == 0 || !flags.contains(&arguments[at - 1].as_str())))
            .map(|(_, x)| x.clone())
            .collect();
        let quick = arguments.iter().any(|x| x == "--quick");
        let mut bench = Self { context, quick, only, copy: 0.0, normal };
        bench.copy = bench.copy_bandwidth()?;
        Ok(bench)
    }

    /// Seconds of one call of `launch`, whose results live for a few more calls.
    fn seconds(&self, launches: usize, mut launch: impl FnMut(usize) -> Vec<Tensor>) -> Result<f64, Error> {
        let mut alive = VecDeque::new();
        let mut each = |i: usize| {
            alive.push_back(launch(i));
            if alive.len() > 4 {
                alive.pop_front();
            }
        };
        each(0); // compiles
        let (graph, ()) = Graph::record(&self.context, || (1..=launches).for_each(&mut each))?;
        graph.replay()?;
        let mut times = Vec::new();
        for _ in 0..if self.quick { 3 } else { 9 } {
            let start = Event::record(&self.context)?;
            graph.replay()?;
            times.push(Event::record(&self.context)?.since(&start)?.as_secs_f64() / launches as f64);
        }
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    }

    fn copy_bandwidth(&self) -> Result<f64, Error> {
        const BYTES: usize = 1 << 30;
        let source = Source { name: "copy", parts: &[("copy.cu", COPY)], options: Vec::new() };
        let kernel = Module::load(&self.context, &source)?.kernel("copy", 0)?;
        let x = Buffer::<f32>::filled(&self.context, BYTES / 4, 1)?;
        let y = Buffer::<f32>::filled(&self.context, BYTES / 4, 2)?;
        let (to, from) = (y.pointer(), x.pointer());
        let arguments = [&to, &from].map(|x| std::ptr::from_ref(x).cast::<c_void>());
        let seconds = self.seconds(8, |_| {
            // SAFETY: a block copies 512 · 16 bytes, which divide the buffers' length.
            unsafe { kernel.launch([BYTES / 8192, 1, 1], 256, &arguments) }.expect("a launch");
            Vec::new()
        })?;
        Ok(2.0 * BYTES as f64 / seconds)
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|x| name.contains(x.as_str()))
    }

    fn report(
        &self,
        name: &str,
        bytes: usize,
        launches: usize,
        launch: impl FnMut(usize) -> Vec<Tensor>,
    ) -> Result<(), Error> {
        if !self.wants(name) {
            return Ok(());
        }
        let seconds = self.seconds(launches, launch)?;
        let rate = bytes as f64 / seconds;
        let (us, mb, share) = (seconds * 1e6, bytes as f64 / 1e6, 100.0 * rate / self.copy);
        println!("  {name:<28} {us:>8.1} µs {mb:>7.1} MB {:>6.0} GB/s {share:>5.1} % of copy", rate / 1e9);
        Ok(())
    }

    /// The backward pass of `f`, whose inputs are `sets[i]` as activations. The tapes are made beforehand.
    fn report_backward(
        &self,
        name: &str,
        bytes: usize,
        sets: &[Tensor],
        dys: &[Tensor],
        f: impl Fn(&Tensor) -> Tensor,
    ) -> Result<(), Error> {
        if !self.wants(name) {
            return Ok(());
        }
        let launches = sets.len().max(4);
        let (send, gradients) = std::sync::mpsc::channel();
        let tape = |i: usize| {
            let send = send.clone();
            let x = ops::as_activation(&sets[i % sets.len()], move |dx| send.send(dx).expect("a receiver"));
            ops::pull_back(&f(&x), &dys[i % dys.len()])
        };
        let tapes: Vec<Tensor> = (0..=launches).map(tape).collect();
        self.report(name, bytes, launches, |i| {
            tapes[i].backward();
            gradients.try_iter().collect()
        })
    }

    /// Normal numbers of a shape, several times.
    fn sets(&self, shape: &[usize]) -> Vec<Tensor> {
        let len: usize = shape.iter().product();
        let set = |i: usize| {
            let values = self.normal.iter().copied().cycle().skip(31 * i).take(len).collect();
            Tensor::from_bf16(shape, values).to(GPU)
        };
        (0..ROTATION.div_ceil(2 * len).clamp(1, 8)).map(set).collect()
    }

    fn norms(&self, s: &Shapes) -> Result<(), Error> {
        let (n, d) = (s.b * s.t, s.d);
        let (xs, ys) = (self.sets(&[n, d]), self.sets(&[n, d]));
        let at = |sets: &[Tensor], i: usize| sets[i % sets.len()].clone();
        let parameter = Tensor::full(&[d], 1.0).to(GPU);
        let (gain, bias) = (parameter.tracked(), parameter.tracked());
        let (x, k) = (2 * n * d, xs.len().max(4));
        self.report("rms_norm", 2 * x, k, |i| vec![ops::rms_norm(&at(&xs, i), &parameter, 1e-5)])?;
        self.report_backward("rms_norm backward", 3 * x, &xs, &ys, |x| ops::rms_norm(x, &gain, 1e-5))?;
        let layer = |x: &Tensor| ops::layer_norm(x, &parameter, Some(&parameter), 1e-5);
        self.report("layer_norm", 2 * x, k, |i| vec![layer(&at(&xs, i))])?;
        let layer = |x: &Tensor| ops::layer_norm(x, &gain, Some(&bias), 1e-5);
        self.report_backward("layer_norm backward", 3 * x, &xs, &ys, layer)?;
        self.report("add_rms_norm", 4 * x, k, |i| {
            let (sum, y) = ops::add_rms_norm(&at(&xs, i), &at(&ys, i), None, &parameter, 1e-5);
            vec![sum, y]
        })?;
        self.report("add_layer_norm", 4 * x, k, |i| {
            let (sum, y) = ops::add_layer_norm(&at(&xs, i), &at(&ys, i), None, &parameter, Some(&parameter), 1e-5);
            vec![sum, y]
        })?;
        // With the bias of the branch, whose gradient is made on the way.
        let y_bias = ops::cast(&parameter, tensor::DType::Bf16).tracked();
        let added = |x: &Tensor| ops::add_rms_norm(x, &ys[0], Some(&y_bias), &gain, 1e-5).1;
        self.report_backward("add_rms_norm backward, y_bias", 3 * x, &xs, &ys, added)?;
        let added = |x: &Tensor| ops::add_layer_norm(x, &ys[0], Some(&y_bias), &gain, Some(&bias), 1e-5).1;
        self.report_backward("add_layer_norm backward, y_bias", 3 * x, &xs, &ys, added)?;
        let mut sums = Tensor::zeros_on(GPU, &[d], tensor::DType::F32);
        self.report("column sums", x, k, |i| {
            tensor::cuda::blas::column_sums(&mut sums, 0.0, &xs[i % xs.len()]);
            Vec::new()
        })?;
        for wide in [3 * d, 4 * d] {
            let wides = self.sets(&[n, wide]);
            let mut sums = Tensor::zeros_on(GPU, &[wide], tensor::DType::F32);
            self.report(&format!("column sums of {wide}"), 2 * n * wide, wides.len().max(4), |i| {
                tensor::cuda::blas::column_sums(&mut sums, 0.0, &wides[i % wides.len()]);
                Vec::new()
            })?;
        }
        self.report("add", 3 * x, k, |i| vec![ops::add(&at(&xs, i), &at(&ys, i))])
    }

    fn elementwise(&self, n: usize, f: usize, gated: bool) -> Result<(), Error> {
        let x = 2 * n * f;
        let dys = self.sets(&[n, f]);
        if gated {
            let xs = self.sets(&[n, 2 * f]);
            self.report("swiglu", 3 * x, xs.len().max(4), |i| vec![ops::swiglu(&xs[i % xs.len()])])?;
            return self.report_backward("swiglu backward", 5 * x, &xs, &dys, ops::swiglu);
        }
        for (name, kind) in [("gelu_tanh", Activation::GeluTanh), ("gelu_erf", Activation::GeluErf)] {
            let apply = |x: &Tensor| ops::activation(x, kind);
            self.report(name, 2 * x, dys.len().max(4), |i| vec![apply(&dys[i % dys.len()])])?;
            self.report_backward(&format!("{name} backward"), 3 * x, &dys, &dys, apply)?;
        }
        Ok(())
    }

    /// Attention with its projection, of which only the time counts: bytes are those of `dqkv`.
    fn projection(&self, s: &Shapes) -> Result<(), Error> {
        let (d, width, scale) = (s.d, s.heads.qkv_width(), 1.0 / (s.heads.head_dim as f32).sqrt());
        let (xs, dys) = (self.sets(&[s.b, s.t, d]), self.sets(&[s.b, s.t, s.heads.q_width()]));
        let weight = self.sets(&[width, d]).remove(0).tracked();
        let bias = self.sets(&[width]).remove(0).tracked();
        let bytes = 2 * s.b * s.t * width;
        let plain = |x: &Tensor| ops::attention(&ops::linear(x, &weight, None), &s.heads, scale);
        self.report_backward("qkv, attention backward", bytes, &xs, &dys, plain)?;
        let apart = |x: &Tensor| ops::attention(&ops::linear(x, &weight, Some(&bias)), &s.heads, scale);
        self.report_backward("the same, bias", bytes, &xs, &dys, apart)?;
        let fused = |x: &Tensor| ops::projected_attention(x, &weight, Some(&bias), &s.heads, scale);
        self.report_backward("the same, bias on the way", bytes, &xs, &dys, fused)
    }

    fn rope(&self, s: &Shapes) -> Result<(), Error> {
        let (n, width) = (s.b * s.t, s.heads.qkv_width());
        let turned = s.heads.q_width() + s.heads.k_width();
        let xs = self.sets(&[s.b, s.t, width]);
        let table = RopeTable::new(s.heads.head_dim, s.t, 10_000.0, RopeLayout::HalfSplit).to(GPU);
        let k = xs.len().max(4);
        self.report("rope", 4 * n * width, k, |i| vec![ops::rope(&xs[i % xs.len()], &s.heads, &table, 0)])?;
        let mut owned: VecDeque<Tensor> = xs.into();
        self.report("rope in place", 4 * n * turned, k, |_| {
            let x = owned.pop_front().expect("a tensor");
            owned.push_back(ops::rope_into(x, &s.heads, &table, 0));
            Vec::new()
        })
    }

    fn embedding(&self, s: &Shapes) -> Result<(), Error> {
        let (n, d, v) = (s.b * s.t, s.d, s.v);
        // As in texts, the id of rank r has a share of 1/r.
        let uniform = Rng::new(7, 2).normal(&[n], 1.0);
        let rank = |x: f32| (f64::from((x * 1e3).abs().fract()) * (v as f64).ln()).exp() as u32 - 1;
        let ids: Vec<u32> = uniform.f32s().iter().map(|&x| rank(x).min(v as u32 - 1)).collect();
        let distinct = ids.iter().collect::<std::collections::HashSet<_>>().len();
        let ids = Tensor::from_u32(&[s.b, s.t], ids).to(GPU);
        let table = self.sets(&[v, d]).remove(0).tracked();
        let positions = self.sets(&[s.t, d]).remove(0).tracked();
        let dys = self.sets(&[s.b, s.t, d]);
        let (x, k) = (2 * n * d, dys.len().max(4));
        self.report("embedding", 2 * x, k, |_| vec![ops::embedding(&ids, &table.detached())])?;
        self.report("embedding_with_positions", 2 * x, k, |_| {
            vec![ops::embedding_with_positions(&ids, &table.detached(), &positions.detached(), 0)]
        })?;
        // Into a gradient that exists: it is read and written where there are ids.
        let mut gradients = Gradients::new();
        ops::pull_back(&ops::embedding(&ids, &table), &dys[0]).backward_into(1.0, &mut gradients);
        let tape = |y: Tensor, i: usize| ops::pull_back(&y, &dys[i % dys.len()]);
        let tapes: Vec<Tensor> = (0..=k).map(|i| tape(ops::embedding(&ids, &table), i)).collect();
        self.report("embedding backward", x + 8 * distinct * d, k, |i| {
            tapes[i].backward_into(1.0, &mut gradients);
            Vec::new()
        })?;
        let tapes: Vec<Tensor> = (0..=k).map(|i| tape(ops::embedding(&ids, &table), i)).collect();
        self.report("embedding backward, new", x + 4 * v * d + 8 * distinct * d, k, |i| {
            tapes[i].backward();
            Vec::new()
        })?;
        let both = || ops::embedding_with_positions(&ids, &table, &positions, 0);
        let tapes: Vec<Tensor> = (0..=k).map(|i| tape(both(), i)).collect();
        self.report("with positions backward", 2 * x + 8 * (distinct + s.t) * d, k, |i| {
            tapes[i].backward_into(1.0, &mut gradients);
            Vec::new()
        })
    }

    fn cast(&self) -> Result<(), Error> {
        let n = 1 << 27;
        let x = Tensor::full(&[n], 1.0).to(GPU);
        self.report("cast f32 to bf16", 6 * n, 4, |_| vec![ops::cast(&x, tensor::DType::Bf16)])?;
        let x = ops::cast(&x, tensor::DType::Bf16);
        self.report("cast bf16 to f32", 6 * n, 4, |_| vec![ops::cast(&x, tensor::DType::F32)])
    }
}

fn run(arguments: &[String]) -> Result<(), Error> {
    let bench = match Bench::open(arguments) {
        Ok(bench) => bench,
        Err(error @ Error::NoDevice { .. }) => {
            println!("skipped: {error}");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let context = &bench.context;
    println!("{} · {} · copy {:.0} GB/s", context.name(), context.arch(), bench.copy / 1e9);
    for shapes in [GPT2, LLAMA] {
        println!("{} ({} tokens of {})", shapes.name, shapes.b * shapes.t, shapes.d);
        bench.norms(&shapes)?;
        if shapes.heads.head_dim == 64 {
            bench.projection(&shapes)?;
        }
        bench.rope(&shapes)?;
        bench.embedding(&shapes)?;
    }
    println!("GPT-2 124M, 3072 wide; Llama 953M, 5632 wide; others");
    bench.elementwise(32_768, 3072, false)?;
    bench.elementwise(8192, 5632, true)?;
    bench.cast()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|x| x != "--bench").collect();
    let outcome = tensor::cuda::catch(|| run(&arguments)).and_then(|outcome| outcome);
    if let Err(error) = outcome {
        println!("error: {error}");
        std::process::exit(1);
    }
}
