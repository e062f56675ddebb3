//! Attention to keys and values that were computed before: prefill and decoding.

use super::{Heads, cpu, cuda};
use crate::{DType, Device, Tensor, ops};

/// The keys and values of one layer for one sequence, wherever its activations are.
#[derive(Debug, Default)]
pub struct KeyValueCache {
    rows: Rows,
}

/// Rows of `[g·e]`, one per position.
#[derive(Debug, Default)]
enum Rows {
    #[default]
    None,
    Host {
        keys: Vec<f32>,
        values: Vec<f32>,
    },
    /// Tensors of `[capacity, g·e]` and `[capacity, g·f]`, of which the first `n` rows are in use.
    Device {
        keys: Tensor,
        values: Tensor,
        n: usize,
    },
}

impl Clone for KeyValueCache {
    /// Copies the elements: either cache may grow on its own.
    fn clone(&self) -> Self {
        let rows = match &self.rows {
            Rows::None => Rows::None,
            Rows::Host { keys, values } => Rows::Host { keys: keys.clone(), values: values.clone() },
            Rows::Device { keys, values, n } => {
                let [keys, values] = [keys, values].map(|x| x.copied_to(x.device()));
                Rows::Device { keys, values, n: *n }
            }
        };
        Self { rows }
    }
}

/// [`cached_attention`] on any device. On a GPU, the dtype of the cache is that of the first `qkv_btc`.
///
/// # Shapes
/// `qkv_btc: [1, t, (h + g)·e + g·f]`, already rotated → `[1, t, h·f]`.
///
/// # Panics
/// If the shapes do not fit, `qkv_btc` is tracked, or it is not on the device or of the dtype of those before it.
#[track_caller]
pub fn attention_with_cache(qkv_btc: &Tensor, heads: &Heads, scale: f32, cache: &mut KeyValueCache) -> Tensor {
    if qkv_btc.device() == Device::Cpu {
        if matches!(cache.rows, Rows::None) {
            cache.rows = Rows::Host { keys: Vec::new(), values: Vec::new() };
        }
        let Rows::Host { keys, values } = &mut cache.rows else {
            panic!("attention_with_cache: the cache is on a GPU, but qkv on the CPU");
        };
        return cached_attention(qkv_btc, heads, scale, keys, values);
    }

    let t = check_one_sequence(qkv_btc, heads);
    if t == 0 {
        return Tensor::unspecified_on(qkv_btc.device(), &[1, 0, heads.y_width()], qkv_btc.dtype());
    }
    let past = match &cache.rows {
        Rows::None => 0,
        Rows::Device { n, .. } => *n,
        Rows::Host { .. } => panic!("attention_with_cache: the cache is on the CPU, but qkv on {}", qkv_btc.device()),
    };
    reserve(&mut cache.rows, past + t, qkv_btc, heads);
    let Rows::Device { keys, values, n } = &mut cache.rows else { unreachable!("reserved above") };
    cuda::cached::append([&mut *keys, &mut *values], past, qkv_btc, heads);
    *n = past + t;
    cuda::cached::attend(qkv_btc, heads, scale, &cuda::cached::Rows { keys, values, n: *n })
}

/// Makes room for `n` rows on the GPU of `qkv`; grows by doubling.
fn reserve(rows: &mut Rows, n: usize, qkv: &Tensor, heads: &Heads) {
    let capacity = if let Rows::Device { keys, .. } = rows { keys.rows().0 } else { 0 };
    if n <= capacity {
        return;
    }
    let capacity = n.next_multiple_of(256).max(2 * capacity);
    let [mut keys, mut values] = [heads.k_width(), heads.v_width()]
        .map(|width| Tensor::unspecified_on(qkv.device(), &[capacity, width], qkv.dtype()));
    let mut used = 0;
    if let Rows::Device { keys: old_keys, values: old_values, n } = &*rows {
        used = *n;
        let old = cuda::cached::Rows { keys: old_keys, values: old_values, n: used };
        cuda::cached::move_to([&mut keys, &mut values], &old, heads);
    }
    *rows = Rows::Device { keys, values, n: used };
}

/// The positions of a fused projection that can go through a cache.
#[track_caller]
fn check_one_sequence(qkv: &Tensor, heads: &Heads) -> usize {
    let (b, t) = heads.check("cached_attention", qkv);
    assert!(b == 1, "cached_attention: a cache holds one sequence, but qkv is {:?}", qkv.shape());
    assert!(!qkv.is_tracked(), "cached_attention: no gradient flows through a cache, but qkv is tracked");
    t
}

/// Appends the keys and values of new positions to a layer's cache, and attends from the new positions to everything
/// in it, causally. The cache is of f32 whatever the dtype of `qkv_btc`, which is that of the result. Equal to the last rows of [`attention`](super::attention) over the whole sequence.
///
/// # Shapes
/// `qkv_btc: [1, t, (h + g)·e + g·f]`, already rotated; `keys` and `values` hold `[n, g·e]` and `[n, g·f]` before, and
/// `n + t` rows after → `[1, t, h·f]`.
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
    let t = check_one_sequence(qkv_btc, heads);
    let (k_width, v_width) = (heads.k_width(), heads.v_width());
    assert!(
        qkv_btc.device() == Device::Cpu,
        "cached_attention: vectors hold a cache on the CPU only, but qkv is on {}\nhint: attention_with_cache",
        qkv_btc.device()
    );
    assert!(
        keys.len() / k_width * v_width == values.len() && keys.len().is_multiple_of(k_width),
        "cached_attention: the cache must hold as many keys as values in rows of {k_width} and {v_width}, not {} and {} \
         elements",
        keys.len(),
        values.len()
    );

    let past = keys.len() / k_width;
    let dtype = qkv_btc.dtype();
    let qkv_btc = &ops::cast(qkv_btc, DType::F32);
    for row in qkv_btc.f32s().chunks_exact(heads.qkv_width()) {
        let (key, value) = row[heads.q_width()..].split_at(k_width);
        keys.extend_from_slice(key);
        values.extend_from_slice(value);
    }
    let mut y = Tensor::unspecified(&[1, t, heads.y_width()], DType::F32);
    let mut log_sum_exp = vec![0.0; t * heads.n_heads];
    let sequence = cpu::Sequence {
        q: cpu::Rows { data: qkv_btc.f32s(), stride: heads.qkv_width() },
        k: cpu::Rows { data: keys, stride: k_width },
        v: cpu::Rows { data: values, stride: v_width },
        t,
        past,
    };
    cpu::forward(&[sequence], heads, scale, y.f32s_mut(), &mut log_sum_exp);
    ops::cast(&y, dtype)
}
