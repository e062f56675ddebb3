//! The forward pass on Hopper.

use std::sync::Arc;

use half::bf16;

use super::{
    Problem, SM90, check_device, check_len, definitions, kernel, kv_heads_per_section, pointer_to, tensor_map,
};
use crate::Error;
use crate::cuda::{Buffer, Context, Kernel, Source};

const FORWARD: (&str, &str) = ("attention_sm90_forward.cu", include_str!("../attention_sm90_forward.cu"));

/// How the forward kernel cuts its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardTiling {
    /// Warpgroups that compute, each 64 query rows: 2 or 3.
    pub consumers: usize,
    /// Keys per tile.
    pub block_k: usize,
    /// Tiles of keys, and of values, in flight.
    pub stages: usize,
}

impl ForwardTiling {
    /// What measured best on an H100 for sequences of length `t`.
    pub fn of(head_dim: usize, t: usize) -> Self {
        match head_dim {
            // Tall tiles read keys less often, but waste more of the diagonal.
            64 if t <= 2048 => Self { consumers: 2, block_k: 128, stages: 4 },
            64 => Self { consumers: 3, block_k: 128, stages: 2 },
            _ => Self { consumers: 2, block_k: 128, stages: 2 },
        }
    }

    /// The kernel's source for this tiling.
    pub fn source(&self, head_dim: usize, causal: bool) -> Source {
        let options = [
            ("HEAD_DIM", head_dim),
            ("CAUSAL", usize::from(causal)),
            ("CONSUMERS", self.consumers),
            ("BLOCK_K", self.block_k),
            ("STAGES", self.stages),
        ];
        Source { name: "attention_sm90_forward", parts: &[SM90, FORWARD], options: definitions(&options) }
    }

    fn shared_bytes(&self, head_dim: usize) -> usize {
        let row = head_dim * 2;
        // Queries twice, and outputs; keys and values; barriers; alignment.
        3 * 64 * self.consumers * row + 2 * self.stages * self.block_k * row + 1024 + 1024
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct ForwardParameters {
    log_sum_exp: u64,
    next_tile: u64,
    n_sequences: i32,
    n_heads: i32,
    queries_per_kv: i32,
    k_column: i32,
    v_column: i32,
    t: i32,
    heads_per_section: i32,
    scale: f32,
}

/// The compiled forward kernel for one head size. Cheap to make once the context has the kernel.
pub struct Forward {
    context: Arc<Context>,
    kernel: Arc<Kernel>,
    tiling: ForwardTiling,
    head_dim: usize,
    causal: bool,
    next_tile: Buffer<u32>,
}

impl Forward {
    /// Compiles the kernel, or takes it from the context or its folder.
    ///
    /// # Errors
    /// If the device is no Hopper, the head size is not 64 or 128, or the compiler is missing.
    pub fn new(context: &Arc<Context>, head_dim: usize, causal: bool, tiling: ForwardTiling) -> Result<Self, Error> {
        check_device(context, head_dim)?;
        let source = tiling.source(head_dim, causal);
        Ok(Self {
            context: context.clone(),
            kernel: kernel(context, &source, "attention_forward", tiling.shared_bytes(head_dim))?,
            tiling,
            head_dim,
            causal,
            next_tile: Buffer::filled(context, 1, 0)?,
        })
    }

    /// `qkv: [b, t, (h + 2g)·e]` → `y: [b, t, h·e]`, `log_sum_exp: [b, h, t]`.
    ///
    /// # Panics
    /// If a buffer has another length, or the kernel was compiled for another problem.
    ///
    /// # Errors
    /// If the launch is refused.
    pub fn launch(
        &self,
        problem: &Problem,
        qkv: &Buffer<bf16>,
        y: &mut Buffer<bf16>,
        log_sum_exp: &mut Buffer<f32>,
    ) -> Result<(), Error> {
        let Problem { b, t, heads, causal, scale } = *problem;
        assert_eq!((heads.head_dim, causal), (self.head_dim, self.causal), "attention: compiled for another problem");
        check_len("qkv", qkv.len(), problem.qkv_len());
        check_len("y", y.len(), problem.y_len());
        check_len("log_sum_exp", log_sum_exp.len(), problem.n_rows());
        let qkv_map = tensor_map(qkv, heads.qkv_width(), t, b)?;
        let y_map = tensor_map(y, heads.q_width(), t, b)?;
        let kv_heads = kv_heads_per_section(&self.context, problem, 2 * t * heads.head_dim * 2);
        let parameters = ForwardParameters {
            log_sum_exp: log_sum_exp.pointer(),
            next_tile: self.next_tile.pointer(),
            n_sequences: b as i32,
            n_heads: heads.n_heads as i32,
            queries_per_kv: heads.queries_per_kv() as i32,
            k_column: heads.q_width() as i32,
            v_column: (heads.q_width() + heads.k_width()) as i32,
            t: t as i32,
            heads_per_section: (kv_heads * heads.queries_per_kv()) as i32,
            scale,
        };
        let n_tiles = b * heads.n_heads * t.div_ceil(64 * self.tiling.consumers);
        let grid = [self.context.n_multiprocessors().min(n_tiles), 1, 1];
        let arguments = [pointer_to(&qkv_map), pointer_to(&y_map), pointer_to(&parameters)];
        // SAFETY: the parameters are the kernel's, in order; copies stay within the tensor maps, which describe the
        // buffers whose lengths were checked; statistics are written below b·h·t.
        unsafe { self.kernel.launch(grid, 128 * (self.tiling.consumers + 1), &arguments) }
    }
}
