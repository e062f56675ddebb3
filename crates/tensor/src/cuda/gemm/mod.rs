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

use super::blas::{Matrix, MatrixMut, join_column_sums};
use super::{Arch, Arg, Context, ELEMENT, Source, catch, or_unwind};
use crate::ops::ACTIVATION_FUNCTIONS;
use crate::{DType, Device, Error, Tensor};

use tiling::{Finishing, Orders};
pub use tiling::{Share, Tiling};

/// Hopper's instructions as functions.
const SM90: (&str, &str) = ("sm90.cuh", include_str!("../sm90.cuh"));
const GEMM: (&str, &str) = ("gemm_sm90.cu", include_str!("gemm_sm90.cu"));
const JOIN: (&str, &str) = ("gemm_join.cu", include_str!("gemm_join.cu"));

/// What becomes of a product's sums.
pub enum Finish<'a> {
    /// They are written, or added to f32.
    None,
    /// Adds `[n]` to every row.
    Bias(&'a Tensor),
    /// `out = gelu_tanh(a·b + bias)`.
    Gelu {
        /// `[n]`
        bias: Option<&'a Tensor>,
        /// `[m, n]`: the argument of GELU is written there.
        pre_activation: Option<&'a mut Tensor>,
    },
    /// `out[m, n/2] = silu(gate) · up`, the halves of `a·b`.
    SwiGlu {
        /// `[m, n]`: gate and up are written there.
        gate_up: Option<&'a mut Tensor>,
    },
    /// `out = (a·b) · gelu_tanh′(pre_activation)`.
    GeluGradient {
        /// `[m, n]`
        pre_activation: &'a Tensor,
        /// `[n]`, f32 or bf16: the sums of the columns of `out` are written there.
        column_sums: Option<&'a mut Tensor>,
    },
    /// `out[m, 2n]`: the gradients of gate and up, of whose [`Finish::SwiGlu`] `a·b` is the gradient.
    SwiGluGradient {
        /// `[m, 2n]`
        gate_up: &'a Tensor,
    },
}

/// `out ← finish(op(a)·op(b))`, or with f32 `out ← beta · out + op(a)·op(b)`.
pub struct OwnProduct<'a> {
    /// Rows of the output.
    pub m: usize,
    /// Columns of the product.
    pub n: usize,
    /// Terms of each sum.
    pub k: usize,
    /// `[m, k]` once transposed, if it is.
    pub a: Matrix<'a>,
    /// `[k, n]` once transposed, if it is.
    pub b: Matrix<'a>,
    /// f32 or bf16.
    pub out: MatrixMut<'a>,
    /// 0 or 1; 1 with f32 and nothing to finish.
    pub beta: f32,
    /// What else is done.
    pub finish: Finish<'a>,
}

/// Every kernel, for the check that all compile.
pub(super) fn sources() -> Vec<(Source, &'static [Arch])> {
    let mut sources = vec![(join_source(), Arch::PORTABLE)];
    for tiling in Tiling::ALL {
        for (orders, finishing) in tiling::uses() {
            sources.push((source(&tiling, orders, finishing, false), Arch::HOPPER));
        }
    }
    sources
}

/// The sources of all that [`multiply`] may ask for with a tiling, with waits bounded or not: for compiling ahead.
pub fn sources_of(tiling: &Tiling, bounded_waits: bool) -> Vec<Source> {
    tiling::uses().into_iter().map(|(orders, finishing)| source(tiling, orders, finishing, bounded_waits)).collect()
}

fn join_source() -> Source {
    Source { name: "gemm_join", parts: &[ELEMENT, JOIN], options: Vec::new() }
}

