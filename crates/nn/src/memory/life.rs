//! The life of every tensor of a training step, in the order in which the operations take and free them.

use tensor::{DType, Device, ops};

use super::Step;
use super::ledger::{Category, Ledger, Piece};
use crate::{MlpKind, ModelConfig, NormKind, Placement, Position, Recompute};

/// Bytes of an f32, and of an id.
const F32: u128 = 4;
/// Blocks of a norm's backward kernel, each with sums of its own: one for each multiprocessor of an H100.
const NORM_BLOCKS: u128 = 132;

/// The account of a step.
pub(super) fn of_step(config: &ModelConfig, step: &Step) -> Ledger {
    let mut life = Life::new(config, step);
    life.standing();
    life.micro_batch();
    if step.n_micro_batches > 1 {
        // All others are like the second: every gradient exists.
        life.gradients_exist = true;
        life.micro_batch();
    }
    life.ledger
}

struct Life<'a> {
    config: &'a ModelConfig,
    step: &'a Step,
    ledger: Ledger,
    gradients_exist: bool,
    on_gpu: bool,
    /// Positions of a micro-batch.
    n: u128,
    /// Bytes of one number of an activation.
    element: u128,
    d: u128,
    qkv: u128,
    q: u128,
}

/// What one block keeps for backward.
struct Block {
    /// Its input: what the first norm keeps, or attention if it has none in front.
    first: Piece,
    first_norm: NormKept,
    /// Queries, keys and values; the output and a number per row and head; the output in 8 bits, if a product rounds it.
    attention: Vec<Piece>,
    /// The sum behind attention.
    second: Piece,
    second_norm: NormKept,
    before_activation: Piece,
    activated: Piece,
    /// With norms behind: the sum behind the feed-forward layer.
    third: Option<(Piece, Vec<Piece>)>,
}

/// A norm's result, which what comes behind it keeps, and its statistics. Empty without norm.
struct NormKept {
    normed: Option<Piece>,
    statistics: Vec<Piece>,
}

/// What is kept of a block until its backward pass.
enum Kept {
    All(Box<Block>),
    Input(Piece),
}

impl<'a> Life<'a> {
    fn new(config: &'a ModelConfig, step: &'a Step) -> Self {
        let heads = config.heads();
        Life {
            config,
            step,
            ledger: Ledger::new(step.device),
            gradients_exist: false,
            on_gpu: step.device != Device::Cpu,
            n: step.micro_batch_size as u128 * config.context_length as u128,
            element: step.dtype.bytes() as u128,
            d: config.d_model as u128,
            qkv: heads.qkv_width() as u128,
            q: heads.q_width() as u128,
        }
    }

    /// What is there from the start: weights, moments, batches, scratch.
    fn standing(&mut self) {
        let (v, d) = (self.config.vocab_size as u128, self.d);
        let (n_layers, context) = (self.config.n_layers, self.config.context_length as u128);
        let tables = if self.config.tie_embeddings { 1 } else { 2 };
        (0..tables).for_each(|_| self.parameter(v * d, true));
        match self.config.position {
            Position::Learned => self.parameter(context * d, true),
            Position::Rope { .. } => {
                let angles = context * (self.config.head_dim() as u128 / 2);
                (0..2).for_each(|_| self.ledger.keep(Category::Weights, F32 * angles));
            }
            _ => {}
        }
        for _ in 0..n_layers {
            for [outputs, inputs] in self.linear_maps() {
                self.parameter(outputs * inputs, true);
                if self.config.bias {
                    self.parameter(outputs, true);
                }
            }
            self.norm_parameters();
            self.norm_parameters();
        }
        if self.config.has_final_norm() {
            self.norm_parameters();
        }
        for _ in 0..2 * self.step.n_micro_batches.min(2) {
            self.ledger.keep(Category::Workspace, F32 * self.n);
        }
        // Those of further micro-batches, without a loop that a config decides on.
        let further = self.step.n_micro_batches.saturating_sub(2) as u128;
        self.ledger.keep(Category::Workspace, 2 * further * F32 * self.n);
        if self.on_gpu {
            self.ledger.keep(Category::Workspace, ops::MATMUL_WORKSPACE_BYTES as u128);
            // Where the tokens of the next step arrive.
            self.ledger.keep(Category::Workspace, 2 * self.step.n_micro_batches as u128 * F32 * self.n);
        }
        if self.on_gpu && self.step.fp8 {
            self.rounded_weights_and_scratch();
        }
    }

