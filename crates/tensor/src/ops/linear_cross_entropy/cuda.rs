//! Chunks of rows: logits, loss and gradient of the logits in their place, gradients of the inputs.

use crate::cuda::blas::{Epilogue, Matrix, MatrixMut, Product, matmul};
use crate::ops::cross_entropy::cuda::{Rows, losses, losses_and_gradient};
use crate::ops::sum_of_squares::cuda::sum;
use crate::{DType, Tensor};

/// Rows of the chunk start at multiples of this many elements, for wide accesses.
const ALIGNMENT: usize = 8;

/// The gradients that are asked for.
pub(super) struct Gradients<'a> {
    /// `[n, d]`.
    pub(super) dx: Option<&'a mut Tensor>,
    /// `[v, d]`.
    pub(super) dweight: Option<&'a mut Tensor>,
}

/// Writes the gradients of the loss and returns it, `[]`. Logits exist `rows_per_chunk` rows at a time.
pub(super) fn loss_and_gradients(
    x: &Tensor,
    weight: &Tensor,
    targets: &Tensor,
    mut gradients: Gradients<'_>,
    divisor: f32,
    rows_per_chunk: usize,
) -> Tensor {
    let ((n, d), (v, _)) = (x.rows(), weight.rows());
    let device = x.device();
    let rows_per_chunk = rows_per_chunk.min(n);
    let stride = v.next_multiple_of(ALIGNMENT);
    let with_gradient = gradients.dx.is_some() || gradients.dweight.is_some();
    let mut chunk = Tensor::unspecified_on(device, &[rows_per_chunk, stride], x.dtype());
    let mut losses_n = Tensor::unspecified_on(device, &[n], DType::F32);

    for first in (0..n).step_by(rows_per_chunk.max(1)) {
        let rows = Rows { n: rows_per_chunk.min(n - first), first, v, stride };
        matmul(Product {
            m: rows.n,
            n: v,
            k: d,
            a: Matrix::of(x).from_row(first),
            b: Matrix::of(weight).transposed(),
            out: MatrixMut { tensor: &mut chunk, offset: 0, stride },
            beta: 0.0,
            epilogue: Epilogue::None,
        });
        if with_gradient {
            losses_and_gradient(&mut losses_n, &mut chunk, targets, &rows, 1.0 / divisor);
        } else {
            losses(&mut losses_n, &chunk, targets, &rows);
        }
        let dlogits = Matrix { tensor: &chunk, offset: 0, stride, transposed: false };
        if let Some(dx) = &mut gradients.dx {
            matmul(Product {
                m: rows.n,
                n: d,
                k: v,
                a: dlogits,
                b: Matrix::of(weight),
                out: MatrixMut::of(dx).from_row(first),
                beta: 0.0,
                epilogue: Epilogue::None,
            });
        }
        if let Some(dweight) = &mut gradients.dweight {
            matmul(Product {
                m: v,
                n: d,
                k: rows.n,
                a: dlogits.transposed(),
                b: Matrix::of(x).from_row(first),
                out: MatrixMut::of(dweight),
                beta: if first == 0 { 0.0 } else { 1.0 },
                epilogue: Epilogue::None,
            });
        }
    }
    if n == 0
        && let Some(dweight) = gradients.dweight
    {
        *dweight = Tensor::zeros_on(device, dweight.shape(), dweight.dtype());
    }
    sum(&losses_n, divisor)
}
