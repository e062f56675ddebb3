//! The output head and its loss in one: `cross_entropy(linear(x, weight), targets)`, without ever holding all logits.
//!
//! Logits of a large vocabulary are the largest activation of a small model. Here they exist for a few rows at a time,
//! and because the gradient of the loss with respect to them is known at once, the gradients of `x` and of the weight
//! are computed in the forward pass already: the logits are never computed again. That deviates from the usual order of
//! things, as in the Liger kernels (Hsu et al., 2024, <https://arxiv.org/abs/2410.10989>, section 3.2): the forward
//! pass takes the time of both, and the backward pass only scales.

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

use crate::cpu::element::{Element, for_dtype};
use crate::ops::{cross_entropy::check_targets, scale_in_place};
use crate::tensor::OnTape;
use crate::{DType, Device, Tensor};

// Dims: n rows (all leading dimensions of x) · d inputs · v classes

/// Most rows in a chunk of logits on the CPU in f32.
const MAX_ROWS: usize = 256;
/// Most logits in a chunk of several rows on the CPU in f32: 16 MiB.
const MAX_LOGITS: usize = 1 << 22;
/// The same on a GPU: 1 GiB in bf16. Few chunks, because each of them reads and writes the weight's whole gradient.
const MAX_LOGITS_CUDA: usize = 1 << 29;

/// How many rows of logits [`linear_cross_entropy`] holds at a time for a vocabulary of `v` in `dtype` on `device`.
pub fn logits_chunk_rows(v: usize, dtype: DType, device: Device) -> usize {
    match device {
        // In bf16, where products are several times faster, more rows share the reading of the weight and its gradient.
        Device::Cpu if dtype == DType::Bf16 => (4 * MAX_LOGITS / v.max(1)).clamp(1, 4 * MAX_ROWS),
        Device::Cpu => (MAX_LOGITS / v.max(1)).clamp(1, MAX_ROWS),
        // A power of two, so that chunks are as long as one another.
        Device::Cuda(_) => 1 << (MAX_LOGITS_CUDA / v.max(1)).clamp(1, 1 << 20).ilog2(),
    }
}

/// [`cross_entropy`](super::cross_entropy) of the logits `x·Wᵀ`: the sum of the rows' negative log-likelihoods (nats)
/// over `divisor`.
///
/// Memory: [`logits_chunk_rows`] rows of logits (at most 16 MiB on the CPU, 32 MiB in bf16, 1 GiB of bf16 on a GPU, or one
/// row), and the gradients of those of `x` and the weight that are tracked. Logits have the dtype of `x`. Targets are
/// checked as in [`cross_entropy`](super::cross_entropy).
///
/// # Shapes
/// `x_nd: [..., d]`, `weight_vd: [v, d]`, `targets`: u32, one for each row of `x` → `[]`.
///
/// # Panics
/// If the shapes or dtypes do not fit, a target on the CPU is `v` or larger and not [`IGNORED`](super::IGNORED), or the
/// divisor is not positive.
#[track_caller]
pub fn linear_cross_entropy(x_nd: &Tensor, weight_vd: &Tensor, targets: &Tensor, divisor: f32) -> Tensor {
    let (n, d) = x_nd.rows();
    let &[v, weight_d] = weight_vd.shape() else {
        panic!("linear_cross_entropy: the weight must be [v, d], not {:?}", weight_vd.shape())
    };
    assert!(
        weight_d == d,
        "linear_cross_entropy: x is {:?}, so the weight must be [_, {d}], not [{v}, {weight_d}]",
        x_nd.shape()
    );
    check_targets("linear_cross_entropy", x_nd, targets, n, v, divisor);

    let gradient_of = |x: &Tensor| x.is_tracked().then(|| x.new_gradient());
    let (mut dx, mut dweight) = (gradient_of(x_nd), gradient_of(weight_vd));
    let loss = match x_nd.device() {
        Device::Cpu => {
            let dtype_of = |gradient: &Option<Tensor>| gradient.as_ref().map_or(DType::F32, Tensor::dtype);
            let (dx_dtype, dweight_dtype) = (dtype_of(&dx), dtype_of(&dweight));
            let loss = for_dtype!(x_nd.dtype(), T => for_dtype!(dx_dtype, DX => for_dtype!(dweight_dtype, DW => {
                let (x, weight) = (T::of(x_nd), T::of(weight_vd));
                let gradients = cpu::Gradients {
                    dx: dx.as_mut().map(DX::of_mut),
                    dweight: dweight.as_mut().map(DW::of_mut),
                    scale: 1.0 / divisor,
                };
                cpu::loss_and_gradients(&cpu::Inputs { x, weight, targets: targets.u32s(), d, v }, gradients)
            })));
            let loss = loss / f64::from(divisor);
            Tensor::from_f32(&[], vec![loss as f32])
        }
        Device::Cuda(_) => {
            let gradients = cuda::Gradients { dx: dx.as_mut(), dweight: dweight.as_mut() };
            let rows_per_chunk = logits_chunk_rows(v, x_nd.dtype(), x_nd.device());
            cuda::loss_and_gradients(x_nd, weight_vd, targets, gradients, divisor, rows_per_chunk)
        }
    };

    let (x_, weight_) = (x_nd.place(), weight_vd.place());
    Tensor::from_op(loss, &[x_nd, weight_vd], move |dloss, sink| {
        let scale = dloss.item();
        for (input, gradient) in [(weight_, dweight), (x_, dx)] {
            let Some(mut gradient) = gradient else { continue };
            if scale != 1.0 {
                scale_in_place(&mut gradient, scale);
            }
            sink.add(&input, gradient);
        }
    })
}
