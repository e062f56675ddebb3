//! The backward pass on Hopper.

use std::sync::Arc;

use half::bf16;

use super::{
    Problem, SM90, check_device, check_len, definitions, kernel, kv_heads_per_section, pointer_to, tensor_map,
};
use crate::cuda::blas::join_column_sums;
use crate::cuda::{Buffer, Context, Kernel, Source};
use crate::{Error, Tensor};

const BACKWARD: (&str, &str) = ("attention_sm90_backward.cu", include_str!("../attention_sm90_backward.cu"));

/// Keys per tile.
const BLOCK_K: usize = 128;

/// How the backward kernel cuts its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackwardTiling {
    /// Query rows per step: 64 or 128.
    pub block_q: usize,
    /// Tiles of queries, and of their outputs' gradients, in flight.
    pub stages: usize,
    /// Whether a step computes the gradient of the queries of the step before; heads of 64 only.
    pub delayed: bool,
    /// Whether what goes over memory before and after the main kernel starts where that began and ended.
    pub reversed: bool,
    /// Whether the sums of the columns of `dqkv` are made on the way; heads of 64 only.
    pub sums: bool,
}

impl BackwardTiling {
    /// What measured best on an H100 for sequences of length `t`; a step's share of dq has 8192 elements.
    pub fn of(head_dim: usize, t: usize) -> Self {
        let narrow = head_dim == 64;
        Self { block_q: 8192 / head_dim, stages: 2, delayed: narrow && t >= 8192, reversed: narrow, sums: false }
    }

    /// What may be tried, the one of [`BackwardTiling::of`] first.
    pub fn variants(head_dim: usize, t: usize) -> Vec<Self> {
        let of = Self::of(head_dim, t);
        let flags = [(false, false), (false, true), (true, false), (true, true)];
        let all = flags.into_iter().map(|(delayed, reversed)| Self { delayed, reversed, ..of });
        let mut all: Vec<Self> = all.filter(|tiling| head_dim == 64 || !tiling.delayed).collect();
        all.sort_by_key(|tiling| *tiling != of);
        all
    }

    /// The kernels' source for this tiling.
    pub fn source(&self, head_dim: usize, causal: bool) -> Source {
        let options = [
            ("HEAD_DIM", head_dim),
            ("CAUSAL", usize::from(causal)),
            ("BLOCK_Q", self.block_q),
            ("STAGES", self.stages),
            ("DELAYED", usize::from(self.delayed)),
            ("REVERSED", usize::from(self.reversed)),
            ("SUMS", usize::from(self.sums)),
        ];
        Source { name: "attention_sm90_backward", parts: &[SM90, BACKWARD], options: definitions(&options) }
    }

    fn shared_bytes(&self, head_dim: usize) -> usize {
        let row = head_dim * 2;
        let keys_and_values = 2 * BLOCK_K * row;
        let queries_and_gradients = 2 * self.stages * (self.block_q * row + self.block_q * 4);
        let score_gradients = 2 * BLOCK_K * self.block_q * 2;
        let dq = if head_dim == 128 { 2 } else { 1 } * self.block_q * head_dim * 4;
        let sums = 2 * 2 * 4 * 4 * if self.sums { head_dim } else { 1 };
        // Barriers, and alignment of the start.
        (keys_and_values + queries_and_gradients + score_gradients + dq + sums + 256).next_multiple_of(1024) + 1024
    }
}

/// Device memory that the backward pass of one problem needs beside its inputs and outputs.
pub struct BackwardWorkspace {
    /// `[b, h, t_padded]`, in base 2.
    log_sum_exp_log2: Buffer<f32>,
    /// `[b, h, t_padded]`
    delta: Buffer<f32>,
    /// `[b, h, query tiles, block_q·e]`
    dq_tiles: Buffer<f32>,
    /// `[b, h, query tiles]`, then one for the next tile
    turns: Buffer<u32>,
    /// `[b, key tiles, 2, (h + 2g)·e]`, if the tiling has them: sums over 64 rows each
    pub(super) sums: Option<Buffer<f32>>,
}

