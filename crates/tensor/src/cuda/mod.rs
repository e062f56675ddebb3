//! NVIDIA GPUs: opening one, its memory, and kernels compiled when they are first needed.
//!
//! Nothing of CUDA is needed to build: the driver, the compiler of kernels (NVRTC) and the matrix products (cuBLASLt) are
//! libraries found at run time. A machine without them gets an error that says so. Invariants:
//!
//! - One [`Context`] is one device with one stream. Work is done in the order in which it was asked for; what reads back to
//!   the host waits for it.
//! - Kernels are CUDA C++ in the source tree, compiled for the device at hand and kept in a folder (`module`).
//! - Device memory belongs to a [`Buffer`], which keeps its context alive and goes back to the context's arena.
//! - Inside operations, which are infallible, an error of the device unwinds to the edge, where [`catch`] makes it an
//!   [`Error`] again.
//! - Where kernels are launched, `unsafe` has a line that says why every access is in bounds.
#![allow(unsafe_code)]

mod toolkit;
mod module;
mod registry;
mod arena;
mod memory;
mod launch;
mod event;
mod data_sheet;
mod graph;
mod upload;
mod spent;
pub mod blas;
pub mod gemm;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use cudarc::driver::{result, sys};

use crate::Error;
use crate::memory::Stats;

use arena::Arena;
pub use arena::size_class;
pub use event::Event;
pub use graph::Graph;
pub(crate) use launch::Arg;
pub use memory::{Buffer, Element};
pub use module::{Arch, Compiled, Kernel, Module, Source, compile};
pub use registry::{Driver, configure, context, driver};
pub use spent::Spent;
pub use toolkit::Toolkit;
pub use upload::Upload;

/// Element types, wide loads and reductions; before each portable kernel.
pub(crate) const ELEMENT: (&str, &str) = ("element.cuh", include_str!("element.cuh"));

/// An open device: its primary context, one stream, and what kernels need to know of it.
pub struct Context {
    ordinal: usize,
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    arch: Arch,
    n_multiprocessors: usize,
    l2_bytes: usize,
    toolkit: Toolkit,
    cache: Option<PathBuf>,
    arena: Mutex<Arena>,
    loaded: Mutex<Loaded>,
    blas: Mutex<blas::Blas>,
    spent: Mutex<Spent>,
}

/// Kernels that operations have used. They hold the context: a device whose kernels were used stays open.
#[derive(Default)]
struct Loaded {
    modules: HashMap<String, Arc<Module>>,
    kernels: HashMap<String, Arc<Kernel>>,
}

// SAFETY: the driver's handles may be used from any thread; each call makes the context current first.
unsafe impl Send for Context {}
// SAFETY: as above; the driver does its own locking.
unsafe impl Sync for Context {}

impl Context {
    /// Opens device `ordinal`. Compiled kernels are kept in the folder `cache`, if one is given.
    ///
    /// # Errors
    /// If there is no driver or no such device.
    pub fn open(ordinal: usize, toolkit: Toolkit, cache: Option<PathBuf>) -> Result<Arc<Self>, Error> {
        let start = Instant::now();
        let missing = |reason: String| Error::NoDevice { name: format!("cuda:{ordinal}"), reason };
        let count = driver().map_err(|error| match error {
            Error::NoDevice { reason, .. } => missing(reason),
            other => other,
        })?;
        let count = i32::try_from(count.n_devices).unwrap_or(i32::MAX);
        let number = i32::try_from(ordinal).unwrap_or(i32::MAX);
        if number >= count {
            return Err(missing(format!("this machine has {count} CUDA devices, counted from 0")));
        }
        let device = result::device::get(number).map_err(driver_error("find the device"))?;
        // SAFETY: the device was found above; the context is released when this value is dropped.
        let context =
            unsafe { result::primary_ctx::retain(device) }.map_err(driver_error("open the device's context"))?;
        // SAFETY: the context was just retained.
        unsafe { result::ctx::set_current(context) }.map_err(driver_error("use the device's context"))?;
        let stream =
            result::stream::create(result::stream::StreamKind::NonBlocking).map_err(driver_error("make a stream"))?;
        let attribute = |what: sys::CUdevice_attribute_enum| -> Result<usize, Error> {
            // SAFETY: the device was found above.
            let value = unsafe { result::device::get_attribute(device, what) };
            value.map(|x| usize::try_from(x).unwrap_or(0)).map_err(driver_error("ask the device what it is"))
        };
        use sys::CUdevice_attribute_enum as Attribute;
        let arch = Arch::of_capability(
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        let n_multiprocessors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let l2_bytes = attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?;
        Ok(Arc::new(Self {
            ordinal,
            device,
            context,
            stream,
            arch,
            n_multiprocessors,
            l2_bytes,
            toolkit,
            cache,
            arena: Mutex::default(),
            loaded: Mutex::default(),
            blas: Mutex::default(),
            spent: Mutex::new(Spent { open: start.elapsed(), ..Spent::default() }),
        }))
    }

    /// The device's number.
    pub fn ordinal(&self) -> usize {
        self.ordinal
    }

    /// The device's name, as the driver gives it.
    pub fn name(&self) -> String {
        result::device::get_name(self.device).unwrap_or_else(|_| format!("cuda:{}", self.ordinal))
    }

    /// The data sheet's dense bf16 matrix products per second, in floating-point operations, if the device is known.
    pub fn bf16_peak(&self) -> Option<f64> {
        data_sheet::bf16_peak(&self.name())
    }

    /// What kernels are compiled for.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// How many blocks run at the same time if each takes a whole multiprocessor.
    pub fn n_multiprocessors(&self) -> usize {
        self.n_multiprocessors
    }

    /// Size of the second-level cache.
    pub fn l2_bytes(&self) -> usize {
        self.l2_bytes
    }

    /// Bytes held by buffers now and at most, as the driver counts them.
    pub fn memory(&self) -> Stats {
        self.arena().stats()
    }

    /// The most memory that was taken from the driver at once, in bytes: for buffers that existed, and for what waited to
    /// be used again. The workspace of matrix products is part of it.
    pub fn peak_held_memory(&self) -> usize {
        self.arena().peak_held()
    }

    /// Starts a new measurement of both peaks.
    pub fn reset_peak_memory(&self) {
        self.arena().reset_peak();
    }

    /// Free and total memory of the device, in bytes.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn free_and_total_memory(&self) -> Result<(usize, usize), Error> {
        self.enter()?;
        result::mem_get_info().map_err(driver_error("ask for the device's memory"))
    }

