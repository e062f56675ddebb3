//! Tiles of scores that stay in the cache of a core.
//!
//! A task walks blocks of [`QUERIES`] rows; for each it walks tiles of [`KEYS`] keys, all products small enough to run
//! on the task's own thread. Heads in bf16 are widened once per task. The cuts depend on the shapes alone.

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

    /// Elements `0..e` of `n_rows` rows from `first` on as `f32`: where they lie if they are, else in `copy`.
    fn widened<'b>(self, first: usize, n_rows: usize, e: usize, copy: &'b mut Vec<f32>) -> Rows<'b>
    where
        'a: 'b,
    {
        if T::DTYPE == DType::F32 {
            return Rows { data: bytemuck::cast_slice(&self.data[first * self.stride..]), stride: self.stride };
        }
        copy.resize(n_rows * e, 0.0);
        for (row, copy) in copy.chunks_exact_mut(e).enumerate() {
            convert(copy, self.row(first + row, e));
        }
        Rows { data: copy, stride: e }
    }
}

/// One sequence of the batch; rows hold all heads.
pub(super) struct Sequence<'a, T = f32> {
    /// `[t, h·e]`.
    pub(super) q: Rows<'a, T>,
    /// `[past + t, g·e]`.
    pub(super) k: Rows<'a, T>,
    /// `[past + t, g·e]`.
    pub(super) v: Rows<'a, T>,
    /// Queries.
    pub(super) t: usize,
    /// Keys before the first query.
    pub(super) past: usize,
}

impl<'a, T: Element> Sequence<'a, T> {
    /// A sequence of a fused projection `[b, t, (h + 2g)·e]`.
    pub(super) fn of_fused(qkv: &'a [T], heads: &Heads, batch: usize, t: usize) -> Self {
        let stride = heads.qkv_width();
        let rows = &qkv[batch * t * stride..][..t * stride];
        let at_column = |column: usize| Rows { data: rows.get(column..).unwrap_or_default(), stride };
        Sequence {
            q: at_column(0),
            k: at_column(heads.q_width()),
            v: at_column(heads.q_width() + heads.kv_width()),
            t,
            past: 0,
        }
    }
}

/// One head's part of a block: the keys and values that its queries may see.
#[derive(Clone, Copy)]
struct KeyHead<'a> {
    k: Rows<'a>,
    v: Rows<'a>,
    head_dim: usize,
}

impl<'a> KeyHead<'a> {
    /// The first `n_keys` of a head; `copies` hold them as `f32`, if they are not.
    fn of<T: Element>(
        sequence: &Sequence<'a, T>,
        heads: &Heads,
        kv_head: usize,
        n_keys: usize,
        [k_copy, v_copy]: &'a mut [Vec<f32>; 2],
    ) -> Self {
        let e = heads.head_dim;
        let of = |rows: Rows<'a, T>, copy| rows.at_column(kv_head * e).widened(0, n_keys, e, copy);
        KeyHead { k: of(sequence.k, k_copy), v: of(sequence.v, v_copy), head_dim: e }
    }
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
