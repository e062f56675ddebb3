//! The speed of a device, measured: what the speed of training is compared with.

use std::time::{Duration, Instant};

use tensor::cpu::element::Element;
use tensor::cpu::gemm::{MatMut, MatRef, Parallel, gemm};
use tensor::cuda::{self, Event};
use tensor::random::Rng;
use tensor::{DType, Device, ops};

use crate::Error;

/// A GPU makes hundreds of products in this time, and a start waits for them.
const GPU_BUDGET: Duration = Duration::from_millis(60);

/// The rate of a large matrix product of `dtype` on `device`, in floating-point operations per second: the best of several
/// repetitions within `budget`.
///
/// # Errors
/// If the device fails.
pub fn matrix_product_rate(device: Device, dtype: DType, budget: Duration) -> Result<f64, Error> {
    match device {
        Device::Cpu => Ok(match dtype {
            DType::Bf16 => on_cpu::<half::bf16>(budget),
            _ => on_cpu::<f32>(budget),
        }),
        Device::Cuda(ordinal) => on_gpu(ordinal, dtype, budget),
    }
}

/// On all cores.
fn on_cpu<T: Element>(budget: Duration) -> f64 {
    const N: usize = 1024;
    let a: Vec<T> = (0..N * N).map(|i| T::narrow((i % 17) as f32 - 8.0)).collect();
    let mut c = vec![T::narrow(0.0); N * N];
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

/// On the device's clock.
fn on_gpu(ordinal: usize, dtype: DType, budget: Duration) -> Result<f64, Error> {
    const N: usize = 4096;
    /// Products between two looks at the clock.
    const ROUND: usize = 8;
    let context = cuda::context(ordinal)?;
    let (device, budget) = (Device::Cuda(ordinal), budget.min(GPU_BUDGET));
    let [x, y] =
        cuda::catch(|| [1, 2].map(|stream| ops::cast(&Rng::new(0, stream).normal_on(device, &[N, N], 1.0), dtype)))?;
    let start = Instant::now();
    let mut best = f64::INFINITY;
    loop {
        let begin = Event::record(&context)?;
        cuda::catch(|| (0..ROUND).for_each(|_| drop(ops::linear(&x, &y, None))))?;
        best = best.min(Event::record(&context)?.since(&begin)?.as_secs_f64() / ROUND as f64);
        if start.elapsed() >= budget {
            return Ok(2.0 * (N * N * N) as f64 / best);
        }
    }
}
