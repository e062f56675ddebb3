//! What the CPU side of the operations shares: threads, vectors, matrix products.

pub mod element;
pub mod gemm;
pub mod simd;
pub(crate) mod threads;
