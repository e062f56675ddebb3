//! Our own products beside cuBLASLt's: first checked, with bounded waits, then timed in turns.
//!
//! The work is done by a child process. If it dies (a kernel that waited too long ends all work of its process) or is silent
//! for too long, it is started again without the tiling that it was busy with.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use half::bf16;
use tensor::cuda::blas::{Epilogue, Matrix, MatrixMut, Product, matmul, matmul_tiled};
use tensor::cuda::gemm::{Tiling, prepare, sources_of};
use tensor::cuda::{Buffer, Context, Event, Source, catch};
use tensor::random::Rng;
use tensor::{DType, Device, Error, Tensor, ops};

const GPU: Device = Device::Cuda(0);
/// Where right operands begin in the long row of numbers: no row of theirs is one of a left operand's.
const B_FROM: usize = (1 << 19) + 1000;
/// Without a line for so long, the child hangs. Compiling is announced.
const SILENCE: Duration = Duration::from_secs(25);

/// The parent: relays what children print, and restarts them.
pub(crate) fn supervise(arguments: &[String]) {
    let mut skipped: Vec<String> = Vec::new();
    for _ in 0..8 {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .args(arguments)
            .args(["--own-child", "--skip", &skipped.join(",")])
            .stdout(Stdio::piped())
            .spawn()
            .expect("started again");
        let (sender, receiver) = mpsc::channel();
        let stdout = child.stdout.take().expect("piped");
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut busy = String::new();
        let mut silent = false;
        loop {
            match receiver.recv_timeout(SILENCE) {
                Ok(line) => match line.strip_prefix("busy: ") {
                    Some(what) => busy = what.to_owned(),
                    None => println!("{line}"),
                },
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    silent = true;
                    let _ = child.kill();
                    break;
                }
            }
        }
        let good = child.wait().is_ok_and(|status| status.success());
        if good && !silent {
            return;
        }
        println!("FAILED{} during: {busy}", if silent { " (hangs)" } else { "" });
        // Of a checked case the name of the tiling, then " · ".
        let name = busy.split(" · ").next().unwrap_or_default().to_owned();
        if name.is_empty() || skipped.contains(&name) {
            return;
        }
        skipped.push(name);
    }
}

fn busy(what: &str) {
    println!("busy: {what}");
}

/// The tilings under comparison.
fn tilings() -> Vec<Tiling> {
    Tiling::ALL.to_vec()
}

struct Own {
    context: Arc<Context>,
    quick: bool,
    tilings: Vec<Tiling>,
    difference: Arc<tensor::cuda::Module>,
    /// Seconds of both models' steps: cuBLASLt's, and with the best of both for each product.
    step: [f64; 2],
}

const DIFFERENCE: &[(&str, &str)] = &[(
    "difference.cu",
    r#"
// found[0]: bits of the largest |a - b|; found[1]: of the largest |a|; found[2]: how many differ by more than the bound
// times 1 + |a|.
extern "C" __global__ void difference(const void* a, const void* b, unsigned long long n, unsigned is_f32, float bound,
                                      unsigned* found) {
    float most = 0.f, largest = 0.f;
    unsigned bad = 0;
    for (unsigned long long i = blockIdx.x * 256ull + threadIdx.x; i < n; i += gridDim.x * 256ull) {
        float x = is_f32 ? ((const float*)a)[i] : __uint_as_float(((const unsigned short*)a)[i] << 16);
        float y = is_f32 ? ((const float*)b)[i] : __uint_as_float(((const unsigned short*)b)[i] << 16);
        float d = fabsf(x - y);
        if (!(d <= 3e38f)) d = 3e38f;
        if (d > bound * (1.f + fabsf(x))) bad++;
        most = fmaxf(most, d);
        largest = fmaxf(largest, fabsf(x));
    }
    atomicMax(found, __float_as_uint(most));
    atomicMax(found + 1, __float_as_uint(largest));
    if (bad) atomicAdd(found + 2, bad);
}

extern "C" __global__ void clear(unsigned* x, unsigned long long n) {
    for (unsigned long long i = blockIdx.x * 256ull + threadIdx.x; i < n; i += gridDim.x * 256ull) x[i] = 0;
}
"#,
)];

