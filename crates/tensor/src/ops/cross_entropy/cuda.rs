//! One block for a row at a time, which stays in shared memory as far as it fits.

use crate::cuda::{Arch, Arg, Context, ELEMENT, Source};
use crate::ops::row_kernel::cuda_type;
use crate::{DType, Tensor};

/// Rows of logits.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Rows {
    /// How many.
    pub(in crate::ops) n: usize,
    /// The first row's place among targets and losses.
    pub(in crate::ops) first: usize,
    /// Classes.
    pub(in crate::ops) v: usize,
    /// Elements from one row to the next; what is not logits there may be overwritten.
    pub(in crate::ops) stride: usize,
}

/// How a launch cuts its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    /// Elements of one access.
    width: usize,
    /// Threads of a block.
    threads: usize,
    /// Blocks of a multiprocessor.
    blocks: usize,
    /// Rows in shared memory: the one that is worked on, and those that are on their way.
    stages: usize,
    /// Vectors of a row that are in shared memory.
    resident: usize,
}

/// Threads of a multiprocessor, with 64 registers each.
const THREADS: usize = 1024;
/// The most threads of a block: a multiprocessor has several, which do not wait for each other.
const MAX_BLOCK: usize = 512;
const MAX_STAGES: usize = 4;

impl Shape {
    /// For a device of that architecture.
    fn of(dtype: DType, v: usize, stride: usize, arch: Arch) -> Self {
        let width = (16 / dtype.bytes()).min(1 << stride.trailing_zeros().min(3));
        let vector_bytes = width * dtype.bytes();
        let vectors = v.div_ceil(width);
        let threads = vectors.div_ceil(4).next_power_of_two().clamp(64, MAX_BLOCK);
        let blocks = THREADS / threads;
        // The driver takes 1 KiB for each block, the kernel itself has less than 1 KiB.
        let capacity = (arch.shared_bytes() / blocks - 2048) / vector_bytes;
        let (stages, resident) = match vector_bytes {
            16 if vectors > 0 => ((capacity / vectors).clamp(1, MAX_STAGES), vectors.min(capacity)),
            _ => (1, 0), // too small for copies that do not wait
        };
        Self { width, threads, blocks, stages, resident }
    }

    fn shared_bytes(&self) -> usize {
        self.stages * self.resident * 16
    }

    fn source(&self, logits: DType, gradient: DType) -> Source {
        let Self { width, threads, blocks, stages, .. } = self;
        let options = vec![
            format!("-DELEMENT={}", cuda_type(logits)),
            format!("-DGRADIENT={}", cuda_type(gradient)),
            format!("-DWIDTH={width}"),
            format!("-DBLOCK={threads}"),
            format!("-DBLOCKS={blocks}"),
            format!("-DSTAGES={stages}"),
        ];
        let parts = &[ELEMENT, ("cross_entropy.cu", include_str!("cross_entropy.cu"))];
        Source { name: "cross_entropy", parts, options }
    }
}

/// Sources for CI, with the architectures they must compile for.
pub(in crate::ops) fn sources() -> Vec<(Source, &'static [Arch])> {
    let cases = [
        (DType::Bf16, DType::Bf16, 50_304),
        (DType::Bf16, DType::F32, 1000),
        (DType::F32, DType::F32, 50_257),
        (DType::F32, DType::F32, 32),
    ];
    let of = |arch, archs| {
        cases.map(|(logits, gradient, v)| (Shape::of(logits, v, v, arch).source(logits, gradient), archs))
    };
    [of(Arch::Sm(80), Arch::PORTABLE), of(Arch::Sm90a, Arch::HOPPER)].concat()
}

/// The loss of each row goes to its place in `losses`.
pub(in crate::ops) fn losses(losses: &mut Tensor, logits: &Tensor, targets: &Tensor, rows: &Rows) {
    let pointers = Pointers { losses: Some(losses.into()), gradient: None, logits: logits.into(), scale: 0.0 };
    launch(logits.cuda(), logits.dtype(), logits.dtype(), targets, rows, pointers);
}