fn source(tiling: &Tiling, orders: Orders, finishing: Finishing, bounded_waits: bool) -> Source {
    let mut options = tiling.options(orders, finishing);
    if bounded_waits {
        options.push("-DBOUNDED_WAITS".to_owned());
    }
    Source { name: "gemm_sm90", parts: &[SM90, ACTIVATION_FUNCTIONS, GEMM], options }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Parameters {
    bias: u64,
    sums: u64,
    m: i32,
    n: i32,
    rows: i32,
    columns: i32,
    group: i32,
    k_tiles: i32,
    splits: i32,
    add: i32,
    keep: i32,
}

/// Whether the copy engine can take rows of this matrix.
fn is_aligned(matrix: &Matrix<'_>) -> bool {
    matrix.stride.is_multiple_of(8) && (matrix.tensor.device_pointer() + 2 * matrix.offset as u64).is_multiple_of(16)
}

/// Whether [`multiply`] can do a product: on a Hopper, of bf16, with rows that start on 16 bytes.
pub fn fits(product: &OwnProduct<'_>) -> bool {
    let OwnProduct { m, n, k, a, b, out, beta, finish } = product;
    let output = out.tensor.dtype();
    let width = 16 / output.bytes();
    let plain = matches!(finish, Finish::None);
    let halves = matches!(finish, Finish::SwiGlu { .. } | Finish::SwiGluGradient { .. });
    a.tensor.device() != Device::Cpu
        && a.tensor.cuda().arch() == Arch::Sm90a
        && a.tensor.dtype() == DType::Bf16
        && b.tensor.dtype() == DType::Bf16
        && [*m, *n, *k].iter().all(|&x| 0 < x && x < 1 << 30)
        && is_aligned(a)
        && is_aligned(b)
        && out.stride.is_multiple_of(width)
        && n.is_multiple_of(if halves { 16 } else { 8 })
        && (out.tensor.device_pointer() + (out.offset * output.bytes()) as u64).is_multiple_of(16)
        && (output == DType::F32 && plain || output == DType::Bf16 && *beta == 0.0)
        && (*beta == 0.0 || *beta == 1.0)
}

/// Asks for a product in a given tiling, after all work asked for before. With `bounded_waits` a kernel that would hang is
/// ended after about two seconds, and with it all of this process's work on the device.
///
/// # Panics
/// If the product does not fit (see [`fits`]) or a tensor has another size.
#[track_caller]
pub fn multiply(product: OwnProduct<'_>, tiling: &Tiling, bounded_waits: bool) {
    assert!(fits(&product), "multiply: no such product: ask `fits` first");
    let OwnProduct { m, n, k, a, b, out, beta, finish } = product;
    let context = a.tensor.cuda().clone();
    let f32_out = out.tensor.dtype() == DType::F32;
    let orders = Orders { a_columns: a.transposed, b_columns: !b.transposed };
    let finishing = Finishing::of(&finish, f32_out);
    assert!(!(orders.b_columns && finishing == Finishing::SwiGlu), "multiply: SwiGLU wants gate and up as rows");
    check_matrix("a", &a, [m, k]);
    check_matrix("b", &b, [k, n]);
    let out_columns = match finishing {
        Finishing::SwiGlu => n / 2,
        Finishing::SwiGluGradient => 2 * n,
        _ => n,
    };
    assert!(
        out.stride >= out_columns && out.offset + (m - 1) * out.stride + out_columns <= out.tensor.len(),
        "multiply: out is [{m}, {out_columns}] with stride {}, in a tensor of {}",
        out.stride,
        out.tensor.len()
    );
    assert!(out.tensor.is_unique(), "multiply: the output is shared");

    let splits = if f32_out && out.stride == n { tiling.splits.clamp(1, k.div_ceil(64)) } else { 1 };
    let [grid_rows, grid_columns] = tiling.grid(m, out_columns, n, finishing);
    let n_clusters = (context.n_multiprocessors() / tiling.cluster()).min(grid_rows * grid_columns * splits);
    let shape = |x: &Tensor, len: usize| assert!(x.len() == len, "multiply: expected {len} numbers beside, not {x:?}");

    // In a workspace, if the terms are split: its planes are joined below.
    let device = Device::Cuda(context.ordinal());
    let mut parts = (splits > 1).then(|| Tensor::unspecified_on(device, &[splits, m, n], DType::F32));
    let out_pointer = out.tensor.device_pointer() + (out.offset * out.tensor.dtype().bytes()) as u64;
    let a_rows = tiling.block_m() / if tiling.share == Share::A { 2 } else { 1 };
    let halved = tiling.share == Share::B || finishing == Finishing::SwiGlu;
    let b_rows = tiling.block_n / if halved { 2 } else { 1 };
    let a_map = operand_map(&a, [k, m, 1], orders.a_columns, a_rows);
    let b_map = match finishing {
        Finishing::SwiGlu => operand_map(&b, [k, n / 2, 2], false, b_rows),
        _ => operand_map(&b, [k, n, 1], orders.b_columns, b_rows),
    };
    let out_map = match finishing {
        Finishing::F32 => match &parts {
            Some(parts) => map_of(DType::F32, parts.device_pointer(), [n, m, splits], [4 * n, 4 * n * m], [32, 64]),
            None => map_of(DType::F32, out_pointer, [n, m, 1], [4 * out.stride; 2], [32, 64]),
        },
        Finishing::SwiGluGradient => map_of(DType::Bf16, out_pointer, [n, m, 2], [2 * out.stride, 2 * n], [64, 64]),
        _ => map_of(DType::Bf16, out_pointer, [out_columns, m, 1], [2 * out.stride; 2], [64, 64]),
    };
    let mut parameters = Parameters {
        bias: 0,
        sums: 0,
        m: m as i32,
        n: if finishing == Finishing::SwiGlu { n / 2 } else { n } as i32,
        rows: grid_rows as i32,
        columns: grid_columns as i32,
        group: tiling.group(&context, k, grid_rows) as i32,
        k_tiles: k.div_ceil(64) as i32,
        splits: splits as i32,
        add: i32::from(beta == 1.0 && splits == 1),
        keep: 0,
    };
    let beside = |x: &Tensor, columns: usize, planes: usize| {
        let bf16 = x.dtype() == DType::Bf16 && x.device_pointer().is_multiple_of(16);
        assert!(bf16, "multiply: expected bf16 beside, not {x:?}");
        shape(x, m * columns * planes);
        map_of(DType::Bf16, x.device_pointer(), [columns, m, planes], [2 * columns * planes, 2 * columns], [64, 64])
    };
    let mut bias_of = |bias: Option<&Tensor>| {
        if let Some(bias) = bias {
            shape(bias, n);
            assert!(bias.dtype() == DType::Bf16, "multiply: expected a bias of bf16, not {bias:?}");
            parameters.bias = bias.device_pointer();
        }
    };
    let mut sums = None;
    let mut pre_map = None;
    match finish {
        Finish::None => {}
        Finish::Bias(bias) => bias_of(Some(bias)),
        Finish::Gelu { bias, pre_activation } => {
            bias_of(bias);
            pre_map = pre_activation.as_deref().map(|x| beside(x, n, 1));
        }
        Finish::SwiGlu { gate_up } => pre_map = gate_up.as_deref().map(|x| beside(x, n / 2, 2)),
        Finish::GeluGradient { pre_activation, column_sums } => {
            pre_map = Some(beside(pre_activation, n, 1));
            sums = column_sums;
        }
        Finish::SwiGluGradient { gate_up } => pre_map = Some(beside(gate_up, n, 2)),
    }
    parameters.keep = i32::from(pre_map.is_some());
    let partial_rows = m.div_ceil(tiling.wg_rows);
    let mut partial = sums.as_ref().map(|sums| {
        shape(sums, n);
        Tensor::unspecified_on(device, &[partial_rows, n], DType::F32)
    });
    if let Some(partial) = &mut partial {
        parameters.sums = partial.device_pointer();
    }

    let source = source(tiling, orders, finishing, bounded_waits);
    let kernel = context.kernel(&source, "gemm", tiling.shared_bytes(finishing));
    let pre_map = pre_map.unwrap_or(out_map);
    let maps = [&a_map, &b_map, &out_map, &pre_map].map(|map| std::ptr::from_ref(map).cast::<c_void>());
    let arguments = [maps[0], maps[1], maps[2], maps[3], std::ptr::from_ref(&parameters).cast()];
    // SAFETY: the parameters are the kernel's, in order; copies stay within the maps, which describe matrices that were
    // found to lie in their tensors; the bias is read below n, partial sums are written below their number of rows.
    or_unwind(unsafe { kernel.launch([n_clusters * tiling.cluster(), 1, 1], 384, &arguments) });

    if let Some(parts) = &mut parts {
        let count = m * n;
        let arguments =
            [Arg::Pointer(out_pointer), beta.into(), (&*parts).into(), Arg::U64(count as u64), Arg::from(splits)];
        // SAFETY: out and every part have m·n elements, a multiple of 4, from 16 bytes on.
        unsafe { context.kernel(&join_source(), "join_parts", 0).run([count.div_ceil(1024), 1, 1], 256, &arguments) };
    }
    if let (Some(sums), Some(partial)) = (sums, &partial) {
        join_column_sums(sums, 0.0, partial.device_pointer(), partial.rows().0);
    }
}

#[track_caller]
fn check_matrix(what: &str, matrix: &Matrix<'_>, [rows, columns]: [usize; 2]) {
    let (rows, columns) = if matrix.transposed { (columns, rows) } else { (rows, columns) };
    assert!(
        matrix.stride >= columns && matrix.offset + (rows - 1) * matrix.stride + columns <= matrix.tensor.len(),
        "multiply: {what} is [{rows}, {columns}] with stride {} from element {}, in a tensor of {}",
        matrix.stride,
        matrix.offset,
        matrix.tensor.len()
    );
}

/// Boxes of 64 terms and `rows` rows, or of 64 columns and 64 terms.
fn operand_map(matrix: &Matrix<'_>, [k, n, planes]: [usize; 3], by_columns: bool, rows: usize) -> sys::CUtensorMap {
    let pointer = matrix.tensor.device_pointer() + 2 * matrix.offset as u64;
    let strides = [2 * matrix.stride, 2 * n * matrix.stride];
    match by_columns {
        true => map_of(DType::Bf16, pointer, [n, k, 1], [strides[0]; 2], [64, 64]),
        false => map_of(
            DType::Bf16,
            pointer,
            [k, n, planes],
            if planes == 1 { [strides[0]; 2] } else { strides },
            [64, rows],
        ),
    }
}

/// A view in boxes of 128-byte rows, in the order in which the matrix units read them. Strides in bytes.
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

/// Compiles what [`multiply`] needs into the context's folder of kernels, without loading anything.
///
/// # Errors
/// If the compiler is missing or refuses.
pub fn prepare(context: &Arc<Context>, source: &Source) -> Result<(), Error> {
    catch(|| super::Module::load(context, source)).and_then(|loaded| loaded.map(|_| ()))
}
