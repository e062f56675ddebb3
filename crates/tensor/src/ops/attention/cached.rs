//! Attention to keys and values that were computed before: prefill and decoding.

use super::{Heads, cpu};
use crate::{DType, Tensor};

/// Appends the keys and values of new positions to a layer's cache, and attends from the new positions to everything
/// in it, causally. Equal to the last rows of [`attention`](super::attention) over the whole sequence.
///
/// # Shapes
/// `qkv_btc: [1, t, (h + 2g)·e]`, already rotated; `keys` and `values` hold `[n, g·e]` before and `[n + t, g·e]` after
/// → `[1, t, h·e]`.
///
/// # Panics
/// If the shapes do not fit, or `qkv_btc` is tracked: this operation has no backward.
#[track_caller]
pub fn cached_attention(
    qkv_btc: &Tensor,
    heads: &Heads,
    scale: f32,
    keys: &mut Vec<f32>,
    values: &mut Vec<f32>,
) -> Tensor {
    let (b, t) = heads.check("cached_attention", qkv_btc);
    let kv_width = heads.kv_width();
    assert!(b == 1, "cached_attention: a cache holds one sequence, but qkv is {:?}", qkv_btc.shape());
    assert!(!qkv_btc.is_tracked(), "cached_attention: no gradient flows through a cache, but qkv is tracked");
    assert!(
        keys.len() == values.len() && keys.len().is_multiple_of(kv_width),
        "cached_attention: the cache must hold as many keys as values in rows of {kv_width}, not {} and {} elements",
        keys.len(),
        values.len()
    );

    let past = keys.len() / kv_width;
    for row in qkv_btc.f32s().chunks_exact(heads.qkv_width()) {
        let (key, value) = row[heads.q_width()..].split_at(kv_width);
        keys.extend_from_slice(key);
        values.extend_from_slice(value);
    }
    let mut y = Tensor::unspecified(&[1, t, heads.q_width()], DType::F32);
    let mut log_sum_exp = vec![0.0; t * heads.n_heads];
    let sequence = cpu::Sequence {
        q: cpu::Rows { data: qkv_btc.f32s(), stride: heads.qkv_width() },
        k: cpu::Rows { data: keys, stride: kv_width },
        v: cpu::Rows { data: values, stride: kv_width },
        t,
        past,
    };
    cpu::forward(&[sequence], heads, scale, y.f32s_mut(), &mut log_sum_exp);
    y
}
