//! Causal attention with grouped queries: `y_i = Σ_{j ≤ i} softmax_j(scale · q_i·k_j) · v_j`.
//!
//! Vaswani et al., 2017, <https://arxiv.org/abs/1706.03762>, equation 1; grouped queries after Ainslie et al., 2023,
//! <https://arxiv.org/abs/2305.13245>. The scores are never held as a whole: the softmax is computed tile by tile, and
//! the backward pass recomputes the probabilities from the log-sum-exp of each row, as in FlashAttention-2 (Dao, 2023,
//! <https://arxiv.org/abs/2307.08691>, algorithms 1 and 2).

mod heads;
mod options;
mod cpu;
mod cached;
#[allow(unsafe_code)]
pub mod cuda;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use crate::cpu::element::{Element, for_dtype};
use crate::ops::add::{SumsOfColumns, summing};
use crate::ops::linear::linear_with_sums;
use crate::tensor::OnTape;
use crate::{DType, Device, Tensor, ops};

pub use cached::{KeyValueCache, attention_with_cache, cached_attention};
pub use heads::Heads;
pub use options::AttentionOptions;
use options::Rule;

// Dims: b batch · t position · h query heads · g key/value heads · e head size, f that of values · c (h + g)·e + g·f

/// Every position attends to itself and all before it, in each query head.
///
/// Query head `j` uses key and value head `j / (h / g)`. Besides its inputs, the output and one number per row and
/// head are kept for the backward pass.
///
/// # Shapes
/// `qkv_btc: [b, t, (h + g)·e + g·f]` → `[b, t, h·f]`.
///
/// # Panics
/// If the width is not that of `heads`.
#[track_caller]
pub fn attention(qkv_btc: &Tensor, heads: &Heads, scale: f32) -> Tensor {
    attention_with(qkv_btc, heads, &AttentionOptions::new(scale))
}

/// [`attention`] with options; also without the causal mask.
///
/// # Shapes
/// As [`attention`].
///
/// # Panics
/// If the width is not that of `heads`, an option does not fit it, or heads have more than 256 elements on a GPU.
#[track_caller]
pub fn attention_with(qkv_btc: &Tensor, heads: &Heads, options: &AttentionOptions<'_>) -> Tensor {
    attention_with_sums(qkv_btc, heads, options, None)
}

/// [`attention()`] of `x·Wᵀ + b`: two nodes of the tape, those of [`linear()`](super::linear()) and of attention. On a GPU, the
/// backward pass of attention makes the gradient of the bias on the way where it can, instead of a pass over memory.
///
/// # Shapes
/// `x: [b, t, d]`, `weight: [(h + 2g)·e, d]`, `bias: [(h + 2g)·e]` → `[b, t, h·e]`.
///
/// # Panics
/// As those two.
#[track_caller]
pub fn projected_attention(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, heads: &Heads, scale: f32) -> Tensor {
    // Nothing but attention sees the projection: its gradient is the whole one.
    let sums = summing(bias, SumsOfColumns::default());
    let qkv = linear_with_sums(x, weight, bias, sums.clone());
    attention_with_sums(&qkv, heads, &AttentionOptions::new(scale), sums)
}

/// [`attention_with`]; backward may leave the sums of the columns of the gradient of `qkv` in `sums`.
#[track_caller]
fn attention_with_sums(
    qkv_btc: &Tensor,
    heads: &Heads,
    options: &AttentionOptions<'_>,
    sums: Option<SumsOfColumns>,
) -> Tensor {
    let (b, t) = heads.check("attention", qkv_btc);
    let rule = Rule::new(options, heads, b, t, qkv_btc.device());
    let AttentionOptions { scale, causal, .. } = *options;
    let is_for_tiles = causal && rule.is_plain();
    let problem = cuda::Problem { b, t, heads: *heads, causal, scale };
    let (y, log_sum_exp) = match qkv_btc.device() {
        Device::Cpu => {
            let mut y = Tensor::unspecified(&[b, t, heads.y_width()], qkv_btc.dtype());
            let mut log_sum_exp = Tensor::unspecified(&[b, heads.n_kv_heads, t, heads.queries_per_kv()], DType::F32);
            for_dtype!(qkv_btc.dtype(), T => if is_for_tiles {
                let sequence = |batch| cpu::Sequence::of_fused(T::of(qkv_btc), heads, batch, t);
                let sequences: Vec<_> = (0..b).map(sequence).collect();
                cpu::forward(&sequences, heads, scale, T::of_mut(&mut y), log_sum_exp.f32s_mut());
            } else {
                cpu::forward_with(&rule, T::of(qkv_btc), heads, t, T::of_mut(&mut y));
            });
            (y, log_sum_exp)
        }
        Device::Cuda(_) => cuda::forward(&problem, &rule, qkv_btc),
    };

    let (qkv_, y_, heads) = (qkv_btc.clone(), y.clone(), *heads);
    Tensor::from_op(y, &[qkv_btc], move |dy, sink| {
        let dqkv = match qkv_.device() {
            Device::Cpu => {
                let mut dqkv = qkv_.new_gradient();
                for_dtype!(dqkv.dtype(), D => for_dtype!(qkv_.dtype(), T => if is_for_tiles {
                    let saved = cpu::Saved { qkv: T::of(&qkv_), y: T::of(&y_), log_sum_exp: log_sum_exp.f32s() };
                    cpu::backward(T::of(&dy), &saved, &heads, scale, t, D::of_mut(&mut dqkv));
                } else {
                    cpu::backward_with(&rule, T::of(&dy), T::of(&qkv_), &heads, t, D::of_mut(&mut dqkv));
                }));
                dqkv
            }
            Device::Cuda(_) => {
                let saved = cuda::Saved { qkv: &qkv_, y: &y_, log_sum_exp: &log_sum_exp };
                cuda::backward(&problem, &rule, &saved, &dy, sums.as_ref())
            }
        };
        // A projection is seldom a leaf: outside tests this shares the elements.
        sink.add(&qkv_, ops::cast(&dqkv, qkv_.gradient_dtype()));
    })
}
