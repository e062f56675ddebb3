//! The feed-forward layer: `down(activation(up(x)))`, or `down(silu(gate) · up)` with gate and up from one matrix.
//!
//! One operation, so that a GPU can compute GELU or SwiGLU and its derivative inside the matrix products.

mod cuda;
#[cfg(test)]
mod tests;

use crate::cuda::blas::has_swiglu;
use crate::ops::{Activation, activation, linear, swiglu};
use crate::{DType, Device, Tensor};

// Dims: n rows (all leading dimensions of x) · d model · f feed-forward

/// The two linear maps and what is between them.
#[derive(Clone, Copy, Debug)]
pub struct Mlp<'a> {
    /// `[f, d]`, or `[2f, d]` with the gate first if gated.
    pub up: &'a Tensor,
    /// One number for each row of `up`.
    pub up_bias: Option<&'a Tensor>,
    /// `[d, f]`
    pub down: &'a Tensor,
    /// `[d]`
    pub down_bias: Option<&'a Tensor>,
    /// `None`: gated, by [`swiglu`].
    pub activation: Option<Activation>,
}

/// Applies a feed-forward layer to every row of `x`.
///
/// Backward keeps `x`, the `f` (gated: `2f`) numbers before the activation and the `f` behind it for each row, and the
/// weights; on a GPU with [`Activation::GeluTanh`] or gated in bf16 the numbers behind it are let go before the gradient of those
/// before it is made.
///
/// # Shapes
/// `x: [..., d]` → `[..., d]`. All have one dtype, and so has the result.
///
/// # Panics
/// If the shapes do not fit.
#[track_caller]
pub fn mlp(x: &Tensor, layer: &Mlp<'_>) -> Tensor {
    if fuses_gelu(x, layer) || fuses_swiglu(x, layer) {
        return cuda::mlp(x, layer);
    }
    let up = linear(x, layer.up, layer.up_bias);
    let activated = match layer.activation {
        Some(kind) => activation(&up, kind),
        None => swiglu(&up),
    };
    drop(up);
    linear(&activated, layer.down, layer.down_bias)
}

/// Whether cuBLASLt computes GELU in its products: its own approximation, in bf16, where rows start on 16 bytes.
fn fuses_gelu(x: &Tensor, layer: &Mlp<'_>) -> bool {
    let (n, d) = x.rows();
    let &[f, _] = layer.up.shape() else { return false };
    let aligned = n > 0 && d.is_multiple_of(8) && f.is_multiple_of(8);
    let bf16_on_gpu = x.device() != Device::Cpu && x.dtype() == DType::Bf16;
    layer.activation == Some(Activation::GeluTanh) && bf16_on_gpu && aligned
}

/// Whether our own products compute SwiGLU: in bf16 on Hopper.
fn fuses_swiglu(x: &Tensor, layer: &Mlp<'_>) -> bool {
    let (Mlp { up_bias: None, activation: None, .. }, &[width, d]) = (layer, layer.up.shape()) else { return false };
    width.is_multiple_of(2) && x.rows().1 == d && has_swiglu(x, d, width / 2)
}
