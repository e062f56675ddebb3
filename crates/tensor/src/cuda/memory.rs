//! Memory of a device: plain allocations, uploads and downloads.

use std::marker::PhantomData;
use std::sync::Arc;

use cudarc::driver::{result, sys};
use half::bf16;

use super::{Context, driver_error};
use crate::Error;

/// Numbers without padding or invalid bit patterns. Closed: f32, u32 and bf16.
pub trait Element: Copy + sealed::Sealed {}
impl Element for f32 {}
impl Element for u32 {}
impl Element for bf16 {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for u32 {}
    impl Sealed for half::bf16 {}
}

/// Elements in a device's memory, freed when dropped.
pub struct Buffer<T: Element> {
    context: Arc<Context>,
    pointer: sys::CUdeviceptr,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Element> Buffer<T> {
    /// `len` elements of unspecified value.
    ///
    /// # Errors
    /// If the device has no such amount of memory left.
    pub fn unspecified(context: &Arc<Context>, len: usize) -> Result<Self, Error> {
        context.enter()?;
        // The driver refuses to allocate nothing.
        let bytes = len.saturating_mul(size_of::<T>()).max(1);
        // SAFETY: the context is current; the memory is freed once, on drop.
        let pointer = unsafe { result::malloc_sync(bytes) }.map_err(|error| {
            let (free, total) = result::mem_get_info().unwrap_or((0, 0));
            let reason = format!("{error}: {} MiB wanted, {} of {} MiB free", bytes >> 20, free >> 20, total >> 20);
            Error::Cuda { action: "allocate device memory", reason }
        })?;
        Ok(Self { context: context.clone(), pointer, len, element: PhantomData })
    }

    /// Elements whose bytes are all `byte`.
    ///
    /// # Errors
    /// As [`Buffer::unspecified`].
    pub fn filled(context: &Arc<Context>, len: usize, byte: u8) -> Result<Self, Error> {
        let mut buffer = Self::unspecified(context, len)?;
        buffer.fill(byte)?;
        Ok(buffer)
    }

    /// Elements with the given values.
    ///
    /// # Errors
    /// As [`Buffer::unspecified`].
    pub fn from_slice(context: &Arc<Context>, values: &[T]) -> Result<Self, Error> {
        let buffer = Self::unspecified(context, values.len())?;
        // SAFETY: the allocation has exactly this length; the call returns when the host's memory has been read.
        unsafe { result::memcpy_htod_sync(buffer.pointer, values) }.map_err(driver_error("copy to the device"))?;
        Ok(buffer)
    }

    /// Sets every byte.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn fill(&mut self, byte: u8) -> Result<(), Error> {
        self.context.enter()?;
        // SAFETY: within the allocation; ordered with other work by the stream.
        unsafe { result::memset_d8_async(self.pointer, byte, self.len * size_of::<T>(), self.context.stream) }
            .map_err(driver_error("fill device memory"))
    }

    /// The values, once all work asked for is done.
    ///
    /// # Errors
    /// If any of that work failed.
    pub fn to_vec(&self) -> Result<Vec<T>, Error>
    where
        T: Default,
    {
        self.context.synchronize()?;
        let mut values = vec![T::default(); self.len];
        // SAFETY: the allocation has exactly this length, and nothing writes to it: the stream is idle.
        unsafe { result::memcpy_dtoh_sync(&mut values, self.pointer) }.map_err(driver_error("copy from the device"))?;
        Ok(values)
    }

    /// How many elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The address on the device, for a kernel's arguments.
    pub fn pointer(&self) -> u64 {
        self.pointer
    }
}

impl<T: Element> Drop for Buffer<T> {
    fn drop(&mut self) {
        // The stream may still use the memory. Freeing waits for the device, but says nothing of a failure there: the
        // next call will.
        if self.context.enter().is_ok() {
            // SAFETY: allocated in this context, freed only here.
            unsafe {
                let _ = result::free_sync(self.pointer);
            }
        }
    }
}
