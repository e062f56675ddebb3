//! The definition, for comparison.

use std::sync::Arc;

use half::bf16;

use super::{Problem, check_len, definitions, pointer_to};
use crate::Error;
use crate::cuda::{Buffer, Context, Module, Source};

const REFERENCE: (&str, &str) = ("attention_reference.cu", include_str!("../attention_reference.cu"));

#[repr(C)]
struct ReferenceParameters {
    qkv: u64,
    dy: u64,
    y: u64,
    log_sum_exp: u64,
    dqkv: u64,
    b: i32,
    t: i32,
    h: i32,
    g: i32,
    causal: i32,
    scale: f32,
}

/// What the definition gives, in f32.
pub struct Expected {
    /// `[b, t, h·e]`
    pub y: Vec<f32>,
    /// `[b, h, t]`
    pub log_sum_exp: Vec<f32>,
    /// `[b, t, (h + 2g)·e]`
    pub dqkv: Vec<f32>,
}

/// The reference kernel's source.
pub(super) fn reference_source(head_dim: usize) -> Source {
    Source { name: "attention_reference", parts: &[REFERENCE], options: definitions(&[("HEAD_DIM", head_dim)]) }
}

/// Forward and backward by the definition, slowly, on any device.
///
/// # Errors
/// If the device or its compiler fails.
pub fn reference(
    context: &Arc<Context>,
    problem: &Problem,
    qkv: &Buffer<bf16>,
    dy: &Buffer<bf16>,
) -> Result<Expected, Error> {
    let Problem { b, t, heads, causal, scale } = *problem;
    check_len("qkv", qkv.len(), problem.qkv_len());
    check_len("dy", dy.len(), problem.y_len());
    let y = Buffer::<f32>::filled(context, problem.y_len(), 0xff)?;
    let log_sum_exp = Buffer::<f32>::filled(context, b * heads.n_heads * t, 0xff)?;
    let dqkv = Buffer::<f32>::filled(context, problem.qkv_len(), 0xff)?;
    let parameters = ReferenceParameters {
        qkv: qkv.pointer(),
        dy: dy.pointer(),
        y: y.pointer(),
        log_sum_exp: log_sum_exp.pointer(),
        dqkv: dqkv.pointer(),
        b: b as i32,
        t: t as i32,
        h: heads.n_heads as i32,
        g: heads.n_kv_heads as i32,
        causal: i32::from(causal),
        scale,
    };
    let module = Module::load(context, &reference_source(heads.head_dim))?;
    for (name, n_heads) in [
        ("reference_forward", heads.n_heads),
        ("reference_backward_queries", heads.n_heads),
        ("reference_backward_keys", heads.n_kv_heads),
    ] {
        // SAFETY: the parameter is the kernel's; each block works on one row of one head, within the lengths checked.
        unsafe { module.kernel(name, 0)?.launch([t, n_heads, b], 32, &[pointer_to(&parameters)])? };
    }
    Ok(Expected { y: y.to_vec()?, log_sum_exp: log_sum_exp.to_vec()?, dqkv: dqkv.to_vec()? })
}