impl BackwardWorkspace {
    /// For problems of this batch, length and number of heads.
    ///
    /// # Errors
    /// If the device's memory does not suffice.
    pub fn new(context: &Arc<Context>, problem: &Problem, tiling: BackwardTiling) -> Result<Self, Error> {
        let rows = problem.b * problem.heads.n_heads;
        let q_tiles = problem.t.div_ceil(tiling.block_q);
        let n_sums = row_sums(problem) * problem.heads.qkv_width();
        let sums = tiling.sums.then(|| Buffer::unspecified(context, n_sums)).transpose()?;
        Ok(Self {
            log_sum_exp_log2: Buffer::unspecified(context, rows * t_padded(problem))?,
            delta: Buffer::unspecified(context, rows * t_padded(problem))?,
            dq_tiles: Buffer::unspecified(context, rows * q_tiles * tiling.block_q * problem.heads.head_dim)?,
            turns: Buffer::filled(context, rows * q_tiles + 1, 0)?,
            sums,
        })
    }

    /// `sums: [(h + 2g)·e]` of f32 `←` the sums of the columns of the last `dqkv`, from those of its tiles, in their order;
    /// before it is rounded.
    ///
    /// # Panics
    /// If the tiling had no sums, or `sums` has another length.
    pub fn join_sums(&self, problem: &Problem, sums: &mut Tensor) {
        let partial = self.sums.as_ref().expect("a tiling with sums");
        check_len("sums", sums.len(), problem.heads.qkv_width());
        check_len("partial sums", partial.len(), row_sums(problem) * sums.len());
        join_column_sums(sums, 0.0, partial.pointer(), row_sums(problem));
    }
}

/// Rows of partial sums.
fn row_sums(problem: &Problem) -> usize {
    problem.b * problem.t.div_ceil(BLOCK_K) * 2
}

fn t_padded(problem: &Problem) -> usize {
    problem.t.next_multiple_of(128)
}

#[repr(C)]
struct BackwardParameters {
    log_sum_exp_log2: u64,
    delta: u64,
    dq_tiles: u64,
    turns: u64,
    next_tile: u64,
    sums: u64,
    n_sequences: i32,
    n_heads: i32,
    queries_per_kv: i32,
    k_column: i32,
    v_column: i32,
    width: i32,
    t: i32,
    t_padded: i32,
    kv_heads_per_section: i32,
    scale: f32,
}

/// The compiled backward kernels for one head size. Cheap to make once the context has the kernels.
pub struct Backward {
    context: Arc<Context>,
    prepare: Arc<Kernel>,
    main: Arc<Kernel>,
    finish: Arc<Kernel>,
    tiling: BackwardTiling,
    head_dim: usize,
    causal: bool,
}

impl Backward {
    /// Compiles the kernels, or takes them from the context or its folder.
    ///
    /// # Errors
    /// If the device is no Hopper, the head size is not 64 or 128, or the compiler is missing.
    pub fn new(context: &Arc<Context>, head_dim: usize, causal: bool, tiling: BackwardTiling) -> Result<Self, Error> {
        check_device(context, head_dim)?;
        let source = tiling.source(head_dim, causal);
        Ok(Self {
            context: context.clone(),
            prepare: kernel(context, &source, "attention_backward_prepare", 0)?,
            main: kernel(context, &source, "attention_backward", tiling.shared_bytes(head_dim))?,
            finish: kernel(context, &source, "attention_backward_finish", 0)?,
            tiling,
            head_dim,
            causal,
        })
    }

