//! What happens between the start of a program and the end of its first step.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tensor::{Device, cuda};

/// Where the time goes until the first step of a process is done, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Startup {
    /// From the start of the program to that of the trainer: reading, planning, tokenising.
    pub preparation: f64,
    /// Drawing or reading the weights, the optimizer's state and the copy to compute with.
    pub weights: f64,
    /// Measuring the speed of matrix products.
    pub matrix_product_rate: f64,
    /// The first step.
    pub first_step: f64,
    /// All of it.
    pub total: f64,
    /// What of it a GPU took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuStartup>,
}

/// See [`tensor::cuda::Spent`]; parts of the phases of a [`Startup`], in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct GpuStartup {
    pub open: f64,
    pub kernels: f64,
    pub kernels_compiled: usize,
    pub kernels_read: usize,
    pub matrix_library: f64,
    pub algorithm_search: f64,
    pub memory: f64,
}

impl GpuStartup {
    /// What was spent so far on `device`, if it is a GPU.
    pub fn of(device: Device) -> Option<Self> {
        let Device::Cuda(ordinal) = device else { return None };
        let spent = cuda::context(ordinal).ok()?.spent();
        let seconds = |time: Duration| time.as_secs_f64();
        Some(GpuStartup {
            open: seconds(spent.open),
            kernels: seconds(spent.kernels),
            kernels_compiled: spent.n_compiled,
            kernels_read: spent.n_read,
            matrix_library: seconds(spent.library),
            algorithm_search: seconds(spent.algorithms),
            memory: seconds(spent.memory),
        })
    }
}

/// Memory of a GPU at the end of a run, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMemory {
    /// The most that was in tensors at once.
    pub peak_alive: usize,
    /// The most that was taken from the driver at once: tensors, what waited to be used again, and the workspace of matrix
    /// products. What the plan foresees.
    pub peak_held: usize,
    /// In use on the device by the driver's own count: context, kernels, libraries and other programs included.
    pub in_use: Option<usize>,
}

impl DeviceMemory {
    /// Of `device`, if it is a GPU.
    pub fn of(device: Device) -> Option<Self> {
        let Device::Cuda(ordinal) = device else { return None };
        let context = cuda::context(ordinal).ok()?;
        Some(DeviceMemory {
            peak_alive: context.memory().peak_alive,
            peak_held: context.peak_held_memory(),
            in_use: context.free_and_total_memory().ok().map(|(free, total)| total - free),
        })
    }
}
