//! Attention on NVIDIA GPUs: tensor maps, launches, and which kernel a device gets.
//!
//! Queries, keys and values stay in the fused projection: the copy engine takes its boxes straight from there.

mod forward;
mod backward;
mod portable;
pub(super) mod cached;
mod reference;
#[cfg(test)]
mod tests;

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::sync::{Arc, PoisonError};

use cudarc::driver::sys;
use half::bf16;

use super::Heads;
use super::options::Rule;
use crate::cuda::{Arch, Buffer, Context, Kernel, Source, catch, or_unwind};
use crate::ops::add::SumsOfColumns;
use crate::{DType, Error, Tensor};

pub use backward::{Backward, BackwardTiling, BackwardWorkspace};
pub use forward::{Forward, ForwardTiling};
use reference::reference_source;
pub use reference::{Expected, reference};

/// Hopper's instructions as functions; before each of its kernels.
const SM90: (&str, &str) = ("sm90.cuh", include_str!("../../../cuda/sm90.cuh"));

/// What is computed.
#[derive(Clone, Copy, Debug)]
pub struct Problem {
    /// Sequences in the batch.
    pub b: usize,
    /// Positions of each.
    pub t: usize,
    /// Query and key/value heads, and their size.
    pub heads: Heads,
    /// Whether a position sees itself and what is before it only.
    pub causal: bool,
    /// What scores are multiplied by.
    pub scale: f32,
}

impl Problem {
    /// Floating-point operations of the forward pass; the backward pass has 2.5 times as many.
    pub fn forward_flops(&self) -> f64 {
        let Heads { n_heads, head_dim, v_head_dim, .. } = self.heads;
        let full = 2.0 * (self.b * n_heads * (head_dim + v_head_dim)) as f64 * (self.t as f64).powi(2);
        if self.causal { full / 2.0 } else { full }
    }

    /// Elements of the fused projection.
    pub fn qkv_len(&self) -> usize {
        self.b * self.t * self.heads.qkv_width()
    }

    /// Elements of the output.
    pub fn y_len(&self) -> usize {
        self.b * self.t * self.heads.y_width()
    }

    /// Rows of all query heads: how many log-sum-exps there are.
    pub fn n_rows(&self) -> usize {
        self.b * self.heads.n_heads * self.t
    }
}

/// Every kernel of this operation, with the architectures for which it must compile.
pub(crate) fn sources() -> Vec<(Source, &'static [Arch])> {
    let mut sources = [portable::sources(), cached::sources()].concat();
    for head_dim in [64, 128] {
        sources.push((reference_source(head_dim), Arch::PORTABLE));
        for causal in [false, true] {
            let mut tilings = [1024, 8192].map(|t| ForwardTiling::of(head_dim, t)).to_vec();
            tilings.dedup();
            sources.extend(tilings.iter().map(|tiling| (tiling.source(head_dim, causal), Arch::HOPPER)));
            let mut tilings = BackwardTiling::variants(head_dim, 1024);
            if head_dim == 64 {
                tilings.extend([1024, 8192].map(|t| BackwardTiling { sums: true, ..BackwardTiling::of(head_dim, t) }));
            }
            sources.extend(tilings.iter().map(|tiling| (tiling.source(head_dim, causal), Arch::HOPPER)));
        }
    }
    sources
}

fn definitions(options: &[(&str, usize)]) -> Vec<String> {
    options.iter().map(|(name, value)| format!("-D{name}={value}")).collect()
}

/// `y: [b, t, h·e]` and `log_sum_exp: [b, h, t]`.
pub(super) fn forward(problem: &Problem, rule: &Rule, qkv: &Tensor) -> (Tensor, Tensor) {
    let Problem { b, t, heads, causal, .. } = *problem;
    let mut y = Tensor::unspecified_on(qkv.device(), &[b, t, heads.y_width()], qkv.dtype());
    let mut log_sum_exp = Tensor::unspecified_on(qkv.device(), &[b, heads.n_heads, t], DType::F32);
    if qkv.is_empty() {
        return (y, log_sum_exp);
    }
    if is_for_hopper(problem, rule, qkv) {
        let tiling = ForwardTiling::of(heads.head_dim, t);
        let forward = or_unwind(Forward::new(qkv.cuda(), heads.head_dim, causal, tiling));
        or_unwind(forward.launch(problem, qkv.cuda_bf16s(), y.cuda_bf16s_mut(), log_sum_exp.cuda_f32s_mut()));
    } else {
        portable::forward(problem, rule, qkv, &mut y, &mut log_sum_exp);
    }
    (y, log_sum_exp)
}

/// What the forward pass leaves for the backward pass.
#[derive(Clone, Copy)]
pub(super) struct Saved<'a> {
    /// `[b, t, (h + 2g)·e]`
    pub(super) qkv: &'a Tensor,
    /// `[b, t, h·e]`
    pub(super) y: &'a Tensor,
    /// `[b, h, t]`
    pub(super) log_sum_exp: &'a Tensor,
}

