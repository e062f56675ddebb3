//! Attention to a cache of keys and values on a GPU.

use super::{definitions, portable};
use crate::cuda::{Arch, Arg, ELEMENT, Source};
use crate::ops::Heads;
use crate::ops::row_kernel::cuda_type;
use crate::{DType, Tensor};

const CACHED: (&str, &str) = ("attention_cached.cu", include_str!("../attention_cached.cu"));

/// Keys that a block looks at at a time.
const KEYS: usize = 16;

/// The keys and values of some positions, as rows of `[g·e]` and `[g·f]`.
pub(in super::super) struct Rows<'a> {
    pub(in super::super) keys: &'a Tensor,
    pub(in super::super) values: &'a Tensor,
    pub(in super::super) n: usize,
}

fn source(dtype: DType, head_dim: usize, v_head_dim: usize) -> Source {
    // As many elements of a 16-byte access as divide both kinds of heads.
    let width = (16 / dtype.bytes()).min(1 << (head_dim | v_head_dim).trailing_zeros());
    let mut options = vec![format!("-DELEMENT={}", cuda_type(dtype))];
    options.extend(definitions(&[("HEAD_DIM", head_dim), ("V_HEAD_DIM", v_head_dim), ("WIDTH", width)]));
    Source { name: "attention_cached", parts: &[ELEMENT, CACHED], options }
}

/// Sources for CI, with the architectures they must compile for.
pub(super) fn sources() -> Vec<(Source, &'static [Arch])> {
    let sources = [source(DType::Bf16, 64, 64), source(DType::F32, 33, 33), source(DType::Bf16, 192, 128)];
    sources.map(|source| (source, Arch::PORTABLE)).to_vec()
}

/// Copies `n` rows of keys and values, at the addresses `k` and `v` and the strides' elements apart, to the rows from `first` on.
///
/// # Safety
/// There are so many rows of `heads` at those addresses, of the dtype of `keys`.
unsafe fn copy(
    [keys, values]: [&mut Tensor; 2],
    first: usize,
    [k, v]: [u64; 2],
    [k_stride, v_stride]: [usize; 2],
    n: usize,
    heads: &Heads,
) {
    let (k_width, v_width, capacity) = (heads.k_width(), heads.v_width(), keys.rows().0);
    let fits = keys.rows() == (capacity, k_width) && values.rows() == (capacity, v_width) && first + n <= capacity;
    assert!(fits && keys.is_unique() && values.is_unique(), "a cache of {keys:?} for {n} rows from {first} on");
    let dtype = keys.dtype();
    let kernel = keys.cuda().kernel(&source(dtype, heads.head_dim, heads.v_head_dim), "append", 0);
    let at = |x: &Tensor| Arg::Pointer(x.device_pointer() + (first * x.rows().1 * dtype.bytes()) as u64);
    let from = [Arg::Pointer(k), Arg::Pointer(v), k_stride.into(), v_stride.into()];
    let arguments = [&[at(keys), at(values)], from.as_slice(), &[k_width.into(), v_width.into(), n.into()]].concat();
    // SAFETY: both caches have rows first..first + n, which was checked; the source is promised.
    unsafe { kernel.run([(n * (k_width + v_width)).div_ceil(256), 1, 1], 256, &arguments) };
}

/// Copies the keys and values of `qkv: [1, t, (h + g)·e + g·f]` to the rows from `first` on of `keys: [n, g·e]` and
/// `values: [n, g·f]`.
pub(in super::super) fn append(to: [&mut Tensor; 2], first: usize, qkv: &Tensor, heads: &Heads) {
    assert!(to[0].dtype() == qkv.dtype(), "a cache of {} cannot take {}", to[0].dtype(), qkv.dtype());
    let of = |column: usize| qkv.device_pointer() + (column * qkv.dtype().bytes()) as u64;
    let from = [of(heads.q_width()), of(heads.q_width() + heads.k_width())];
    // SAFETY: qkv has t rows of the fused projection.
    unsafe { copy(to, first, from, [heads.qkv_width(); 2], qkv.rows().0, heads) };
}

/// Copies rows to the start of a larger cache.
pub(in super::super) fn move_to(to: [&mut Tensor; 2], rows: &Rows<'_>, heads: &Heads) {
    assert!(rows.n <= rows.keys.rows().0 && rows.keys.rows().0 == rows.values.rows().0);
    let from = [rows.keys.device_pointer(), rows.values.device_pointer()];
    // SAFETY: the cache has these rows.
    unsafe { copy(to, 0, from, [heads.k_width(), heads.v_width()], rows.n, heads) };
}

/// The queries of `qkv: [1, t, (h + g)·e + g·f]`, the last `t` of the cached positions, attend to those before them and to
/// themselves → `[1, t, h·f]`.
pub(in super::super) fn attend(qkv: &Tensor, heads: &Heads, scale: f32, rows: &Rows<'_>) -> Tensor {
    let (dtype, t, e, f) = (qkv.dtype(), qkv.rows().0, heads.head_dim, heads.v_head_dim);
    let mut y = Tensor::unspecified_on(qkv.device(), &[1, t, heads.y_width()], dtype);
    assert!(rows.keys.dtype() == dtype && rows.n <= rows.keys.rows().0 && t <= rows.n);
    if t != 1 {
        portable::forward_cached(heads, scale, qkv, rows, &mut y);
        return y;
    }
    assert!(e.max(f) <= 256, "attention: on a GPU, heads must have at most 256 elements, not {}", e.max(f));
    let device = qkv.cuda();
    let (source, h) = (source(dtype, e, f), heads.n_heads);
    // Enough blocks for the device, none without keys.
    let parts = rows.n.div_ceil(KEYS).min((4 * device.n_multiprocessors()).div_ceil(h));
    let mut partials = Tensor::unspecified_on(qkv.device(), &[h, parts, f + 2], DType::F32);
    let arguments = [
        (&mut partials).into(),
        qkv.into(),
        rows.keys.into(),
        rows.values.into(),
        rows.n.into(),
        heads.k_width().into(),
        heads.v_width().into(),
        heads.queries_per_kv().into(),
        scale.into(),
    ];
    // SAFETY: the queries are the first h·e elements of qkv; keys and values have n rows; every block writes its row.
    unsafe { device.kernel(&source, "attention_decode", 0).run([parts, h, 1], 128, &arguments) };
    let arguments = [(&mut y).into(), (&partials).into(), parts.into()];
    // SAFETY: y is [h·f], the partial results [h, parts, f + 2].
    unsafe { device.kernel(&source, "attention_decode_join", 0).run([h, 1, 1], 256, &arguments) };
    y
}
