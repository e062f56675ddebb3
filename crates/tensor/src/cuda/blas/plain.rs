//! Kernels of our own for what cuBLASLt does not do.

use std::sync::Arc;

use super::Pointers;
use super::key::{Key, Kind};
use crate::cuda::{Arch, Arg, Context, ELEMENT, Source};
use crate::{DType, Tensor};

const PARTS: &[(&str, &str)] = &[ELEMENT, ("plain.cu", include_str!("plain.cu"))];

/// Blocks of a multiprocessor that sum columns: with 64 registers a thread, and all blocks at once.
const BLOCKS: usize = 4;
/// Threads of a row of a tile of columns, as in the kernel.
const LANES: usize = 16;
/// The most tiles of which several blocks have slices of the rows: with more of them, they are blocks enough.
const MOST_TILES: usize = 4096;

fn cuda_type(dtype: DType) -> &'static str {
    if dtype == DType::Bf16 { "bf16" } else { "float" }
}

fn source(name: &'static str, input: DType, output: DType, option: String) -> Source {
    let options = vec![format!("-DIN={}", cuda_type(input)), format!("-DOUT={}", cuda_type(output)), option];
    Source { name, parts: PARTS, options }
}

fn product(input: DType, output: DType) -> Source {
    source("plain_matmul", input, output, "-DPRODUCT".to_owned())
}

fn sums(input: DType, output: DType, width: usize) -> Source {
    let mut source = source("column_sums", input, output, format!("-DWIDTH={width}"));
    source.options.extend([format!("-DBLOCKS={BLOCKS}"), format!("-DMOST_TILES={MOST_TILES}")]);
    source
}

/// Sources for CI, with the architectures they must compile for.
pub(crate) fn sources() -> Vec<(Source, &'static [Arch])> {
    let dtypes = [(DType::F32, DType::F32), (DType::Bf16, DType::F32), (DType::Bf16, DType::Bf16)];
    let products = dtypes.map(|(input, output)| product(input, output));
    let sums =
        [(dtypes[0], 4), (dtypes[1], 8), (dtypes[2], 1)].map(|((input, output), width)| sums(input, output, width));
    products.into_iter().chain(sums).map(|source| (source, Arch::PORTABLE)).collect()
}

/// Any product but for row sums.
pub(super) fn matmul(context: &Arc<Context>, key: &Key, pointers: &Pointers, beta: f32) {
    let epilogue = match key.epilogue {
        Kind::None | Kind::RowSums => 0,
        Kind::Bias => 1,
        Kind::Gelu { .. } => 2,
        Kind::GeluGradient { .. } => 3u32,
        Kind::SwiGlu { .. } | Kind::SwiGluGradient => unreachable!("the plain kernel is not asked for SwiGLU"),
    };
    let count = |x: usize| Arg::U64(x as u64);
    let arguments = [
        Arg::Pointer(pointers.out),
        beta.into(),
        Arg::Pointer(pointers.a),
        Arg::Pointer(pointers.b),
        Arg::Pointer(pointers.vector),
        Arg::Pointer(pointers.pre_activation),
        count(key.m),
        count(key.n),
        count(key.k),
        count(key.a.stride),
        count(key.b.stride),
        count(key.out.stride),
        Arg::U32(key.a.transposed.into()),
        Arg::U32(key.b.transposed.into()),
        Arg::U32(epilogue),
    ];
    let kernel = context.kernel(&product(key.input, key.output), "plain_matmul", 0);
    let tiles = key.m.div_ceil(16) * key.n.div_ceil(16);
    // SAFETY: the matrices were found to lie in their tensors; rows from m, columns from n and terms from k on are left
    // out.
    unsafe { kernel.run([tiles, 1, 1], 256, &arguments) };
}

