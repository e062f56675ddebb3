//! One pass over the rows; what does not turn is copied, or left alone if the result takes the place of the input.

use super::{Direction, RopeLayout, Turn};
use crate::cuda::{Arch, Arg, ELEMENT, Source};
use crate::ops::Heads;
use crate::ops::flat_kernel::{self, FLAT};
use crate::ops::row_kernel::vector_width;
use crate::{DType, Tensor};

const FILE: (&str, &str) = ("rope.cu", include_str!("rope.cu"));

/// How rows are cut into items.
#[derive(Clone, Copy)]
struct Shape {
    heads: Heads,
    turned: usize,
    layout: RopeLayout,
    width: usize,
}

impl Shape {
    fn of(dtype: DType, heads: &Heads, turned: usize, layout: RopeLayout) -> Self {
        let width = [turned / 2, heads.head_dim].map(|len| vector_width(dtype, len)).into_iter().min().unwrap_or(1);
        Self { heads: *heads, turned, layout, width }
    }

    fn source(&self, dtype: DType, gradient: DType) -> Source {
        let heads = &self.heads;
        let options = [
            format!("-DHEADS={}u", heads.n_heads + heads.n_kv_heads),
            format!("-DHEAD={}u", heads.head_dim),
            format!("-DTURNED={}u", self.turned),
            format!("-DCOPIED={}u", heads.v_width()),
            format!("-DINTERLEAVED={}", u32::from(self.layout == RopeLayout::Interleaved)),
        ];
        flat_kernel::source("rope", &[ELEMENT, FLAT, FILE], [dtype, gradient], self.width, &options)
    }

    /// Items of a row.
    fn items(&self, in_place: bool) -> usize {
        let turned = self.heads.q_width() + self.heads.k_width();
        let n_heads = self.heads.n_heads + self.heads.n_kv_heads;
        let turn_items = n_heads * (self.turned / 2) / self.width;
        let copied = turned - n_heads * self.turned + self.heads.v_width();
        turn_items + if in_place { 0 } else { copied / self.width }
    }
}

/// Sources for CI, with the architectures they must compile for.
pub(in crate::ops) fn sources() -> Vec<(Source, &'static [Arch])> {
    let heads = |h, g, e| Heads::of_one_size(h, g, e);
    let halves = RopeLayout::HalfSplit;
    [
        (DType::Bf16, Shape::of(DType::Bf16, &heads(16, 16, 128), 128, halves)),
        (DType::Bf16, Shape::of(DType::Bf16, &heads(8, 2, 64), 32, RopeLayout::Interleaved)),
        (DType::F32, Shape::of(DType::F32, &heads(3, 1, 34), 34, halves)),
        (DType::F32, Shape::of(DType::F32, &heads(1, 1, 7), 0, halves)),
    ]
    .map(|(dtype, shape)| (shape.source(dtype, dtype), Arch::PORTABLE))
    .to_vec()
}

/// `y = x` with the query and key heads turned.
pub(super) fn rotate(y: &mut Tensor, x: &Tensor, turn: &Turn<'_>) {
    run(y.into(), y.dtype(), x, turn, false);
}

/// Turns the query and key heads of `x`.
pub(super) fn rotate_in_place(x: &mut Tensor, turn: &Turn<'_>) {
    run(Arg::from(&mut *x), x.dtype(), x, turn, true);
}

fn run(y: Arg, y_dtype: DType, x: &Tensor, turn: &Turn<'_>, in_place: bool) {
    let Turn { heads, table, positions, direction } = turn;
    let (n, _) = x.rows();
    let shape = Shape::of(x.dtype(), heads, table.rotated_dims(), table.layout());
    let (cos, sin) = table.elements();
    let arguments = [
        y,
        x.into(),
        cos.into(),
        sin.into(),
        n.into(),
        positions.start.into(),
        positions.len().into(),
        Arg::F32(if *direction == Direction::Forward { 1.0 } else { -1.0 }),
        Arg::U32(in_place.into()),
    ];
    let (source, items) = (shape.source(x.dtype(), y_dtype), n * shape.items(in_place));
    // SAFETY: x and y have n rows of the heads' width, items beyond them are left out; the table has all positions
    // (checked by `rope`). In place, each element is read before it is written, by one thread.
    unsafe { flat_kernel::run(x.cuda(), &source, "rope", items, &arguments) };
}
