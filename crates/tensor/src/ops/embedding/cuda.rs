//! Gather is one pass. The gradient sorts the ids on the device, so that the rows of an id are next to each other.

use crate::cuda::{Arch, Arg, ELEMENT, Source};
use crate::ops::flat_kernel::{self, FLAT};
use crate::ops::row_kernel::vector_width;
use crate::{DType, Tensor};

/// Sorted ids of a team, and warps that join its runs, as in scatter.cu.
const CHUNK: usize = 32;
const JOINING_WARPS: usize = 4;
/// Ids of a block of the sort, as in sort.cu.
const TILE: usize = 2048;

fn gather_source(dtype: DType, gradient: DType, d: usize) -> Source {
    let parts = &[ELEMENT, FLAT, ("gather.cu", include_str!("gather.cu"))];
    flat_kernel::source("gather", parts, [dtype, gradient], vector_width(dtype, d), &[format!("-DD={d}")])
}

fn sort_source() -> Source {
    Source { name: "sort", parts: &[ELEMENT, ("sort.cu", include_str!("sort.cu"))], options: Vec::new() }
}

fn scatter_source(dtype: DType, gradient: DType, d: usize) -> Source {
    let parts = &[ELEMENT, FLAT, ("scatter.cu", include_str!("scatter.cu"))];
    let options = [format!("-DD={d}"), format!("-DCOLUMNS={}", columns(dtype, d))];
    flat_kernel::source("scatter", parts, [dtype, gradient], vector_width(dtype, d), &options)
}

/// Threads of a team, each with one vector of a row; wide rows have several teams.
fn columns(dtype: DType, d: usize) -> usize {
    (d / vector_width(dtype, d)).next_multiple_of(32).clamp(32, 256)
}

/// Sources for CI, with the architectures they must compile for.
pub(in crate::ops) fn sources() -> Vec<(Source, &'static [Arch])> {
    let sizes = [(DType::Bf16, 768), (DType::Bf16, 2048), (DType::F32, 768), (DType::F32, 33)];
    let of_sizes = sizes
        .into_iter()
        .flat_map(|(dtype, d)| [gather_source(dtype, DType::F32, d), scatter_source(dtype, DType::F32, d)]);
    std::iter::once(sort_source()).chain(of_sizes).map(|source| (source, Arch::PORTABLE)).collect()
}

/// `y[i] = table[ids[i]] + positions[start + i mod t]`, with the positions `(table, start, t)`.
pub(super) fn gather(y: &mut Tensor, ids: &Tensor, table: &Tensor, positions: Option<(&Tensor, usize, usize)>) {
    let (v, d) = table.rows();
    let n_vectors = y.len() / vector_width(table.dtype(), d);
    let (positions, start, t) = positions.map_or((Arg::Pointer(0), 0, 1), |(table, start, t)| (table.into(), start, t));
    let arguments =
        [y.into(), ids.into(), table.into(), positions, (n_vectors as u64).into(), v.into(), start.into(), t.into()];
    let source = gather_source(table.dtype(), table.dtype(), d);
    // SAFETY: y is [n, d] with one id for each row; ids that are not below v are not looked up, and all positions are in
    // their table (checked by the caller).
    unsafe { flat_kernel::run(table.cuda(), &source, "gather", n_vectors, &arguments) };
}

/// `dpositions ← beta · dpositions`, then `dpositions[start + i mod t] += dy[i]` for every row `i` of `dy: [b, t, d]`.
pub(super) fn sum_positions(dpositions: &mut Tensor, beta: f32, dy: &Tensor, start: usize) {
    let &[b, t, d] = dy.shape() else { panic!("the gradient of embedded ids is [b, t, d], not {:?}", dy.shape()) };
    let (context, _) = dpositions.rows();
    let source = gather_source(dy.dtype(), dpositions.dtype(), d);
    let n_vectors = dpositions.len() / vector_width(dy.dtype(), d);
    let arguments = [dpositions.into(), beta.into(), dy.into(), context.into(), start.into(), b.into(), t.into()];
    // SAFETY: positions from start + t on, and before start, have no rows in dy; those beyond the context are left out.
    unsafe { flat_kernel::run(dy.cuda(), &source, "sum_positions", n_vectors, &arguments) };
}

