//! Embedding: one row of a table for each id, `y[i] = table[ids[i]]`.

mod cpu;
#[cfg(test)]
mod tests;

use crate::{DType, Tensor};

// Dims: v vocabulary · d width of a row

/// Looks up the row of each id.
///
/// The gradient of a row is the sum over its occurrences, always in the order of the ids.
///
/// # Shapes
/// `ids`: u32 `[...]`, `table_vd: [v, d]` → `[..., d]`.
///
/// # Panics
/// If the table is not a matrix, or an id is `v` or larger.
#[track_caller]
pub fn embedding(ids: &Tensor, table_vd: &Tensor) -> Tensor {
    let &[v, d] = table_vd.shape() else { panic!("embedding: the table must be [v, d], not {:?}", table_vd.shape()) };
    for (position, &id) in ids.u32s().iter().enumerate() {
        assert!(
            (id as usize) < v,
            "embedding: id {id} at position {position} of ids {:?} is not one of {v} rows of the table",
            ids.shape()
        );
    }

    let shape: Vec<usize> = ids.shape().iter().copied().chain([d]).collect();
    let mut y = Tensor::unspecified(&shape, DType::F32);
    cpu::gather(y.f32s_mut(), ids.u32s(), table_vd.f32s(), d);

    let (ids_, table_) = (ids.clone(), table_vd.place());
    Tensor::from_op(y, &[table_vd], move |dy, sink| {
        sink.accumulate(&table_, |dtable, beta| {
            cpu::scatter_add(dtable.f32s_mut(), beta, ids_.u32s(), dy.f32s(), d);
        });
    })
}
