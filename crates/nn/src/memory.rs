//! How much memory a training step takes, by category, before it is run.
//!
//! The numbers follow the life of every tensor of a step: what forward saves per block, what backward frees while
//! gradients appear, and the optimizer's state. They are checked in tests against what the allocator counted.

use crate::{ModelConfig, NormKind, Placement, Position};

/// Bytes of one f32.
const F32: usize = 4;

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
        self.weights + self.gradients + self.optimizer + self.activations + self.workspace
    }
}

/// Plans a training step with AdamW on micro-batches of `micro_batch_size` sequences of full length.
pub fn training(config: &ModelConfig, micro_batch_size: usize, accumulates: bool) -> MemoryPlan {
    let n = micro_batch_size * config.context_length;
    let parameters = F32 * config.n_parameters();
    let sizes = Sizes::of(config, n);
    let persistent = MemoryPlan { weights: parameters, optimizer: 2 * parameters, ..MemoryPlan::default() };

    // Backward walks from the head to the embedding. At each block, gradients of the blocks above exist already and
    // their activations are gone. With accumulation all gradients exist from the second micro-batch on.
    let mut plan = MemoryPlan::default();
    let mut consider = |activations: usize, gradients: usize, workspace: usize| {
        let gradients = if accumulates { parameters } else { gradients };
        if activations + gradients + workspace > plan.activations + plan.gradients + plan.workspace {
            plan = MemoryPlan { activations, gradients, workspace, ..persistent };
        }
    };
    let blocks = config.n_layers * sizes.block_saved;
    // The end of forward: hidden states, and in the fused head their gradient, the head's gradient, a chunk of logits.
    let head_gradient = F32 * config.vocab_size * config.d_model;
    consider(blocks + sizes.head_saved, head_gradient, sizes.stream + sizes.logits_chunk);
    for above in 0..config.n_layers {
        let saved = blocks - above * sizes.block_saved;
        let gradients = head_gradient + above * sizes.block_parameters;
        // Inside a block: after the gradients of its feed-forward part, those of the widest activation.
        consider(saved, gradients + sizes.block_parameters, sizes.backward_transient);
    }
    // The optimizer step: all gradients, no activations.
    consider(0, parameters, 0);
    plan
}

/// Bytes of the parts of a step over `n` positions.
struct Sizes {
    /// What one block saves for its backward.
    block_saved: usize,
    /// What the part after the blocks saves.
    head_saved: usize,
    /// One tensor of the residual stream.
    stream: usize,
    /// The gradients of one block's parameters.
    block_parameters: usize,
    /// The most that backward holds at once inside one block.
    backward_transient: usize,
    /// One chunk of logits in the fused head.
    logits_chunk: usize,
}

impl Sizes {
    fn of(config: &ModelConfig, n: usize) -> Self {
        let (d, f, up) = (config.d_model, config.d_ff, config.d_up());
        let heads = config.heads();
        let (qkv, q) = (heads.qkv_width(), heads.q_width());
        let norms = if config.norm == NormKind::None { 0 } else { 1 };
        // Pre-norm: x, norm(x), and the same before the feed-forward part. Post-norm: both sums, both norms' outputs.
        let stream_tensors = 2 + 2 * norms;
        let statistics = norms * 2 * 2 + config.n_heads;
        let block_saved = stream_tensors * d + qkv + q + up + f + statistics;
        let head_saved = match config.placement {
            Placement::Pre => (1 + norms) * d,
            Placement::Post => d,
        };
        let positions = if config.position == Position::Learned { config.context_length * d } else { 0 };
        let embeddings = config.vocab_size * d * if config.tie_embeddings { 1 } else { 2 } + positions;
        let block_parameters = (config.n_parameters() - embeddings) / config.n_layers;
        // d(residual), d(activated) and d(up) together.
        let backward_transient = n * (2 * d + f + up);
        Sizes {
            block_saved: F32 * n * block_saved,
            head_saved: F32 * n * head_saved,
            stream: F32 * n * d,
            block_parameters: F32 * block_parameters,
            backward_transient: F32 * backward_transient,
            logits_chunk: LOGITS_CHUNK.min(F32 * n * config.vocab_size),
        }
    }
}

/// Bytes of logits that the fused head holds at a time.
const LOGITS_CHUNK: usize = 16 << 20;