/// `dtable ← beta · dtable`, then `dtable[ids[i]] += dy[i]` for every `i`, in a fixed order. Ids outside of the table are
/// ignored.
pub(super) fn scatter_add(dtable: &mut Tensor, beta: f32, ids: &Tensor, dy: &Tensor) {
    let ((v, d), n) = (dtable.rows(), ids.len());
    let device = dy.cuda();
    let source = scatter_source(dy.dtype(), dtable.dtype(), d);
    if beta != 1.0 {
        let (len, width) = (dtable.len(), vector_width(dy.dtype(), d));
        let arguments = [Arg::from(&mut *dtable), beta.into(), (len as u64).into()];
        // SAFETY: elements from the table's length on are left out.
        unsafe { flat_kernel::run(device, &source, "scale", len.div_ceil(width), &arguments) };
    }
    if n == 0 {
        return;
    }
    let (ids, places) = sorted(ids, v);
    let (chunks, n_vectors, columns) = (n.div_ceil(CHUNK), d / vector_width(dy.dtype(), d), columns(dy.dtype(), d));
    let mut partials = Tensor::unspecified_on(dy.device(), &[chunks, 2, d], DType::F32);
    let keep = Arg::U32((beta != 0.0).into());
    let arguments = [
        Arg::from(&mut *dtable),
        keep,
        (&mut partials).into(),
        dy.into(),
        (&ids).into(),
        (&places).into(),
        n.into(),
        v.into(),
    ];
    let kernel = device.kernel(&source, "sum_runs", 0);
    // SAFETY: places are a permutation of 0..n and dy has n rows; ids from v on are left out, columns from d on too. Each
    // team writes its own partial sums, and a row of the table is written by the one team that has its whole run.
    unsafe { kernel.run([chunks, n_vectors.div_ceil(columns), 1], columns, &arguments) };
    let arguments = [dtable.into(), keep, (&partials).into(), (&ids).into(), n.into(), v.into()];
    let kernel = device.kernel(&source, "join_runs", 0);
    // SAFETY: as above; the rows written here are of runs over several chunks. Partial sums are read where `sum_runs`
    // wrote them: for the run's first chunk and each next one that begins with its id.
    unsafe { kernel.run([chunks, n_vectors.div_ceil(32), 1], 32 * JOINING_WARPS, &arguments) };
}

/// The ids in ascending order, those from `v` on as `v`, and their places; equal ones in the order of their places.
fn sorted(ids: &Tensor, v: usize) -> (Tensor, Tensor) {
    let (n, device) = (ids.len(), ids.cuda());
    let (source, tiles) = (sort_source(), ids.len().div_ceil(TILE));
    let [count, moving] = ["count_digits", "move_by_digit"].map(|name| device.kernel(&source, name, 0));
    let unspecified = |len: usize| Tensor::unspecified_on(ids.device(), &[len], DType::U32);
    let mut counts = unspecified(tiles * 256);
    let mut sorted: Option<(Tensor, Tensor)> = None;
    let bits = usize::BITS - v.leading_zeros();
    for shift in (0..bits).step_by(8) {
        let (from, places) = match &sorted {
            Some((ids, places)) => (ids, Arg::from(places)),
            None => (ids, Arg::Pointer(0)),
        };
        let (mut to, mut to_places) = (unspecified(n), unspecified(n));
        let last = [n.into(), v.into(), Arg::U32(shift)];
        let mut arguments = vec![(&mut counts).into(), from.into()];
        arguments.extend(last);
        // SAFETY: ids from n on are left out; every block has its own 256 counts.
        unsafe { count.run([tiles, 1, 1], 256, &arguments) };
        let mut arguments = vec![(&mut to).into(), (&mut to_places).into(), (&counts).into(), from.into(), places];
        arguments.extend(last);
        // SAFETY: as above; the counts are those of the same ids, so that each is moved to a place of its own below n.
        unsafe { moving.run([tiles, 1, 1], 256, &arguments) };
        sorted = Some((to, to_places));
    }
    sorted.expect("a table without rows has no ids")
}