    /// What the forward pass read and wrote, and `dy: [b, t, h·e]` → `dqkv: [b, t, (h + 2g)·e]`.
    ///
    /// # Panics
    /// If a buffer has another length, or the kernels were compiled for another problem.
    ///
    /// # Errors
    /// If a launch is refused.
    #[expect(clippy::too_many_arguments, reason = "all of the same operation, none belongs to another")]
    pub fn launch(
        &self,
        problem: &Problem,
        workspace: &mut BackwardWorkspace,
        qkv: &Buffer<bf16>,
        y: &Buffer<bf16>,
        log_sum_exp: &Buffer<f32>,
        dy: &Buffer<bf16>,
        dqkv: &mut Buffer<bf16>,
    ) -> Result<(), Error> {
        let Problem { b, t, heads, causal, scale } = *problem;
        let (h, q_tiles, t_padded) = (heads.n_heads, t.div_ceil(self.tiling.block_q), t_padded(problem));
        assert_eq!((heads.head_dim, causal), (self.head_dim, self.causal), "attention: compiled for another problem");
        check_len("qkv", qkv.len(), problem.qkv_len());
        check_len("y", y.len(), problem.y_len());
        check_len("log_sum_exp", log_sum_exp.len(), problem.n_rows());
        check_len("dy", dy.len(), problem.y_len());
        check_len("dqkv", dqkv.len(), problem.qkv_len());
        check_len("workspace", workspace.delta.len(), b * h * t_padded);
        check_len("workspace", workspace.turns.len(), b * h * q_tiles + 1);
        assert_eq!(workspace.sums.is_some(), self.tiling.sums, "attention: the workspace is of another tiling");
        let sums = workspace.sums.as_ref().map_or(0, Buffer::pointer);
        let width = heads.qkv_width() as i32;
        let qkv_map = tensor_map(qkv, heads.qkv_width(), t, b)?;
        let dy_map = tensor_map(dy, heads.q_width(), t, b)?;
        let dqkv_map = tensor_map(dqkv, heads.qkv_width(), t, b)?;

        let pointers =
            [&workspace.log_sum_exp_log2, &workspace.delta, &workspace.dq_tiles, log_sum_exp].map(Buffer::pointer);
        let (y, dy, turns) = (y.pointer(), dy.pointer(), workspace.turns.pointer());
        let (h_i32, t_i32, t_padded_i32) = (h as i32, t as i32, t_padded as i32);
        let arguments = [
            pointer_to(&pointers[0]),
            pointer_to(&pointers[1]),
            pointer_to(&y),
            pointer_to(&dy),
            pointer_to(&pointers[3]),
            pointer_to(&h_i32),
            pointer_to(&t_i32),
            pointer_to(&t_padded_i32),
        ];
        let grid = [(t_padded * heads.q_width() / 8).div_ceil(256), b, 1];
        // SAFETY: the parameters are the kernel's, in order; it reads rows below t and writes statistics below t_padded,
        // of buffers whose lengths were checked.
        unsafe { self.prepare.launch(grid, 256, &arguments)? };

        // Read again: queries, gradients of outputs and dq's tiles of all query heads.
        let bytes = heads.queries_per_kv() * t * heads.head_dim * (2 + 2 + 4);
        // With few heads at a time many blocks would start on the same one and wait for their turns.
        let enough = self.context.n_multiprocessors() / 8;
        let kv_heads = kv_heads_per_section(&self.context, problem, bytes).max(enough).min(b * heads.n_kv_heads);
        let parameters = BackwardParameters {
            log_sum_exp_log2: pointers[0],
            delta: pointers[1],
            dq_tiles: pointers[2],
            turns,
            next_tile: turns + 4 * (b * h * q_tiles) as u64,
            sums,
            n_sequences: b as i32,
            n_heads: h as i32,
            queries_per_kv: heads.queries_per_kv() as i32,
            k_column: heads.q_width() as i32,
            v_column: (heads.q_width() + heads.k_width()) as i32,
            width,
            t: t_i32,
            t_padded: t_padded_i32,
            kv_heads_per_section: kv_heads as i32,
            scale,
        };
        let n_tiles = b * heads.n_kv_heads * t.div_ceil(BLOCK_K);
        let grid = [self.context.n_multiprocessors().min(n_tiles), 1, 1];
        let arguments = [pointer_to(&qkv_map), pointer_to(&dy_map), pointer_to(&dqkv_map), pointer_to(&parameters)];
        // SAFETY: the parameters are the kernel's, in order; copies stay within the tensor maps, which describe buffers
        // whose lengths were checked, and within the workspace, which was made for this problem. Blocks wait
        // only for tiles that were drawn before theirs, by blocks that run.
        unsafe { self.main.launch(grid, 384, &arguments)? };

        let arguments = [
            pointer_to(&dqkv_map),
            pointer_to(&pointers[2]),
            pointer_to(&turns),
            pointer_to(&sums),
            pointer_to(&width),
            pointer_to(&scale),
        ];
        // SAFETY: as above. With sums, query tiles have 128 rows as those of keys, and each half writes its own row of sums.
        unsafe { self.finish.launch([q_tiles, h, b], 256, &arguments) }
    }
}
