//! What a model is worth and what it says: bits per byte of any text, and sampling.

mod error;
pub mod text;
pub mod sampler;
pub mod generate;

pub use error::Error;
