//! Chunks of rows: logits, loss, gradient of the logits in their place, gradients of the inputs.

use rayon::prelude::*;

use crate::cpu::element::Element;
use crate::cpu::gemm::{MatMut, MatRef, Parallel, gemm};
use crate::ops::cross_entropy::{loss_and_gradient, loss_of_row};
use crate::{Device, Tensor};

pub(super) struct Inputs<'a, T> {
    /// `[n, d]`.
    pub(super) x: &'a [T],
    /// `[v, d]`.
    pub(super) weight: &'a [T],
    /// `[n]`.
    pub(super) targets: &'a [u32],
    pub(super) d: usize,
    pub(super) v: usize,
}

/// The gradients that are asked for, of `scale` times the loss.
pub(super) struct Gradients<'a, DX, DW> {
    /// `[n, d]`.
    pub(super) dx: Option<&'a mut [DX]>,
    /// `[v, d]`.
    pub(super) dweight: Option<&'a mut [DW]>,
    pub(super) scale: f32,
}

/// Writes the gradients and returns the undivided loss.
pub(super) fn loss_and_gradients<T: Element, DX: Element, DW: Element>(
    inputs: &Inputs<T>,
    mut gradients: Gradients<DX, DW>,
) -> f64 {
    let &Inputs { d, v, .. } = inputs;
    let n = inputs.targets.len();
    let rows_per_chunk = super::logits_chunk_rows(v, T::DTYPE, Device::Cpu);
    let with_gradient = gradients.dx.is_some() || gradients.dweight.is_some();
    let weight = MatRef::row_major(inputs.weight, d);
    let mut chunk = Tensor::unspecified(&[rows_per_chunk.min(n), v], T::DTYPE);
    let mut loss = 0.0;

    for first in (0..n).step_by(rows_per_chunk) {
        let rows = rows_per_chunk.min(n - first);
        let logits = &mut T::of_mut(&mut chunk)[..rows * v];
        let x = MatRef::row_major(&inputs.x[first * d..], d);
        gemm(rows, v, d, 1.0, x, weight.transposed(), 0.0, MatMut::row_major(logits, v), Parallel::Rayon);

        let targets = &inputs.targets[first..first + rows];
        let losses: Vec<f64> = logits
            .par_chunks_exact_mut(v)
            .zip(targets)
            .map_init(Vec::new, |row, (logits, &target)| {
                if with_gradient {
                    loss_and_gradient(logits, target, gradients.scale, row)
                } else {
                    loss_of_row(&*logits, target)
                }
            })
            .collect();
        loss += losses.iter().sum::<f64>();

        let dlogits = MatRef::row_major(logits, v);
        if let Some(dx) = &mut gradients.dx {
            let dx = MatMut::row_major(&mut dx[first * d..], d);
            gemm(rows, d, v, 1.0, dlogits, weight, 0.0, dx, Parallel::Rayon);
        }
        if let Some(dweight) = &mut gradients.dweight {
            let beta = if first == 0 { 0.0 } else { 1.0 };
            gemm(v, d, rows, 1.0, dlogits.transposed(), x, beta, MatMut::row_major(dweight, d), Parallel::Rayon);
        }
    }
    if n == 0 {
        gradients.dweight.into_iter().for_each(|dweight| dweight.fill(DW::narrow(0.0)));
    }
    loss
}
