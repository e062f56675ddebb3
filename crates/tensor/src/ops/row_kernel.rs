//! How kernels that hold a row of a matrix in registers cut it.

use crate::cuda::{Arch, Context, Source};
use crate::{DType, Tensor};

/// What the kernels share; between `ELEMENT` and an operation's own file.
pub(super) const ROWS: (&str, &str) = ("row_kernel.cuh", include_str!("row_kernel.cuh"));

/// Threads of a block, unless a row needs more.
const BLOCK: usize = 256;
/// The most elements of a row that one thread holds, unless the row is wider than the largest block can hold so.
/// With more, sums over rows would not fit into the registers of a backward kernel.
const PER_THREAD: usize = 24;

/// Rows of `d` elements, each held by a team of threads: one warp, or several for wide rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowShape {
    dtype: DType,
    d: usize,
    /// Elements of one access.
    width: usize,
    /// Threads of a row.
    team: usize,
}

impl RowShape {
    /// For rows of `d` elements of `dtype`.
    pub(super) fn of(dtype: DType, d: usize) -> Self {
        let team = d.div_ceil(PER_THREAD).next_power_of_two().clamp(32, 1024);
        Self { dtype, d, width: vector_width(dtype, d), team }
    }

    /// Threads of a block.
    pub(super) fn block(&self) -> usize {
        self.team.max(BLOCK)
    }

    /// Rows at a time in a block.
    pub(super) fn teams(&self) -> usize {
        self.block() / self.team
    }

    /// Blocks of the backward kernel that a multiprocessor runs at a time: what the registers allow.
    fn resident(&self) -> usize {
        if self.dtype == DType::Bf16 { (2 * BLOCK / self.block()).max(1) } else { 1 }
    }

    /// Blocks of a kernel that walks `n` rows and leaves one partial sum per block: one wave of the device.
    pub(super) fn backward_blocks(&self, device: &Context, n: usize) -> usize {
        (self.resident() * device.n_multiprocessors()).min(n.div_ceil(self.teams())).max(1)
    }

    /// Rows that each team of the backward kernel has on their way to shared memory, three tensors of a row each; 0 if it
    /// reads them when it needs them, as where they are not of 16-byte vectors.
    fn stages(&self, gradient: DType, arch: Arch) -> usize {
        if gradient != self.dtype || self.width * self.dtype.bytes() != 16 {
            return 0;
        }
        let vectors = self.d.div_ceil(self.width).div_ceil(self.team);
        let stage = 3 * vectors * self.block() * 16;
        let sums = if self.teams() > 1 { vectors * self.width * self.team * 4 } else { 0 };
        // The driver takes 1 KiB for each block.
        let room = (arch.shared_bytes() / self.resident()).saturating_sub(sums + 2048);
        (room / stage.max(1)).min(3)
    }

    /// [`RowShape::source`] of a backward kernel, with `STAGES`, and `COLUMN_SUMS` if it sums the columns of the gradient
    /// that it writes; and its bytes of dynamic shared memory.
    pub(super) fn backward_source(
        &self,
        name: &'static str,
        parts: &'static [(&'static str, &'static str)],
        gradient: DType,
        arch: Arch,
        column_sums: bool,
    ) -> (Source, usize) {
        let stages = self.stages(gradient, arch);
        let mut source = self.source(name, parts, gradient);
        source.options.push(format!("-DSTAGES={stages}"));
        source.options.push(format!("-DCOLUMN_SUMS={}", u8::from(column_sums)));
        let vectors = self.d.div_ceil(self.width).div_ceil(self.team);
        (source, stages * 3 * vectors * self.block() * 16)
    }

    /// A source with this shape as `D`, `WIDTH`, `TEAM`, `BLOCK`, `RESIDENT`, and the types of activations and of the
    /// gradient that is written as `ELEMENT` and `GRADIENT`.
    pub(super) fn source(
        &self,
        name: &'static str,
        parts: &'static [(&'static str, &'static str)],
        gradient: DType,
    ) -> Source {
        let Self { dtype, d, width, team } = *self;
        let options = vec![
            format!("-DELEMENT={}", cuda_type(dtype)),
            format!("-DGRADIENT={}", cuda_type(gradient)),
            format!("-DD={d}"),
            format!("-DWIDTH={width}"),
            format!("-DTEAM={team}"),
            format!("-DBLOCK={}", self.block()),
            format!("-DRESIDENT={}", self.resident()),
        ];
        Source { name, parts, options }
    }
}

/// Adds up what every block of a backward kernel left in `partials: [sums.len(), blocks, d]`: one to three sums, each `[d]`.
#[allow(unsafe_code)]
pub(super) fn sum_partials(source: &Source, sums: &mut [&mut Tensor], partials: &Tensor) {
    let &[n_sums, blocks, d] = partials.shape() else { panic!("partial sums are [sums, blocks, d]") };
    assert!((1..=3).contains(&n_sums) && sums.len() == n_sums, "one to three sums");
    let pointers: Vec<_> = sums.iter_mut().map(|sum| crate::cuda::Arg::from(&mut **sum)).collect();
    let last = n_sums - 1;
    let arguments = [pointers[0], pointers[1.min(last)], pointers[last], partials.into(), blocks.into()];
    let kernel = partials.cuda().kernel(source, "sum_partials", 0);
    // SAFETY: each sum is [d]; columns from d on are left out, and grid row i reads the i-th [blocks, d] of the partials.
    unsafe { kernel.run_early([d.div_ceil(32), n_sums, 1], 512, &arguments) };
}

/// Backward kernels of several sizes, with and without sums of columns.
pub(super) fn backward_sources(
    name: &'static str,
    parts: &'static [(&'static str, &'static str)],
    sizes: &[(DType, usize)],
) -> Vec<(Source, &'static [Arch])> {
    let of = |(dtype, d): (DType, usize), column_sums, arch, arches| {
        (RowShape::of(dtype, d).backward_source(name, parts, dtype, arch, column_sums).0, arches)
    };
    let both = |column_sums| {
        sizes.iter().flat_map(move |&size| {
            [of(size, column_sums, Arch::Sm(89), Arch::PORTABLE), of(size, column_sums, Arch::Sm90a, Arch::HOPPER)]
        })
    };
    both(false).chain(both(true)).collect()
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
