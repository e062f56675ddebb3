//! How the fused projection is divided into heads.

use crate::Tensor;

/// The heads of an attention layer. A row of its fused projection holds `n_heads` queries, then `n_kv_heads` keys, each of
/// `head_dim` elements, then `n_kv_heads` values of `v_head_dim`. The two differ in multi-head latent attention (DeepSeek-V2,
/// 2024, <https://arxiv.org/abs/2405.04434>): 192 and 128.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Elements of a query and of a key.
    pub head_dim: usize,
    /// Elements of a value, and so of a head of the output.
    pub v_head_dim: usize,
}

impl Heads {
    /// Heads whose queries, keys and values are of one size.
    pub const fn of_one_size(n_heads: usize, n_kv_heads: usize, head_dim: usize) -> Self {
        Heads { n_heads, n_kv_heads, head_dim, v_head_dim: head_dim }
    }

    /// Elements of all queries of a position.
    pub fn q_width(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Elements of all keys of a position.
    pub fn k_width(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Elements of all values of a position.
    pub fn v_width(&self) -> usize {
        self.n_kv_heads * self.v_head_dim
    }

    /// Elements of the output for a position.
    pub fn y_width(&self) -> usize {
        self.n_heads * self.v_head_dim
    }

    /// Elements of a row of the fused projection.
    pub fn qkv_width(&self) -> usize {
        self.q_width() + self.k_width() + self.v_width()
    }

    /// Query heads that share a key and value head.
    pub(crate) fn queries_per_kv(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }

    /// The batch and the length of a fused projection.
    #[track_caller]
    pub(crate) fn check(&self, operation: &str, qkv: &Tensor) -> (usize, usize) {
        let Heads { n_heads, n_kv_heads, head_dim, v_head_dim } = *self;
        assert!(
            n_kv_heads > 0 && n_heads > 0 && n_heads.is_multiple_of(n_kv_heads) && head_dim > 0 && v_head_dim > 0,
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