/// Writes the sums that a product's epilogue asks for, once the product is there: of the rows of the transposed left
/// operand, over k, or of the columns of the output.
pub(super) fn sums_of_epilogue(context: &Arc<Context>, key: &Key, pointers: &Pointers) {
    let rows = match key.epilogue {
        Kind::RowSums => Rows { dtype: key.input, pointer: pointers.a, n: key.k, d: key.m, stride: key.a.stride },
        _ => Rows { dtype: key.output, pointer: pointers.out, n: key.m, d: key.n, stride: key.out.stride },
    };
    sum_rows(context, Arg::Pointer(pointers.vector), key.output, 0.0, &rows);
}

/// `sums: [d] ← beta · sums +` the sum of the rows of `x: [..., d]`, in a fixed order.
///
/// # Panics
/// If `sums` is shared or has not as many elements as a row.
#[track_caller]
pub fn column_sums(sums: &mut Tensor, beta: f32, x: &Tensor) {
    let (n, d) = x.rows();
    assert!(sums.len() == d, "column_sums: x is {:?}, so the sums must be [{d}], not {:?}", x.shape(), sums.shape());
    let rows = Rows { dtype: x.dtype(), pointer: x.device_pointer(), n, d, stride: d };
    let dtype = sums.dtype();
    sum_rows(x.cuda(), sums.into(), dtype, beta, &rows);
}

struct Rows {
    dtype: DType,
    pointer: u64,
    n: usize,
    d: usize,
    stride: usize,
}

fn sum_rows(context: &Arc<Context>, sums: Arg, output: DType, beta: f32, rows: &Rows) {
    let Rows { dtype, pointer, n, d, stride } = *rows;
    if d == 0 {
        return;
    }
    // The widest access of which rows and their starts are multiples.
    let elements = (pointer / dtype.bytes() as u64) | stride as u64 | d as u64;
    let width = (16 / dtype.bytes()).min(1 << elements.trailing_zeros().min(3));
    let source = self::sums(dtype, output, width);
    let tiles = d.div_ceil(LANES * width);
    let most = if tiles > MOST_TILES { 1 } else { n.div_ceil(32).clamp(1, 65_535) };
    let slices = (BLOCKS * context.n_multiprocessors() / tiles).clamp(1, most);
    let slice = n.div_ceil(slices);
    let mut partial = Tensor::unspecified_on(crate::Device::Cuda(context.ordinal()), &[slices, d], DType::F32);
    let count = |x: usize| Arg::U64(x as u64);
    let pointer = Arg::Pointer(pointer);
    let arguments =
        [sums, beta.into(), (&mut partial).into(), pointer, count(n), count(d), count(stride), count(slice)];
    // SAFETY: the rows lie in their tensor, sums is [d]; each slice writes its own row of partial sums.
    unsafe { context.kernel(&source, "column_sums", 0).run([tiles, slices, 1], 256, &arguments) };
}

fn join(context: &Arc<Context>, source: &Source, sums: Arg, beta: f32, partial: Arg, [n, d]: [usize; 2]) {
    let count = |x: usize| Arg::U64(x as u64);
    let arguments = [sums, beta.into(), partial, count(n), count(d)];
    // SAFETY: sums is [d], the partial sums [n, d].
    unsafe { context.kernel(source, "join_column_sums", 0).run([d.div_ceil(32), 1, 1], 1024, &arguments) };
}

/// `sums: [d] ← beta · sums +` the sum of the rows of `partial: [n, d]` of f32, in a fixed order.
pub(crate) fn join_column_sums(sums: &mut Tensor, beta: f32, partial: u64, n: usize) {
    let (context, d, source) = (sums.cuda().clone(), sums.len(), self::sums(DType::F32, sums.dtype(), 4));
    join(&context, &source, sums.into(), beta, Arg::Pointer(partial), [n, d]);
}

/// Writes the sums of the rows of `partial: [n, d]` of f32, in their order, as `[d]` numbers of `dtype` at `sums`.
pub(in crate::cuda) fn write_column_sums(context: &Arc<Context>, sums: u64, dtype: DType, partial: &Tensor) {
    let (n, d) = partial.rows();
    let source = self::sums(DType::F32, dtype, 1);
    join(context, &source, Arg::Pointer(sums), 0.0, partial.into(), [n, d]);
}
