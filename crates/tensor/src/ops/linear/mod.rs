//! Linear map: `y = x·Wᵀ + b`, with the weight stored as PyTorch stores it, `[out, in]`.

mod cpu;
pub(in crate::ops) mod cuda;
#[cfg(test)]
mod tests;

pub(in crate::ops) use cpu::column_sums as column_sums_on_cpu;

use std::sync::PoisonError;

use crate::ops::add::SumsOfColumns;
use crate::{Device, Tensor};

// Dims: n rows (all leading dimensions of x) · i inputs · o outputs

/// Applies the matrix `weight_oi` to every row of `x`, and adds `bias_o`.
///
/// Backward keeps `x` and the weight.
///
/// # Shapes
/// `x: [..., i]`, `weight_oi: [o, i]`, `bias_o: [o]` → `[..., o]`. All have one dtype, and so has the result.
///
/// # Panics
/// If the shapes do not fit.
#[track_caller]
pub fn linear(x: &Tensor, weight_oi: &Tensor, bias_o: Option<&Tensor>) -> Tensor {
    linear_with_sums(x, weight_oi, bias_o, None)
}

/// [`linear`]; who completes the gradient of the result may leave the sums of its columns in `sums`: that of the bias.
#[track_caller]
pub(in crate::ops) fn linear_with_sums(
    x: &Tensor,
    weight_oi: &Tensor,
    bias_o: Option<&Tensor>,
    sums: Option<SumsOfColumns>,
) -> Tensor {
    let mut y = Tensor::unspecified_on(x.device(), &output_shape("linear", x, weight_oi, bias_o), x.dtype());
    match x.device() {
        Device::Cpu => cpu::forward(&mut y, x, weight_oi, bias_o),
        Device::Cuda(_) => cuda::forward(&mut y, x, weight_oi, bias_o),
    }

    let (x_, weight_, bias_) = (x.clone(), weight_oi.clone(), bias_o.map(Tensor::place));
    let inputs: Vec<&Tensor> = [x, weight_oi].into_iter().chain(bias_o).collect();
    Tensor::from_op(y, &inputs, move |dy, sink| match dy.device() {
        Device::Cpu => cpu::backward(sink, &dy, &x_, &weight_, bias_.as_ref()),
        Device::Cuda(_) => {
            let known = sums.and_then(|sums| sums.lock().unwrap_or_else(PoisonError::into_inner).take());
            cuda::backward(sink, &dy, &x_, &weight_, bias_.as_ref(), known);
        }
    })
}

/// The shape of `x·Wᵀ + b`, if those of its inputs fit.
#[track_caller]
pub(in crate::ops) fn output_shape(
    operation: &str,
    x: &Tensor,
    weight_oi: &Tensor,
    bias_o: Option<&Tensor>,
) -> Vec<usize> {
    let (_, i) = x.rows();
    let &[o, weight_i] = weight_oi.shape() else {
        panic!("{operation}: the weight must be [out, in], not {:?}", weight_oi.shape())
    };
    assert!(weight_i == i, "{operation}: x is {:?}, so the weight must be [_, {i}], not [{o}, {weight_i}]", x.shape());
    if let Some(bias) = bias_o {
        assert!(bias.shape() == [o], "{operation}: the bias must be [{o}], not {:?}", bias.shape());
    }
    x.shape()[..x.shape().len() - 1].iter().copied().chain([o]).collect()
}