    /// Products in fp8: weights in both orders for the time of a step, and both orders of what a product rounds, as if the
    /// widest were always there.
    fn rounded_weights_and_scratch(&mut self) {
        let fits = |map: &[u128; 2]| map.iter().all(|size| size.is_multiple_of(16));
        let fitting: Vec<_> = self.linear_maps().into_iter().filter(fits).collect();
        for _ in 0..self.config.n_layers {
            for [outputs, inputs] in &fitting {
                (0..2).for_each(|_| self.ledger.keep(Category::Workspace, outputs * inputs));
            }
        }
        let mut widths = fitting.concat();
        widths.sort_unstable();
        widths.dedup();
        let widest = widths.pop();
        for width in widths {
            // Never at the same time as the widest, but in a recorded step their memory is kept.
            let both = [0; 2].map(|_| self.scratch(self.n * width));
            self.ledger.free(both);
        }
        if let Some(width) = widest {
            (0..2).for_each(|_| self.ledger.keep(Category::Workspace, self.n * width));
        }
    }

    /// Outputs and inputs of qkv, output, up and down.
    fn linear_maps(&self) -> [[u128; 2]; 4] {
        let (f, up) = (self.config.d_ff as u128, self.config.d_up() as u128);
        [[self.qkv, self.d], [self.d, self.q], [up, self.d], [self.d, f]]
    }

    /// Whether the products of a linear map in a block are in fp8.
    fn is_fp8(&self, outputs: u128, inputs: u128) -> bool {
        self.on_gpu && self.step.fp8 && [self.n, outputs, inputs].iter().all(|size| size.is_multiple_of(16))
    }

    /// What a linear map keeps of its input, which nothing else keeps: in fp8, 8 bits of each number.
    fn kept_input(&mut self, input: Piece, [outputs, inputs]: [u128; 2]) -> Piece {
        if !self.is_fp8(outputs, inputs) {
            return input;
        }
        let rounded = self.ledger.take(Category::Activations, self.n * inputs);
        self.ledger.free([input]);
        rounded
    }

    fn norm_parameters(&mut self) {
        for _ in 0..self.norm_width() {
            self.parameter(self.d, false);
        }
    }

    /// Vectors of a norm.
    fn norm_width(&self) -> usize {
        match self.config.norm {
            NormKind::None => 0,
            NormKind::Rms { .. } | NormKind::Layer { bias: false, .. } => 1,
            NormKind::Layer { bias: true, .. } => 2,
        }
    }

    fn parameter(&mut self, len: u128, has_compute_dtype: bool) {
        self.ledger.keep(Category::Weights, F32 * len);
        if self.step.dtype != DType::F32 {
            let bytes = if has_compute_dtype { self.element } else { F32 };
            self.ledger.keep(Category::Weights, bytes * len);
        }
        self.ledger.keep(Category::Optimizer, F32 * len);
        self.ledger.keep(Category::Optimizer, F32 * len);
    }

    /// Forward and backward.
    fn micro_batch(&mut self) {
        let embedded = self.activation(self.d);
        let (mut stream, mut branch) = (Some(embedded), None);
        let mut kept = Vec::new();
        for _ in 0..self.config.n_layers {
            match (self.step.recompute, self.config.placement) {
                (Recompute::None, Placement::Pre) => {
                    let (block, out) = self.block_forward(stream.take(), branch.take());
                    kept.push(Kept::All(Box::new(block)));
                    branch = Some(out);
                }
                (Recompute::None, Placement::Post) => {
                    let (block, out) = self.block_forward(stream.take(), None);
                    kept.push(Kept::All(Box::new(block)));
                    stream = Some(out);
                }
                (Recompute::Blocks, _) => {
                    let (block, out) = self.whole_block(stream.take());
                    kept.push(Kept::Input(self.only_input(block)));
                    stream = Some(out);
                }
            }
        }
        let mut d_stream = self.head(stream, branch);
        for kept in kept.into_iter().rev() {
            let block = match kept {
                Kept::All(block) => *block,
                Kept::Input(input) => {
                    let (block, out) = self.whole_block(Some(input));
                    self.ledger.free([out]);
                    block
                }
            };
            d_stream = self.block_backward(block, d_stream);
        }
        self.embedding_backward(d_stream);
    }

