//! Attention on an NVIDIA GPU, checked against the definition and timed:
//! `cargo bench -p tensor --bench cuda_attention -- [forward] [backward] [variants] [unchecked] [--shape INDEX]
//! [--toolkit FOLDER] [--kernels FOLDER] [--export FILE]`.
//!
//! `--export` writes inputs and results of one problem for benches/attention_peer.py to compare with PyTorch's.
//! Times are device times of many launches between two events. Operations are counted as in FlashAttention: half of the
//! scores if causal, the backward pass as 2.5 forward passes. Without a driver it says so and ends.

#![allow(clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::bf16;
use tensor::cuda::{Buffer, Context, Event, Toolkit};
use tensor::ops::Heads;
use tensor::ops::attention_cuda::{
    Backward, BackwardTiling, BackwardWorkspace, Expected, Forward, ForwardTiling, Problem, reference,
};
use tensor::random::Rng;
use tensor::{Error, Tensor};

/// Dense bf16 operations of an H100 SXM per second.
const PEAK_FLOPS: f64 = 989e12;

/// b, t, h, g, e, causal: odd lengths, one tile, many tiles, shared keys, both head sizes, both masks.
const CHECKS: [(usize, usize, usize, usize, usize, bool); 14] = [
    (1, 1, 1, 1, 64, true),
    (1, 64, 1, 1, 128, false),
    (2, 128, 2, 2, 128, true),
    (1, 257, 3, 1, 64, true),
    (1, 257, 3, 1, 128, false),
    (2, 384, 2, 2, 64, false),
    (2, 1000, 4, 2, 64, true),
    (2, 1000, 4, 2, 128, true),
    (3, 777, 4, 4, 128, false),
    (3, 777, 4, 1, 64, false),
    (1, 2048, 40, 40, 64, true),
    (1, 2048, 40, 10, 128, true),
    (4, 1024, 24, 24, 64, true),
    (4, 1024, 24, 24, 128, false),
];

const SHAPES: [(usize, usize, usize, usize, usize, bool); 8] = [
    (16, 1024, 12, 12, 64, true),
    (1, 16384, 16, 16, 64, true),
    (4, 2048, 16, 16, 128, true),
    (4, 4096, 16, 16, 128, true),
    (2, 8192, 16, 16, 128, true),
    (2, 8192, 16, 16, 128, false),
    (4, 4096, 16, 4, 128, true),
    (32, 1024, 12, 12, 64, true),
];

fn problem((b, t, h, g, e, causal): (usize, usize, usize, usize, usize, bool)) -> Problem {
    let heads = Heads::of_one_size(h, g, e);
    Problem { b, t, heads, causal, scale: 1.0 / (e as f32).sqrt() }
}

fn name(p: &Problem) -> String {
    let Heads { n_heads, n_kv_heads, head_dim, .. } = p.heads;
    let mask = if p.causal { "causal" } else { "full" };
    format!("b {:<2} t {:<5} h {n_heads:<2} g {n_kv_heads:<2} e {head_dim:<3} {mask:<6}", p.b, p.t)
}

/// Normal numbers; a few million are repeated, so that large inputs do not take minutes.
fn normal(context: &Arc<Context>, len: usize, stream: u64) -> Result<Buffer<bf16>, Error> {
    let values = Rng::new(7, stream).normal(&[len.min(4_194_301)], 1.0);
    let values: Vec<bf16> = values.f32s().iter().map(|&x| bf16::from_f32(x)).collect();
    let repeated: Vec<bf16> = values.iter().copied().cycle().take(len).collect();
    Buffer::from_slice(context, &repeated)
}

