//! Backward: probabilities again from the scores and the log-sum-exp, tile by tile.
//!
//! With `P` the probabilities of a head: `dV = Pᵀ·dY`, `dP = dY·Vᵀ`, `dS = P ∘ (dP − rowsum(dY ∘ Y))`,
//! `dQ = scale · dS·K`, `dK = scale · dSᵀ·Q`.

use rayon::prelude::*;

use super::{KeyHead, QUERIES, Rows, SCORES_STRIDE, Sequence, Tile, operand};
use crate::cpu::element::{Element, convert};
use crate::cpu::gemm::{MatMut, MatRef, Parallel, gemm};
use crate::cpu::simd::{self, multiversion};
use crate::ops::Heads;

/// What the forward pass leaves for the backward pass.
pub(in super::super) struct Saved<'a, T> {
    /// `[b, t, (h + g)·e + g·f]`.
    pub(in super::super) qkv: &'a [T],
    /// `[b, t, h·f]`.
    pub(in super::super) y: &'a [T],
    /// `[b, g, t, h/g]`.
    pub(in super::super) log_sum_exp: &'a [f32],
}

/// The gradients of one row, in the heads of one task.
struct GradientRow<'a, D> {
    /// Of the query heads that share the key head.
    dq: &'a mut [D],
    dk: &'a mut [D],
    dv: &'a mut [D],
}

/// Computes `dqkv: [b, t, (h + g)·e + g·f]`.
///
/// A task owns a key head of a sequence and all query heads that share it, so `dk` and `dv` are summed by one thread
/// in a fixed order.
pub(in super::super) fn backward<D: Element, T: Element>(
    dy: &[T],
    saved: &Saved<T>,
    heads: &Heads,
    scale: f32,
    t: usize,
    dqkv: &mut [D],
) {
    if dqkv.is_empty() {
        return;
    }
    let (e, f, g, group) = (heads.head_dim, heads.v_head_dim, heads.n_kv_heads, heads.queries_per_kv());
    let b = dqkv.len() / (t * heads.qkv_width());
    let mut tasks: Vec<Vec<GradientRow<D>>> = (0..b * g).map(|_| Vec::with_capacity(t)).collect();
    for (row, dqkv) in dqkv.chunks_exact_mut(heads.qkv_width()).enumerate() {
        let (dq, dkv) = dqkv.split_at_mut(heads.q_width());
        let (dk, dv) = dkv.split_at_mut(heads.k_width());
        let parts = dq.chunks_exact_mut(group * e).zip(dk.chunks_exact_mut(e)).zip(dv.chunks_exact_mut(f));
        for (kv_head, ((dq, dk), dv)) in parts.enumerate() {
            tasks[row / t * g + kv_head].push(GradientRow { dq, dk, dv });
        }
    }
    tasks.into_par_iter().with_max_len(1).enumerate().for_each_init(
        || Scratch::new(heads, t),
        |scratch, (idx, mut gradients)| {
            let (batch, kv_head) = (idx / g, idx % g);
            let width = heads.y_width();
            let rows = batch * t * width..(batch + 1) * t * width;
            let side = Side {
                sequence: Sequence::of_fused(saved.qkv, heads, batch, t),
                y: Rows { data: &saved.y[rows.clone()], stride: width },
                dy: Rows { data: &dy[rows], stride: width },
                log_sum_exp: &saved.log_sum_exp[idx * t * group..][..t * group],
            };
            differentiate(&side, heads, kv_head, scale, scratch, &mut gradients);
        },
    );
}

/// What belongs to one sequence.
struct Side<'a, T> {
    sequence: Sequence<'a, T>,
    y: Rows<'a, T>,
    dy: Rows<'a, T>,
    /// `[t, h/g]` of the task's key head.
    log_sum_exp: &'a [f32],
}

struct Scratch<T> {
    /// A tile of scores, then of `P`.
    p: Vec<f32>,
    /// A tile of `dP`, then of `dS`.
    ds: Vec<f32>,
    /// Both rounded, if `T` is not `f32`.
    rounded: [Vec<T>; 2],
    dq: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
    log_sum_exp: [f32; QUERIES],
    /// `rowsum(dY ∘ Y)`.
    delta: [f32; QUERIES],
}

impl<T> Scratch<T> {
    fn new(heads: &Heads, t: usize) -> Self {
        let (e, f, rows) = (heads.head_dim, heads.v_head_dim, QUERIES.min(t));
        Scratch {
            p: vec![0.0; rows * SCORES_STRIDE],
            ds: vec![0.0; rows * SCORES_STRIDE],
            rounded: [Vec::new(), Vec::new()],
            dq: vec![0.0; rows * e],
            dk: vec![0.0; t * e],
            dv: vec![0.0; t * f],
            log_sum_exp: [0.0; QUERIES],
            delta: [0.0; QUERIES],
        }
    }
}

