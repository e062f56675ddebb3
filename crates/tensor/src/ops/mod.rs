//! Operations on tensors, in the order a token meets them.
//!
//! One folder each: `mod.rs` says what it computes, which shapes and which paper; `cpu.rs` has the readable reference
//! (`reference`) and the fast path; `tests.rs` compares the two with each other, with PyTorch's numbers and with finite
//! differences.

mod row_kernel;
mod flat_kernel;
mod embedding;
mod rms_norm;
mod layer_norm;
mod linear;
#[allow(unsafe_code)]
mod fp8_linear;
mod rope;
mod attention;
mod activation;
mod swiglu;
mod mlp;
mod add;
mod add_norm;
mod cross_entropy;
mod linear_cross_entropy;
mod sum_of_squares;
mod adamw;
mod cast;
mod weighted_sum;
mod pull_back;

pub use crate::cuda::blas::WORKSPACE_BYTES as MATMUL_WORKSPACE_BYTES;
pub(crate) use activation::cuda::FUNCTIONS as ACTIVATION_FUNCTIONS;
pub use activation::{Activation, activation};
pub use adamw::{ADAMW_STEP_NUMBERS, AdamW, AdamWTensors, adamw, adamw_step_numbers};
pub(crate) use add::add_into;
pub use add::{add, add_with_bias};
pub use add_norm::{add_layer_norm, add_rms_norm};
pub use attention::{
    AttentionOptions, Heads, KeyValueCache, attention, attention_with, attention_with_cache, cached_attention,
    cuda as attention_cuda, projected_attention,
};
pub use cast::cast;
pub use cross_entropy::{IGNORED, cross_entropy, cross_entropy_in_place};
pub use embedding::{embedding, embedding_with_positions};
pub use fp8_linear::{Fp8Orders, Fp8Quantised, Fp8Weight, fp8_linear, fp8_quantise};
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use linear_cross_entropy::{linear_cross_entropy, logits_chunk_rows};
pub use mlp::{Mlp, mlp};
pub use pull_back::{as_activation, pull_back};
pub use rms_norm::rms_norm;
pub use rope::{RopeLayout, RopeTable, rope, rope_into};
pub use sum_of_squares::{global_norm, scale_in_place, sum_of_squares};
pub use swiglu::swiglu;
pub use weighted_sum::weighted_sum;

/// The kernels of all operations, with the architectures that they must compile for.
pub(crate) fn cuda_sources() -> Vec<(crate::cuda::Source, &'static [crate::cuda::Arch])> {
    [
        attention::cuda::sources(),
        rms_norm::cuda::sources(),
        layer_norm::cuda::sources(),
        add::cuda::sources(),
        cast::cuda::sources(),
        activation::cuda::sources(),
        swiglu::cuda::sources(),
        rope::cuda::sources(),
        embedding::cuda::sources(),
        cross_entropy::cuda::sources(),
        sum_of_squares::cuda::sources(),
        adamw::cuda::sources(),
        fp8_linear::sources(),
    ]
    .concat()
}
