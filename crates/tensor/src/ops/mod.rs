//! Operations on tensors, in the order a token meets them.
//!
//! One folder each: `mod.rs` says what it computes, which shapes and which paper; `cpu.rs` has the readable reference
//! (`reference`) and the fast path; `tests.rs` compares the two with each other, with PyTorch's numbers and with finite
//! differences.

mod embedding;
mod rms_norm;
mod layer_norm;
mod linear;
mod rope;
mod attention;
mod activation;
mod swiglu;
mod add;
mod cross_entropy;
mod linear_cross_entropy;
mod sum_of_squares;
mod adamw;
mod cast;
mod weighted_sum;

pub use activation::{Activation, activation};
pub use adamw::{AdamW, adamw};
pub use add::add;
pub(crate) use add::add_into;
pub use attention::{Heads, attention, cached_attention, cuda as attention_cuda};
pub use cast::cast;
pub use cross_entropy::{IGNORED, cross_entropy};
pub use embedding::embedding;
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use linear_cross_entropy::{linear_cross_entropy, logits_chunk_rows};
pub use rms_norm::rms_norm;
pub use rope::{RopeLayout, RopeTable, rope};
pub use sum_of_squares::{scale_in_place, sum_of_squares};
pub use swiglu::swiglu;
pub use weighted_sum::weighted_sum;
