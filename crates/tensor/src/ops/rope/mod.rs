//! Rotary position embedding: each pair of elements of a query or key is turned by an angle proportional to its
//! position, so that their dot product depends on the distance alone.
//!
//! `(x₁, x₂) → (x₁·cos φ − x₂·sin φ, x₂·cos φ + x₁·sin φ)` with `φ = position · theta^(−2i/e)` for pair `i` of `e/2`.
//!
//! Su et al., 2021, <https://arxiv.org/abs/2104.09864>, equation 34.

mod cpu;
mod table;
#[cfg(test)]
mod tests;

use crate::ops::Heads;
use crate::{DType, Tensor};

pub use table::{RopeLayout, RopeTable};

/// Turns the query and key heads of a fused projection by their positions; the position of row `t` is `start + t`.
/// Values, and elements of a head behind the rotated ones, stay as they are.
///
/// # Shapes
/// `qkv: [b, t, (h + 2g)·head_dim]` → the same.
///
/// # Panics
/// If the width is not that of `heads`, a head is narrower than the rotation, or a position is behind the table.
#[track_caller]
pub fn rope(qkv: &Tensor, heads: &Heads, table: &RopeTable, start: usize) -> Tensor {
    let (_, t) = heads.check("rope", qkv);
    assert!(
        table.rotated_dims() <= heads.head_dim,
        "rope: the table turns {} elements of a head, but a head has {}",
        table.rotated_dims(),
        heads.head_dim
    );
    assert!(
        start + t <= table.context_length(),
        "rope: positions {start}..{} of qkv {:?} are behind the table's context length {}",
        start + t,
        qkv.shape(),
        table.context_length()
    );

    let mut y = copy(qkv);
    cpu::rotate(y.f32s_mut(), heads, table, start..start + t, cpu::Direction::Forward);

    let (qkv_, heads_, table_) = (qkv.place(), *heads, table.clone());
    Tensor::from_op(y, &[qkv], move |mut dy, sink| {
        // The inverse of a rotation is its transpose.
        let mut dx = if dy.is_unique() { dy } else { copy(&dy) };
        cpu::rotate(dx.f32s_mut(), &heads_, &table_, start..start + t, cpu::Direction::Inverse);
        sink.add(&qkv_, dx);
    })
}

fn copy(x: &Tensor) -> Tensor {
    use rayon::prelude::*;
    let mut y = Tensor::unspecified(x.shape(), DType::F32);
    let chunk = crate::cpu::threads::rows_per_task(1);
    y.f32s_mut().par_chunks_mut(chunk).zip(x.f32s().par_chunks(chunk)).for_each(|(y, x)| y.copy_from_slice(x));
    y
}
