//! The speed of this machine, measured: what the speed of training is compared with.

use std::time::{Duration, Instant};

use tensor::cpu::gemm::{MatMut, MatRef, Parallel, gemm};

/// The rate of a large single-precision matrix product on all cores, in floating-point operations per second: the best
/// of several repetitions within `budget`.
pub fn matrix_product_rate(budget: Duration) -> f64 {
    const N: usize = 1024;
    let a: Vec<f32> = (0..N * N).map(|i| (i % 17) as f32 - 8.0).collect();
    let mut c = vec![0.0; N * N];
    let start = Instant::now();
    let mut best = f64::INFINITY;
    loop {
        let begin = Instant::now();
        let (x, y) = (MatRef::row_major(&a, N), MatRef::row_major(&a, N));
        gemm(N, N, N, 1.0, x, y, 0.0, MatMut::row_major(&mut c, N), Parallel::Rayon);
        best = best.min(begin.elapsed().as_secs_f64());
        if start.elapsed() >= budget {
            return 2.0 * (N * N * N) as f64 / best;
        }
    }
}
