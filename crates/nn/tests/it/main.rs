//! What the crate promises, against `transformers`, finite differences, and itself.

mod ablations;
mod cached_decoding;
mod golden;
mod models;
mod recompute;