/// ‖x − y‖ / ‖y‖ and the largest difference; a NaN stays one.
fn error<'a>(x: impl Iterator<Item = f32>, y: impl Iterator<Item = &'a f32>) -> (f64, f64) {
    let (mut difference, mut norm, mut largest) = (0.0f64, 0.0f64, 0.0f64);
    for (x, &y) in x.zip(y) {
        let d = f64::from(x) - f64::from(y);
        difference += d * d;
        norm += f64::from(y) * f64::from(y);
        largest = if d.is_nan() { d } else { largest.max(d.abs()) };
    }
    ((difference / norm.max(1e-30)).sqrt(), largest)
}

struct Inputs {
    problem: Problem,
    qkv: Buffer<bf16>,
    dy: Buffer<bf16>,
    y: Buffer<bf16>,
    log_sum_exp: Buffer<f32>,
    dqkv: Buffer<bf16>,
}

impl Inputs {
    fn new(context: &Arc<Context>, problem: Problem) -> Result<Self, Error> {
        let (n, heads) = (problem.b * problem.t, problem.heads);
        Ok(Self {
            problem,
            qkv: normal(context, n * heads.qkv_width(), 1)?,
            dy: normal(context, n * heads.q_width(), 2)?,
            // NaN: what is not written shows.
            y: Buffer::filled(context, n * heads.q_width(), 0xff)?,
            log_sum_exp: Buffer::filled(context, problem.n_rows(), 0xff)?,
            dqkv: Buffer::filled(context, problem.qkv_len(), 0xff)?,
        })
    }
}

