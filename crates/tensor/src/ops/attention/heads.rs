//! How the fused projection is divided into heads.

use crate::Tensor;

/// The heads of an attention layer. A row of its fused projection holds `n_heads` queries, then `n_kv_heads` keys, then
/// `n_kv_heads` values, each of `head_dim` elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

impl Heads {
    /// Elements of all queries of a position.
    pub fn q_width(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Elements of all keys of a position, or of all values.
    pub fn kv_width(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Elements of a row of the fused projection.
    pub fn qkv_width(&self) -> usize {
        self.q_width() + 2 * self.kv_width()
    }

    /// Query heads that share a key and value head.
    pub(crate) fn queries_per_kv(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }

    /// The batch and the length of a fused projection.
    #[track_caller]
    pub(crate) fn check(&self, operation: &str, qkv: &Tensor) -> (usize, usize) {
        let Heads { n_heads, n_kv_heads, head_dim } = *self;
        assert!(
            n_kv_heads > 0 && n_heads > 0 && n_heads.is_multiple_of(n_kv_heads) && head_dim > 0,
            "{operation}: {n_heads} query heads of {head_dim} elements cannot share {n_kv_heads} key heads evenly"
        );
        match *qkv.shape() {
            [b, t, c] if c == self.qkv_width() => (b, t),
            _ => panic!(
                "{operation}: qkv must be [b, t, {}] for {n_heads} query and {n_kv_heads} key heads of {head_dim}, not {:?}",
                self.qkv_width(),
                qkv.shape()
            ),
        }
    }
}
