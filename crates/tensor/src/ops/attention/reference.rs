//! The definition of attention, in f64, one position at a time.

use super::Heads;
use super::options::Rule;
use crate::Tensor;

/// Where the elements of one head lie in a row of the fused projection.
struct Columns {
    q: usize,
    k: usize,
    v: usize,
    y: usize,
}

fn columns(heads: &Heads, head: usize) -> Columns {
    let (e, f, kv_head) = (heads.head_dim, heads.v_head_dim, head / heads.queries_per_kv());
    let v = heads.q_width() + heads.k_width() + kv_head * f;
    Columns { q: head * e, k: heads.q_width() + kv_head * e, v, y: head * f }
}

/// The probabilities `P_ij` of one query for the keys that it sees, and the derivatives of their scores with respect to
/// `scale · q_i·k_j`; both are 0 for other keys.
fn probabilities(rows: &[&[f32]], query: (usize, usize, usize), at: &Columns, e: usize, rule: &Rule) -> [Vec<f64>; 2] {
    let ((sequence, head, i), t) = (query, rows.len());
    let (mut scores, mut slopes) = (vec![f64::NEG_INFINITY; t], vec![0.0; t]);
    for j in rule.visible(sequence, i, t) {
        let product = f64::from(rule.scale) * dot(&rows[i][at.q..][..e], &rows[j][at.k..][..e]);
        (scores[j], slopes[j]) = rule.score(head, i, j, product);
    }
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
    [scores.iter().map(|s| (s - max).exp() / sum).collect(), slopes]
}

fn dot(x: &[f32], y: &[f32]) -> f64 {
    x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
}

fn axpy(y: &mut [f64], a: f64, x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, &x)| *y += a * f64::from(x));
}

/// `y: [b, t, h·f]`.
pub(super) fn forward(qkv: &Tensor, heads: &Heads, rule: &Rule) -> Tensor {
    let (b, t) = heads.check("reference", qkv);
    let (e, f, width) = (heads.head_dim, heads.v_head_dim, heads.y_width());
    let mut y = vec![0.0f64; b * t * width];
    let ys = y.chunks_exact_mut(t * width);
    for (sequence, (qkv, y)) in sequences(qkv, heads, t).zip(ys).enumerate() {
        for head in 0..heads.n_heads {
            let at = columns(heads, head);
            for (i, y) in y.chunks_exact_mut(width).enumerate() {
                let [p, _] = probabilities(&qkv, (sequence, head, i), &at, e, rule);
                for (j, p) in p.into_iter().enumerate().filter(|x| x.1 != 0.0) {
                    axpy(&mut y[at.y..][..f], p, &qkv[j][at.v..][..f]);
                }
            }
        }
    }
    Tensor::from_f32(&[b, t, width], y.iter().map(|&y| y as f32).collect())
}

/// `dqkv: [b, t, (h + g)·e + g·f]`.
///
/// `dv_j += p_ij · dy_i`; `dp_ij = dy_i·v_j`; `ds_ij = slope_ij · p_ij · (dp_ij − Σ_j p_ij · dp_ij)`;
/// `dq_i += scale · ds_ij · k_j`; `dk_j += scale · ds_ij · q_i`.
pub(super) fn backward(dy: &Tensor, qkv: &Tensor, heads: &Heads, rule: &Rule) -> Tensor {
    let (_, t) = heads.check("reference", qkv);
    let (e, f, width, scale) = (heads.head_dim, heads.v_head_dim, heads.qkv_width(), f64::from(rule.scale));
    let mut dqkv = vec![0.0f64; qkv.len()];
    let dys = dy.f32s().chunks_exact(t * heads.y_width());
    let parts = sequences(qkv, heads, t).zip(dys).zip(dqkv.chunks_exact_mut(t * width));
    for (sequence, ((qkv, dy), dqkv)) in parts.enumerate() {
        for head in 0..heads.n_heads {
            let at = columns(heads, head);
            for i in 0..t {
                let dy = &dy[i * heads.y_width()..][at.y..][..f];
                let [p, slopes] = probabilities(&qkv, (sequence, head, i), &at, e, rule);
                let dp = |j: usize| if p[j] == 0.0 { 0.0 } else { dot(dy, &qkv[j][at.v..][..f]) };
                let dp: Vec<f64> = (0..t).map(dp).collect();
                let mean: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
                for j in (0..t).filter(|&j| p[j] != 0.0) {
                    let ds = scale * slopes[j] * p[j] * (dp[j] - mean);
                    axpy(&mut dqkv[j * width + at.v..][..f], p[j], dy);
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