    fn arena(&self) -> MutexGuard<'_, Arena> {
        self.arena.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn blas(&self) -> MutexGuard<'_, blas::Blas> {
        self.blas.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Whether the stream records a graph instead of working.
    fn is_recording(&self) -> bool {
        let mut status = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        // SAFETY: the stream lives as long as this value.
        let asked = unsafe { sys::cuStreamIsCapturing(self.stream, &mut status) };
        asked.result().is_err() || status != sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE
    }

    /// Waits for all work asked for so far.
    ///
    /// # Errors
    /// If any of it failed, in whatever call it was asked for.
    pub fn synchronize(&self) -> Result<(), Error> {
        self.enter()?;
        // SAFETY: the stream lives as long as this value.
        unsafe { result::stream::synchronize(self.stream) }.map_err(driver_error("finish the device's work"))
    }

    /// Makes the context current for this thread, which the driver wants before almost every call.
    fn enter(&self) -> Result<(), Error> {
        // SAFETY: the context is retained until this value is dropped.
        unsafe { result::ctx::set_current(self.context) }.map_err(driver_error("use the device's context"))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if self.enter().is_ok() {
            *self.blas() = blas::Blas::default();
            // SAFETY: buffers, modules and events hold an `Arc` of this value, so nothing uses the stream any more.
            unsafe {
                let _ = result::stream::destroy(self.stream);
                let _ = result::primary_ctx::release(self.device);
            }
        }
    }
}

/// Every kernel there is, with the architectures for which it must compile.
pub fn sources() -> Vec<(Source, &'static [Arch])> {
    [blas::sources(), gemm::sources(), crate::random::cuda::sources(), crate::ops::cuda_sources()].concat()
}

/// The value, or the error on its way to [`catch`].
pub(crate) fn or_unwind<T>(result: Result<T, Error>) -> T {
    result.unwrap_or_else(|error| match cfg!(test) {
        // Where nobody catches it, it must at least be read.
        true => panic!("{error}"),
        false => resume_unwind(Box::new(error)),
    })
}

/// Runs `work` and returns a device's error that ended it. Other panics go on.
///
/// # Errors
/// If the device refused or failed, or a kernel could not be compiled.
pub fn catch<T>(work: impl FnOnce() -> T) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| match panic.downcast::<Error>() {
        Ok(error) => *error,
        Err(other) => resume_unwind(other),
    })
}

/// The error of a driver call that was to do `action`.
fn driver_error(action: &'static str) -> impl Fn(result::DriverError) -> Error {
    move |error| Error::Cuda { action, reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_driver_is_told_to_use_the_cpu() {
        // SAFETY: only looks whether the library is there.
        if unsafe { sys::is_culib_present() } {
            eprintln!("skipped: this machine has an NVIDIA driver");
            return;
        }
        let error = Context::open(0, Toolkit::default(), None).err().expect("no driver, no context").to_string();
        assert_eq!(error, "no device cuda:0: no NVIDIA driver is installed here\nhint: use --device cpu");
    }
}
