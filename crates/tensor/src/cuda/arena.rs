//! A caching allocator for one device.
//!
//! Asking the driver for memory costs as much as a kernel, and giving it back waits for the device. A step asks for the
//! same sizes again and again, so memory of dropped buffers waits here, by size class, for the next buffer of its size.
//! All work is in one stream: whoever gets a piece of memory next is behind everyone who used it before.
//!
//! A recorded graph replays with the addresses that it was recorded with. So while one exists, nothing goes back to the
//! driver; see [`Arena::hold`].

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use cudarc::driver::{result, sys};

use super::Context;
use crate::Error;
use crate::memory::Stats;

/// The least that the driver is asked for: what it aligns to.
const SMALLEST: usize = 512;
/// Classes of large buffers are multiples of this, the driver's own page.
const PAGE: usize = 2 << 20;
/// Waiting bytes that are tolerated beyond the peak of alive ones.
const SLACK: usize = 256 << 20;

#[derive(Default)]
pub(super) struct Arena {
    /// By size class, each with the time at which it began to wait, the oldest first.
    waiting: BTreeMap<usize, VecDeque<(u64, sys::CUdeviceptr)>>,
    stats: Stats,
    /// Counts buffers that began to wait.
    time: u64,
    /// Recorded graphs that exist.
    n_held: usize,
    /// The most that was taken from the driver at once.
    peak_held: usize,
    /// Spent in the driver.
    driver_time: Duration,
}

impl Arena {
    /// Memory for `bytes`.
    pub(super) fn take(&mut self, context: &Context, bytes: usize) -> Result<sys::CUdeviceptr, Error> {
        let class = size_class(bytes);
        let pointer = match self.waiting.get_mut(&class).and_then(VecDeque::pop_back) {
            Some((_, pointer)) => {
                self.stats.waiting -= class;
                pointer
            }
            None => self.allocate(context, class)?,
        };
        self.stats.alive += class;
        self.stats.peak_alive = self.stats.peak_alive.max(self.stats.alive);
        Ok(pointer)
    }

    /// What [`Arena::take`] gave for as many bytes.
    pub(super) fn put_back(&mut self, pointer: sys::CUdeviceptr, bytes: usize) {
        let class = size_class(bytes);
        self.stats.alive -= class;
        self.stats.waiting += class;
        self.time += 1;
        self.waiting.entry(class).or_default().push_back((self.time, pointer));
    }

    fn allocate(&mut self, context: &Context, class: usize) -> Result<sys::CUdeviceptr, Error> {
        context.enter()?;
        let (start, stats) = (Instant::now(), self.stats);
        self.release((stats.alive + stats.waiting + class).saturating_sub(stats.peak_alive.max(class) + SLACK));
        // SAFETY: the context is current; the memory is freed once, by `release`, or with the context.
        let allocate = || unsafe { result::malloc_sync(class) };
        let pointer = match allocate() {
            Ok(pointer) => Ok(pointer),
            Err(_) => {
                self.release(usize::MAX);
                allocate()
            }
        };
        self.driver_time += start.elapsed();
        self.peak_held = self.peak_held.max(self.stats.alive + self.stats.waiting + class);
        pointer.map_err(|error| {
            let (free, total) = result::mem_get_info().unwrap_or((0, 0));
            let reason = format!(
                "{error}: {} MiB wanted, {} of {} MiB free, {} MiB held by this program\n\
                 hint: lower training.micro_batch_size; another program may be using the device (see nvidia-smi)",
                class >> 20,
                free >> 20,
                total >> 20,
                (self.stats.alive + self.stats.waiting) >> 20
            );
            Error::Cuda { action: "allocate device memory", reason }
        })
    }

    /// Returns waiting memory to the driver, what waits longest first, until `bytes` of it are gone or none is left.
    fn release(&mut self, bytes: usize) {
        let mut released = 0;
        while released < bytes && self.n_held == 0 {
            let oldest = self.waiting.iter().filter_map(|(&class, queue)| Some((queue.front()?.0, class))).min();
            let Some((_, class)) = oldest else { break };
            let Some((_, pointer)) = self.waiting.get_mut(&class).and_then(VecDeque::pop_front) else { break };
            // SAFETY: allocated above, and in no one's hands. Freeing waits for work that still uses it.
            unsafe {
                let _ = result::free_sync(pointer);
            }
            released += class;
            self.stats.waiting -= class;
        }
    }

    /// From now on nothing goes back to the driver, until as many calls of [`Arena::let_go`].
    pub(super) fn hold(&mut self) {
        self.n_held += 1;
    }

    pub(super) fn let_go(&mut self) {
        self.n_held -= 1;
    }

    pub(super) fn stats(&self) -> Stats {
        self.stats
    }

    pub(super) fn reset_peak(&mut self) {
        self.stats.peak_alive = self.stats.alive;
        self.peak_held = self.stats.alive + self.stats.waiting;
    }

    pub(super) fn peak_held(&self) -> usize {
        self.peak_held
    }

    pub(super) fn driver_time(&self) -> Duration {
        self.driver_time
    }
}

/// What is taken from the driver for a buffer of `bytes`: small ones in eight steps per octave.
pub fn size_class(bytes: usize) -> usize {
    if bytes >= PAGE {
        return bytes.next_multiple_of(PAGE);
    }
    let step = (bytes.next_power_of_two() >> 4).max(SMALLEST);
    bytes.max(1).next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_class_holds_its_length_and_is_its_own_class() {
        for bytes in (0..5000).chain([123_456, PAGE - 1, PAGE, PAGE + 1, 77 * PAGE + 5]) {
            let class = size_class(bytes);
            assert!(class >= bytes && class <= bytes + (bytes / 8).max(SMALLEST).max(PAGE), "{bytes} → {class}");
            assert_eq!(size_class(class), class, "a class is its own class");
        }
    }

    #[test]
    fn memory_that_was_put_back_is_handed_out_again_and_counted() {
        let mut arena = Arena::default();
        arena.stats.alive = 2 * size_class(1000);
        arena.put_back(0x100, 1000);
        arena.put_back(0x200, 1000);
        assert_eq!(arena.stats().waiting, 2 * size_class(1000));
        // The one that waits shortest, whose content may still be in the cache.
        let (_, pointer) = arena.waiting.get_mut(&size_class(1000)).and_then(VecDeque::pop_back).unwrap();
        assert_eq!(pointer, 0x200);
    }
}
