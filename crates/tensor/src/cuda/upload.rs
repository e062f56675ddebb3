//! Numbers that travel to the device while it works.

use std::sync::Arc;

use cudarc::driver::{result, sys};

use super::{Buffer, Context, driver_error};
use crate::{DType, Error, Tensor};

/// A place on the device where numbers arrive beside the work that is under way, and from which they are taken when that
/// work is done: pinned host memory, a stream of its own, and as much memory on the device.
///
/// Neither waits for the other. What is sent next may arrive as soon as what was sent before has been taken, which is the
/// first thing that happens in a step; so the tensors that a recorded graph reads stay where they are.
pub struct Upload {
    context: Arc<Context>,
    stream: sys::CUstream,
    /// `len` numbers in pinned memory, which the device reads by itself.
    pinned: *mut u32,
    len: usize,
    landing: Buffer<u32>,
    /// The newest copy into `landing` is done.
    arrived: Mark,
    /// `landing` was read and may be written again.
    taken: Mark,
}

// SAFETY: the pinned memory belongs to this value alone; the handles may be used from any thread.
unsafe impl Send for Upload {}

impl Upload {
    /// For `len` numbers at a time.
    ///
    /// # Errors
    /// If memory is short on the host or on the device.
    pub fn new(context: &Arc<Context>, len: usize) -> Result<Self, Error> {
        let landing = Buffer::unspecified(context, len)?;
        context.enter()?;
        let (arrived, taken) = (Mark::new(context)?, Mark::new(context)?);
        // Work asked for before may still use the memory of `landing`.
        taken.set(context.stream)?;
        let stream =
            result::stream::create(result::stream::StreamKind::NonBlocking).map_err(driver_error("make a stream"))?;
        // SAFETY: the context is current; the memory is freed once, in `drop`.
        let pinned = unsafe { result::malloc_host(len.max(1) * size_of::<u32>(), 0) };
        let pinned = match pinned {
            Ok(pinned) => pinned.cast::<u32>(),
            Err(error) => {
                // SAFETY: made above, and nothing was asked of it.
                let _ = unsafe { result::stream::destroy(stream) };
                return Err(driver_error("pin host memory")(error));
            }
        };
        // SAFETY: `len` numbers were just allocated.
        unsafe { pinned.write_bytes(0, len) };
        Ok(Self { context: context.clone(), stream, pinned, len, landing, arrived, taken })
    }

    /// Sends what `fill` writes, which is all of the numbers; what was sent before and not taken is lost. Waits only if the
    /// copy before this one is still under way.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn send(&mut self, fill: impl FnOnce(&mut [u32])) -> Result<(), Error> {
        self.context.enter()?;
        self.arrived.wait_on_host()?;
        // SAFETY: `len` numbers that were initialised, which no copy reads any more.
        let values = unsafe { std::slice::from_raw_parts_mut(self.pinned, self.len) };
        fill(values);
        if self.len > 0 {
            self.taken.wait_in(self.stream)?;
            // SAFETY: as many numbers on the device; the pinned ones stay as they are until `arrived`.
            unsafe { result::memcpy_htod_async(self.landing.pointer(), values, self.stream) }
                .map_err(driver_error("copy to the device"))?;
        }
        self.arrived.set(self.stream)
    }

    /// Copies what was sent into `tensors` of u32, one after the other, after all work asked for so far and before what is
    /// asked for next.
    ///
    /// # Errors
    /// If the device is lost.
    ///
    /// # Panics
    /// If the tensors are shared, not of u32 on this device, or not of as many numbers as were sent.
    pub fn take<'a>(&mut self, tensors: impl IntoIterator<Item = &'a mut Tensor>) -> Result<(), Error> {
        self.context.enter()?;
        self.arrived.wait_in(self.context.stream)?;
        let mut at = 0;
        for x in tensors {
            let end = at + x.len();
            assert!(
                x.is_unique() && x.dtype() == DType::U32 && Arc::ptr_eq(x.cuda(), &self.context) && end <= self.len,
                "upload: {x:?} cannot take numbers {at} to {end} of {}",
                self.len
            );
            if !x.is_empty() {
                let (from, bytes) =
                    (self.landing.pointer() + (at * size_of::<u32>()) as u64, x.len() * size_of::<u32>());
                // SAFETY: both are in bounds, as was just asserted; ordered with other work by the stream.
                unsafe { result::memcpy_dtod_async(x.device_pointer(), from, bytes, self.context.stream) }
                    .map_err(driver_error("copy on the device"))?;
            }
            at = end;
        }
        assert!(at == self.len, "upload: {at} of {} numbers were taken", self.len);
        self.taken.set(self.context.stream)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: once the stream is idle nothing reads the pinned memory or writes to `landing`, which then goes back
            // to the arena behind the work that reads it.
            unsafe {
                let _ = result::stream::synchronize(self.stream);
                let _ = result::free_host(self.pinned.cast());
                let _ = result::stream::destroy(self.stream);
            }
        }
    }
}

/// A point in a stream that another may wait for.
struct Mark {
    context: Arc<Context>,
    event: sys::CUevent,
}

impl Mark {
    fn new(context: &Arc<Context>) -> Result<Self, Error> {
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)
            .map_err(driver_error("make an event"))?;
        Ok(Self { context: context.clone(), event })
    }

    /// Moves to what `stream` was asked for so far.
    fn set(&self, stream: sys::CUstream) -> Result<(), Error> {
        // SAFETY: both are alive and belong to the current context.
        unsafe { result::event::record(self.event, stream) }.map_err(driver_error("record an event"))
    }

    /// Lets what `stream` is asked for next wait; not at all if the mark was never set.
    fn wait_in(&self, stream: sys::CUstream) -> Result<(), Error> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: as above.
        unsafe { result::stream::wait_event(stream, self.event, flags) }.map_err(driver_error("wait for an event"))
    }

    /// Waits here; not at all if the mark was never set.
    fn wait_on_host(&self) -> Result<(), Error> {
        // SAFETY: the event is alive.
        unsafe { result::event::synchronize(self.event) }.map_err(driver_error("wait for an event"))
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: made in this context, destroyed only here.
            unsafe {
                let _ = result::event::destroy(self.event);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;
    use crate::testing::devices;

    #[test]
    fn what_was_sent_is_taken_in_order_while_other_work_is_under_way() {
        for device in devices() {
            let Device::Cuda(ordinal) = device else { continue };
            let context = crate::cuda::context(ordinal).expect("a device");
            let mut upload = Upload::new(&context, 1001).expect("memory");
            let mut parts = [1000, 1].map(|n| Tensor::zeros_on(device, &[n], DType::U32));
            let send = |upload: &mut Upload, round: u32| {
                upload.send(|x| x.iter_mut().zip(0..).for_each(|(x, i)| *x = round * 10_000 + i)).expect("sent");
            };
            send(&mut upload, 0);
            for round in 0..50 {
                upload.take(&mut parts).expect("taken");
                // Long work, behind which the next numbers must not wait, and which they must not disturb.
                let work = Tensor::zeros_on(device, &[1 << 24], DType::F32);
                (0..3).for_each(|_| drop(work.copied_to(device)));
                send(&mut upload, round + 1);
                let found: Vec<u32> = parts.iter().flat_map(|x| x.to(Device::Cpu).u32s().to_vec()).collect();
                assert!(found.iter().zip(0..).all(|(&x, i)| x == round * 10_000 + i), "round {round}: {found:?}");
            }
        }
    }
}