/// The child.
pub(crate) fn run(context: &Arc<Context>, quick: bool, skip: &str) -> Result<(), Error> {
    let tilings: Vec<Tiling> = tilings().into_iter().filter(|x| !skip.split(',').any(|name| name == x.name)).collect();
    compile_ahead(context, &tilings)?;
    let source = Source { name: "difference", parts: DIFFERENCE, options: Vec::new() };
    let difference = tensor::cuda::Module::load(context, &source)?;
    context.set_own_products(false);
    let mut own = Own { context: context.clone(), quick, tilings, difference, step: [0.0; 2] };
    own.check()?;
    own.time_all()
}

fn compile_ahead(context: &Arc<Context>, tilings: &[Tiling]) -> Result<(), Error> {
    let start = Instant::now();
    let sources: Vec<Source> =
        [true, false].into_iter().flat_map(|x| tilings.iter().flat_map(move |tiling| sources_of(tiling, x))).collect();
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(16);
    let failed = std::sync::Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(source) = sources.get(next.fetch_add(1, Ordering::Relaxed)) {
                    busy("compiling");
                    if let Err(error) = prepare(context, source) {
                        *failed.lock().expect("no panic") = Some(error);
                    }
                }
            });
        }
    });
    println!("{} kernels compiled or found in {:.1} s", sources.len(), start.elapsed().as_secs_f64());
    failed.into_inner().expect("no panic").map_or(Ok(()), Err)
}

fn transposed(x: &[f32], columns: usize) -> Vec<f32> {
    let rows = x.len() / columns;
    (0..x.len()).map(|i| x[i % rows * columns + i / rows]).collect()
}

fn on_gpu(shape: &[usize], x: &[f32]) -> Tensor {
    Tensor::from_bf16(shape, x.iter().map(|&x| bf16::from_f32(x)).collect()).to(GPU)
}

fn normal(shape: &[usize], stream: u64, scale: f32) -> Vec<f32> {
    let x = Rng::new(3, stream).normal(shape, scale);
    x.f32s().iter().map(|&x| bf16::from_f32(x).to_f32()).collect()
}

fn numbers(x: &Tensor) -> Vec<f32> {
    ops::cast(&x.to(Device::Cpu), DType::F32).f32s().to_vec()
}

/// One line about `found` of `columns` beside what is expected.
fn verdict(found: &[f32], expected: &[f32], columns: usize, tolerance: f32) -> Result<String, String> {
    let bad: Vec<usize> = (0..found.len())
        .filter(|&i| {
            (found[i] - expected[i])
                .abs()
                .partial_cmp(&(tolerance * (1.0 + expected[i].abs())))
                .is_none_or(|x| x.is_gt())
        })
        .collect();
    let worst = found.iter().zip(expected).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
    if bad.is_empty() && found.len() == expected.len() {
        return Ok(format!("equal (worst {worst:.1e})"));
    }
    let range = |of: fn(usize, usize) -> usize| {
        let all = bad.iter().map(|&i| of(i, columns));
        (all.clone().min().unwrap_or(0), all.max().unwrap_or(0))
    };
    let (rows, at) = (range(|i, columns| i / columns), range(|i, columns| i % columns));
    let examples: Vec<String> = bad
        .iter()
        .step_by((bad.len() / 5).max(1))
        .take(6)
        .map(|&i| format!("[{},{}] {:.4} for {:.4}", i / columns, i % columns, found[i], expected[i]))
        .collect();
    Err(format!(
        "MISMATCH {} of {} ({} NaN), rows {}-{}, columns {}-{}: {}",
        bad.len(),
        found.len(),
        found.iter().filter(|x| x.is_nan()).count(),
        rows.0,
        rows.1,
        at.0,
        at.1,
        examples.join("; ")
    ))
}

fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + (0.797_884_6 * (x + 0.044_715 * x * x * x)).tanh())
}

