//! How much memory a training step takes, by category, before it is run.
//!
//! The plan follows the life of every tensor of a step (`life`): what forward keeps, what backward lets go while
//! gradients appear, what is there for a moment only. It is checked in tests against what the allocators counted.

mod ledger;
mod life;

use tensor::{DType, Device};

use crate::{ModelConfig, Recompute};
use ledger::Category;

/// Bytes at the moment of a step at which the most is alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The parameters, and their copy that is computed with.
    pub weights: usize,
    /// Their gradients.
    pub gradients: usize,
    /// First and second moments.
    pub optimizer: usize,
    /// What forward keeps for backward.
    pub activations: usize,
    /// Short-lived buffers: logits of one chunk, gradients of activations. Scratch of the matrix products.
    pub workspace: usize,
    /// On a GPU, what then waits to be used again, in sizes that nothing alive has: a recorded step keeps all its memory.
    pub waiting: usize,
}

impl MemoryPlan {
    /// What must be free for the step: all categories.
    pub fn held(&self) -> usize {
        self.alive().saturating_add(self.waiting)
    }

    /// What is alive: all categories but what waits.
    pub fn alive(&self) -> usize {
        [self.gradients, self.optimizer, self.activations, self.workspace]
            .into_iter()
            .fold(self.weights, usize::saturating_add)
    }
}

/// What a training step is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Sequences at a time, of full length.
    pub micro_batch_size: usize,
    /// Micro-batches whose gradients are summed.
    pub n_micro_batches: usize,
    /// Of activations.
    pub dtype: DType,
    /// Where it runs. On a GPU, bytes are those that its allocator takes for them.
    pub device: Device,
    /// What backward computes again.
    pub recompute: Recompute,
    /// Whether the linear maps of the blocks multiply in fp8 on a GPU; those plans are estimates.
    pub fp8: bool,
}

/// Plans a training step of a valid config with AdamW. What no machine could hold comes out as the largest number.
pub fn training(config: &ModelConfig, step: &Step) -> MemoryPlan {
    let ledger = life::of_step(config, step);
    let bytes = |bytes: u128| usize::try_from(bytes).unwrap_or(usize::MAX);
    let most = |category| bytes(ledger.most().of(category));
    MemoryPlan {
        weights: most(Category::Weights),
        gradients: most(Category::Gradients),
        optimizer: most(Category::Optimizer),
        activations: most(Category::Activations),
        workspace: most(Category::Workspace),
        waiting: bytes(ledger.waiting()),
    }
}
