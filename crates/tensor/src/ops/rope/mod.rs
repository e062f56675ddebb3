//! Rotary position embedding: each pair of elements of a query or key is turned by an angle proportional to its
//! position, so that their dot product depends on the distance alone.
//!
//! `(x₁, x₂) → (x₁·cos φ − x₂·sin φ, x₂·cos φ + x₁·sin φ)` with `φ = position · theta^(−2i/e)` for pair `i` of `e/2`.
//!
//! Su et al., 2021, <https://arxiv.org/abs/2104.09864>, equation 34.

mod cpu;
#[allow(unsafe_code)]
pub(in crate::ops) mod cuda;
mod table;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::cpu::element::{Element, convert, for_dtype};
use crate::cpu::threads::for_rows;
use crate::ops::Heads;
use crate::tensor::OnTape;
use crate::{DType, Device, Tensor};

pub use table::{RopeLayout, RopeTable};

/// Which way to turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Forward,
    Inverse,
}

/// What is turned, and how: rows have the `positions` in turn.
struct Turn<'a> {
    heads: &'a Heads,
    table: &'a RopeTable,
    positions: Range<usize>,
    direction: Direction,
}

/// Turns the query and key heads of a fused projection by their positions; the position of row `t` is `start + t`.
/// Values, and elements of a head behind the rotated ones, stay as they are.
///
/// # Shapes
/// `qkv: [b, t, (h + 2g)·head_dim]` → the same.
///
/// # Panics
/// If the width is not that of `heads`, a head is narrower than the rotation, a position is behind the table, or the table
/// is on another device.
#[track_caller]
pub fn rope(qkv: &Tensor, heads: &Heads, table: &RopeTable, start: usize) -> Tensor {
    rope_into(qkv.clone(), heads, table, start)
}

/// [`rope`] in the memory of `qkv`, if nothing shares it.
///
/// # Panics
/// As there.
#[track_caller]
pub fn rope_into(mut qkv: Tensor, heads: &Heads, table: &RopeTable, start: usize) -> Tensor {
    let (_, t) = heads.check("rope", &qkv);
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
    let device = qkv.device();
    assert!(table.device() == device, "rope: qkv is on {device}, so the table must be too, not on {}", table.device());

    let (place, heads, table) = (qkv.place(), *heads, table.clone());
    let turn = Turn { heads: &heads, table: &table, positions: start..start + t, direction: Direction::Forward };
    let shared = (!qkv.is_unique()).then(|| qkv.clone());
    let dtype = qkv.dtype();
    let y = turned(qkv, dtype, &turn);
    let input = shared.unwrap_or_else(|| y.clone());
    Tensor::from_op(y, &[&input], move |dy, sink| {
        // The inverse of a rotation is its transpose.
        let turn = Turn { heads: &heads, table: &table, positions: start..start + t, direction: Direction::Inverse };
        let dx = turned(dy, place.gradient_dtype(), &turn);
        sink.add(&place, dx);
    })
}

/// `x` turned, as `dtype`; in its own memory if nothing shares it.
fn turned(mut x: Tensor, dtype: DType, turn: &Turn<'_>) -> Tensor {
    let in_place = x.is_unique() && x.dtype() == dtype;
    match (x.device(), in_place) {
        (Device::Cpu, true) => {
            for_dtype!(dtype, T => cpu::rotate(T::of_mut(&mut x), turn));
            x
        }
        (Device::Cpu, false) => {
            let mut y = Tensor::unspecified(x.shape(), dtype);
            for_dtype!(dtype, D => {
                let y = D::of_mut(&mut y);
                for_dtype!(x.dtype(), T => for_rows(y, T::of(&x), 1, convert));
                cpu::rotate(y, turn);
            });
            y
        }
        (Device::Cuda(_), true) => {
            cuda::rotate_in_place(&mut x, turn);
            x
        }
        (Device::Cuda(_), false) => {
            let mut y = Tensor::unspecified_on(x.device(), x.shape(), dtype);
            cuda::rotate(&mut y, &x, turn);
            y
        }
    }
}
