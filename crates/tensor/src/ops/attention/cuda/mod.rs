//! Attention on NVIDIA GPUs: tensor maps, launches, and which kernel a device gets.
//!
//! Queries, keys and values stay in the fused projection: the copy engine takes its boxes straight from there.

mod forward;
mod backward;
mod reference;
#[cfg(test)]
mod tests;

use std::ffi::c_void;
use std::mem::MaybeUninit;

use cudarc::driver::sys;
use half::bf16;

use super::Heads;
use crate::Error;
use crate::cuda::{Arch, Buffer, Context, Source};

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
        let full = 4.0 * (self.b * self.heads.n_heads * self.heads.head_dim) as f64 * (self.t as f64).powi(2);
        if self.causal { full / 2.0 } else { full }
    }

    /// Elements of the fused projection.
    pub fn qkv_len(&self) -> usize {
        self.b * self.t * self.heads.qkv_width()
    }

    /// Elements of the output.
    pub fn y_len(&self) -> usize {
        self.b * self.t * self.heads.q_width()
    }

    /// Rows of all query heads: how many log-sum-exps there are.
    pub fn n_rows(&self) -> usize {
        self.b * self.heads.n_heads * self.t
    }
}

/// Every kernel of this operation, with the architectures for which it must compile.
pub(crate) fn sources() -> Vec<(Source, &'static [Arch])> {
    let mut sources = Vec::new();
    for head_dim in [64, 128] {
        sources.push((reference_source(head_dim), Arch::PORTABLE));
        for causal in [false, true] {
            let mut tilings = [1024, 8192].map(|t| ForwardTiling::of(head_dim, t)).to_vec();
            tilings.dedup();
            sources.extend(tilings.iter().map(|tiling| (tiling.source(head_dim, causal), Arch::HOPPER)));
            sources.push((BackwardTiling::of(head_dim).source(head_dim, causal), Arch::HOPPER));
        }
    }
    sources
}

fn definitions(options: &[(&str, usize)]) -> Vec<String> {
    options.iter().map(|(name, value)| format!("-D{name}={value}")).collect()
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
