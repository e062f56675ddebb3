//! Speed of attention beside the matrix products of the block it lives in: `cargo bench -p tensor --bench attention`.

#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use tensor::ops::{self, Heads, RopeLayout, RopeTable};
use tensor::random::Rng;
use tensor::{Gradients, Tensor};

/// The shortest of a few runs.
fn best(mut run: impl FnMut()) -> Duration {
    run();
    let once = || {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    std::iter::repeat_with(once).take(7).min().expect("seven runs")
}

fn report(what: &str, time: Duration, flops: f64) {
    println!("{what:<44} {:>9.3} ms {:>8.1} GFLOP/s", time.as_secs_f64() * 1e3, flops / time.as_secs_f64() / 1e9);
}

/// Forward, and forward with backward, of `f` of tracked inputs.
fn forward_backward(name: &str, flops: f64, inputs: &[&Tensor], f: impl Fn(&[Tensor]) -> Tensor) -> Duration {
    let constants: Vec<Tensor> = inputs.iter().map(|x| x.detached()).collect();
    let forward = best(|| drop(black_box(f(&constants))));
    let leaves: Vec<Tensor> = inputs.iter().map(|x| x.tracked()).collect();
    let weights = Rng::new(1, 9).normal(f(&constants).shape(), 1.0);
    let sum = |x: &Tensor| ops::weighted_sum(x, &weights);
    // The contraction to a scalar is measured apart.
    let y = f(&constants).tracked();
    let overhead = best(|| sum(&y).backward_into(1.0, &mut Gradients::new()));
    let both = best(|| sum(&f(&leaves)).backward_into(1.0, &mut Gradients::new())).saturating_sub(overhead);
    report(&format!("{name} forward"), forward, flops);
    report(&format!("{name} forward + backward"), both, 3.0 * flops);
    both
}

fn main() {
    let rng = |stream| Rng::new(1, stream);
    for (b, t, h, g, e) in [(8, 256, 16, 16, 32), (8, 256, 16, 4, 32), (2, 1024, 12, 12, 64), (1, 2048, 16, 4, 128)] {
        let heads = Heads::of_one_size(h, g, e);
        let (n, d) = (b * t, heads.q_width());
        println!("\nb {b} · t {t} · h {h} · g {g} · e {e}");

        let qkv = rng(1).normal(&[b, t, heads.qkv_width()], 1.0);
        // Half of the scores are behind the diagonal; FlashAttention counts the backward pass as 2.5 forward passes.
        let flops = 4.0 * (b * h * t * t * e) as f64 / 2.0;
        let scale = 1.0 / (e as f32).sqrt();
        let attention = forward_backward("attention", flops, &[&qkv], |x| ops::attention(&x[0], &heads, scale));

        let table = RopeTable::new(e, t, 10_000.0, RopeLayout::HalfSplit);
        forward_backward("rope", 6.0 * (n * (h + g) * e / 2) as f64, &[&qkv], |x| ops::rope(&x[0], &heads, &table, 0));

        // qkv, output, and a gated feed-forward layer of 8/3 the width.
        let mut products = Duration::ZERO;
        for (i, o) in [(d, heads.qkv_width()), (d, d), (d, 8 * d / 3), (d, 8 * d / 3), (8 * d / 3, d)] {
            let (x, w) = (rng(2).normal(&[n, i], 1.0), rng(3).normal(&[o, i], 1.0));
            let name = format!("linear {i} → {o}");
            products +=
                forward_backward(&name, 2.0 * (n * i * o) as f64, &[&x, &w], |x| ops::linear(&x[0], &x[1], None));
        }
        println!("attention / matrix products: {:.1} %", 100.0 * attention.as_secs_f64() / products.as_secs_f64());

        // One new position behind t − 1 cached ones, whose keys grow by a row per call.
        let step = rng(4).normal(&[1, 1, heads.qkv_width()], 1.0);
        let mut keys = rng(5).normal(&[t - 1, heads.k_width()], 1.0).f32s().to_vec();
        let mut values = keys.clone();
        let decode = best(|| {
            black_box(ops::cached_attention(&step, &heads, scale, &mut keys, &mut values));
        });
        report("cached attention, one position", decode, 4.0 * (h * t * e) as f64);
    }

    let (n, d, v) = (2048, 512, 8192);
    println!("\nn {n} · d {d} · v {v}");
    let (x, w) = (rng(1).normal(&[n, d], 0.1), rng(2).normal(&[v, d], 0.1));
    let targets = Tensor::from_u32(&[n], (0..n).map(|i| (i * 31 % v) as u32).collect());
    let flops = 2.0 * (n * d * v) as f64;
    forward_backward("linear cross-entropy", flops, &[&x, &w], |x| {
        ops::linear_cross_entropy(&x[0], &x[1], &targets, n as f32)
    });
    forward_backward("linear, then cross-entropy", flops, &[&x, &w], |x| {
        ops::cross_entropy(&ops::linear(&x[0], &x[1], None), &targets, n as f32)
    });
}