/// Median of a few series of launches, in seconds per launch.
fn time(context: &Arc<Context>, mut launch: impl FnMut() -> Result<(), Error>) -> Result<f64, Error> {
    let once_only = std::env::var("ONCE").is_ok();
    let mut series = |launches: usize| -> Result<f64, Error> {
        let start = Event::record(context)?;
        for _ in 0..launches {
            launch()?;
        }
        Ok(Event::record(context)?.since(&start)?.as_secs_f64() / launches as f64)
    };
    series(2)?;
    if once_only {
        return Ok(1.0);
    }
    let once = series(3)?;
    let launches = ((0.02 / once) as usize).clamp(3, 200);
    let mut times = (0..5).map(|_| series(launches)).collect::<Result<Vec<_>, _>>()?;
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn print_speed(what: &str, seconds: f64, flops: f64) {
    let rate = flops / seconds;
    println!("{what} {:>9.3} ms {:>6.1} TFLOP/s {:>5.1} %", seconds * 1e3, rate / 1e12, 100.0 * rate / PEAK_FLOPS);
}

fn check_forward(
    context: &Arc<Context>,
    inputs: &mut Inputs,
    expected: &Expected,
    tiling: ForwardTiling,
) -> Result<(), Error> {
    let p = inputs.problem;
    let forward = Forward::new(context, p.heads.head_dim, p.causal, tiling)?;
    inputs.y.fill(0xff)?;
    inputs.log_sum_exp.fill(0xff)?;
    forward.launch(&p, &inputs.qkv, &mut inputs.y, &mut inputs.log_sum_exp)?;
    let y = inputs.y.to_vec()?;
    let (relative, largest) = error(y.iter().map(|x| x.to_f32()), expected.y.iter());
    let statistics = inputs.log_sum_exp.to_vec()?;
    let (_, statistic) = error(statistics.iter().copied(), expected.log_sum_exp.iter());
    // Launched again, the tile counter must be as it was found.
    forward.launch(&p, &inputs.qkv, &mut inputs.y, &mut inputs.log_sum_exp)?;
    let same = inputs.y.to_vec()? == y;
    let verdict = if relative < 6e-3 && statistic < 1e-3 && same { "ok" } else { "WRONG" };
    println!("{} {tiling:?} y {relative:.1e} (max {largest:.1e}) lse {statistic:.1e} {verdict}", name(&p));
    Ok(())
}

fn check_backward(
    context: &Arc<Context>,
    inputs: &mut Inputs,
    expected: &Expected,
    tiling: BackwardTiling,
) -> Result<(), Error> {
    let p = inputs.problem;
    let heads = p.heads;
    let forward = Forward::new(context, heads.head_dim, p.causal, ForwardTiling::of(heads.head_dim, p.t))?;
    forward.launch(&p, &inputs.qkv, &mut inputs.y, &mut inputs.log_sum_exp)?;
    let backward = Backward::new(context, heads.head_dim, p.causal, tiling)?;
    let mut workspace = BackwardWorkspace::new(context, &p, tiling)?;
    let mut results = Vec::new();
    for _ in 0..3 {
        inputs.dqkv.fill(0xff)?;
        let Inputs { qkv, y, log_sum_exp, dy, dqkv, .. } = inputs;
        backward.launch(&p, &mut workspace, qkv, y, log_sum_exp, dy, dqkv)?;
        results.push(dqkv.to_vec()?);
    }
    let same = results.iter().all(|x| x.iter().zip(&results[0]).all(|(x, y)| x.to_bits() == y.to_bits()));
    let part = |from: usize, len: usize| {
        let columns = move |at: usize| (from..from + len).contains(&(at % heads.qkv_width()));
        let x = results[0].iter().enumerate().filter(move |x| columns(x.0)).map(|x| x.1.to_f32());
        error(x, expected.dqkv.iter().enumerate().filter(move |x| columns(x.0)).map(|x| x.1))
    };
    let (q, kv) = (heads.q_width(), heads.k_width());
    let errors = [part(0, q), part(q, kv), part(q + kv, kv)];
    let verdict = if errors.iter().all(|x| x.0 < 1e-2 || x.1 < 1e-6) && same { "ok" } else { "WRONG" };
    let [dq, dk, dv] = errors.map(|(relative, largest)| format!("{relative:.1e} (max {largest:.1e})"));
    println!("{} {tiling:?} dq {dq} dk {dk} dv {dv} same bits {same} {verdict}", name(&p));
    Ok(())
}

/// What PyTorch is to find too. `b 2 · t 500 · h 6 · g 2 · e 128`, causal, is written in the file's metadata.
fn export(context: &Arc<Context>, file: &Path) -> Result<(), Error> {
    let p = problem((2, 500, 6, 2, 128, true));
    let heads = p.heads;
    let mut inputs = Inputs::new(context, p)?;
    let tiling = BackwardTiling::of(heads.head_dim, p.t);
    let mut workspace = BackwardWorkspace::new(context, &p, tiling)?;
    let Inputs { qkv, y, log_sum_exp, dy, dqkv, .. } = &mut inputs;
    Forward::new(context, heads.head_dim, p.causal, ForwardTiling::of(heads.head_dim, p.t))?.launch(
        &p,
        qkv,
        y,
        log_sum_exp,
    )?;
    Backward::new(context, heads.head_dim, p.causal, tiling)?.launch(
        &p,
        &mut workspace,
        qkv,
        y,
        log_sum_exp,
        dy,
        dqkv,
    )?;
    let tensor = |x: &Buffer<bf16>, width: usize| -> Result<Tensor, Error> {
        Ok(Tensor::from_f32(&[p.b, p.t, width], x.to_vec()?.iter().map(|x| x.to_f32()).collect()))
    };
    let tensors = [
        ("qkv".to_owned(), tensor(qkv, heads.qkv_width())?),
        ("dy".to_owned(), tensor(dy, heads.q_width())?),
        ("y".to_owned(), tensor(y, heads.q_width())?),
        ("dqkv".to_owned(), tensor(dqkv, heads.qkv_width())?),
    ];
    let numbers = [("h", heads.n_heads), ("g", heads.n_kv_heads), ("e", heads.head_dim)];
    let metadata = numbers.map(|(name, value)| (name.to_owned(), value.to_string()));
    tensor::io::save(file, &tensors, metadata.into_iter().collect())
}

fn run(arguments: &[String]) -> Result<(), Error> {
    let value =
        |flag: &str| arguments.iter().position(|x| x == flag).and_then(|at| arguments.get(at + 1)).map(PathBuf::from);
    let has = |word: &str| arguments.iter().any(|x| x == word);
    let toolkit = Toolkit::find(&value("--toolkit").into_iter().collect::<Vec<_>>());
    let context = match Context::open(0, toolkit, value("--kernels")) {
        Ok(context) => context,
        Err(error @ Error::NoDevice { .. }) => {
            println!("skipped: {error}");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    println!("{} · {} · {} multiprocessors", context.name(), context.arch(), context.n_multiprocessors());
    if let Some(file) = value("--export") {
        export(&context, &file)?;
    }
    let forward_tilings = |p: &Problem| {
        let e = p.heads.head_dim;
        let best = ForwardTiling::of(e, p.t);
        let all = [(2, 128, 2), (3, 128, 2), (2, 128, 4), (3, 128, 4), (3, 128, 3), (2, 64, 4)]
            .map(|(consumers, block_k, stages)| ForwardTiling { consumers, block_k, stages });
        let others = all.into_iter().filter(move |x| {
            has("variants") && *x != best && !(e == 128 && x.consumers * x.stages > 4 && x.block_k == 128)
        });
        std::iter::once(best).chain(others)
    };

    let backward_tilings = |p: &Problem| {
        let tilings = BackwardTiling::variants(p.heads.head_dim, p.t);
        let n = if has("variants") { tilings.len() } else { 1 };
        tilings.into_iter().take(n)
    };

    for shape in CHECKS.into_iter().filter(|_| !has("unchecked")) {
        let p = problem(shape);
        let mut inputs = Inputs::new(&context, p)?;
        let expected = reference(&context, &p, &inputs.qkv, &inputs.dy)?;
        if has("forward") {
            for tiling in forward_tilings(&p) {
                check_forward(&context, &mut inputs, &expected, tiling)?;
            }
        }
        if has("backward") {
            for tiling in backward_tilings(&p) {
                check_backward(&context, &mut inputs, &expected, tiling)?;
            }
        }
    }

    let only: Option<usize> = value("--shape").and_then(|x| x.to_str()?.parse().ok());
    for (_, shape) in SHAPES.into_iter().enumerate().filter(|x| only.is_none_or(|only| only == x.0)) {
        let p = problem(shape);
        let mut inputs = Inputs::new(&context, p)?;
        if has("forward") {
            for tiling in forward_tilings(&p) {
                let forward = Forward::new(&context, p.heads.head_dim, p.causal, tiling)?;
                let seconds =
                    time(&context, || forward.launch(&p, &inputs.qkv, &mut inputs.y, &mut inputs.log_sum_exp))?;
                let ForwardTiling { consumers, block_k, stages } = tiling;
                print_speed(
                    &format!("{} forward  {consumers}·64×{block_k} {stages}", name(&p)),
                    seconds,
                    p.forward_flops(),
                );
            }
        }
        if has("backward") {
            let e = p.heads.head_dim;
            Forward::new(&context, e, p.causal, ForwardTiling::of(e, p.t))?.launch(
                &p,
                &inputs.qkv,
                &mut inputs.y,
                &mut inputs.log_sum_exp,
            )?;
            for tiling in backward_tilings(&p) {
                let backward = Backward::new(&context, e, p.causal, tiling)?;
                let mut workspace = BackwardWorkspace::new(&context, &p, tiling)?;
                let Inputs { qkv, y, log_sum_exp, dy, dqkv, .. } = &mut inputs;
                let seconds = time(&context, || backward.launch(&p, &mut workspace, qkv, y, log_sum_exp, dy, dqkv))?;
                let delayed = if tiling.delayed { " delayed" } else { "" };
                let reversed = if tiling.reversed { " reversed" } else { "" };
                print_speed(
                    &format!("{} backward {}×128 {}{delayed}{reversed}", name(&p), tiling.block_q, tiling.stages),
                    seconds,
                    2.5 * p.forward_flops(),
                );
            }
        }
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
