//! The three products by our own matrix multiplication.

use rayon::prelude::*;

use crate::Tensor;
use crate::autograd::Sink;
use crate::cpu::gemm::{MatMut, MatRef, Parallel, gemm};
use crate::cpu::threads::{rows_per_task, sum_rows};
use crate::tensor::Place;

/// Writes `y: [n, o]`.
pub(super) fn forward(y: &mut Tensor, x: &Tensor, weight_oi: &Tensor, bias_o: Option<&Tensor>) {
    let ((n, i), (_, o)) = (x.rows(), y.rows());
    let (xs, ws) = (MatRef::row_major(x.f32s(), i), MatRef::row_major(weight_oi.f32s(), i));
    let beta = match bias_o {
        None => 0.0,
        Some(bias) => {
            repeat_rows(y.f32s_mut(), bias.f32s());
            1.0
        }
    };
    gemm(n, o, i, 1.0, xs, ws.transposed(), beta, MatMut::row_major(y.f32s_mut(), o), Parallel::Rayon);
}

/// Delivers the gradients of the three inputs.
pub(super) fn backward(sink: &mut Sink<'_>, dy: &Tensor, x: &Tensor, weight_oi: &Tensor, bias_o: Option<&Place>) {
    let ((n, i), (_, o)) = (x.rows(), dy.rows());
    let dys = MatRef::row_major(dy.f32s(), o);
    sink.accumulate(weight_oi, |dw, beta| {
        let xs = MatRef::row_major(x.f32s(), i);
        gemm(o, i, n, 1.0, dys.transposed(), xs, beta, MatMut::row_major(dw.f32s_mut(), i), Parallel::Rayon);
    });
    sink.accumulate(x, |dx, beta| {
        let ws = MatRef::row_major(weight_oi.f32s(), i);
        gemm(n, i, o, 1.0, dys, ws, beta, MatMut::row_major(dx.f32s_mut(), i), Parallel::Rayon);
    });
    if let Some(bias) = bias_o.filter(|bias| sink.wants(*bias)) {
        let mut sums = Tensor::unspecified(&[o], crate::DType::F32);
        column_sums(sums.f32s_mut(), dy.f32s());
        sink.add(bias, sums);
    }
}

/// Writes `row` into every row of `y`.
fn repeat_rows(y: &mut [f32], row: &[f32]) {
    let d = row.len().max(1);
    y.par_chunks_mut(rows_per_task(d) * d).for_each(|y| {
        for y in y.chunks_exact_mut(d) {
            y.copy_from_slice(row);
        }
    });
}

/// Sums the rows of `x`: within tasks of fixed size first, then over tasks.
pub(in crate::ops) fn column_sums(sums: &mut [f32], x: &[f32]) {
    let d = sums.len();
    let partial: Vec<Vec<f32>> = x
        .par_chunks((8 * rows_per_task(d) * d).max(1))
        .map(|x| {
            let mut partial = vec![0.0; d];
            sum_rows(x, &mut partial);
            partial
        })
        .collect();
    sum_rows(&partial.concat(), sums);
}
