//! The three products by cuBLASLt, with the bias and its gradient in their epilogues.

use crate::Tensor;
use crate::autograd::Sink;
use crate::cuda::blas::{Epilogue, Matrix, MatrixMut, Product, column_sums, matmul};
use crate::ops::cast;
use crate::tensor::{OnTape, Place};

/// Writes `y: [n, o]`.
pub(super) fn forward(y: &mut Tensor, x: &Tensor, weight_oi: &Tensor, bias_o: Option<&Tensor>) {
    product(y, x, weight_oi, bias_o.map_or(Epilogue::None, Epilogue::Bias));
}

/// `y = x·Wᵀ`, and what the epilogue makes of it.
pub(in crate::ops) fn product(y: &mut Tensor, x: &Tensor, weight_oi: &Tensor, epilogue: Epilogue<'_>) {
    product_of(y.rows().1, y, x, weight_oi, epilogue);
}

/// The same with `n` columns of the product, of which an epilogue may leave fewer.
pub(in crate::ops) fn product_of(n: usize, y: &mut Tensor, x: &Tensor, weight_oi: &Tensor, epilogue: Epilogue<'_>) {
    let (m, k) = x.rows();
    let (a, b) = (Matrix::of(x), Matrix::of(weight_oi).transposed());
    matmul(Product { m, n, k, a, b, out: MatrixMut::of(y), beta: 0.0, epilogue });
}

/// Delivers the gradients of the three inputs; that of the bias is the sum of the columns of `dy`, if those are known.
pub(super) fn backward(
    sink: &mut Sink<'_>,
    dy: &Tensor,
    x: &Tensor,
    weight_oi: &Tensor,
    bias_o: Option<&Place>,
    known_sums: Option<Tensor>,
) {
    match (bias_o, known_sums) {
        (Some(bias), Some(dbias)) => {
            sink.add(bias, cast(&dbias, bias.gradient_dtype()));
            weight_gradients(sink, dy, x, weight_oi, None);
        }
        _ => weight_gradients(sink, dy, x, weight_oi, bias_o),
    }
    sink.accumulate(x, |dx, beta| input_gradient(dx, beta, dy, weight_oi, Epilogue::None));
}

/// Delivers the gradients of weight and bias. The bias's comes out of the product that makes the weight's.
pub(in crate::ops) fn weight_gradients(
    sink: &mut Sink<'_>,
    dy: &Tensor,
    x: &Tensor,
    weight_oi: &impl OnTape,
    bias_o: Option<&Place>,
) {
    let bias_o = bias_o.filter(|bias| sink.wants(*bias));
    let ((k, m), (_, n)) = (dy.rows(), x.rows());
    let mut dbias = None;
    sink.accumulate(weight_oi, |dweight, beta| {
        let sums = bias_o.map(|_| dbias.insert(Tensor::unspecified_on(dy.device(), &[m], dweight.dtype())));
        let (a, b) = (Matrix::of(dy).transposed(), Matrix::of(x));
        let epilogue = sums.map_or(Epilogue::None, Epilogue::RowSums);
        matmul(Product { m, n, k, a, b, out: MatrixMut::of(dweight), beta, epilogue });
    });
    match (bias_o, dbias) {
        (None, _) => {}
        (Some(bias), Some(dbias)) => sink.add(bias, cast(&dbias, bias.gradient_dtype())),
        // A frozen weight: no product made the sums.
        (Some(bias), None) => sink.accumulate(bias, |dbias, beta| column_sums(dbias, beta, dy)),
    }
}

/// `dx ← beta · dx + dy·W`, and what the epilogue makes of it.
pub(in crate::ops) fn input_gradient(
    dx: &mut Tensor,
    beta: f32,
    dy: &Tensor,
    weight_oi: &Tensor,
    epilogue: Epilogue<'_>,
) {
    let ((m, k), (_, n)) = (dy.rows(), weight_oi.rows());
    let (a, b) = (Matrix::of(dy), Matrix::of(weight_oi));
    matmul(Product { m, n, k, a, b, out: MatrixMut::of(dx), beta, epilogue });
}