fn gelu_derivative(x: f32) -> f32 {
    let t = (0.797_884_6 * (x + 0.044_715 * x * x * x)).tanh();
    0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * 0.797_884_6 * (1.0 + 3.0 * 0.044_715 * x * x)
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

impl Own {
    /// Every tiling, order and epilogue on sizes that are no multiples of anything but 8, beside the CPU.
    fn check(&self) -> Result<(), Error> {
        let tilings = self.tilings.clone();
        for (size, [m, n, k]) in [[200, 272, 136], [2568, 1552, 584]].into_iter().enumerate() {
            let (x, w) = (normal(&[m, k], 1, 1.0), normal(&[n, k], 2, 1.0 / (k as f32).sqrt()));
            let product =
                ops::linear(&Tensor::from_f32(&[m, k], x.clone()), &Tensor::from_f32(&[n, k], w.clone()), None);
            let product = product.f32s().to_vec();
            let operands = Operands {
                size: [m, n, k],
                x: on_gpu(&[m, k], &x),
                x_t: on_gpu(&[k, m], &transposed(&x, k)),
                w: on_gpu(&[n, k], &w),
                w_t: on_gpu(&[k, n], &transposed(&w, k)),
                bias: normal(&[n], 3, 1.0),
                given: normal(&[m, 2 * n], 4, 1.0),
                old: normal(&[m, n], 5, 1.0),
                product,
            };
            for tiling in &tilings {
                let mut good = true;
                for (case, name) in CASES.into_iter().enumerate() {
                    busy(&format!("{} · {} of {m}x{n}x{k}", tiling.name, name));
                    let what = format!("{:<22} {:<26} {m}x{n}x{k}", tiling.name, name);
                    let results: Vec<_> = (0..2).map(|_| catch(|| operands.case(tiling, case))).collect();
                    match &results[..] {
                        [Ok(one), Ok(two)] => {
                            let same = one
                                .outputs
                                .iter()
                                .zip(&two.outputs)
                                .all(|(x, y)| x.iter().zip(y).all(|(x, y)| x.to_bits() == y.to_bits()));
                            let bad: Vec<&String> = one.verdicts.iter().filter_map(|x| x.as_ref().err()).collect();
                            if bad.is_empty() && same {
                                let worst: Vec<&String> = one.verdicts.iter().filter_map(|x| x.as_ref().ok()).collect();
                                if size == 1 {
                                    println!("{what} {}", worst[0]);
                                }
                            } else {
                                good = false;
                                println!("{what} {}", if same { "" } else { "NOT THE SAME TWICE" });
                                bad.iter().for_each(|x| println!("    {x}"));
                            }
                        }
                        [Err(error), _] | [_, Err(error)] => {
                            // After a trap nothing works: the parent starts again without this tiling.
                            println!("{what} {error}");
                            std::process::exit(1);
                        }
                        _ => {}
                    }
                }
                if !good {
                    println!("{} goes on to be timed all the same", tiling.name);
                }
            }
        }
        Ok(())
    }
}

const CASES: [&str; 13] = [
    "y",
    "y + bias",
    "GELU kept",
    "GELU",
    "SwiGLU kept",
    "SwiGLU",
    "dx",
    "dx · GELU′",
    "dx · GELU′, sums",
    "dx · SwiGLU′",
    "dW",
    "dW added",
    "dW in 5 parts, added",
];

struct Operands {
    size: [usize; 3],
    x: Tensor,
    x_t: Tensor,
    w: Tensor,
    w_t: Tensor,
    bias: Vec<f32>,
    given: Vec<f32>,
    old: Vec<f32>,
    product: Vec<f32>,
}

struct Checked {
    outputs: Vec<Vec<f32>>,
    verdicts: Vec<Result<String, String>>,
}

impl Operands {
    fn case(&self, tiling: &Tiling, case: usize) -> Checked {
        let [m, n, k] = self.size;
        let empty = |columns: usize| {
            let nan = vec![bf16::NAN; m * columns];
            Tensor::from_bf16(&[m, columns], nan).to(GPU)
        };
        let run = |tiling: &Tiling, out: &mut Tensor, by_columns: bool, beta: f32, epilogue: Epilogue<'_>| {
            let weight_gradient = case >= 10;
            let a = if weight_gradient { Matrix::of(&self.x_t).transposed() } else { Matrix::of(&self.x) };
            let b = if by_columns { Matrix::of(&self.w_t) } else { Matrix::of(&self.w).transposed() };
            let product = Product { m, n, k, a, b, out: MatrixMut::of(out), beta, epilogue };
            assert!(matmul_tiled(product, tiling, true), "no such product");
        };
        let product = &self.product;
        let with_bias: Vec<f32> = product.iter().enumerate().map(|(i, x)| x + self.bias[i % n]).collect();
        let bias = on_gpu(&[n], &self.bias);
        // Of rounded arguments, as it is computed.
        let rounded = |x: f32| bf16::from_f32(x).to_f32();
        let mut outputs = Vec::new();
        let mut verdicts = Vec::new();
        let mut compare = |found: &Tensor, expected: &[f32], columns: usize, tolerance: f32| {
            let found = numbers(found);
            verdicts.push(verdict(&found, expected, columns, tolerance));
            outputs.push(found);
        };
        match case {
            0 | 6 => {
                let mut out = empty(n);
                run(tiling, &mut out, case == 6, 0.0, Epilogue::None);
                compare(&out, product, n, 1e-2);
            }
            1 => {
                let mut out = empty(n);
                run(tiling, &mut out, false, 0.0, Epilogue::Bias(&bias));
                compare(&out, &with_bias, n, 1e-2);
            }
            2 | 3 => {
                let (mut out, mut pre) = (empty(n), empty(n));
                let pre_activation = (case == 2).then_some(&mut pre);
                run(tiling, &mut out, false, 0.0, Epilogue::Gelu { bias: Some(&bias), pre_activation });
                let expected: Vec<f32> = with_bias.iter().map(|&x| gelu(rounded(x))).collect();
                compare(&out, &expected, n, 2e-2);
                if case == 2 {
                    compare(&pre, &with_bias, n, 1e-2);
                }
            }
            4 | 5 => {
                let f = n / 2;
                let (mut out, mut pre) = (empty(f), empty(n));
                let gate_up = (case == 4).then_some(&mut pre);
                run(tiling, &mut out, false, 0.0, Epilogue::SwiGlu { gate_up });
                let expected: Vec<f32> = (0..m * f)
                    .map(|i| {
                        let gate = rounded(product[i / f * n + i % f]);
                        gate * sigmoid(gate) * rounded(product[i / f * n + f + i % f])
                    })
                    .collect();
                compare(&out, &expected, f, 3e-2);
                if case == 4 {
                    compare(&pre, product, n, 1e-2);
                }
            }
            7 | 8 => {
                let pre: Vec<f32> = (0..m * n).map(|i| self.given[i / n * 2 * n + i % n]).collect();
                let pre_ = on_gpu(&[m, n], &pre);
                let mut out = empty(n);
                let mut sums = Tensor::zeros_on(GPU, &[n], DType::Bf16);
                let column_sums = (case == 8).then_some(&mut sums);
                run(tiling, &mut out, true, 0.0, Epilogue::GeluGradient { pre_activation: &pre_, column_sums });
                let expected: Vec<f32> = product.iter().zip(&pre).map(|(x, &pre)| x * gelu_derivative(pre)).collect();
                compare(&out, &expected, n, 1.5e-2);
                if case == 8 {
                    let out = numbers(&out);
                    let expected: Vec<f32> =
                        (0..n).map(|j| (0..m).map(|i| f64::from(out[i * n + j])).sum::<f64>() as f32).collect();
                    compare(&sums, &expected, n, 1e-2);
                }
            }
            9 => {
                let given = on_gpu(&[m, 2 * n], &self.given);
                let mut out = empty(2 * n);
                run(tiling, &mut out, true, 0.0, Epilogue::SwiGluGradient { gate_up: &given });
                let expected: Vec<f32> = (0..m * 2 * n)
                    .map(|i| {
                        let (row, column) = (i / (2 * n), i % (2 * n));
                        let (gate, up) =
                            (self.given[row * 2 * n + column % n], self.given[row * 2 * n + n + column % n]);
                        let (dy, s) = (product[row * n + column % n], sigmoid(gate));
                        if column < n { dy * up * s * (1.0 + gate * (1.0 - s)) } else { dy * gate * s }
                    })
                    .collect();
                compare(&out, &expected, 2 * n, 1.5e-2);
            }
            _ => {
                let beta = if case == 10 { 0.0 } else { 1.0 };
                let old: Vec<f32> = self.old.iter().map(|&x| if case == 10 { f32::NAN } else { x }).collect();
                let mut out = Tensor::from_f32(&[m, n], old).to(GPU);
                run(&tiling.split(if case == 12 { 5 } else { 1 }), &mut out, true, beta, Epilogue::None);
                let expected: Vec<f32> =
                    product.iter().zip(&self.old).map(|(x, old)| if case == 10 { *x } else { x + old }).collect();
                compare(&out, &expected, n, 1e-4);
            }
        }
        Checked { outputs, verdicts }
    }
}

