//! The definition of attention, in f64, one position at a time.

use super::Heads;
use crate::Tensor;

/// Where the elements of one head lie in a row of the fused projection.
struct Columns {
    q: usize,
    k: usize,
    v: usize,
}

fn columns(heads: &Heads, head: usize) -> Columns {
    let (e, kv_head) = (heads.head_dim, head / heads.queries_per_kv());
    Columns { q: head * e, k: heads.q_width() + kv_head * e, v: heads.q_width() + heads.kv_width() + kv_head * e }
}

/// The probabilities `P_ij`, `j ≤ i`, of one query.
fn probabilities(rows: &[&[f32]], i: usize, at: &Columns, e: usize, scale: f64) -> Vec<f64> {
    let score = |j: usize| scale * dot(&rows[i][at.q..][..e], &rows[j][at.k..][..e]);
    let scores: Vec<f64> = (0..=i).map(score).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
    scores.iter().map(|s| (s - max).exp() / sum).collect()
}

fn dot(x: &[f32], y: &[f32]) -> f64 {
    x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
}

fn axpy(y: &mut [f64], a: f64, x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, &x)| *y += a * f64::from(x));
}

/// `y: [b, t, h·e]`.
pub(super) fn forward(qkv: &Tensor, heads: &Heads, scale: f32) -> Tensor {
    let (b, t) = heads.check("reference", qkv);
    let e = heads.head_dim;
    let mut y = vec![0.0f64; b * t * heads.q_width()];
    for (qkv, y) in sequences(qkv, heads, t).zip(y.chunks_exact_mut(t * heads.q_width())) {
        for head in 0..heads.n_heads {
            let at = columns(heads, head);
            for (i, y) in y.chunks_exact_mut(heads.q_width()).enumerate() {
                for (j, p) in probabilities(&qkv, i, &at, e, scale.into()).into_iter().enumerate() {
                    axpy(&mut y[at.q..][..e], p, &qkv[j][at.v..][..e]);
                }
            }
        }
    }
    Tensor::from_f32(&[b, t, heads.q_width()], y.iter().map(|&y| y as f32).collect())
}

/// `dqkv: [b, t, (h + 2g)·e]`.
///
/// `dv_j += p_ij · dy_i`; `dp_ij = dy_i·v_j`; `ds_ij = p_ij · (dp_ij − Σ_j p_ij · dp_ij)`;
/// `dq_i += scale · ds_ij · k_j`; `dk_j += scale · ds_ij · q_i`.
pub(super) fn backward(dy: &Tensor, qkv: &Tensor, heads: &Heads, scale: f32) -> Tensor {
    let (_, t) = heads.check("reference", qkv);
    let (e, width, scale) = (heads.head_dim, heads.qkv_width(), f64::from(scale));
    let mut dqkv = vec![0.0f64; qkv.len()];
    let dys = dy.f32s().chunks_exact(t * heads.q_width());
    for ((qkv, dy), dqkv) in sequences(qkv, heads, t).zip(dys).zip(dqkv.chunks_exact_mut(t * width)) {
        for head in 0..heads.n_heads {
            let at = columns(heads, head);
            for i in 0..t {
                let dy = &dy[i * heads.q_width()..][at.q..][..e];
                let p = probabilities(&qkv, i, &at, e, scale);
                let dp: Vec<f64> = (0..=i).map(|j| dot(dy, &qkv[j][at.v..][..e])).collect();
                let mean: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
                for j in 0..=i {
                    let ds = scale * p[j] * (dp[j] - mean);
                    axpy(&mut dqkv[j * width + at.v..][..e], p[j], dy);
                    axpy(&mut dqkv[i * width + at.q..][..e], ds, &qkv[j][at.k..][..e]);
                    axpy(&mut dqkv[j * width + at.k..][..e], ds, &qkv[i][at.q..][..e]);
                }
            }
        }
    }
    Tensor::from_f32(qkv.shape(), dqkv.iter().map(|&x| x as f32).collect())
}

/// The rows of each sequence.
fn sequences<'a>(qkv: &'a Tensor, heads: &Heads, t: usize) -> impl Iterator<Item = Vec<&'a [f32]>> {
    let width = heads.qkv_width();
    qkv.f32s().chunks_exact(t * width).map(move |rows| rows.chunks_exact(width).collect())
}
