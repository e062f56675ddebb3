//! Linear map with products of 8-bit floating-point numbers, on a GPU: `y = x·Wᵀ + b`.
//!
//! Activations and weights are rounded to e4m3, gradients of results to e5m2, each matrix with one factor that takes its
//! largest magnitude to the largest number of the format ("tensorwise, current scaling"; Micikevicius et al., 2022,
//! <https://arxiv.org/abs/2209.05433>). The factor is found right before rounding: nothing is remembered from one step to
//! the next, so a resumed run computes the same bits, and a recorded graph needs no upkeep.
//!
//! Gradients are e5m2 in both of their products. With one factor for a whole gradient, its numbers span more powers of 2
//! than the 18 of e4m3, and what falls below becomes 0 without anyone noticing; the bit of mantissa that e5m2 lacks costs
//! noise that averages out over the terms of a sum. Sums of the forward pass may be kept in fewer bits than f32, those of
//! gradients may not.
//!
//! Tensor cores want both operands with the terms of a sum side by side. So `x` and `dy` are rounded into both orders in
//! one pass, and backward keeps 8 bits of the transpose of `x` instead of 16 of `x`.

mod quantise;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::autograd::Sink;
use crate::cuda::blas::{Fp8Matrix, Fp8Product, column_sums, matmul_fp8};
use crate::fp8::Fp8Format;
use crate::ops::linear;
use crate::ops::linear::output_shape;
use crate::tensor::Place;
use crate::{DType, Device, Tensor};
pub(in crate::ops) use quantise::sources;
pub use quantise::{Fp8Orders, Fp8Quantised, fp8_quantise};

/// A weight rounded to 8 bits, in both orders: made once for all products of an update.
#[derive(Clone)]
pub struct Fp8Weight {
    /// `[o, i]`
    plain: Fp8Matrix,
    /// `[i, o]`
    transposed: Fp8Matrix,
}

impl Fp8Weight {
    /// Of `weight_oi: [o, i]`. `None` if it is not of bf16 on a GPU, or a size is no multiple of 16.
    pub fn new(weight_oi: &Tensor) -> Option<Self> {
        let &[o, i] = weight_oi.shape() else { return None };
        if !Fp8Matrix::fits(o, i) || weight_oi.dtype() != DType::Bf16 || weight_oi.device() == Device::Cpu {
            return None;
        }
        let both = fp8_quantise(weight_oi, Fp8Format::E4m3, Fp8Orders::BOTH);
        Some(Self { plain: both.plain?, transposed: both.transposed? })
    }
}

impl fmt::Debug for Fp8Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fp8Weight([{}, {}])", self.plain.rows, self.plain.columns)
    }
}

/// [`linear`] with products of 8-bit numbers; `quantised` is made of `weight_oi`. Where rows of `x` are not a multiple of
/// 16 it is [`linear`] itself.
///
/// Backward keeps `x` in 8 bits, unless the weight is a constant.
///
/// # Shapes
/// `x: [..., i]`, `weight_oi: [o, i]`, `bias_o: [o]` → `[..., o]`, all of bf16 on one GPU.
///
/// # Panics
/// If the shapes do not fit.
#[track_caller]
pub fn fp8_linear(x: &Tensor, weight_oi: &Tensor, quantised: &Fp8Weight, bias_o: Option<&Tensor>) -> Tensor {
    let shape = output_shape("fp8_linear", x, weight_oi, bias_o);
    let (n, i) = x.rows();
    let &[o, _] = weight_oi.shape() else { unreachable!("a weight is a matrix") };
    assert!(
        (quantised.plain.rows, quantised.plain.columns) == (o, i),
        "fp8_linear: {quantised:?} is not made of a weight [{o}, {i}]"
    );
    if !Fp8Matrix::fits(n, i) || x.dtype() != DType::Bf16 {
        return linear(x, weight_oi, bias_o);
    }
    let orders = Fp8Orders { plain: true, transposed: weight_oi.is_tracked() };
    let x8 = fp8_quantise(x, Fp8Format::E4m3, orders);
    let mut y = Tensor::unspecified_on(x.device(), &shape, x.dtype());
    let a = x8.plain.as_ref().expect("asked for");
    matmul_fp8(Fp8Product { a, b: &quantised.plain, out: &mut y, beta: 0.0, bias: bias_o, fast_sums: true });

    let inputs: Vec<&Tensor> = [x, weight_oi].into_iter().chain(bias_o).collect();
    let saved = Saved {
        x: x.place(),
        x_transposed: x8.transposed,
        weight: weight_oi.place(),
        weight_transposed: quantised.transposed.clone(),
        bias: bias_o.map(Tensor::place),
    };
    Tensor::from_op(y, &inputs, move |dy, sink| saved.backward(dy, sink))
}

/// What backward needs.
struct Saved {
    x: Place,
    /// `[i, n]`, if the weight is tracked.
    x_transposed: Option<Fp8Matrix>,
    weight: Place,
    /// `[i, o]`
    weight_transposed: Fp8Matrix,
    bias: Option<Place>,
}

impl Saved {
    /// Delivers the gradients of the three inputs.
    fn backward(self, dy: Tensor, sink: &mut Sink<'_>) {
        let Saved { x, x_transposed, weight, weight_transposed, bias } = self;
        if let Some(bias) = bias.filter(|bias| sink.wants(bias)) {
            sink.accumulate(&bias, |dbias, beta| column_sums(dbias, beta, &dy));
        }
        let orders = Fp8Orders { plain: sink.wants(&x), transposed: x_transposed.is_some() };
        if !orders.plain && !orders.transposed {
            return;
        }
        let dy8 = fp8_quantise(&dy, Fp8Format::E5m2, orders);
        drop(dy);
        if let (Some(a), Some(b)) = (&dy8.transposed, &x_transposed) {
            sink.accumulate(&weight, |out, beta| {
                matmul_fp8(Fp8Product { a, b, out, beta, bias: None, fast_sums: false });
            });
        }
        drop((x_transposed, dy8.transposed));
        if let Some(a) = &dy8.plain {
            let b = &weight_transposed;
            sink.accumulate(&x, |out, beta| {
                matmul_fp8(Fp8Product { a, b, out, beta, bias: None, fast_sums: false });
            });
        }
    }
}
