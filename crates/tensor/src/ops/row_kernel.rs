//! How kernels that hold a row of a matrix in registers cut it.

use crate::DType;
use crate::cuda::{Arch, Context, Source};

/// What the kernels share; between `ELEMENT` and an operation's own file.
pub(super) const ROWS: (&str, &str) = ("row_kernel.cuh", include_str!("row_kernel.cuh"));

/// Threads of a block of a forward kernel, unless a row needs more.
const BLOCK: usize = 256;
/// The most elements of a row that one thread of a forward kernel holds, unless the row is wider than the largest block can
/// hold so.
const PER_THREAD: usize = 24;
/// Threads of a block of a backward kernel, the only one of its multiprocessor, that hold one vector of a row each: then
/// registers suffice for three sums over rows, the gain, and the next row on its way. With more vectors, as many fewer.
const BACKWARD_BLOCK: usize = 768;
/// Threads of a team of a backward kernel, where two vectors for each of them suffice.
const BACKWARD_TEAM: usize = 512;

/// Rows of `d` elements, each held by a team of threads: one warp, or several for wide rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowShape {
    dtype: DType,
    d: usize,
    /// Elements of one access.
    width: usize,
    /// Threads of a row.
    team: usize,
    /// Rows at a time in a block.
    teams: usize,
    backward: bool,
}

impl RowShape {
    /// For forward kernels over rows of `d` elements of `dtype`.
    pub(super) fn forward(dtype: DType, d: usize) -> Self {
        let team = d.div_ceil(PER_THREAD).next_power_of_two().clamp(32, 1024);
        let teams = (BLOCK / team).max(1);
        Self { dtype, d, width: vector_width(dtype, d), team, teams, backward: false }
    }

    /// For backward kernels, which walk rows and sum over them.
    pub(super) fn backward(dtype: DType, d: usize) -> Self {
        let width = vector_width(dtype, d);
        let vectors = (d / width).max(1);
        let most = if vectors <= 2 * BACKWARD_TEAM { BACKWARD_TEAM } else { 1024 };
        let per_thread = vectors.div_ceil(most);
        let team = vectors.div_ceil(per_thread).next_multiple_of(32);
        let teams = (BACKWARD_BLOCK / per_thread / team).max(1);
        Self { dtype, d, width, team, teams, backward: true }
    }

    /// With three quarters of the rows at a time, so that a thread may have more registers.
    pub(super) fn roomier(self) -> Self {
        Self { teams: (3 * self.teams / 4).max(1), ..self }
    }

    /// Threads of a block.
    pub(super) fn block(&self) -> usize {
        self.team * self.teams
    }

    /// Rows at a time in a block.
    pub(super) fn teams(&self) -> usize {
        self.teams
    }

    /// Blocks of the backward kernel over `n` rows, each of which leaves one partial sum: no more than multiprocessors, as
    /// they wait for each other.
    pub(super) fn backward_blocks(&self, device: &Context, n: usize) -> usize {
        device.n_multiprocessors().min(n.div_ceil(self.teams)).max(1)
    }

    /// A source with this shape as `D`, `WIDTH`, `TEAM`, `BLOCK`, and the types of activations and of the gradient that is
    /// written as `ELEMENT` and `GRADIENT`: the forward kernels, or with `BACKWARD` the backward ones. With `COLUMN_SUMS`
    /// those also sum the columns of that gradient.
    pub(super) fn source(
        &self,
        name: &'static str,
        parts: &'static [(&'static str, &'static str)],
        gradient: DType,
        column_sums: bool,
    ) -> Source {
        let Self { dtype, d, width, team, backward, .. } = *self;
        let options = vec![
            format!("-DELEMENT={}", cuda_type(dtype)),
            format!("-DGRADIENT={}", cuda_type(gradient)),
            format!("-DD={d}"),
            format!("-DWIDTH={width}"),
            format!("-DTEAM={team}"),
            format!("-DBLOCK={}", self.block()),
            format!("-DBACKWARD={}", u8::from(backward)),
            format!("-DCOLUMN_SUMS={}", u8::from(column_sums)),
        ];
        Source { name, parts, options }
    }
}

/// Sources of several sizes, with and without sums of columns.
pub(super) fn sources(
    name: &'static str,
    parts: &'static [(&'static str, &'static str)],
    sizes: &[(DType, usize)],
) -> Vec<(Source, &'static [Arch])> {
    let of = |shape: RowShape, sums| (shape.source(name, parts, shape.dtype, sums), Arch::PORTABLE);
    let all = |&(dtype, d)| {
        let backward = RowShape::backward(dtype, d);
        [of(RowShape::forward(dtype, d), false), of(backward, false), of(backward, true)]
    };
    sizes.iter().flat_map(all).collect()
}

/// The most elements that one access may have so that every access to a row of `d` elements is aligned.
pub(super) fn vector_width(dtype: DType, d: usize) -> usize {
    let widest = 16 / dtype.bytes();
    if d == 0 { widest } else { widest.min(1 << d.trailing_zeros().min(3)) }
}

/// The name of a dtype in kernels.
pub(super) fn cuda_type(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "float",
        DType::Bf16 => "bf16",
        DType::U32 => "u32",
    }
}
