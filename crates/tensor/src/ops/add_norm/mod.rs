//! The residual connection and the norm behind it: one pass over memory, because the sum is normalised while it is in
//! registers or the cache.
//!
//! The sum and the norm are two nodes of the tape, those of [`add_with_bias`](super::add_with_bias()) and of the norm. The
//! bias of the branch is added here, not in the product before: on a GPU, the norm's backward pass completes the gradient of
//! the sum, of which that of the bias is the sum of the columns, while it has it in registers.

#[cfg(test)]
mod tests;

use super::add::check_bias;
use super::{layer_norm, rms_norm};
use crate::{DType, Tensor};

/// `sum = x + y + y_bias` and [`rms_norm`](super::rms_norm()) of the sum, as rounded to its dtype.
///
/// # Shapes
/// `x` and `y` of one shape `[..., d]`, `y_bias: [d]` of their dtype, `gain: [d]` → twice that shape.
///
/// # Panics
/// If the shapes or dtypes differ, or `gain` is not `[d]` of f32.
#[track_caller]
pub fn add_rms_norm(x: &Tensor, y: &Tensor, y_bias: Option<&Tensor>, gain: &Tensor, eps: f32) -> (Tensor, Tensor) {
    check("add_rms_norm", [x, y], y_bias, &[("gain", Some(gain))]);
    rms_norm::add_and_norm(x, y, y_bias, gain, eps)
}

/// `sum = x + y + y_bias` and [`layer_norm`](super::layer_norm()) of the sum, as rounded to its dtype.
///
/// # Shapes
/// `x` and `y` of one shape `[..., d]`, `y_bias: [d]` of their dtype, `gain: [d]`, `bias: [d]` → twice that shape.
///
/// # Panics
/// If the shapes or dtypes differ, or `gain` or `bias` is not `[d]` of f32.
#[track_caller]
pub fn add_layer_norm(
    x: &Tensor,
    y: &Tensor,
    y_bias: Option<&Tensor>,
    gain: &Tensor,
    bias: Option<&Tensor>,
    eps: f32,
) -> (Tensor, Tensor) {
    check("add_layer_norm", [x, y], y_bias, &[("gain", Some(gain)), ("bias", bias)]);
    layer_norm::add_and_norm(x, y, y_bias, gain, bias, eps)
}

#[track_caller]
fn check(operation: &str, [x, y]: [&Tensor; 2], y_bias: Option<&Tensor>, parameters: &[(&str, Option<&Tensor>)]) {
    assert!(
        x.shape() == y.shape() && x.dtype() == y.dtype(),
        "{operation}: x is {:?} of {}, so y must be too, not {:?} of {}",
        x.shape(),
        x.dtype(),
        y.shape(),
        y.dtype()
    );
    if let Some(bias) = y_bias {
        check_bias(operation, x, y, bias);
    }
    let (_, d) = x.rows();
    for (name, tensor) in parameters {
        let Some(tensor) = tensor else { continue };
        let shape = tensor.shape();
        assert!(shape == [d], "{operation}: x is {:?}, so {name} must be [{d}], not {shape:?}", x.shape());
        assert!(tensor.dtype() == DType::F32, "{operation}: {name} must be of f32, not of {}", tensor.dtype());
    }
}
