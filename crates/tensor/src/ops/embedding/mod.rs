//! Embedding: one row of a table for each id, `y[i] = table[ids[i]]`, with or without learned positions.

mod cpu;
#[allow(unsafe_code)]
pub(in crate::ops) mod cuda;
#[cfg(test)]
mod tests;

use crate::cpu::element::{Element, for_dtype};
use crate::{DType, Device, Tensor};

// Dims: v vocabulary · d width of a row · c context length

/// Looks up the row of each id.
///
/// The gradient of a row is the sum over its occurrences, always in the same order. On a GPU, where ids are not looked at
/// beforehand, one outside of the table gives a row of NaN and its gradient is ignored.
///
/// # Shapes
/// `ids`: u32 `[...]`, `table_vd: [v, d]` → `[..., d]`.
///
/// # Panics
/// If the table is not a matrix, or, on the CPU, an id is `v` or larger.
#[track_caller]
pub fn embedding(ids: &Tensor, table_vd: &Tensor) -> Tensor {
    let (v, d) = size(table_vd);
    assert!(ids.dtype() == DType::U32, "embedding: ids must be of u32, not of {}", ids.dtype());
    let shape: Vec<usize> = ids.shape().iter().copied().chain([d]).collect();
    let mut y = Tensor::unspecified_on(table_vd.device(), &shape, table_vd.dtype());
    match table_vd.device() {
        Device::Cpu => {
            for (position, &id) in ids.u32s().iter().enumerate() {
                assert!(
                    (id as usize) < v,
                    "embedding: id {id} at position {position} of ids {:?} is not one of {v} rows of the table",
                    ids.shape()
                );
            }
            for_dtype!(table_vd.dtype(), T => cpu::gather(T::of_mut(&mut y), ids.u32s(), T::of(table_vd), d));
        }
        Device::Cuda(_) => cuda::gather(&mut y, ids, table_vd, None),
    }

    let (ids_, table_) = (ids.clone(), table_vd.place());
    Tensor::from_op(y, &[table_vd], move |dy, sink| {
        sink.accumulate(&table_, |dtable, beta| match dy.device() {
            Device::Cpu => for_dtype!(dy.dtype(), T => {
                cpu::scatter_add(dtable.f32s_mut(), beta, ids_.u32s(), T::of(&dy), d);
            }),
            Device::Cuda(_) => cuda::scatter_add(dtable, beta, &ids_, &dy),
        });
    })
}

/// [`embedding`] plus a row for each position: `y[b, t] = table[ids[b, t]] + positions[start + t]`.
///
/// # Shapes
/// `ids_bt`: u32 `[b, t]`, `table_vd: [v, d]`, `positions_cd: [c, d]` → `[b, t, d]`.
///
/// # Panics
/// As [`embedding`], or if the tables differ in width or dtype, or a position is `c` or larger.
#[track_caller]
pub fn embedding_with_positions(ids_bt: &Tensor, table_vd: &Tensor, positions_cd: &Tensor, start: usize) -> Tensor {
    let &[b, t] = ids_bt.shape() else {
        panic!("embedding_with_positions: ids must be [b, t], not {:?}", ids_bt.shape())
    };
    let ((_, d), (c, d_positions)) = (size(table_vd), size(positions_cd));
    assert!(
        d == d_positions && table_vd.dtype() == positions_cd.dtype() && start + t <= c,
        "embedding_with_positions: {positions_cd:?} has no positions {start}..{} of the width and dtype of {table_vd:?}",
        start + t
    );
    assert!(ids_bt.dtype() == DType::U32, "embedding: ids must be of u32, not of {}", ids_bt.dtype());
    if table_vd.device() == Device::Cpu {
        let positions = (0..b).flat_map(|_| start as u32..(start + t) as u32).collect();
        let of_positions = embedding(&Tensor::from_u32(&[b, t], positions), positions_cd);
        return super::add(&embedding(ids_bt, table_vd), &of_positions);
    }

    let mut y = Tensor::unspecified_on(table_vd.device(), &[b, t, d], table_vd.dtype());
    cuda::gather(&mut y, ids_bt, table_vd, Some((positions_cd, start, t)));
    let (ids_, table_, positions_) = (ids_bt.clone(), table_vd.place(), positions_cd.place());
    Tensor::from_op(y, &[table_vd, positions_cd], move |dy, sink| {
        sink.accumulate(&table_, |dtable, beta| cuda::scatter_add(dtable, beta, &ids_, &dy));
        sink.accumulate(&positions_, |dpositions, beta| cuda::sum_positions(dpositions, beta, &dy, start));
    })
}

#[track_caller]
fn size(table: &Tensor) -> (usize, usize) {
    let &[rows, d] = table.shape() else { panic!("embedding: the table must be [v, d], not {:?}", table.shape()) };
    (rows, d)
}
