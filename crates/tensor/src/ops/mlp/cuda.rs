//! GELU or SwiGLU in the epilogue of the first product, its derivative in that of the product which is the gradient of its
//! result.

use super::Mlp;
use crate::Tensor;
use crate::cuda::blas::Epilogue;
use crate::ops::cast::cast;
use crate::ops::linear::{cuda as linear, output_shape};
use crate::tensor::OnTape;

/// `down(gelu_tanh(up(x)))`, or with SwiGLU if there is no activation.
#[track_caller]
pub(super) fn mlp(x: &Tensor, layer: &Mlp<'_>) -> Tensor {
    let Mlp { up, up_bias, down, down_bias, activation } = *layer;
    let inputs: Vec<&Tensor> = [x, up, down].into_iter().chain(up_bias).chain(down_bias).collect();
    let is_tracked = inputs.iter().any(|x| x.is_tracked());

    let gated = activation.is_none();
    let mut shape = output_shape("mlp: up", x, up, up_bias);
    let mut pre_activation = is_tracked.then(|| Tensor::unspecified_on(x.device(), &shape, x.dtype()));
    if let (Some(width), true) = (shape.last_mut(), gated) {
        *width /= 2;
    }
    let mut activated = Tensor::unspecified_on(x.device(), &shape, x.dtype());
    let epilogue = match gated {
        false => Epilogue::Gelu { bias: up_bias, pre_activation: pre_activation.as_mut() },
        true => Epilogue::SwiGlu { gate_up: pre_activation.as_mut() },
    };
    linear::product_of(up.shape()[0], &mut activated, x, up, epilogue);
    let shape = output_shape("mlp: down", &activated, down, down_bias);
    let mut y = Tensor::unspecified_on(x.device(), &shape, x.dtype());
    linear::product(&mut y, &activated, down, down_bias.map_or(Epilogue::None, Epilogue::Bias));

    let Some(pre_activation) = pre_activation else { return y };
    let (x_, up_, up_bias_) = (x.clone(), up.clone(), up_bias.map(Tensor::place));
    let (down_, down_bias_) = (down.clone(), down_bias.map(Tensor::place));
    Tensor::from_op(y, &inputs, move |dy, sink| {
        linear::weight_gradients(sink, &dy, &activated, &down_, down_bias_.as_ref());
        // Its memory serves for the next gradient.
        drop(activated);
        if !sink.wants(&x_) && !sink.wants(&up_) && !up_bias_.as_ref().is_some_and(|bias| sink.wants(bias)) {
            return;
        }
        let mut dpre = Tensor::unspecified_on(x_.device(), pre_activation.shape(), x_.dtype());
        // The gradient of the bias before GELU is the sum of the columns of `dpre`, at hand as they are made.
        let up_bias = up_bias_.filter(|bias| sink.wants(bias));
        let mut sums = up_bias.as_ref().map(|bias| Tensor::unspecified_on(x_.device(), bias.shape(), x_.dtype()));
        let epilogue = match gated {
            false => Epilogue::GeluGradient { pre_activation: &pre_activation, column_sums: sums.as_mut() },
            true => Epilogue::SwiGluGradient { gate_up: &pre_activation },
        };
        linear::input_gradient(&mut dpre, 0.0, &dy, &down_, epilogue);
        drop((dy, pre_activation));
        if let (Some(bias), Some(sums)) = (up_bias, sums) {
            sink.add(&bias, cast(&sums, bias.gradient_dtype()));
        }
        linear::weight_gradients(sink, &dpre, &x_, &up_, None);
        sink.accumulate(&x_, |dx, beta| linear::input_gradient(dx, beta, &dpre, &up_, Epilogue::None));
    })
}
