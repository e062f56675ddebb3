//! The three products by our own matrix multiplication.

use rayon::prelude::*;

use crate::autograd::Sink;
use crate::cpu::element::{Element, for_dtype};
use crate::cpu::gemm::{MatMut, MatRef, Parallel, gemm};
use crate::cpu::threads::{rows_per_task, sum_rows};
use crate::ops::cast;
use crate::tensor::{OnTape, Place};
use crate::{DType, Tensor};

/// Writes `y: [n, o]`.
pub(super) fn forward(y: &mut Tensor, x: &Tensor, weight_oi: &Tensor, bias_o: Option<&Tensor>) {
    let ((n, i), (_, o)) = (x.rows(), y.rows());
    for_dtype!(x.dtype(), T => {
        let (xs, ws) = (MatRef::row_major(T::of(x), i), MatRef::row_major(T::of(weight_oi), i));
        let y = T::of_mut(y);
        let beta = match bias_o {
            None => 0.0,
            Some(bias) => {
                repeat_rows(y, T::of(bias));
                1.0
            }
        };
        gemm(n, o, i, 1.0, xs, ws.transposed(), beta, MatMut::row_major(y, o), Parallel::Rayon);
    });
}

/// Delivers the gradients of the three inputs.
pub(super) fn backward(sink: &mut Sink<'_>, dy: &Tensor, x: &Tensor, weight_oi: &Tensor, bias_o: Option<&Place>) {
    let ((n, i), (_, o)) = (x.rows(), dy.rows());
    for_dtype!(x.dtype(), T => {
        let dys = MatRef::row_major(T::of(dy), o);
        sink.accumulate(weight_oi, |dw, beta| for_dtype!(dw.dtype(), D => {
            let xs = MatRef::row_major(T::of(x), i);
            gemm(o, i, n, 1.0, dys.transposed(), xs, beta, MatMut::row_major(D::of_mut(dw), i), Parallel::Rayon);
        }));
        sink.accumulate(x, |dx, beta| for_dtype!(dx.dtype(), D => {
            let ws = MatRef::row_major(T::of(weight_oi), i);
            gemm(n, i, o, 1.0, dys, ws, beta, MatMut::row_major(D::of_mut(dx), i), Parallel::Rayon);
        }));
        if let Some(bias) = bias_o.filter(|bias| sink.wants(*bias)) {
            let mut sums = Tensor::unspecified(&[o], DType::F32);
            column_sums(sums.f32s_mut(), T::of(dy));
            sink.add(bias, cast(&sums, bias.gradient_dtype()));
        }
    });
}

/// Writes `row` into every row of `y`.
fn repeat_rows<T: Element>(y: &mut [T], row: &[T]) {
    let d = row.len().max(1);
    y.par_chunks_mut(rows_per_task(d) * d).for_each(|y| {
        for y in y.chunks_exact_mut(d) {
            y.copy_from_slice(row);
        }
    });
}

/// Sums the rows of `x`: within tasks of fixed size first, then over tasks.
pub(in crate::ops) fn column_sums<T: Element>(sums: &mut [f32], x: &[T]) {
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
