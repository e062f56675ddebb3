//! Kernels over many tensors at once, whose table of pointers travels with the launch.

use std::ffi::c_void;
use std::ptr::from_ref;

use crate::cuda::{Arch, ELEMENT, Source, or_unwind};
use crate::{DType, Tensor};

/// Elements of a block, as in the kernel.
const CHUNK: usize = 8192;
/// Tensors of a launch: all parameters of a launch have 4 KiB.
const TENSORS: usize = 160;
const SCALE_THREADS: usize = 256;

/// For kernels over many tensors.
pub(in crate::ops) const CHUNKS: (&str, &str) = ("chunks.cuh", include_str!("chunks.cuh"));

fn source() -> Source {
    let parts = &[ELEMENT, CHUNKS, ("sum_of_squares.cu", include_str!("sum_of_squares.cu"))];
    Source { name: "sum_of_squares", parts, options: vec![format!("-DTENSORS={TENSORS}")] }
}

/// Sources for CI, with the architectures they must compile for.
pub(in crate::ops) fn sources() -> Vec<(Source, &'static [Arch])> {
    vec![(source(), Arch::PORTABLE)]
}

/// The table of the kernel, field by field.
#[repr(C)]
struct Table {
    x: [u64; TENSORS],
    len: [u64; TENSORS],
    first_block: [u32; TENSORS],
    n: u32,
}

/// `[]`: the root of the sum of all squares. The tensors are of f32 on one device; none is empty, and there is at
/// least one.
pub(super) fn norm(tensors: &[&Tensor]) -> Tensor {
    let (device, context) = (tensors[0].device(), tensors[0].cuda());
    let blocks_of = |x: &Tensor| x.len().div_ceil(CHUNK);
    let n_blocks = tensors.iter().map(|x| blocks_of(x)).sum();
    let mut norm = Tensor::unspecified_on(device, &[], DType::F32);
    let sums = Tensor::unspecified_on(device, &[n_blocks], DType::F32);
    let kernel = context.kernel(&source(), "sums_of_squares", 0);
    let mut first_sum = sums.device_pointer();
    for tensors in tensors.chunks(TENSORS) {
        let mut table = Table { x: [0; TENSORS], len: [0; TENSORS], first_block: [0; TENSORS], n: 0 };
        let mut blocks = 0;
        for (i, x) in tensors.iter().enumerate() {
            (table.x[i], table.len[i]) = (x.device_pointer(), x.len() as u64);
            table.first_block[i] = u32::try_from(blocks).expect("fewer than 2^32 blocks");
            blocks += blocks_of(x);
        }
        table.n = tensors.len() as u32;
        let arguments: [*const c_void; 2] = [from_ref(&first_sum).cast(), from_ref(&table).cast()];
        // SAFETY: the table lists the kernel's tensors with their lengths and as many blocks as they have chunks; each
        // block writes one of the sums from `first_sum` on.
        or_unwind(unsafe { kernel.launch([blocks, 1, 1], 256, &arguments) });
        first_sum += (blocks * size_of::<f32>()) as u64;
    }
    let arguments = [(&mut norm).into(), (&sums).into(), n_blocks.into()];
    // SAFETY: sums is [n_blocks], norm has one element.
    unsafe { context.kernel(&source(), "root_of_sum", 0).run([1, 1, 1], 1024, &arguments) };
    norm
}

/// `[]`: the sum of `x`, in a fixed order and in f64, over `divisor`.
pub(in crate::ops) fn sum(x: &Tensor, divisor: f32) -> Tensor {
    let mut y = Tensor::unspecified_on(x.device(), &[], DType::F32);
    let arguments = [(&mut y).into(), x.into(), x.len().into(), divisor.into()];
    // SAFETY: x has as many elements as is said, y has one.
    unsafe { x.cuda().kernel(&source(), "sum_over", 0).run([1, 1, 1], 1024, &arguments) };
    y
}

/// `x ← factor · x`, in f32 or bf16.
pub(super) fn scale(x: &mut Tensor, factor: f32) {
    let name = match x.dtype() {
        DType::Bf16 => "scale_bf16",
        _ => "scale_f32",
    };
    let kernel = x.cuda().kernel(&source(), name, 0);
    let n = x.len();
    // Two vectors of 16 bytes for each thread, and a block for what is left over by a division.
    let blocks = (n * x.dtype().bytes() / 16).div_ceil(2 * SCALE_THREADS).max(n.min(1));
    // SAFETY: x has n elements of the kernel's type.
    unsafe { kernel.run([blocks, 1, 1], SCALE_THREADS, &[x.into(), (n as u64).into(), factor.into()]) };
}