/// What a product of a step is.
#[derive(Clone, Copy, PartialEq)]
enum What {
    Forward,
    ForwardBias,
    ForwardGelu,
    ForwardSwiGlu,
    InputGradient,
    GeluGradient,
    SwiGluGradient,
    WeightGradient,
}

/// name, [rows, inputs, outputs], what its three products are, times a step.
type Layer = (&'static str, [usize; 3], [What; 3], usize);

const LAYERS: [Layer; 10] = {
    use What::*;
    [
        ("gpt2 qkv", [32_768, 768, 2304], [ForwardBias, InputGradient, WeightGradient], 12),
        ("gpt2 proj", [32_768, 768, 768], [Forward, InputGradient, WeightGradient], 12),
        ("gpt2 up", [32_768, 768, 3072], [ForwardGelu, InputGradient, WeightGradient], 12),
        ("gpt2 down", [32_768, 3072, 768], [Forward, GeluGradient, WeightGradient], 12),
        ("gpt2 head", [8192, 768, 50_304], [Forward, InputGradient, WeightGradient], 4),
        ("llama qkv", [8192, 2048, 6144], [Forward, InputGradient, WeightGradient], 16),
        ("llama proj", [8192, 2048, 2048], [Forward, InputGradient, WeightGradient], 16),
        ("llama up", [8192, 2048, 11_264], [ForwardSwiGlu, InputGradient, WeightGradient], 16),
        ("llama down", [8192, 5632, 2048], [Forward, SwiGluGradient, WeightGradient], 16),
        ("llama head", [8192, 2048, 32_000], [Forward, InputGradient, WeightGradient], 1),
    ]
};

impl Own {
    fn time_all(&mut self) -> Result<(), Error> {
        busy("normal numbers");
        let most = 8192 * 50_304;
        let normal: Vec<bf16> =
            Rng::new(7, 1).normal(&[4_194_301], 1.0).f32s().iter().map(|&x| bf16::from_f32(x)).collect();
        let mut source = Vec::with_capacity(most + (1 << 20));
        while source.len() < most + (1 << 20) {
            source.extend_from_slice(&normal[..normal.len().min(most + (1 << 20) - source.len())]);
        }
        let source = Tensor::from_bf16(&[most + (1 << 20)], source).to(GPU);
        let outs = [0; 2].map(|_| Tensor::zeros_on(GPU, &[most], DType::Bf16));
        let dws = [0; 2].map(|_| Tensor::zeros_on(GPU, &[32_000 * 2048], DType::F32));
        let small = || Tensor::zeros_on(GPU, &[8], DType::Bf16);
        let (kept, sums) = ([0; 2].map(|_| small()), [0; 2].map(|_| small()));
        let mut memory = Memory { normal, source, outs, dws, kept, bias: small(), sums, activated: None };

        println!("\n{:<34} {:>22}   ours: µs, TFLOP/s, cuBLASLt's time over ours", "product", "cuBLASLt's best");
        self.product(&mut memory, "8192³", [8192; 3], What::Forward, 0)?;
        for model in ["gpt2", "llama"] {
            self.step = [0.0; 2];
            for (name, [rows, i, o], whats, times) in LAYERS.into_iter().filter(|x| x.0.starts_with(model)) {
                let sizes = [[rows, o, i], [rows, i, o], [o, i, rows]];
                for ((size, what), kind) in sizes.into_iter().zip(whats).zip(["y", "dx", "dW"]) {
                    self.product(&mut memory, &format!("{name} {kind}"), size, what, times)?;
                }
            }
            let [theirs, best] = self.step.map(|x| x * 1e3);
            println!("{model}: products of a step {theirs:.2} ms by cuBLASLt, {best:.2} ms by the best of both\n");
        }
        Ok(())
    }

    fn product(
        &mut self,
        memory: &mut Memory,
        name: &str,
        [m, n, k]: [usize; 3],
        what: What,
        times: usize,
    ) -> Result<(), Error> {
        busy(&format!(" · {name}"));
        let flops = 2.0 * m as f64 * n as f64 * k as f64;
        let f32_out = what == What::WeightGradient;
        let output = if f32_out { DType::F32 } else { DType::Bf16 };
        let sms = self.context.n_multiprocessors();
        let tilings: Vec<Tiling> =
            self.tilings.iter().flat_map(|tiling| tiling.candidates([m, n], output, sms)).collect();
        let mut lines: Vec<(String, f64, String, bool)> = Vec::new();
        // Their output first, then each of ours is compared with it.
        let mut contenders: Vec<Option<Tiling>> = vec![None];
        contenders.extend(tilings.into_iter().map(Some));
        let mut times_of = vec![Vec::new(); contenders.len()];
        self.context.set_autotune(true);
        memory.prepare(what, m, n);
        memory.launch(None, what, [m, n, k]);
        self.context.set_autotune(false);
        self.clear(&memory.dws[0])?;
        memory.launch(None, what, [m, n, k]);
        let mut notes = vec![String::new(); contenders.len()];
        for (contender, note) in contenders.iter().zip(&mut notes) {
            if let Some(tiling) = contender {
                busy(&format!("{} · {name}", tiling.name));
                self.clear(&memory.outs[1])?;
                self.clear(&memory.dws[1])?;
                memory.launch(Some(tiling), what, [m, n, k]);
                *note = self.compare(memory, what, [m, n, k])?;
            }
        }
        for round in 0..if self.quick { 4 } else { 6 } {
            for (contender, times) in contenders.iter().zip(&mut times_of) {
                if let Some(tiling) = contender {
                    busy(&format!("{} · {name}", tiling.name));
                }
                let launches = match times.last() {
                    Some(last) => ((if self.quick { 0.002 } else { 0.006 } / last) as usize).clamp(1, 60),
                    None => 2,
                };
                let start = Event::record(&self.context)?;
                for _ in 0..launches {
                    memory.launch(contender.as_ref(), what, [m, n, k]);
                }
                times.push(Event::record(&self.context)?.since(&start)?.as_secs_f64() / launches as f64);
                if round == 0 {
                    continue;
                }
                if round == 1 {
                    times.remove(0);
                }
            }
        }
        let middle = |times: &Vec<f64>| {
            let mut times = times.clone();
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        let middles: Vec<f64> = times_of.iter().map(middle).collect();
        for ((contender, &seconds), note) in contenders.iter().zip(&middles).zip(notes) {
            let (text, good) = match contender {
                None => ("cuBLASLt".to_owned(), true),
                Some(tiling) => (tiling.to_string(), note.is_empty()),
            };
            lines.push((text, seconds, note, good));
        }
        let theirs = middles[0];
        let speed = |seconds: f64| format!("{:>8.1} µs {:>6.1}", seconds * 1e6, flops / seconds / 1e12);
        println!("{:<34} {}", format!("{name} {m}x{n}x{k}"), speed(theirs));
        let best = lines.iter().filter(|x| x.3).map(|x| x.1).fold(f64::INFINITY, f64::min);
        for (text, seconds, note, _) in &lines[1..] {
            let mark = if *seconds == best { " <" } else { "" };
            println!("    {text:<30} {} {:>6.3}{mark} {note}", speed(*seconds), theirs / seconds);
        }
        self.step[0] += times as f64 * theirs;
        self.step[1] += times as f64 * best;
        Ok(())
    }

    /// So that what is not written is seen.
    fn clear(&self, x: &Tensor) -> Result<(), Error> {
        let (pointer, words) = (x.device_pointer(), (x.len() * x.dtype().bytes() / 4) as u64);
        let arguments = [std::ptr::from_ref(&pointer).cast(), std::ptr::from_ref(&words).cast()];
        // SAFETY: the kernel's parameters in order; the tensor has so many words.
        #[allow(unsafe_code)]
        unsafe {
            self.difference.kernel("clear", 0)?.launch([1056, 1, 1], 256, &arguments)
        }
    }

    /// Empty if ours equals theirs.
    fn compare(&self, memory: &Memory, what: What, [m, n, _]: [usize; 3]) -> Result<String, Error> {
        // cuBLASLt approximates the hyperbolic tangent.
        let bound = if matches!(what, What::ForwardGelu | What::GeluGradient) { 0.2f32 } else { 0.02 };
        let mut notes = String::new();
        let mut pairs: Vec<(&Tensor, &Tensor, usize)> = Vec::new();
        match what {
            What::WeightGradient => pairs.push((&memory.dws[0], &memory.dws[1], m * n)),
            What::ForwardSwiGlu => {
                pairs.extend(memory.activated.as_ref().map(|theirs| (theirs, &memory.outs[1], m * n / 2)));
                pairs.push((&memory.kept[0], &memory.kept[1], m * n));
            }
            What::ForwardGelu => {
                pairs.push((&memory.outs[0], &memory.outs[1], m * n));
                pairs.push((&memory.kept[0], &memory.kept[1], m * n));
            }
            // Theirs is another thing: it was checked on small sizes.
            What::SwiGluGradient => {}
            _ => pairs.push((&memory.outs[0], &memory.outs[1], m * n)),
        }
        for (theirs, ours, len) in pairs {
            let found = Buffer::<u32>::filled(&self.context, 3, 0)?;
            let is_f32 = u32::from(theirs.dtype() == DType::F32);
            let (a, b, len_, bound) = (theirs.device_pointer(), ours.device_pointer(), len as u64, bound);
            let pointer = found.pointer();
            let arguments = [
                std::ptr::from_ref(&a).cast(),
                std::ptr::from_ref(&b).cast(),
                std::ptr::from_ref(&len_).cast(),
                std::ptr::from_ref(&is_f32).cast(),
                std::ptr::from_ref(&bound).cast(),
                std::ptr::from_ref(&pointer).cast(),
            ];
            let kernel = self.difference.kernel("difference", 0)?;
            // SAFETY: the kernel's parameters in order; both tensors have at least so many elements.
            #[allow(unsafe_code)]
            unsafe { kernel.launch([1056, 1, 1], 256, &arguments) }?;
            let found = found.to_vec()?;
            let [most, largest] = [found[0], found[1]].map(f32::from_bits);
            if found[2] > 0 {
                notes += &format!("MISMATCH {} of {len}, worst {most:.2e} of {largest:.2e} ", found[2]);
            }
        }
        Ok(notes)
    }
}

/// Operands, and what is written: by cuBLASLt first, by ours second.
struct Memory {
    normal: Vec<bf16>,
    source: Tensor,
    outs: [Tensor; 2],
    dws: [Tensor; 2],
    /// Of the product at hand: pre-activations, bias, sums of columns.
    kept: [Tensor; 2],
    bias: Tensor,
    sums: [Tensor; 2],
    activated: Option<Tensor>,
}

impl Memory {
    fn prepare(&mut self, what: What, m: usize, n: usize) {
        let normal = |shape: &[usize]| {
            let numbers = self.normal.iter().copied().cycle().skip(77).take(shape.iter().product()).collect();
            Tensor::from_bf16(shape, numbers).to(GPU)
        };
        self.bias = normal(&[n]);
        self.sums = [0; 2].map(|_| Tensor::zeros_on(GPU, &[n], DType::Bf16));
        self.activated = None;
        let kept = match what {
            What::ForwardGelu | What::ForwardSwiGlu => [0; 2].map(|_| Tensor::zeros_on(GPU, &[m, n], DType::Bf16)),
            What::GeluGradient => [0; 2].map(|_| normal(&[m, n])),
            What::SwiGluGradient => [0; 2].map(|_| normal(&[m, 2 * n])),
            _ => [0; 2].map(|_| Tensor::zeros_on(GPU, &[8], DType::Bf16)),
        };
        self.kept = kept;
    }

    /// `None`: cuBLASLt.
    fn launch(&mut self, tiling: Option<&Tiling>, what: What, [m, n, k]: [usize; 3]) {
        let Self { source, outs, dws, kept, bias, sums, activated, .. } = self;
        let matrix = |offset: usize, stride: usize| Matrix { tensor: source, offset, stride, transposed: false };
        let (a, b) = match what {
            What::WeightGradient => (matrix(0, m).transposed(), matrix(B_FROM, n)),
            What::InputGradient | What::GeluGradient | What::SwiGluGradient => (matrix(0, k), matrix(B_FROM, n)),
            _ => (matrix(0, k), matrix(B_FROM, k).transposed()),
        };
        let whose = usize::from(tiling.is_some());
        let [kept, sums] = [&mut kept[whose], &mut sums[whose]];
        let tensor = if what == What::WeightGradient { &mut dws[whose] } else { &mut outs[whose] };
        let beta = if what == What::WeightGradient { 1.0 } else { 0.0 };
        if let Some(tiling) = tiling {
            let (epilogue, stride) = match what {
                What::ForwardBias => (Epilogue::Bias(bias), n),
                What::ForwardGelu => (Epilogue::Gelu { bias: Some(bias), pre_activation: Some(kept) }, n),
                What::ForwardSwiGlu => (Epilogue::SwiGlu { gate_up: Some(kept) }, n / 2),
                What::GeluGradient => (Epilogue::GeluGradient { pre_activation: kept, column_sums: Some(sums) }, n),
                What::SwiGluGradient => (Epilogue::SwiGluGradient { gate_up: kept }, 2 * n),
                _ => (Epilogue::None, n),
            };
            let product = Product { m, n, k, a, b, out: MatrixMut { tensor, offset: 0, stride }, beta, epilogue };
            assert!(matmul_tiled(product, tiling, false), "no such product");
            return;
        }
        if what == What::ForwardSwiGlu {
            let out = MatrixMut::of(kept);
            matmul(Product { m, n, k, a, b, out, beta, epilogue: Epilogue::None });
            *activated = Some(ops::swiglu(kept));
            return;
        }
        let out = MatrixMut { tensor, offset: 0, stride: n };
        let swiglu = what == What::SwiGluGradient;
        let epilogue = match what {
            What::ForwardBias => Epilogue::Bias(bias),
            What::ForwardGelu => Epilogue::Gelu { bias: Some(bias), pre_activation: Some(kept) },
            What::GeluGradient => Epilogue::GeluGradient { pre_activation: kept, column_sums: Some(sums) },
            _ => Epilogue::None,
        };
        matmul(Product { m, n, k, a, b, out, beta, epilogue });
        if swiglu {
            // Stands for its gradient, which moves 5/3 of these bytes.
            *activated = Some(ops::swiglu(&self.kept[0]));
        }
    }
}
