//! Every option of attention, one query at a time: for what the tiles of the other files do not know.

use rayon::prelude::*;

use super::{Rows, Sequence};
use crate::cpu::element::{Element, convert};
use crate::cpu::simd::{self, multiversion};
use crate::ops::Heads;
use crate::ops::attention::options::Rule;

/// One query of one head, with the keys and values of all positions.
struct Query<'a, T> {
    sequence: usize,
    head: usize,
    position: usize,
    q: &'a [T],
    k: Rows<'a, T>,
    v: Rows<'a, T>,
}

impl<'a, T: Element> Query<'a, T> {
    fn of(of: &Sequence<'a, T>, sequence: usize, head: usize, position: usize, heads: &Heads) -> Self {
        let (e, kv_head) = (heads.head_dim, head / heads.queries_per_kv());
        let (k, v) = (of.k.at_column(kv_head * e), of.v.at_column(kv_head * heads.v_head_dim));
        Query { sequence, head, position, q: of.q.at_column(head * e).row(position, e), k, v }
    }

    /// Writes the probabilities of the visible keys, and the derivatives of their scores; returns the first of them.
    fn probabilities(&self, rule: &Rule, t: usize, p: &mut Vec<f32>, slopes: &mut Vec<f32>) -> usize {
        let keys = rule.visible(self.sequence, self.position, t);
        p.clear();
        slopes.clear();
        for j in keys.clone() {
            let product = rule.scale * dot(self.q, self.k.row(j, self.q.len()));
            let (score, slope) = rule.score(self.head, self.position, j, product.into());
            p.push(score as f32);
            slopes.push(slope as f32);
        }
        let max = simd::max(p);
        p.iter_mut().for_each(|x| *x = simd::exp(*x - max));
        let inv_sum = 1.0 / simd::sum_by(p.len(), |i| p[i]);
        p.iter_mut().for_each(|x| *x *= inv_sum);
        keys.start
    }
}

/// Computes `y: [b, t, h·f]`.
pub(in super::super) fn forward_with<T: Element>(rule: &Rule, qkv: &[T], heads: &Heads, t: usize, y: &mut [T]) {
    let f = heads.v_head_dim;
    y.par_chunks_exact_mut(heads.y_width()).enumerate().for_each_init(Default::default, |scratch, (row, y)| {
        let (p, slopes, sums): &mut (Vec<f32>, Vec<f32>, Vec<f32>) = scratch;
        let (batch, position) = (row / t, row % t);
        let sequence = Sequence::of_fused(qkv, heads, batch, t);
        for (head, y) in y.chunks_exact_mut(f).enumerate() {
            let query = Query::of(&sequence, batch, head, position, heads);
            let first = query.probabilities(rule, t, p, slopes);
            sums.clear();
            sums.resize(f, 0.0);
            p.iter().enumerate().for_each(|(j, &p)| axpy(sums, p, query.v.row(first + j, f)));
            convert(y, sums);
        }
    });
}

/// Computes `dqkv: [b, t, (h + g)·e + g·f]`. A task owns a key head of a sequence and the query heads that share it.
pub(in super::super) fn backward_with<D: Element, T: Element>(
    rule: &Rule,
    dy: &[T],
    qkv: &[T],
    heads: &Heads,
    t: usize,
    dqkv: &mut [D],
) {
    if dqkv.is_empty() {
        return;
    }
    let (e, f, g, group) = (heads.head_dim, heads.v_head_dim, heads.n_kv_heads, heads.queries_per_kv());
    let b = dqkv.len() / (t * heads.qkv_width());
    let differentiate = |task: usize| {
        let (batch, kv_head) = (task / g, task % g);
        let sequence = Sequence::of_fused(qkv, heads, batch, t);
        let (mut p, mut slopes) = (Vec::new(), Vec::new());
        let (mut dq, mut dk, mut dv) = (vec![0.0; t * group * e], vec![0.0; t * e], vec![0.0; t * f]);
        for head in 0..group {
            for i in 0..t {
                let query = Query::of(&sequence, batch, kv_head * group + head, i, heads);
                let first = query.probabilities(rule, t, &mut p, &mut slopes);
                let dy = &dy[(batch * t + i) * heads.y_width() + query.head * f..][..f];
                let dp: Vec<f32> = (0..p.len()).map(|j| dot(dy, query.v.row(first + j, f))).collect();
                let mean = simd::sum_by(p.len(), |j| p[j] * dp[j]);
                let dq = &mut dq[(i * group + head) * e..][..e];
                for (idx, j) in (first..first + p.len()).enumerate() {
                    let ds = rule.scale * p[idx] * (dp[idx] - mean) * slopes[idx];
                    axpy(&mut dv[j * f..][..f], p[idx], dy);
                    axpy(&mut dk[j * e..][..e], ds, query.q);
                    axpy(dq, ds, query.k.row(j, e));
                }
            }
        }
        (dq, dk, dv)
    };
    let gradients: Vec<_> = (0..b * g).into_par_iter().map(differentiate).collect();
    for (row, dqkv) in dqkv.chunks_exact_mut(heads.qkv_width()).enumerate() {
        let (batch, i) = (row / t, row % t);
        let (dqs, dkv) = dqkv.split_at_mut(heads.q_width());
        let (dks, dvs) = dkv.split_at_mut(heads.k_width());
        for (kv_head, (dq, dk, dv)) in gradients[batch * g..][..g].iter().enumerate() {
            convert(&mut dqs[kv_head * group * e..][..group * e], &dq[i * group * e..][..group * e]);
            convert(&mut dks[kv_head * e..][..e], &dk[i * e..][..e]);
            convert(&mut dvs[kv_head * f..][..f], &dv[i * f..][..f]);
        }
    }
}

multiversion! {
    fn dot<T: Element>(x: &[T], y: &[T]) -> f32 {
        let y = &y[..x.len()];
        simd::sum_by(x.len(), |i| x[i].widen() * y[i].widen())
    }
}

multiversion! {
    fn axpy<T: Element>(y: &mut [f32], a: f32, x: &[T]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += a * x.widen();
        }
    }
}