    /// One tensor of `width` numbers for each position.
    fn activation(&mut self, width: u128) -> Piece {
        self.ledger.take(Category::Activations, self.element * self.n * width)
    }

    /// The gradient of such a tensor.
    fn d_activation(&mut self, width: u128) -> Piece {
        self.ledger.take(Category::Workspace, self.element * self.n * width)
    }

    fn scratch(&mut self, bytes: u128) -> Piece {
        self.ledger.take(Category::Workspace, bytes)
    }

    /// A gradient of `len` numbers, which the others of the step are added to.
    fn gradient(&mut self, len: u128) {
        if !self.gradients_exist {
            self.ledger.keep(Category::Gradients, F32 * len);
        }
    }

    fn linear_gradient(&mut self, outputs: u128, inputs: u128) {
        self.gradient(outputs * inputs);
        if self.config.bias {
            self.gradient(outputs);
        }
    }

    fn has_norm(&self) -> bool {
        self.config.norm != NormKind::None
    }

    fn norm_forward(&mut self) -> NormKept {
        let n_statistics = match self.config.norm {
            NormKind::None => return NormKept { normed: None, statistics: Vec::new() },
            NormKind::Rms { .. } => 1,
            NormKind::Layer { .. } => 2,
        };
        let normed = Some(self.activation(self.d));
        let of_rows = F32 * self.n;
        let statistics = (0..n_statistics).map(|_| self.ledger.take(Category::Activations, of_rows)).collect();
        NormKept { normed, statistics }
    }

    /// The short-lived sums and the gradients of a norm's parameters.
    fn norm_gradients(&mut self) {
        for _ in 0..self.norm_width() {
            self.gradient(self.d);
        }
        if self.on_gpu && self.has_norm() {
            let sums = if matches!(self.config.norm, NormKind::Layer { .. }) { 2 } else { 1 };
            let partial = self.scratch(F32 * sums * NORM_BLOCKS.min(self.n) * self.d);
            self.ledger.free([partial]);
        }
    }

    /// From the input, or from what the block before left behind and its `branch`, to the branch behind the feed-forward
    /// layer, or with norms behind to the block's output.
    fn block_forward(&mut self, input: Option<Piece>, branch: Option<Piece>) -> (Block, Piece) {
        let is_pre = self.config.placement == Placement::Pre;
        let first = input.unwrap_or_else(|| self.activation(self.d));
        let [of_qkv, _, of_up, of_down] = self.linear_maps();
        let mut first_norm =
            if is_pre { self.norm_forward() } else { NormKept { normed: None, statistics: Vec::new() } };
        self.ledger.free(branch);

        let of_rows = F32 * self.n * self.config.n_heads as u128;
        let qkv = self.activation(self.qkv);
        let mut attention = vec![qkv, self.activation(self.q), self.ledger.take(Category::Activations, of_rows)];
        if self.is_fp8(self.d, self.q) {
            attention.push(self.ledger.take(Category::Activations, self.n * self.q));
        }
        let attended = self.activation(self.d);
        first_norm.normed = first_norm.normed.map(|normed| self.kept_input(normed, of_qkv));
        let second = self.activation(self.d);
        let mut second_norm = self.norm_forward();
        self.ledger.free([attended]);

        let (f, up) = (self.config.d_ff as u128, self.config.d_up() as u128);
        let [before_activation, activated] = [up, f].map(|width| self.activation(width));
        let branch = self.activation(self.d);
        let activated = self.kept_input(activated, of_down);
        let (out, third) = match (is_pre, self.has_norm()) {
            (true, _) => (branch, None),
            (false, false) => {
                let sum = self.activation(self.d);
                self.ledger.free([branch]);
                (sum, None)
            }
            (false, true) => {
                let sum = self.activation(self.d);
                let NormKept { normed, statistics } = self.norm_forward();
                self.ledger.free([branch]);
                (normed.expect("there is a norm"), Some((sum, statistics)))
            }
        };
        second_norm.normed = second_norm.normed.map(|normed| self.kept_input(normed, of_up));
        let block = Block { first, first_norm, attention, second, second_norm, before_activation, activated, third };
        (block, out)
    }

