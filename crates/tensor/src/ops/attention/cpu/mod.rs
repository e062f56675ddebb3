//! Tiles of scores that stay in the cache of a core.
//!
//! A task walks blocks of [`QUERIES`] rows; for each it walks tiles of [`KEYS`] keys, all products small enough to run
//! on the task's own thread. The cuts depend on the shapes alone.

mod forward;
mod backward;

use crate::cpu::gemm::MatRef;
use crate::ops::Heads;

pub(super) use backward::{Saved, backward};
pub(super) use forward::forward;

/// Queries in a block.
const QUERIES: usize = 64;
/// Keys in a tile.
const KEYS: usize = 256;
/// Elements between the rows of a tile of scores: not a power of two, so that a column does not fall on few cache sets.
const SCORES_STRIDE: usize = KEYS + 16;

/// Rows of a matrix inside a larger one.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    /// Starts at the first row.
    pub(super) data: &'a [f32],
    /// Elements between the starts of neighbouring rows.
    pub(super) stride: usize,
}

impl<'a> Rows<'a> {
    /// The same rows from a column on.
    fn from_column(self, column: usize) -> Self {
        Rows { data: &self.data[column..], ..self }
    }

    /// The matrix from a row on.
    fn from_row(self, row: usize) -> MatRef<'a> {
        MatRef { data: &self.data[row * self.stride..], row_stride: self.stride, col_stride: 1 }
    }

    /// Elements `0..n` of a row.
    fn row(self, row: usize, n: usize) -> &'a [f32] {
        &self.data[row * self.stride..][..n]
    }
}

/// One sequence of the batch; rows hold all heads.
pub(super) struct Sequence<'a> {
    /// `[t, h·e]`.
    pub(super) q: Rows<'a>,
    /// `[past + t, g·e]`.
    pub(super) k: Rows<'a>,
    /// `[past + t, g·e]`.
    pub(super) v: Rows<'a>,
    /// Queries.
    pub(super) t: usize,
    /// Keys before the first query.
    pub(super) past: usize,
}

impl<'a> Sequence<'a> {
    /// A sequence of a fused projection `[b, t, (h + 2g)·e]`.
    pub(super) fn of_fused(qkv: &'a [f32], heads: &Heads, batch: usize, t: usize) -> Self {
        let stride = heads.qkv_width();
        let rows = &qkv[batch * t * stride..][..t * stride];
        let from_column = |column: usize| Rows { data: rows.get(column..).unwrap_or_default(), stride };
        Sequence {
            q: from_column(0),
            k: from_column(heads.q_width()),
            v: from_column(heads.q_width() + heads.kv_width()),
            t,
            past: 0,
        }
    }
}

/// How many of the first `n` keys of the tile at `first_key` a query at `position` sees.
#[inline(always)]
fn n_visible(position: usize, first_key: usize, n: usize) -> usize {
    (position + 1).saturating_sub(first_key).min(n)
}
