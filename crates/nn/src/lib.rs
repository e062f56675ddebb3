//! The transformer: layers, parameters, FLOPs, memory, and its files in the layout of Hugging Face.
//!
//! One decoder, [`Transformer`], is every model. What it is made of is said by [`ModelConfig`], with the words of the
//! papers; [`Transformer::forward`] is the only forward there is, for training, evaluation and generation alike.
//!
//! Shape suffixes used throughout: b batch · t position · d model · h query heads · g key/value heads · e head size ·
//! f feed-forward · v vocabulary.

mod config;
mod linear;
mod norm;
mod attention;
mod mlp;
mod block;
mod transformer;
mod kv_cache;
mod init;
pub mod flops;
pub mod memory;
pub mod hugging_face;

pub use attention::Attention;
pub use block::Block;
pub use config::{ConfigError, Init, MlpKind, ModelConfig, NormKind, Placement, Position, RopeLayoutKind};
pub use kv_cache::KvCache;
pub use linear::Linear;
pub use mlp::Mlp;
pub use norm::Norm;
pub use transformer::{Recompute, Transformer};
