//! How kernels that work element by element cut their work.

use super::row_kernel::cuda_type;
use crate::DType;
use crate::cuda::{Arg, Context, Source};

/// What the kernels share; between `ELEMENT` and an operation's own file.
pub(super) const FLAT: (&str, &str) = ("flat_kernel.cuh", include_str!("flat_kernel.cuh"));

/// Threads of a block, and vectors of a thread, as in the file.
const BLOCK: usize = 256;
const VECTORS: usize = 2;

/// A source with the element type of activations, that of the gradient that is written, and the number of elements of an
/// access as `ELEMENT`, `GRADIENT` and `WIDTH`, beside the operation's own `options`.
pub(super) fn source(
    name: &'static str,
    parts: &'static [(&'static str, &'static str)],
    [dtype, gradient]: [DType; 2],
    width: usize,
    options: &[String],
) -> Source {
    let mut all = vec![
        format!("-DELEMENT={}", cuda_type(dtype)),
        format!("-DGRADIENT={}", cuda_type(gradient)),
        format!("-DWIDTH={width}"),
    ];
    all.extend_from_slice(options);
    Source { name, parts, options: all }
}

/// Elements of a 16-byte access.
pub(super) fn full_width(dtype: DType) -> usize {
    16 / dtype.bytes()
}

/// Runs a kernel with one thread for every few of `n_vectors` vectors.
///
/// # Safety
/// As `Kernel::run`, whatever the number of threads.
#[allow(unsafe_code)]
pub(super) unsafe fn run(
    device: &std::sync::Arc<Context>,
    source: &Source,
    kernel: &str,
    n_vectors: usize,
    arguments: &[Arg],
) {
    let kernel = device.kernel(source, kernel, 0);
    // SAFETY: promised by the caller.
    unsafe { kernel.run([n_vectors.div_ceil(BLOCK * VECTORS), 1, 1], BLOCK, arguments) };
}
