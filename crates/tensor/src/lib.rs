//! N-d arrays, a tape, and one folder per operation.
//!
//! A [`Tensor`] is contiguous and row-major. Operations in [`ops`] are as coarse as the hardware wants them (a whole
//! normalisation, a whole attention), each with a readable reference, a fast path and a hand-written backward. A tensor
//! made by [`Tensor::tracked`] is a leaf of the tape: whatever is computed from it remembers how, and
//! [`Tensor::backward`] walks that memory in reverse.
//!
//! ```
//! use tensor::{ops, Tensor};
//! let weight_od = Tensor::from_f32(&[2, 3], vec![1.0, 0.0, 0.0, 0.0, 1.0, 0.0]).tracked();
//! let x_nd = Tensor::from_f32(&[1, 3], vec![5.0, 7.0, 9.0]);
//! let y_no = ops::linear(&x_nd, &weight_od, None);
//! assert_eq!(y_no.f32s(), [5.0, 7.0]);
//! ```
//!
//! The middle is infallible: a wrong shape is a bug and panics with the operation, the shapes and the expectation. The
//! edges (files, devices) return [`Error`].

mod error;
mod dtype;
mod device;
pub mod memory;
mod storage;
mod tensor;
mod autograd;
mod recompute;
pub mod random;
pub mod io;
pub mod cpu;
pub mod cuda;
pub mod fp8;
pub mod ops;
pub mod testing;

pub use autograd::Gradients;
pub use device::Device;
pub use dtype::DType;
pub use error::Error;
pub use recompute::recompute;
pub use tensor::{Tensor, TensorId};
