//! Our own matrix products for Hopper, whose epilogues do what a step needs beside a product.
//!
//! bf16 operands in every order, sums in f32. The same product in the same tiling gives the same bits.

mod tiling;
#[cfg(test)]
mod tests;

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::sync::Arc;

use cudarc::driver::sys;

use super::blas::key::{Key, Kind, Operand};
use super::blas::{Pointers, write_column_sums};
use super::{Arch, Arg, Context, ELEMENT, Source, catch, or_unwind};
use crate::ops::ACTIVATION_FUNCTIONS;
use crate::{DType, Device, Error, Tensor};

pub use tiling::Tiling;
use tiling::{BLOCK, BLOCK_K, CLUSTER, Finishing, Orders};

/// Hopper's instructions as functions.
const SM90: (&str, &str) = ("sm90.cuh", include_str!("../sm90.cuh"));
const SHARED: (&str, &str) = ("gemm_sm90.cuh", include_str!("gemm_sm90.cuh"));
const GEMM: (&str, &str) = ("gemm_sm90.cu", include_str!("gemm_sm90.cu"));
const OVERLAPPED: (&str, &str) = ("gemm_sm90_overlapped.cu", include_str!("gemm_sm90_overlapped.cu"));
const JOIN: (&str, &str) = ("gemm_join.cu", include_str!("gemm_join.cu"));

/// Every kernel, for the check that all compile.
pub(super) fn sources() -> Vec<(Source, &'static [Arch])> {
    let mut sources = vec![(join_source(), Arch::PORTABLE)];
    for tiling in Tiling::ALL {
        for (orders, finishing) in tiling::uses(&tiling) {
            sources.push((source(&tiling, orders, finishing, false), Arch::HOPPER));
        }
    }
    sources
}

/// The sources of all that [`super::blas::matmul_tiled`] may ask for with a tiling, with waits bounded or not: for compiling ahead.
pub fn sources_of(tiling: &Tiling, bounded_waits: bool) -> Vec<Source> {
    tiling::uses(tiling)
        .into_iter()
        .map(|(orders, finishing)| source(tiling, orders, finishing, bounded_waits))
        .collect()
}

fn join_source() -> Source {
    Source { name: "gemm_join", parts: &[ELEMENT, JOIN], options: Vec::new() }
}

