//! Memory of a device: buffers that return to their context's arena, uploads and downloads.

use std::marker::PhantomData;
use std::sync::Arc;

use cudarc::driver::{result, sys};
use half::bf16;

use super::{Context, driver_error};
use crate::Error;

/// Numbers without padding or invalid bit patterns. Closed: f32, u32, bf16, and u8 for the codes of 8-bit formats.
pub trait Element: Copy + sealed::Sealed {}
impl Element for f32 {}
impl Element for u32 {}
impl Element for bf16 {}
impl Element for u8 {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for u32 {}
    impl Sealed for half::bf16 {}
    impl Sealed for u8 {}
}

/// Elements in a device's memory, which goes back to the arena when dropped: work asked for before that still finds it
/// unchanged, because whoever gets it next is behind that work in the one stream.
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
        let pointer = context.arena().take(context, len.saturating_mul(size_of::<T>()))?;
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
        let mut buffer = Self::unspecified(context, values.len())?;
        buffer.write(values)?;
        Ok(buffer)
    }

    /// A copy on the same device.
    ///
    /// # Errors
    /// As [`Buffer::unspecified`].
    pub fn duplicate(&self) -> Result<Self, Error> {
        let copy = Self::unspecified(&self.context, self.len)?;
        self.context.enter()?;
        if self.len > 0 {
            let bytes = self.len * size_of::<T>();
            // SAFETY: both allocations have this length; ordered with other work by the stream.
            unsafe { result::memcpy_dtod_async(copy.pointer, self.pointer, bytes, self.context.stream) }
                .map_err(driver_error("copy on the device"))?;
        }
        Ok(copy)
    }

    /// Replaces the elements, after all work asked for so far.
    ///
    /// # Panics
    /// If there are not as many values as elements.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn write(&mut self, values: &[T]) -> Result<(), Error> {
        assert!(values.len() == self.len, "write: {} values into {} elements", values.len(), self.len);
        self.context.enter()?;
        if values.is_empty() {
            return Ok(());
        }
        // SAFETY: the allocation has exactly this length. From memory that is not pinned, the driver has taken a copy
        // of the values when the call returns.
        unsafe { result::memcpy_htod_async(self.pointer, values, self.context.stream) }
            .map_err(driver_error("copy to the device"))
    }

    /// Sets every byte.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn fill(&mut self, byte: u8) -> Result<(), Error> {
        self.context.enter()?;
        if self.len == 0 {
            return Ok(());
        }
        // SAFETY: within the allocation; ordered with other work by the stream.
        unsafe { result::memset_d8_async(self.pointer, byte, self.len * size_of::<T>(), self.context.stream) }
            .map_err(driver_error("fill device memory"))
    }

    /// Sets every element to the one of these bits: for types of four bytes.
    ///
    /// # Errors
    /// If the device is lost.
    pub(crate) fn fill_with_bits(&mut self, bits: u32) -> Result<(), Error> {
        assert!(size_of::<T>() == size_of::<u32>(), "fill: elements of {} bytes", size_of::<T>());
        self.context.enter()?;
        if self.len == 0 {
            return Ok(());
        }
        // SAFETY: within the allocation; ordered with other work by the stream.
        unsafe { sys::cuMemsetD32Async(self.pointer, bits, self.len, self.context.stream) }
            .result()
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
        if self.len > 0 {
            // SAFETY: the allocation has exactly this length, and nothing writes to it: the stream is idle.
            unsafe { result::memcpy_dtoh_sync(&mut values, self.pointer) }
                .map_err(driver_error("copy from the device"))?;
        }
        Ok(values)
    }

    /// The device that it is on.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
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
        self.context.arena().put_back(self.pointer, self.len * size_of::<T>());
    }
}
