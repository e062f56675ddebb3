//! Forward: an online softmax over tiles of keys.

use rayon::prelude::*;

use super::{KeyHead, QUERIES, SCORES_STRIDE, Sequence, Tile, operand};
use crate::cpu::element::Element;
use crate::cpu::gemm::{MatMut, MatRef, Parallel, gemm};
use crate::cpu::simd::{self, multiversion};
use crate::ops::Heads;

/// Queries of a task, over all query heads of a key head.
const QUERIES_PER_TASK: usize = 4 * QUERIES;
/// Multiply-adds below which handing tasks to other threads costs more than it gains.
const PARALLEL_WORK: usize = 1 << 17;

/// Some queries of a sequence in the query heads that share a key head.
struct Task<'a, T> {
    sequence: usize,
    kv_head: usize,
    first_query: usize,
    /// For each query, its outputs in these heads.
    y: Vec<&'a mut [T]>,
    /// For each query, a number for each of these heads.
    log_sum_exp: &'a mut [f32],
}

/// Computes `y: [b, t, h·f]` and `log_sum_exp: [b, g, t, h/g]` of sequences of one length.
pub(in super::super) fn forward<T: Element>(
    sequences: &[Sequence<T>],
    heads: &Heads,
    scale: f32,
    y: &mut [T],
    log_sum_exp: &mut [f32],
) {
    let Some(&Sequence { t, past, .. }) = sequences.first().filter(|sequence| sequence.t > 0) else {
        return;
    };
    let (g, group) = (heads.n_kv_heads, heads.queries_per_kv());
    let tasks_per_head = t.div_ceil(QUERIES_PER_TASK);
    let mut tasks: Vec<Task<T>> = log_sum_exp
        .chunks_mut(t * group)
        .flat_map(|head| head.chunks_mut(QUERIES_PER_TASK * group).enumerate())
        .enumerate()
        .map(|(idx, (part, log_sum_exp))| Task {
            sequence: idx / (tasks_per_head * g),
            kv_head: idx / tasks_per_head % g,
            first_query: part * QUERIES_PER_TASK,
            y: Vec::with_capacity(log_sum_exp.len() / group),
            log_sum_exp,
        })
        .collect();
    for (row, y) in y.chunks_exact_mut(heads.y_width()).enumerate() {
        for (kv_head, y) in y.chunks_exact_mut(group * heads.v_head_dim).enumerate() {
            tasks[(row / t * g + kv_head) * tasks_per_head + row % t / QUERIES_PER_TASK].y.push(y);
        }
    }

    let run = |scratch: &mut Scratch<T>, task: Task<T>| attend(&sequences[task.sequence], heads, scale, scratch, task);
    if sequences.len() * t * (past + t) * heads.q_width() < PARALLEL_WORK {
        let mut scratch = Scratch::new(heads, t);
        tasks.into_iter().for_each(|task| run(&mut scratch, task));
    } else {
        tasks.into_par_iter().with_max_len(1).for_each_init(|| Scratch::new(heads, t), run);
    }
}

struct Scratch<T> {
    scores: Vec<f32>,
    /// The scores of a tile turned into probabilities and rounded, if `T` is not `f32`.
    rounded: Vec<T>,
    /// Unnormalised outputs of a block.
    y: Vec<f32>,
    softmax: Softmax,
}

impl<T> Scratch<T> {
    fn new(heads: &Heads, t: usize) -> Self {
        let rows = QUERIES.min(t);
        Scratch {
            scores: vec![0.0; rows * SCORES_STRIDE],
            rounded: Vec::new(),
            y: vec![0.0; rows * heads.v_head_dim],
            softmax: Softmax { max: [0.0; QUERIES], sum: [0.0; QUERIES] },
        }
    }
}

/// The softmax of each row of a block, as far as its keys were seen.
struct Softmax {
    max: [f32; QUERIES],
    /// Of `exp(score − max)`.
    sum: [f32; QUERIES],
}

fn attend<T: Element>(sequence: &Sequence<T>, heads: &Heads, scale: f32, scratch: &mut Scratch<T>, mut task: Task<T>) {
    let (e, f, group) = (heads.head_dim, heads.v_head_dim, heads.queries_per_kv());
    let key_head = KeyHead::of(sequence, heads, task.kv_head);
    for head in 0..group {
        let queries = sequence.q.at_column((task.kv_head * group + head) * e);
        for first in (0..task.y.len()).step_by(QUERIES) {
            let rows = QUERIES.min(task.y.len() - first);
            let first_query = task.first_query + first;
            let q = queries.at_row(first_query);
            attend_block(q, Tile::of_queries(sequence.past + first_query, rows), &key_head, scale, scratch);

            let Scratch { y: block, softmax, .. } = &*scratch;
            for (i, block) in block.chunks_exact(f).take(rows).enumerate() {
                let y = &mut task.y[first + i][head * f..][..f];
                let inv_sum = 1.0 / softmax.sum[i];
                for (y, x) in y.iter_mut().zip(block) {
                    *y = T::narrow(x * inv_sum);
                }
                task.log_sum_exp[(first + i) * group + head] = softmax.max[i] + softmax.sum[i].ln();
            }
        }
    }
}

/// Leaves the unnormalised outputs of a block of queries, and their softmax, in the scratch.
fn attend_block<T: Element>(
    q: MatRef<T>,
    tiles: impl Iterator<Item = Tile>,
    key_head: &KeyHead<T>,
    scale: f32,
    scratch: &mut Scratch<T>,
) {
    let (Scratch { scores, rounded, y, softmax }, e, f) = (scratch, key_head.head_dim, key_head.v_head_dim);
    softmax.max = [f32::NEG_INFINITY; QUERIES];
    softmax.sum = [0.0; QUERIES];
    for tile in tiles {
        let Tile { rows, cols, first_key, .. } = tile;
        let (k, v) = (key_head.k.at_row(first_key).transposed(), key_head.v.at_row(first_key));
        let to = MatMut { data: scores, row_stride: SCORES_STRIDE };
        gemm(rows, cols, e, scale, q, k, 0.0, to, Parallel::Serial);
        let is_first = first_key == 0;
        update_softmax(softmax, scores, &tile, if is_first { &mut [] } else { y }, f);
        let p = operand(scores, rows, rounded);
        let beta = if is_first { 0.0 } else { 1.0 };
        gemm(rows, f, cols, 1.0, p, v, beta, MatMut::row_major(y, f), Parallel::Serial);
    }
}

multiversion! {
    /// Turns scores into `exp(score − max)`, zero behind the diagonal, and brings what was summed so far (the sums and
    /// the outputs `y`, none for the first tile) to the new maximum.
    fn update_softmax(
        softmax: &mut Softmax,
        scores: &mut [f32],
        tile: &Tile,
        y: &mut [f32],
        f: usize,
    ) {
        for i in 0..tile.rows {
            let row = &mut scores[i * SCORES_STRIDE..][..tile.cols];
            let (visible, hidden) = row.split_at_mut(tile.n_visible(i));
            hidden.fill(0.0);
            if visible.is_empty() {
                continue;
            }
            let max = softmax.max[i].max(simd::max(visible));
            for x in visible.iter_mut() {
                *x = simd::exp(*x - max);
            }
            let correction = simd::exp(softmax.max[i] - max);
            softmax.sum[i] = softmax.sum[i] * correction + simd::sum_by(visible.len(), |j| visible[j]);
            softmax.max[i] = max;
            if !y.is_empty() {
                y[i * f..][..f].iter_mut().for_each(|y| *y *= correction);
            }
        }
    }
}
