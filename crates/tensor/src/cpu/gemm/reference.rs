//! The product by its definition: the oracle of every kernel.

use super::{MatMut, MatRef};

/// `C ← beta·C + alpha·A·B` in double precision, rounded once at the end.
#[expect(clippy::too_many_arguments, reason = "the arguments of the product it defines")]
pub(super) fn naive(m: usize, n: usize, k: usize, alpha: f32, a: MatRef, b: MatRef, beta: f32, c: MatMut) {
    for i in 0..m {
        for j in 0..n {
            let mut sum = 0.0;
            for p in 0..k {
                sum += a_times_b(a, b, i, j, p);
            }
            let c = &mut c.data[i * c.row_stride + j];
            let kept = if beta == 0.0 { 0.0 } else { f64::from(beta) * f64::from(*c) };
            let added = if alpha == 0.0 { 0.0 } else { f64::from(alpha) * sum };
            *c = (kept + added) as f32;
        }
    }
}

fn a_times_b(a: MatRef, b: MatRef, i: usize, j: usize, p: usize) -> f64 {
    f64::from(a.data[i * a.row_stride + p * a.col_stride]) * f64::from(b.data[p * b.row_stride + j * b.col_stride])
}