    /// A block from stream to stream.
    fn whole_block(&mut self, input: Option<Piece>) -> (Block, Piece) {
        let (block, out) = self.block_forward(input, None);
        if self.config.placement == Placement::Post {
            return (block, out);
        }
        let sum = self.activation(self.d);
        self.ledger.free([out]);
        (block, sum)
    }

    /// Lets everything go but the block's input.
    fn only_input(&mut self, block: Block) -> Piece {
        let Block { first, first_norm, attention, second, second_norm, before_activation, activated, third } = block;
        for NormKept { normed, statistics } in [first_norm, second_norm] {
            self.ledger.free(normed.into_iter().chain(statistics));
        }
        self.ledger.free(attention);
        self.ledger.free([second, before_activation, activated]);
        self.ledger.free(third.into_iter().flat_map(|(sum, statistics)| statistics.into_iter().chain([sum])));
        first
    }

    /// The last norm and the fused head with its loss, forward and backward: the gradient of the stream.
    fn head(&mut self, stream: Option<Piece>, branch: Option<Piece>) -> Piece {
        let v = self.config.vocab_size as u128;
        let sum = stream.unwrap_or_else(|| self.activation(self.d));
        let final_norm = match self.config.has_final_norm() {
            true => self.norm_forward(),
            false => NormKept { normed: None, statistics: Vec::new() },
        };
        self.ledger.free(branch);
        let d_normed = self.d_activation(self.d);
        let category = if self.gradients_exist { Category::Workspace } else { Category::Gradients };
        let d_head = self.ledger.take(category, F32 * v * self.d);
        let rows =
            (ops::logits_chunk_rows(self.config.vocab_size, self.step.dtype, self.step.device) as u128).min(self.n);
        let columns = if self.on_gpu { v.next_multiple_of(8) } else { v };
        let logits = self.scratch(self.element * rows * columns);
        let losses = self.scratch(F32 * self.n);
        self.ledger.free([logits, losses]);
        if self.gradients_exist {
            self.ledger.free([d_head]);
        }
        let NormKept { normed: Some(normed), statistics } = final_norm else {
            self.ledger.free([sum]);
            return d_normed;
        };
        self.ledger.free([normed]);
        let d_sum = self.d_activation(self.d);
        self.norm_gradients();
        self.ledger.free(statistics.into_iter().chain([d_normed, sum]));
        d_sum
    }

    fn block_backward(&mut self, block: Block, d_out: Piece) -> Piece {
        let Block { first, first_norm, attention, second, second_norm, before_activation, activated, third } = block;
        let norm_in_front = self.config.placement == Placement::Pre && self.has_norm();
        let mut d_stream = d_out;
        if let Some((sum, statistics)) = third {
            d_stream = self.norm_behind_backward(d_stream, sum, statistics);
        }

        let d_normed = self.mlp_backward(before_activation, activated, norm_in_front);
        self.ledger.free(second_norm.normed);
        if self.config.placement == Placement::Post && self.has_norm() {
            d_stream = self.norm_behind_backward(d_stream, second, second_norm.statistics);
        } else {
            // Into the gradient of the stream, in place.
            self.norm_gradients();
            self.ledger.free(second_norm.statistics.into_iter().chain(d_normed).chain([second]));
        }

        let d_normed = self.attention_backward(attention, norm_in_front);
        if norm_in_front {
            self.ledger.free(first_norm.normed);
            self.norm_gradients();
        }
        self.ledger.free(first_norm.statistics.into_iter().chain(d_normed).chain([first]));
        d_stream
    }

    /// A norm behind a sum gives a new gradient.
    fn norm_behind_backward(&mut self, d_normed: Piece, sum: Piece, statistics: Vec<Piece>) -> Piece {
        let d_sum = self.d_activation(self.d);
        self.norm_gradients();
        self.ledger.free(statistics.into_iter().chain([d_normed, sum]));
        d_sum
    }

