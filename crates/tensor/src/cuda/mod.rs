//! NVIDIA GPUs: opening one, its memory, and kernels compiled when they are first needed.
//!
//! Nothing of CUDA is needed to build: the driver and the compiler of kernels (NVRTC) are libraries found at run time. A
//! machine without them gets an error that says so. Invariants:
//!
//! - One [`Context`] is one device with one stream. Work is done in the order in which it was asked for; what reads back to
//!   the host waits for it.
//! - Kernels are CUDA C++ in the source tree, compiled for the device at hand and kept in a folder (`module`).
//! - Device memory belongs to a [`Buffer`], which keeps its context alive.
//! - Where kernels are launched, `unsafe` has a line that says why every access is in bounds.
#![allow(unsafe_code)]

mod toolkit;
mod module;
mod memory;
mod event;

use std::path::PathBuf;
use std::sync::Arc;

use cudarc::driver::{result, sys};

use crate::Error;

pub use event::Event;
pub use memory::{Buffer, Element};
pub use module::{Arch, Compiled, Kernel, Module, Source, compile};
pub use toolkit::Toolkit;

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
        let missing = |reason: String| Error::NoDevice { name: format!("cuda:{ordinal}"), reason };
        // SAFETY: loads the driver's library if there is one. Without this question cudarc panics.
        if !unsafe { sys::is_culib_present() } {
            return Err(missing("no NVIDIA driver is installed here".to_owned()));
        }
        result::init().map_err(|error| missing(format!("the NVIDIA driver does not start ({error})")))?;
        let count = result::device::get_count().map_err(driver_error("count devices"))?;
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
        Ok(Arc::new(Self { ordinal, device, context, stream, arch, n_multiprocessors, l2_bytes, toolkit, cache }))
    }

    /// The device's number.
    pub fn ordinal(&self) -> usize {
        self.ordinal
    }

    /// The device's name, as the driver gives it.
    pub fn name(&self) -> String {
        result::device::get_name(self.device).unwrap_or_else(|_| format!("cuda:{}", self.ordinal))
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
    crate::ops::attention_cuda::sources()
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
