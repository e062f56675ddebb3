//! A team of threads for each row, which stays in registers.

use crate::cuda::{Arch, Arg, Source};
use crate::ops::row_kernel::{self, ROWS, RowShape};
use crate::{DType, Tensor};

/// What backward needs of forward: `x: [n, d]`, `gain: [d]`, `inv_rms: [n]`.
#[derive(Clone, Copy)]
pub(super) struct Saved<'a> {
    pub(super) x: &'a Tensor,
    pub(super) gain: &'a Tensor,
    pub(super) inv_rms: &'a Tensor,
}

const FILE: (&str, &str) = ("rms_norm.cu", include_str!("rms_norm.cu"));

const PARTS: &[(&str, &str)] = &[crate::cuda::ELEMENT, ROWS, FILE];

fn source(shape: RowShape, gradient: DType, column_sums: bool) -> Source {
    shape.source("rms_norm", PARTS, gradient, column_sums)
}

/// Sources for CI, with the architectures they must compile for.
pub(in crate::ops) fn sources() -> Vec<(Source, &'static [Arch])> {
    let sizes = [(DType::Bf16, 768), (DType::Bf16, 2048), (DType::Bf16, 8192), (DType::F32, 768), (DType::F32, 33)];
    row_kernel::sources("rms_norm", PARTS, &sizes)
}

/// Writes `y: [n, d]` and `inv_rms: [n]`.
pub(super) fn forward(y: &mut Tensor, inv_rms: &mut Tensor, x: &Tensor, gain: &Tensor, eps: f32) {
    let (n, d) = x.rows();
    let shape = RowShape::forward(x.dtype(), d);
    let kernel = x.cuda().kernel(&source(shape, x.dtype(), false), "rms_norm_forward", 0);
    let arguments = [y.into(), inv_rms.into(), x.into(), gain.into(), n.into(), eps.into()];
    // SAFETY: y and x are [n, d], inv_rms [n], gain [d]; rows from n on and columns from d on are left out.
    unsafe { kernel.run([n.div_ceil(shape.teams()), 1, 1], shape.block(), &arguments) };
}

/// [`forward`] of `sum = x + addend + addend_bias`, which is written too.
pub(super) fn add_forward(
    [y, inv_rms, sum]: [&mut Tensor; 3],
    [x, addend]: [&Tensor; 2],
    addend_bias: Option<&Tensor>,
    gain: &Tensor,
    eps: f32,
) {
    let (n, d) = x.rows();
    let shape = RowShape::forward(x.dtype(), d);
    let kernel = x.cuda().kernel(&source(shape, x.dtype(), false), "add_rms_norm_forward", 0);
    let addend_bias = Arg::optional(addend_bias);
    let (x, addend) = (x.into(), addend.into());
    let arguments = [y.into(), inv_rms.into(), sum.into(), x, addend, addend_bias, gain.into(), n.into(), eps.into()];
    // SAFETY: as in `forward`; the sum and the addend have the shape of x, and the bias is a row of its dtype.
    unsafe { kernel.run([n.div_ceil(shape.teams()), 1, 1], shape.block(), &arguments) };
}

/// Sets `dx ← beta · dx + the gradient of x`, and writes `sums`: `dgain`, and the sums of the columns of the new `dx` if
/// there is a second.
pub(super) fn backward(dx: &mut Tensor, beta: f32, sums: &mut [&mut Tensor], dy: &Tensor, saved: &Saved<'_>) {
    let Saved { x, gain, inv_rms } = *saved;
    let (n, d) = x.rows();
    let (device, shape) = (x.cuda(), RowShape::backward(x.dtype(), d));
    let source = source(shape, dx.dtype(), sums.len() == 2);
    let blocks = shape.backward_blocks(device, n);
    let mut partial = Tensor::unspecified_on(dx.device(), &[sums.len(), blocks, d], DType::F32);
    let [dgain, columns] = [0, 1].map(|at| sums.get_mut(at).map_or(Arg::Pointer(0), |sum| Arg::from(&mut **sum)));
    let arguments = [
        dx.into(),
        beta.into(),
        dgain,
        columns,
        (&mut partial).into(),
        dy.into(),
        x.into(),
        gain.into(),
        inv_rms.into(),
        n.into(),
    ];
    // SAFETY: dx, dy and x are [n, d], the sums [d], of which there are as many as the source is made for; every block
    // writes its own rows of the partial sums.
    unsafe { device.kernel(&source, "rms_norm_backward", 0).run([blocks, 1, 1], shape.block(), &arguments) };
}