fn source(tiling: &Tiling, orders: Orders, finishing: Finishing, bounded_waits: bool) -> Source {
    let mut options = tiling.options(orders, finishing);
    if bounded_waits {
        options.push("-DBOUNDED_WAITS".to_owned());
    }
    match tiling.overlaps(finishing) {
        true => {
            let parts = &[SM90, ACTIVATION_FUNCTIONS, SHARED, OVERLAPPED];
            Source { name: "gemm_sm90_overlapped", parts, options }
        }
        false => Source { name: "gemm_sm90", parts: &[SM90, ACTIVATION_FUNCTIONS, SHARED, GEMM], options },
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Parameters {
    bias: u64,
    sums: u64,
    out: u64,
    pre: u64,
    out_stride: u64,
    pre_stride: u64,
    m: i32,
    n: i32,
    rows: i32,
    columns: i32,
    group: i32,
    k_tiles: i32,
    splits: i32,
    add: i32,
}

/// Whether [`launch`] can do a product: on a Hopper, of bf16, with rows that start on 16 bytes.
pub(super) fn fits(context: &Context, key: &Key, beta: f32) -> bool {
    let Key { m, n, k, input, fp8, output, a, b, out, epilogue } = key;
    let rows = |operand: &Operand, dtype: DType| {
        operand.alignment >= 16 && operand.stride.is_multiple_of(16 / dtype.bytes()) && operand.stride < 1 << 30
    };
    context.arch() == Arch::Sm90a
        && *input == DType::Bf16
        && fp8.is_none()
        && [*m, *n, *k].iter().all(|&x| 0 < x && x < 1 << 30)
        && n.is_multiple_of(if epilogue.is_gated() { 16 } else { 8 })
        && rows(a, *input)
        && rows(b, *input)
        && rows(out, *output)
        && (b.transposed || !matches!(epilogue, Kind::SwiGlu { .. }))
        && *epilogue != Kind::RowSums
        && match output {
            DType::F32 => *epilogue == Kind::None && (beta == 0.0 || beta == 1.0),
            _ => beta == 0.0,
        }
}

/// Asks for a product that [`fits`] in a given tiling, after all work asked for before.
pub(super) fn launch(
    context: &Arc<Context>,
    key: &Key,
    pointers: &Pointers,
    beta: f32,
    tiling: &Tiling,
    bounded_waits: bool,
) {
    let Key { m, n, k, output, a, b, out, .. } = *key;
    let orders = Orders { a_columns: a.transposed, b_columns: !b.transposed };
    let finishing = Finishing::of(key);
    let out_columns = key.out_columns();
    let f32_out = output == DType::F32;
    let splits = if f32_out && out.stride == n { tiling.splits.clamp(1, k.div_ceil(64)) } else { 1 };
    let [grid_rows, grid_columns] = Tiling::grid(m, out_columns, n, finishing);
    let n_clusters = (context.n_multiprocessors() / CLUSTER).min(grid_rows * grid_columns * splits);

    // In a workspace, if the terms are split: its planes are joined below.
    let device = Device::Cuda(context.ordinal());
    let parts = (splits > 1).then(|| Tensor::unspecified_on(device, &[splits, m, n], DType::F32));
    // The right operand comes in halves, one from each block, or gate and up.
    let [a_rows, b_rows] = [BLOCK[0], BLOCK[1] / 2];
    let a_map = operand_map(pointers.a, a.stride, [k, m, 1], orders.a_columns, [a_rows, BLOCK_K]);
    let b_size = if finishing == Finishing::SwiGlu { [k, n / 2, 2] } else { [k, n, 1] };
    let b_map = operand_map(pointers.b, b.stride, b_size, orders.b_columns, [b_rows, BLOCK_K]);
    let out_map = match finishing {
        Finishing::F32 => match &parts {
            Some(parts) => map_of(DType::F32, parts.device_pointer(), [n, m, splits], [4 * n, 4 * n * m], [32, 64]),
            None => map_of(DType::F32, pointers.out, [n, m, 1], [4 * out.stride; 2], [32, 64]),
        },
        Finishing::SwiGluGradient => map_of(DType::Bf16, pointers.out, [n, m, 2], [2 * out.stride, 2 * n], [64, 64]),
        _ => map_of(DType::Bf16, pointers.out, [out_columns, m, 1], [2 * out.stride; 2], [64, 64]),
    };
    let (columns, planes) = match finishing {
        Finishing::SwiGlu => (n / 2, 2),
        Finishing::SwiGluGradient => (n, 2),
        _ => (n, 1),
    };
    let pre_map = match pointers.pre_activation {
        0 => out_map,
        pointer => map_of(DType::Bf16, pointer, [columns, m, planes], [2 * columns * planes, 2 * columns], [64, 64]),
    };
    let partial = finishing.sums().then(|| Tensor::unspecified_on(device, &[m.div_ceil(BLOCK[0] / 2), n], DType::F32));
    let parameters = Parameters {
        bias: pointers.vector,
        sums: partial.as_ref().map_or(0, Tensor::device_pointer),
        out: pointers.out,
        pre: pointers.pre_activation,
        out_stride: 2 * out.stride as u64,
        pre_stride: 2 * (columns * planes) as u64,
        m: m as i32,
        n: columns as i32,
        rows: grid_rows as i32,
        columns: grid_columns as i32,
        group: Tiling::group(context, k, grid_rows) as i32,
        k_tiles: k.div_ceil(BLOCK_K) as i32,
        splits: splits as i32,
        add: i32::from(beta == 1.0 && splits == 1),
    };
    let source = source(tiling, orders, finishing, bounded_waits);
    let kernel = context.kernel(&source, "gemm", tiling.shared_bytes(finishing));
    let maps = [&a_map, &b_map, &out_map, &pre_map].map(|map| std::ptr::from_ref(map).cast::<c_void>());
    let parameters = std::ptr::from_ref(&parameters).cast();
    let all = [maps[0], maps[1], maps[2], maps[3], parameters];
    let arguments = if tiling.overlaps(finishing) { &[maps[0], maps[1], parameters][..] } else { &all };
    // SAFETY: the parameters are the kernel's, in order; copies stay within the maps, which describe matrices that were
    // found to lie in their tensors; the bias is read below n, partial sums are written below their number of rows.
    or_unwind(unsafe { kernel.launch([n_clusters * CLUSTER, 1, 1], 384, arguments) });

    if let Some(parts) = &parts {
        let count = m * n;
        let arguments =
            [Arg::Pointer(pointers.out), beta.into(), parts.into(), Arg::U64(count as u64), Arg::from(splits)];
        // SAFETY: out and every part have m·n elements, a multiple of 4, from 16 bytes on.
        unsafe { context.kernel(&join_source(), "join_parts", 0).run([count.div_ceil(1024), 1, 1], 256, &arguments) };
    }
    if let Some(partial) = &partial {
        write_column_sums(context, pointers.vector, output, partial);
    }
}

/// Boxes of `rows` rows of so many terms, or of 64 columns.
fn operand_map(
    pointer: u64,
    stride: usize,
    [k, n, planes]: [usize; 3],
    by_columns: bool,
    [rows, terms]: [usize; 2],
) -> sys::CUtensorMap {
    let strides = [2 * stride, 2 * n * stride];
    match by_columns {
        true => map_of(DType::Bf16, pointer, [n, k, 1], [strides[0]; 2], [64, terms]),
        false => map_of(
            DType::Bf16,
            pointer,
            [k, n, planes],
            if planes == 1 { [strides[0]; 2] } else { strides },
            [terms, rows],
        ),
    }
}

/// A view in boxes of rows of 128 or 64 bytes, in the order in which the matrix units read them. Strides in bytes.
fn map_of(dtype: DType, pointer: u64, sizes: [usize; 3], strides: [usize; 2], size: [usize; 2]) -> sys::CUtensorMap {
    let mut map = MaybeUninit::<sys::CUtensorMap>::uninit();
    let kind = match dtype {
        DType::F32 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
        _ => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
    };
    // SAFETY: all arrays have the length of the rank, the inner one no stride; on success the map is written.
    let result = unsafe {
        sys::cuTensorMapEncodeTiled(
            map.as_mut_ptr(),
            kind,
            3,
            pointer as *mut c_void,
            sizes.map(|x| x as u64).as_ptr(),
            strides.map(|x| x as u64).as_ptr(),
            [size[0] as u32, size[1] as u32, 1].as_ptr(),
            [1, 1, 1].as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    let reason = |error: cudarc::driver::DriverError| {
        let reason = format!("{error}: {sizes:?} {strides:?} {size:?} at {pointer:#x}");
        Error::Cuda { action: "describe a matrix", reason }
    };
    or_unwind(result.result().map_err(reason));
    // SAFETY: the call succeeded.
    unsafe { map.assume_init() }
}

/// Compiles what a product needs into the context's folder of kernels, without loading anything.
///
/// # Errors
/// If the compiler is missing or refuses.
pub fn prepare(context: &Arc<Context>, source: &Source) -> Result<(), Error> {
    catch(|| super::Module::load(context, source)).and_then(|loaded| loaded.map(|_| ()))
}
