//! Where the time of a start goes.

use std::time::Duration;

use super::Context;

/// What a device's first uses took so far, on the host's clock. The search of algorithms loads kernels too, which counts
/// in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Starting the driver and opening the device.
    pub open: Duration,
    /// Compiling kernels, or reading them, and loading them.
    pub kernels: Duration,
    /// Sources of kernels that were compiled.
    pub n_compiled: usize,
    /// Sources of kernels whose code was in the folder.
    pub n_read: usize,
    /// Loading the library of matrix products.
    pub library: Duration,
    /// Measuring algorithms of matrix products.
    pub algorithms: Duration,
    /// Recording graphs.
    pub graphs: Duration,
    /// Asking the driver for memory, and giving it back.
    pub memory: Duration,
}

impl Context {
    /// What the first uses of the device took so far.
    pub fn spent(&self) -> Spent {
        let memory = self.arena().driver_time();
        Spent { memory, ..*self.spent.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) }
    }

    /// Adds to what was spent.
    pub(super) fn spend(&self, change: impl FnOnce(&mut Spent)) {
        change(&mut self.spent.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    }
}