    /// `None` if the gradient of the input is added to that of the stream.
    fn mlp_backward(&mut self, before: Piece, activated: Piece, norm_in_front: bool) -> Option<Piece> {
        let (d, f, up) = (self.d, self.config.d_ff as u128, self.config.d_up() as u128);
        self.linear_gradient(d, f);
        let is_fused = self.on_gpu
            && self.step.dtype == DType::Bf16
            && self.config.mlp == MlpKind::Gelu
            && !self.step.fp8
            && self.config.d_model.is_multiple_of(8)
            && self.config.d_ff.is_multiple_of(8);
        let d_before = if is_fused {
            self.ledger.free([activated]);
            let d_before = self.d_activation(f);
            self.ledger.free([before]);
            d_before
        } else {
            let d_activated = self.d_activation(f);
            self.ledger.free([activated]);
            // Without gate, in place.
            let is_gated = self.config.mlp == MlpKind::Swiglu;
            let d_before = is_gated.then(|| self.d_activation(up));
            self.ledger.free([before]);
            match d_before {
                Some(d_before) => {
                    self.ledger.free([d_activated]);
                    d_before
                }
                None => d_activated,
            }
        };
        self.linear_gradient(up, d);
        let d_input = norm_in_front.then(|| self.d_activation(d));
        self.ledger.free([d_before]);
        d_input
    }

    /// As for the feed-forward layer.
    fn attention_backward(&mut self, kept: Vec<Piece>, norm_in_front: bool) -> Option<Piece> {
        self.linear_gradient(self.d, self.q);
        let dy = self.d_activation(self.q);
        let dqkv = self.d_activation(self.qkv);
        let workspace = self.attention_workspace();
        self.ledger.free(workspace.into_iter().chain([dy]).chain(kept));
        self.linear_gradient(self.qkv, self.d);
        let d_input = norm_in_front.then(|| self.d_activation(self.d));
        self.ledger.free([dqkv]);
        d_input
    }

    /// Of the backward pass on a GPU, for Hopper's kernels where they can be used: other devices take less.
    fn attention_workspace(&mut self) -> Vec<Piece> {
        if !self.on_gpu {
            return Vec::new();
        }
        let (t, head_dim) = (self.config.context_length as u128, self.config.head_dim());
        let rows = self.step.micro_batch_size as u128 * self.config.n_heads as u128;
        if self.step.dtype != DType::Bf16 || !matches!(head_dim, 64 | 128) {
            return vec![self.scratch(F32 * rows * t)];
        }
        let statistics = F32 * rows * t.next_multiple_of(128);
        let tile = 8192 / head_dim as u128;
        let tiles = rows * t.div_ceil(tile);
        let mut workspace = vec![statistics, statistics, F32 * tiles * 8192, F32 * (tiles + 1)];
        let is_rotary = matches!(self.config.position, Position::Rope { .. });
        if self.config.bias && !is_rotary && head_dim == 64 && !self.is_fp8(self.qkv, self.d) {
            // The gradient of the projection's bias: sums over 64 rows each.
            workspace.push(F32 * self.step.micro_batch_size as u128 * t.div_ceil(128) * 2 * self.qkv);
        }
        workspace.into_iter().map(|bytes| self.scratch(bytes)).collect()
    }