fn differentiate<D: Element, T: Element>(
    side: &Side<T>,
    heads: &Heads,
    kv_head: usize,
    scale: f32,
    scratch: &mut Scratch<T>,
    gradients: &mut [GradientRow<D>],
) {
    let (e, f, group, t) = (heads.head_dim, heads.v_head_dim, heads.queries_per_kv(), gradients.len());
    let key_head = KeyHead::of(&side.sequence, heads, kv_head);
    scratch.dk.fill(0.0);
    scratch.dv.fill(0.0);
    for head in 0..group {
        let head_idx = kv_head * group + head;
        let queries = side.sequence.q.at_column(head_idx * e);
        let (y, dy) = (side.y.at_column(head_idx * f), side.dy.at_column(head_idx * f));
        for first in (0..t).step_by(QUERIES) {
            let rows = QUERIES.min(t - first);
            for i in 0..rows {
                scratch.log_sum_exp[i] = side.log_sum_exp[(first + i) * group + head];
                scratch.delta[i] = dot(y.row(first + i, f), dy.row(first + i, f));
            }
            let block = Block { first, rows, q: queries.at_row(first), dy: dy.at_row(first) };
            differentiate_block(&block, &key_head, scale, scratch);
            for (gradient, dq) in gradients[first..].iter_mut().zip(scratch.dq.chunks_exact(e)) {
                convert(&mut gradient.dq[head * e..][..e], dq);
            }
        }
    }
    for ((gradient, dk), dv) in gradients.iter_mut().zip(scratch.dk.chunks_exact(e)).zip(scratch.dv.chunks_exact(f)) {
        convert(gradient.dk, dk);
        convert(gradient.dv, dv);
    }
}

/// A block of queries of one head.
struct Block<'a, T> {
    first: usize,
    rows: usize,
    q: MatRef<'a, T>,
    dy: MatRef<'a, T>,
}

/// Writes the `dq` of a block to the scratch, and adds its part of `dk` and `dv` there.
fn differentiate_block<T: Element>(block: &Block<T>, key_head: &KeyHead<T>, scale: f32, scratch: &mut Scratch<T>) {
    let Scratch { p, ds, rounded: [rounded_p, rounded_ds], dq, dk, dv, log_sum_exp, delta } = scratch;
    let &Block { first, rows, q, dy } = block;
    let (e, f) = (key_head.head_dim, key_head.v_head_dim);
    for tile in Tile::of_queries(first, rows) {
        let Tile { cols, first_key, .. } = tile;
        let (k, v) = (key_head.k.at_row(first_key), key_head.v.at_row(first_key));
        let to = |data| MatMut { data, row_stride: SCORES_STRIDE };
        gemm(rows, cols, e, scale, q, k.transposed(), 0.0, to(p), Parallel::Serial);
        gemm(rows, cols, f, 1.0, dy, v.transposed(), 0.0, to(ds), Parallel::Serial);
        differentiate_softmax(p, ds, log_sum_exp, delta, &tile);

        let (p, ds) = (operand(p, rows, rounded_p), operand(ds, rows, rounded_ds));
        let (dk, dv) = (&mut dk[first_key * e..], &mut dv[first_key * f..]);
        let dq_beta = if first_key == 0 { 0.0 } else { 1.0 };
        gemm(cols, f, rows, 1.0, p.transposed(), dy, 1.0, MatMut::row_major(dv, f), Parallel::Serial);
        gemm(cols, e, rows, scale, ds.transposed(), q, 1.0, MatMut::row_major(dk, e), Parallel::Serial);
        gemm(rows, e, cols, scale, ds, k, dq_beta, MatMut::row_major(dq, e), Parallel::Serial);
    }
}

multiversion! {
    fn dot<T: Element>(x: &[T], y: &[T]) -> f32 {
        let y = &y[..x.len()];
        simd::sum_by(x.len(), |i| x[i].widen() * y[i].widen())
    }
}

multiversion! {
    /// Scores → `P` in `p`, `dP` → `dS` in `ds`; zero behind the diagonal.
    fn differentiate_softmax(
        p: &mut [f32],
        ds: &mut [f32],
        log_sum_exp: &[f32],
        delta: &[f32],
        tile: &Tile,
    ) {
        for i in 0..tile.rows {
            let n = tile.n_visible(i);
            let (p, p_hidden) = p[i * SCORES_STRIDE..][..tile.cols].split_at_mut(n);
            let (ds, ds_hidden) = ds[i * SCORES_STRIDE..][..tile.cols].split_at_mut(n);
            p_hidden.fill(0.0);
            ds_hidden.fill(0.0);
            let (log_sum_exp, delta) = (log_sum_exp[i], delta[i]);
            for (p, ds) in p.iter_mut().zip(ds) {
                *p = simd::exp(*p - log_sum_exp);
                *ds = *p * (*ds - delta);
            }
        }
    }
}
