//! What can go wrong at the edges of the crate: files and devices.

use std::path::PathBuf;

/// Errors of files and devices. Shape mismatches are bugs and panic instead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// What was being done: `read`, `write`, …
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not a well-formed safetensors file.
    #[error(
        "{path} is not a readable safetensors file: {reason}\nhint: the file may be cut short or damaged; copy it again or go back to an earlier checkpoint"
    )]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What the parser found.
        reason: String,
    },
    /// A tensor that was asked for is not in the file.
    #[error("{path} has no tensor {name}\nhint: the file may come from another architecture or a damaged save")]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor is stored in a dtype that is not supported.
    #[error(
        "{path}: tensor {name} has dtype {dtype}, expected F32, F16 or BF16\nhint: save the model again in one of these"
    )]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The dtype found.
        dtype: String,
    },
    /// A tensor has another shape than the model needs.
    #[error(
        "{path}: tensor {name} has shape {found:?}, expected {expected:?}\nhint: config.json and the weights may be of two models; copy both again from the same place"
    )]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The shape found.
        found: Vec<usize>,
        /// The shape that the model needs.
        expected: Vec<usize>,
    },
    /// No such device on this machine.
    #[error("no device {name}: {reason}\nhint: use --device cpu")]
    NoDevice {
        /// What was asked for.
        name: String,
        /// Why it is not there.
        reason: String,
    },
    /// The driver of a graphics processor refused, or work given to it earlier failed.
    #[error("cannot {action}: {reason}")]
    Cuda {
        /// What was being done.
        action: &'static str,
        /// The driver's answer.
        reason: String,
    },
    /// A kernel does not compile.
    #[error("cannot compile the kernel {name}: {reason}")]
    Kernel {
        /// The source.
        name: &'static str,
        /// The compiler's log.
        reason: String,
    },
}
