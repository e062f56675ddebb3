//! Documents in, shuffled batches of tokens out.
//!
//! Text files become documents ([`document`]), documents become memory-mapped token shards
//! ([`prepare`], [`shard`]), shards become batches in an order that depends on a seed and on
//! nothing else ([`loader`]), or in reading order for a full validation ([`windows`]).
//!
//! ```text
//! files ─ read_documents ─► Document ─ prepare ─► Dataset ─ Loader::next_batch ─► Batch { inputs_bt, targets_bt }
//! ```

pub mod error;
pub mod document;
pub mod split;
pub mod fingerprint;
pub mod shard;
pub mod prepare;
pub mod permutation;
pub mod loader;
pub mod windows;

pub use error::Error;
