//! Linear map: `y = x·Wᵀ + b`, with the weight stored as PyTorch stores it, `[out, in]`.

#[cfg(test)]
mod tests;

use crate::cpu::gemm::{MatMut, MatRef, Parallel, gemm};
use crate::cpu::threads::{rows_per_task, sum_rows};
use crate::{DType, Tensor};

// Dims: n rows (all leading dimensions of x) · i inputs · o outputs

/// Applies the matrix `weight_oi` to every row of `x`, and adds `bias_o`.
///
/// # Shapes
/// `x: [..., i]`, `weight_oi: [o, i]`, `bias_o: [o]` → `[..., o]`.
///
/// # Panics
/// If the shapes do not fit.
#[track_caller]
pub fn linear(x: &Tensor, weight_oi: &Tensor, bias_o: Option<&Tensor>) -> Tensor {
    let (n, i) = x.rows();
    let &[o, weight_i] = weight_oi.shape() else {
        panic!("linear: the weight must be [out, in], not {:?}", weight_oi.shape())
    };
    assert!(weight_i == i, "linear: x is {:?}, so the weight must be [_, {i}], not [{o}, {weight_i}]", x.shape());
    if let Some(bias) = bias_o {
        assert!(bias.shape() == [o], "linear: the bias must be [{o}], not {:?}", bias.shape());
    }

    let shape: Vec<usize> = x.shape()[..x.shape().len() - 1].iter().copied().chain([o]).collect();
    let mut y = Tensor::unspecified(&shape, DType::F32);
    let (xs, ws) = (MatRef::row_major(x.f32s(), i), MatRef::row_major(weight_oi.f32s(), i));
    let beta = match bias_o {
        None => 0.0,
        Some(bias) => {
            repeat_rows(y.f32s_mut(), bias.f32s());
            1.0
        }
    };
    gemm(n, o, i, 1.0, xs, ws.transposed(), beta, MatMut::row_major(y.f32s_mut(), o), Parallel::Rayon);

    let (x_, weight_, bias_) = (x.clone(), weight_oi.clone(), bias_o.map(Tensor::place));
    let inputs: Vec<&Tensor> = [x, weight_oi].into_iter().chain(bias_o).collect();
    Tensor::from_op(y, &inputs, move |dy, sink| {
        let dys = MatRef::row_major(dy.f32s(), o);
        sink.accumulate(&weight_, |dw, beta| {
            let xs = MatRef::row_major(x_.f32s(), i);
            gemm(o, i, n, 1.0, dys.transposed(), xs, beta, MatMut::row_major(dw.f32s_mut(), i), Parallel::Rayon);
        });
        sink.accumulate(&x_, |dx, beta| {
            let ws = MatRef::row_major(weight_.f32s(), i);
            gemm(n, i, o, 1.0, dys, ws, beta, MatMut::row_major(dx.f32s_mut(), i), Parallel::Rayon);
        });
        if let Some(bias) = bias_.filter(|bias| sink.wants(bias)) {
            sink.add(&bias, column_sums(&dy, o));
        }
    })
}

/// Writes `row` into every row of `y`.
fn repeat_rows(y: &mut [f32], row: &[f32]) {
    use rayon::prelude::*;
    let d = row.len().max(1);
    y.par_chunks_mut(rows_per_task(d) * d).for_each(|y| {
        for y in y.chunks_exact_mut(d) {
            y.copy_from_slice(row);
        }
    });
}

/// Sums the rows of `x: [..., d]` → `[d]`: within tasks of fixed size first, then over tasks.
pub(super) fn column_sums(x: &Tensor, d: usize) -> Tensor {
    use rayon::prelude::*;
    let mut sum = Tensor::unspecified(&[d], DType::F32);
    let partial: Vec<Vec<f32>> = x
        .f32s()
        .par_chunks((8 * rows_per_task(d) * d).max(1))
        .map(|x| {
            let mut partial = vec![0.0; d];
            sum_rows(x, &mut partial);
            partial
        })
        .collect();
    sum_rows(&partial.concat(), sum.f32s_mut());
    sum
}