    fn embedding_backward(&mut self, d_stream: Piece) {
        // A tied table has the gradient that the head's product made.
        if !self.config.tie_embeddings {
            self.gradient(self.config.vocab_size as u128 * self.d);
        }
        if self.on_gpu {
            // Sorted ids and their places, before and after a pass; partial sums of 32 of them.
            let ids = [(); 4].map(|()| self.scratch(F32 * self.n));
            let partials = self.scratch(F32 * self.n.div_ceil(32) * 2 * self.d);
            self.ledger.free(ids.into_iter().chain([partials]));
        }
        if self.config.position == Position::Learned {
            self.gradient(self.config.context_length as u128 * self.d);
        }
        self.ledger.free([d_stream]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(config: &ModelConfig, step: &Step) -> f64 {
        super::super::training(config, step).alive() as f64
    }

    fn step(micro_batch_size: usize) -> Step {
        let (dtype, device, recompute) = (DType::Bf16, Device::Cuda(0), Recompute::None);
        Step { micro_batch_size, n_micro_batches: 1, dtype, device, recompute, fp8: false }
    }

    #[test]
    fn what_was_measured_on_an_h100_is_planned() {
        // Bytes that the device's allocator counted at most, to three digits.
        let gpt2 = ModelConfig::gpt2(50304, 1024, 768, 12, 12);
        let llama = ModelConfig::llama(32000, 2048, 2048, 16, 16, 5632);
        for (config, micro_batch_size, measured) in [(gpt2, 32, 12.9e9), (llama, 4, 23.0e9)] {
            let ratio = total(&config, &step(micro_batch_size)) / measured;
            assert!((0.97..1.03).contains(&ratio), "{ratio}");
        }
    }

    #[test]
    fn recomputation_keeps_one_tensor_of_each_block_and_all_of_one() {
        let config = ModelConfig::gpt2(50304, 1024, 768, 48, 12);
        let plain = super::super::training(&config, &step(32));
        let less = super::super::training(&config, &Step { recompute: Recompute::Blocks, ..step(32) });
        // Sixteen tensors as wide as the model in each block, against one and those of one block, or less at the head.
        let ratio = plain.activations as f64 / less.activations as f64;
        assert!((48.0 * 16.0 / (48.0 + 17.0)..16.0).contains(&ratio), "{ratio}");
        assert_eq!((plain.weights, plain.optimizer), (less.weights, less.optimizer));
    }

    #[test]
    fn fp8_keeps_weights_in_two_orders_and_half_of_what_only_products_keep_on_a_gpu_alone() {
        let config = ModelConfig::llama(32000, 2048, 2048, 16, 16, 5632);
        let plan = |device, fp8| super::super::training(&config, &Step { device, fp8, ..step(4) });
        assert_eq!(plan(Device::Cpu, true), plan(Device::Cpu, false));
        let [plain, fp8] = [false, true].map(|fp8| plan(Device::Cuda(0), fp8));
        assert_eq!((plain.weights, plain.optimizer), (fp8.weights, fp8.optimizer));
        // In each block both norms' results and the feed-forward layer's activation lose a byte of two, and the result of
        // attention is there once more.
        let fewer = (4 * 2048 * 16 * (2 * 2048 + 5632 - 2048)) as f64;
        let ratio = (plain.activations - fp8.activations) as f64 / fewer;
        assert!((0.95..1.05).contains(&ratio), "{ratio}");
        let weights = 16 * (4 * 2048 * 2048 + 3 * 2048 * 5632);
        let more = (2 * weights + 2 * 4 * 2048 * 2 * 5632) as f64;
        let ratio = (fp8.workspace - plain.workspace) as f64 / more;
        assert!((0.95..1.05).contains(&ratio), "{ratio}");
    }

    #[test]
    fn what_is_taken_is_freed() {
        let llama = ModelConfig::llama(100, 16, 32, 3, 4, 64);
        let gpt2 = ModelConfig::gpt2(100, 16, 32, 3, 4);
        for config in [llama.clone(), gpt2] {
            for placement in [Placement::Pre, Placement::Post] {
                for norm in [config.norm.clone(), NormKind::None] {
                    for (recompute, device, fp8) in [
                        (Recompute::None, Device::Cpu, false),
                        (Recompute::Blocks, Device::Cpu, false),
                        (Recompute::None, Device::Cuda(0), false),
                        (Recompute::Blocks, Device::Cuda(0), false),
                        (Recompute::None, Device::Cuda(0), true),
                        (Recompute::Blocks, Device::Cuda(0), true),
                    ] {
                        let config = ModelConfig { placement, norm: norm.clone(), ..config.clone() };
                        let step = Step { recompute, device, fp8, ..step(2) };
                        let mut life = Life::new(&config, &step);
                        life.standing();
                        life.micro_batch();
                        let before = life.ledger.alive();
                        assert_eq!(before.of(Category::Activations), 0, "{config:?} {step:?}");
                        life.gradients_exist = true;
                        life.micro_batch();
                        assert_eq!(life.ledger.alive(), before, "{config:?} {step:?}");
                    }
                }
            }
        }
    }
}