/// `dlogits = scale · (softmax(logits) − one_hot(target))`, in rows as those of `logits`.
pub(in crate::ops) fn gradient(dlogits: &mut Tensor, logits: &Tensor, targets: &Tensor, rows: &Rows, scale: f32) {
    let dtype = dlogits.dtype();
    let pointers = Pointers { losses: None, gradient: Some(dlogits.into()), logits: logits.into(), scale };
    launch(logits.cuda(), logits.dtype(), dtype, targets, rows, pointers);
}

/// [`losses`], and the logits become their gradient as in [`gradient`].
pub(in crate::ops) fn losses_and_gradient(
    losses: &mut Tensor,
    logits: &mut Tensor,
    targets: &Tensor,
    rows: &Rows,
    scale: f32,
) {
    let (context, dtype) = (logits.cuda().clone(), logits.dtype());
    let both: Arg = logits.into();
    let pointers = Pointers { losses: Some(losses.into()), gradient: Some(both), logits: both, scale };
    launch(&context, dtype, dtype, targets, rows, pointers);
}

/// The tensors that a launch reads and writes.
struct Pointers {
    losses: Option<Arg>,
    gradient: Option<Arg>,
    logits: Arg,
    scale: f32,
}

fn launch(
    context: &std::sync::Arc<Context>,
    logits: DType,
    gradient: DType,
    targets: &Tensor,
    rows: &Rows,
    pointers: Pointers,
) {
    let &Rows { n, first, v, stride } = rows;
    assert!(
        targets.dtype() == DType::U32 && first + n <= targets.len(),
        "cross_entropy: {n} rows need as many targets"
    );
    let null = Arg::Pointer(0);
    let shape = Shape::of(logits, v, stride, context.arch());
    let kernel = context.kernel(&shape.source(logits, gradient), "cross_entropy", shape.shared_bytes());
    let blocks = n.min(shape.blocks * context.n_multiprocessors());
    let arguments = [
        pointers.losses.map_or(null, |x| offset(x, first)),
        pointers.gradient.unwrap_or(null),
        pointers.logits,
        offset(targets.into(), first),
        n.into(),
        v.into(),
        stride.into(),
        shape.resident.into(),
        pointers.scale.into(),
    ];
    // SAFETY: logits and gradient are n rows of `stride` elements, losses and targets have n elements from `first` on,
    // and shared memory holds the resident vectors of all stages.
    unsafe { kernel.run([blocks, 1, 1], shape.threads, &arguments) };
}

/// The address of element `at`, of 4 bytes.
fn offset(tensor: Arg, at: usize) -> Arg {
    match tensor {
        Arg::Pointer(pointer) => Arg::Pointer(pointer + 4 * at as u64),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_those_that_follow_fit_in_shared_memory() {
        for arch in [Arch::Sm90a, Arch::Sm(80), Arch::Sm(89)] {
            for (dtype, v) in [DType::F32, DType::Bf16].into_iter().flat_map(|dtype| {
                [1usize, 8, 33, 256, 1000, 32_000, 50_257, 50_304, 128_256, 152_064].map(|v| (dtype, v))
            }) {
                let stride = v.next_multiple_of(8);
                let shape = Shape::of(dtype, v, stride, arch);
                assert!(shape.blocks * (shape.shared_bytes() + 2048) <= arch.shared_bytes(), "{v}: {shape:?}");
                assert!(shape.resident <= v.div_ceil(shape.width));
                assert!(shape.width * dtype.bytes() == 16 && shape.threads * shape.blocks == THREADS);
            }
        }
        let shape = Shape::of(DType::Bf16, 50_304, 50_304, Arch::Sm90a);
        assert_eq!((shape.stages, shape.resident, shape.threads, shape.blocks), (1, 6288, 512, 2));
    }
}
