//! Tiles of scores that stay in the cache of a core.
//!
//! A task walks blocks of [`QUERIES`] rows; for each it walks tiles of [`KEYS`] keys, all products small enough to run
//! on the task's own thread. In bf16,
//! probabilities are rounded for the products behind them; sums stay in `f32`. The cuts depend on the shapes alone.

mod forward;
mod backward;
mod general;

use crate::DType;
use crate::cpu::element::{Element, convert};
use crate::cpu::gemm::MatRef;
use crate::ops::Heads;

pub(super) use backward::{Saved, backward};
pub(super) use forward::forward;
pub(super) use general::{backward_with, forward_with};

/// Queries in a block.
const QUERIES: usize = 64;
/// Keys in a tile.
const KEYS: usize = 256;
/// Elements between the rows of a tile of scores: not a power of two, so that a column does not fall on few cache sets.
const SCORES_STRIDE: usize = KEYS + 16;

/// Rows of a matrix inside a larger one.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a, T = f32> {
    /// Starts at the first row.
    pub(super) data: &'a [T],
    /// Elements between the starts of neighbouring rows.
    pub(super) stride: usize,
}

impl<'a, T: Element> Rows<'a, T> {
    /// The same rows from a column on.
    fn at_column(self, column: usize) -> Self {
        Rows { data: &self.data[column..], ..self }
    }

    /// The matrix from a row on.
    fn at_row(self, row: usize) -> MatRef<'a, T> {
        MatRef { data: &self.data[row * self.stride..], row_stride: self.stride, col_stride: 1 }
    }

    /// Elements `0..n` of a row.
    fn row(self, row: usize, n: usize) -> &'a [T] {
        &self.data[row * self.stride..][..n]
    }
}

/// One sequence of the batch; rows hold all heads.
pub(super) struct Sequence<'a, T = f32> {
    /// `[t, h·e]`.
    pub(super) q: Rows<'a, T>,
    /// `[past + t, g·e]`.
    pub(super) k: Rows<'a, T>,
    /// `[past + t, g·f]`.
    pub(super) v: Rows<'a, T>,
    /// Queries.
    pub(super) t: usize,
    /// Keys before the first query.
    pub(super) past: usize,
}

impl<'a, T: Element> Sequence<'a, T> {
    /// A sequence of a fused projection `[b, t, (h + g)·e + g·f]`.
    pub(super) fn of_fused(qkv: &'a [T], heads: &Heads, batch: usize, t: usize) -> Self {
        let stride = heads.qkv_width();
        let rows = &qkv[batch * t * stride..][..t * stride];
        let at_column = |column: usize| Rows { data: rows.get(column..).unwrap_or_default(), stride };
        Sequence {
            q: at_column(0),
            k: at_column(heads.q_width()),
            v: at_column(heads.q_width() + heads.k_width()),
            t,
            past: 0,
        }
    }
}

/// One head's part of a block: the keys and values that its queries may see.
#[derive(Clone, Copy)]
struct KeyHead<'a, T> {
    k: Rows<'a, T>,
    v: Rows<'a, T>,
    head_dim: usize,
    v_head_dim: usize,
}

impl<'a, T: Element> KeyHead<'a, T> {
    fn of(sequence: &Sequence<'a, T>, heads: &Heads, kv_head: usize) -> Self {
        let Heads { head_dim, v_head_dim, .. } = *heads;
        let (k, v) = (sequence.k.at_column(kv_head * head_dim), sequence.v.at_column(kv_head * v_head_dim));
        KeyHead { k, v, head_dim, v_head_dim }
    }
}

/// A tile as an operand of a product with elements of type `T`: rounded into `copy` if it has to be.
fn operand<'a, T: Element>(tile: &'a [f32], rows: usize, copy: &'a mut Vec<T>) -> MatRef<'a, T> {
    let tile = &tile[..rows * SCORES_STRIDE];
    let data = if T::DTYPE == DType::F32 {
        bytemuck::cast_slice(tile)
    } else {
        copy.resize(tile.len(), T::narrow(0.0));
        convert(copy, tile);
        copy
    };
    MatRef { data, row_stride: SCORES_STRIDE, col_stride: 1 }
}

/// Where a tile of scores lies.
#[derive(Clone, Copy)]
struct Tile {
    /// Queries.
    rows: usize,
    /// Keys.
    cols: usize,
    /// Of the first query, counted as keys are.
    position: usize,
    first_key: usize,
}

impl Tile {
    /// The tiles of the `rows` queries from `position` on: all that are not wholly behind the diagonal.
    fn of_queries(position: usize, rows: usize) -> impl Iterator<Item = Tile> {
        let n_keys = position + rows;
        (0..n_keys).step_by(KEYS).map(move |first_key| {
            let cols = KEYS.min(n_keys - first_key);
            Tile { rows, cols, position, first_key }
        })
    }

    /// How many keys of the tile its query `i` sees.
    #[inline(always)]
    fn n_visible(&self, i: usize) -> usize {
        (self.position + i + 1).saturating_sub(self.first_key).min(self.cols)
    }
}
