//! A team of threads for each row, which stays in registers.

use crate::cuda::{Arch, Arg, Source};
use crate::ops::row_kernel::{self, ROWS, RowShape};
use crate::{DType, Tensor};

/// What forward writes: `y: [n, d]`, `mean: [n]`, `inv_std: [n]`.
pub(super) struct Outputs<'a> {
    pub(super) y: &'a mut Tensor,
    pub(super) mean: &'a mut Tensor,
    pub(super) inv_std: &'a mut Tensor,
}

/// What backward needs of forward: `x: [n, d]`, `gain: [d]`, `mean: [n]`, `inv_std: [n]`.
#[derive(Clone, Copy)]
pub(super) struct Saved<'a> {
    pub(super) x: &'a Tensor,
    pub(super) gain: &'a Tensor,
    pub(super) mean: &'a Tensor,
    pub(super) inv_std: &'a Tensor,
}

const FILE: (&str, &str) = ("layer_norm.cu", include_str!("layer_norm.cu"));

const PARTS: &[(&str, &str)] = &[crate::cuda::ELEMENT, ROWS, FILE];

fn source(shape: RowShape, gradient: DType, column_sums: bool) -> Source {
    shape.source("layer_norm", PARTS, gradient, column_sums)
}

/// Sources for CI, with the architectures they must compile for.
pub(in crate::ops) fn sources() -> Vec<(Source, &'static [Arch])> {
    let sizes = [(DType::Bf16, 768), (DType::Bf16, 2048), (DType::Bf16, 8192), (DType::F32, 768), (DType::F32, 33)];
    row_kernel::sources("layer_norm", PARTS, &sizes)
}

/// Writes all outputs.
pub(super) fn forward(outputs: Outputs<'_>, x: &Tensor, gain: &Tensor, bias: Option<&Tensor>, eps: f32) {
    let (n, d) = x.rows();
    let shape = RowShape::forward(x.dtype(), d);
    let kernel = x.cuda().kernel(&source(shape, x.dtype(), false), "layer_norm_forward", 0);
    let Outputs { y, mean, inv_std } = outputs;
    let (bias, n_rows) = (Arg::optional(bias), n.into());
    let arguments = [y.into(), mean.into(), inv_std.into(), x.into(), gain.into(), bias, n_rows, eps.into()];
    // SAFETY: y and x are [n, d], statistics [n], gain and bias [d]; rows from n on and columns from d on are left out.
    unsafe { kernel.run([n.div_ceil(shape.teams()), 1, 1], shape.block(), &arguments) };
}

/// [`forward`] of `sum = x + addend + addend_bias`, which is written too.
pub(super) fn add_forward(
    outputs: Outputs<'_>,
    sum: &mut Tensor,
    [x, addend]: [&Tensor; 2],
    addend_bias: Option<&Tensor>,
    gain: &Tensor,
    bias: Option<&Tensor>,
    eps: f32,
) {
    let (n, d) = x.rows();
    let shape = RowShape::forward(x.dtype(), d);
    let kernel = x.cuda().kernel(&source(shape, x.dtype(), false), "add_layer_norm_forward", 0);
    let Outputs { y, mean, inv_std } = outputs;
    let (bias, n_rows) = (Arg::optional(bias), n.into());
    let arguments = [
        y.into(),
        mean.into(),
        inv_std.into(),
        sum.into(),
        x.into(),
        addend.into(),
        Arg::optional(addend_bias),
        gain.into(),
        bias,
        n_rows,
        eps.into(),
    ];
    // SAFETY: as in `forward`; the sum and the addend have the shape of x.
    unsafe { kernel.run([n.div_ceil(shape.teams()), 1, 1], shape.block(), &arguments) };
}

/// Sets `dx ← beta · dx + the gradient of x`, and writes `sums`: `dgain`, `dbias`, and the sums of the columns of the new
/// `dx` if there is a third.
pub(super) fn backward(dx: &mut Tensor, beta: f32, sums: &mut [&mut Tensor], dy: &Tensor, saved: &Saved<'_>) {
    let Saved { x, gain, mean, inv_std } = *saved;
    let (n, d) = x.rows();
    // Three sums over rows for each element take more registers than a full block leaves. Also for two, so that they are
    // added in the same order.
    let (device, shape) = (x.cuda(), RowShape::backward(x.dtype(), d).roomier());
    let source = source(shape, dx.dtype(), sums.len() == 3);
    let blocks = shape.backward_blocks(device, n);
    let mut partial = Tensor::unspecified_on(dx.device(), &[sums.len(), blocks, d], DType::F32);
    let [dgain, dbias, columns] =
        [0, 1, 2].map(|at| sums.get_mut(at).map_or(Arg::Pointer(0), |sum| Arg::from(&mut **sum)));
    let arguments = [
        dx.into(),
        beta.into(),
        dgain,
        dbias,
        columns,
        (&mut partial).into(),
        dy.into(),
        x.into(),
        gain.into(),
        mean.into(),
        inv_std.into(),
        n.into(),
    ];
    // SAFETY: dx, dy and x are [n, d], the sums [d], of which there are as many as the source is made for; every block
    // writes its own rows of the partial sums.
    unsafe { device.kernel(&source, "layer_norm_backward", 0).run([blocks, 1, 1], shape.block(), &arguments) };
}