/// `dqkv: [b, t, (h + 2g)·e]`, of the dtype of `qkv`; the sums of its columns go to `sums`, if there are kernels that make
/// them on the way.
pub(super) fn backward(
    problem: &Problem,
    rule: &Rule,
    saved: &Saved<'_>,
    dy: &Tensor,
    sums: Option<&SumsOfColumns>,
) -> Tensor {
    let (Problem { heads, causal, .. }, Saved { qkv, y, log_sum_exp }) = (*problem, *saved);
    let mut dqkv = Tensor::unspecified_on(qkv.device(), qkv.shape(), qkv.dtype());
    if qkv.is_empty() {
        return dqkv;
    }
    if is_for_hopper(problem, rule, qkv) {
        let sums = sums.filter(|_| heads.head_dim == 64);
        let tiling = BackwardTiling { sums: sums.is_some(), ..BackwardTiling::of(heads.head_dim, problem.t) };
        let context = qkv.cuda();
        let backward = or_unwind(Backward::new(context, heads.head_dim, causal, tiling));
        let mut workspace = or_unwind(BackwardWorkspace::new(context, problem, tiling));
        or_unwind(backward.launch(
            problem,
            &mut workspace,
            qkv.cuda_bf16s(),
            y.cuda_bf16s(),
            log_sum_exp.cuda_f32s(),
            dy.cuda_bf16s(),
            dqkv.cuda_bf16s_mut(),
        ));
        if let Some(sums) = sums {
            let mut joined = Tensor::unspecified_on(qkv.device(), &[heads.qkv_width()], DType::F32);
            workspace.join_sums(problem, &mut joined);
            *sums.lock().unwrap_or_else(PoisonError::into_inner) = Some(joined);
        }
    } else {
        portable::backward(problem, rule, saved, dy, &mut dqkv);
    }
    dqkv
}

/// The kernels for any device, for comparison: `qkv: [b, t, (h + 2g)·e]` on a GPU → `y: [b, t, h·e]`,
/// `log_sum_exp: [b, h, t]`.
///
/// # Panics
/// If the tensor has another length.
pub fn portable_forward(problem: &Problem, qkv: &Tensor) -> (Tensor, Tensor) {
    check_len("qkv", qkv.len(), problem.qkv_len());
    let mut y = Tensor::unspecified_on(qkv.device(), &[problem.b, problem.t, problem.heads.y_width()], qkv.dtype());
    let rows = [problem.b, problem.heads.n_heads, problem.t];
    let mut log_sum_exp = Tensor::unspecified_on(qkv.device(), &rows, DType::F32);
    portable::forward(problem, &Rule::of(problem), qkv, &mut y, &mut log_sum_exp);
    (y, log_sum_exp)
}

/// The backward pass of [`portable_forward`]: `dy: [b, t, h·e]` → `dqkv: [b, t, (h + 2g)·e]`.
///
/// # Panics
/// If a tensor has another length.
pub fn portable_backward(problem: &Problem, qkv: &Tensor, y: &Tensor, log_sum_exp: &Tensor, dy: &Tensor) -> Tensor {
    check_len("qkv", qkv.len(), problem.qkv_len());
    check_len("y", y.len(), problem.y_len());
    check_len("log_sum_exp", log_sum_exp.len(), problem.n_rows());
    check_len("dy", dy.len(), problem.y_len());
    let mut dqkv = Tensor::unspecified_on(qkv.device(), qkv.shape(), qkv.dtype());
    portable::backward(problem, &Rule::of(problem), &Saved { qkv, y, log_sum_exp }, dy, &mut dqkv);
    dqkv
}

/// Whether Hopper's own kernels do it.
fn is_for_hopper(problem: &Problem, rule: &Rule, qkv: &Tensor) -> bool {
    let Heads { head_dim, v_head_dim, .. } = problem.heads;
    let is_kernels_size = head_dim == v_head_dim && check_device(qkv.cuda(), head_dim).is_ok();
    qkv.dtype() == DType::Bf16 && rule.is_plain() && is_kernels_size
}

/// [`Context::kernel`] outside operations.
fn kernel(context: &Arc<Context>, source: &Source, name: &str, shared_bytes: usize) -> Result<Arc<Kernel>, Error> {
    catch(|| context.kernel(source, name, shared_bytes))
}

fn check_device(context: &Context, head_dim: usize) -> Result<(), Error> {
    let reason = match (context.arch(), head_dim) {
        (Arch::Sm90a, 64 | 128) => return Ok(()),
        (Arch::Sm90a, _) => format!("heads of {head_dim} have no kernel, expected 64 or 128"),
        (arch, _) => format!("{arch} has no kernel, expected sm_90a"),
    };
    Err(Error::Kernel { name: "attention_sm90", reason })
}

fn check_len(name: &str, len: usize, expected: usize) {
    assert!(len == expected, "attention: {name} has {len} elements, expected {expected}");
}

fn pointer_to<T>(value: &T) -> *const c_void {
    std::ptr::from_ref(value).cast()
}

/// Key/value heads to work on at the same time: those of which what is read again, `bytes` a head, fits into two thirds of
/// the second-level cache.
fn kv_heads_per_section(context: &Context, problem: &Problem, bytes: usize) -> usize {
    (context.l2_bytes() * 2 / 3 / bytes).clamp(1, problem.b * problem.heads.n_kv_heads)
}

/// A view of `[b, t, width]` in boxes of 64 columns and 64 rows, in the order in which the matrix units read them.
fn tensor_map(buffer: &Buffer<bf16>, width: usize, t: usize, b: usize) -> Result<sys::CUtensorMap, Error> {
    let mut map = MaybeUninit::<sys::CUtensorMap>::uninit();
    let sizes = [width as u64, t as u64, b as u64];
    let strides = [2 * width as u64, 2 * (width * t) as u64];
    // SAFETY: all arrays have the length of the rank, the inner one no stride; on success the map is written.
    let result = unsafe {
        sys::cuTensorMapEncodeTiled(
            map.as_mut_ptr(),
            sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            3,
            buffer.pointer() as *mut c_void,
            sizes.as_ptr(),
            strides.as_ptr(),
            [64, 64, 1].as_ptr(),
            [1, 1, 1].as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    result.result().map_err(|error| Error::Cuda { action: "describe a tensor", reason: error.to_string() })?;
    // SAFETY: the call succeeded.
    Ok(unsafe { map.assume_init() })
}
