//! How much memory a training step takes, by category, before it is run.
//!
//! The numbers follow the life of every tensor of a step: what forward saves per block, what backward frees while
//! gradients appear, and the optimizer's state. They are checked in tests against what the allocator counted.

use tensor::{DType, Device, ops};

use crate::{MlpKind, ModelConfig, NormKind, Placement, Position};

/// Bytes of one f32.
const F32: u128 = 4;

/// Bytes at the moment of a step at which the most is alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The parameters.
    pub weights: usize,
    /// Their gradients.
    pub gradients: usize,
    /// First and second moments.
    pub optimizer: usize,
    /// What forward saved for backward.
    pub activations: usize,
    /// Short-lived buffers: logits of one chunk, gradients of activations.
    pub workspace: usize,
}

impl MemoryPlan {
    /// All categories.
    pub fn total(&self) -> usize {
        [self.gradients, self.optimizer, self.activations, self.workspace]
            .into_iter()
            .fold(self.weights, usize::saturating_add)
    }
}

/// Plans a training step with AdamW on micro-batches of `micro_batch_size` sequences of full length, with activations of
/// `dtype` on `device`. What no machine could hold comes out as the largest number.
pub fn training(
    config: &ModelConfig,
    micro_batch_size: usize,
    accumulates: bool,
    dtype: DType,
    device: Device,
) -> MemoryPlan {
    let sizes = Sizes::of(config, micro_batch_size as u128 * config.context_length as u128, dtype, device);
    let parameters = F32 * config.n_parameters() as u128;
    // Computed with in another dtype, the weights exist twice.
    let compute_copy = if dtype == DType::F32 { 0 } else { bytes_of(dtype) * config.n_parameters() as u128 };
    let n_layers = config.n_layers as u128;

    // Backward walks from the head to the embedding. At each block, gradients of the blocks above exist already and
    // their activations are gone. With accumulation all gradients exist from the second micro-batch on.
    let mut largest = Moment::default();
    let mut consider = |activations: u128, gradients: u128, workspace: u128| {
        let gradients = if accumulates { parameters } else { gradients };
        let moment = Moment { activations, gradients, workspace };
        if moment.total() > largest.total() {
            largest = moment;
        }
    };
    let blocks = n_layers * sizes.block_saved;
    // The end of forward: hidden states, and in the fused head their gradient, the head's gradient, a chunk of logits.
    let head_gradient = F32 * config.vocab_size as u128 * config.d_model as u128;
    let new_head_gradient = if accumulates { head_gradient } else { 0 };
    consider(blocks + sizes.head_saved, head_gradient, sizes.stream + sizes.logits_chunk + new_head_gradient);
    for above in 0..n_layers {
        let saved = blocks - above * sizes.block_saved;
        let gradients = head_gradient + above * sizes.block_parameters;
        // Through the feed-forward part, and later through attention.
        consider(saved, gradients + sizes.down_parameters, sizes.mlp_transient);
        let gradients = gradients + sizes.mlp_parameters;
        consider(saved - sizes.mlp_saved, gradients, sizes.attention_transient);
    }
    // The optimizer step: all gradients, no activations.
    consider(0, parameters, 0);

    let bytes = |x: u128| usize::try_from(x).unwrap_or(usize::MAX);
    MemoryPlan {
        weights: bytes(parameters + compute_copy),
        gradients: bytes(largest.gradients),
        optimizer: bytes(2 * parameters),
        activations: bytes(largest.activations),
        workspace: bytes(largest.workspace + sizes.standing_workspace),
    }
}

fn bytes_of(dtype: DType) -> u128 {
    match dtype {
        DType::F32 | DType::U32 => 4,
        DType::Bf16 => 2,
    }
}

/// What is alive at one moment of a step, beside weights and optimizer, in bytes.
#[derive(Clone, Copy, Default)]
struct Moment {
    activations: u128,
    gradients: u128,
    workspace: u128,
}

impl Moment {
    fn total(&self) -> u128 {
        self.activations + self.gradients + self.workspace
    }
}

/// Bytes of the parts of a step over `n` positions.
struct Sizes {
    /// What one block saves for its backward.
    block_saved: u128,
    /// Of it, what the feed-forward part saves.
    mlp_saved: u128,
    /// What the part after the blocks saves.
    head_saved: u128,
    /// One tensor of the residual stream.
    stream: u128,
    /// The parameters of one block.
    block_parameters: u128,
    /// Of them, those of the feed-forward part.
    mlp_parameters: u128,
    /// Of them, those of its second matrix.
    down_parameters: u128,
    /// The most that backward holds beside them inside the feed-forward part: the gradients of the residual stream and
    /// of the widest activation.
    mlp_transient: u128,
    /// The same inside attention: the gradients of the residual stream, of its output, and of queries, keys, values.
    attention_transient: u128,
    /// One chunk of logits in the fused head.
    logits_chunk: u128,
    /// What is there all the time: scratch of the matrix products.
    standing_workspace: u128,
}

impl Sizes {
    fn of(config: &ModelConfig, n: u128, dtype: DType, device: Device) -> Self {
        let element = bytes_of(dtype);
        let wide = |size: usize| size as u128;
        let (d, f, up) = (wide(config.d_model), wide(config.d_ff), wide(config.d_up()));
        let heads = config.heads();
        let (qkv, q) = (wide(heads.qkv_width()), wide(heads.q_width()));
        let norms = u128::from(config.norm != NormKind::None);
        // Pre-norm: x and norm(x). Post-norm: the sum and its norm. The same before or after attention.
        let stream_tensors = 1 + norms;
        let statistics = match config.norm {
            NormKind::None => 0,
            NormKind::Rms { .. } => 1,
            NormKind::Layer { .. } => 2,
        };
        let statistics = F32 * statistics;
        let mlp_saved = element * (stream_tensors * d + up + f) + statistics;
        let attention_saved = element * (stream_tensors * d + qkv + q) + statistics + F32 * wide(config.n_heads);
        let head_saved = match config.placement {
            Placement::Pre => element * (1 + norms) * d + statistics,
            Placement::Post => element * d,
        };
        let positions = if config.position == Position::Learned { wide(config.context_length) * d } else { 0 };
        let embeddings = wide(config.vocab_size) * d * if config.tie_embeddings { 1 } else { 2 } + positions;
        // The activation of a layer without gate turns its gradient into that of its input in place.
        let widest = if config.mlp == MlpKind::Swiglu { up } else { f };
        // Attention on a GPU sums the gradient of the queries in f32.
        let (attention_scratch, standing_workspace) = match device {
            Device::Cpu => (0, 0),
            Device::Cuda(_) => (F32 * (q + 2 * wide(config.n_heads)), ops::MATMUL_WORKSPACE_BYTES as u128),
        };
        let chunk_rows = wide(ops::logits_chunk_rows(config.vocab_size, device)).min(n);
        Sizes {
            block_saved: n * (mlp_saved + attention_saved),
            mlp_saved: n * mlp_saved,
            head_saved: n * head_saved,
            stream: element * n * d,
            block_parameters: F32 * (wide(config.n_parameters()) - embeddings) / wide(config.n_layers),
            mlp_parameters: F32 * d * (up + f),
            down_parameters: F32 * d * f,
            mlp_transient: element * n * (d + widest),
            attention_transient: n * (element * (d + q + qkv) + attention_scratch),
            logits_chunk: element * chunk_rows * wide(config.vocab_size),
            standing_workspace,
        }
    }
}
