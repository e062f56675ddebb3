//! A caching allocator for the large buffers of a training step.
//!
//! A step asks for the same sizes again and again. Giving each large buffer back to the system would cost a page fault
//! for every 4 KiB of it on the next step, which on a small model is a tenth of the time. So buffers of dropped tensors
//! wait here, by size class, for the next tensor of their size.
//!
//! Three rules keep the resident memory close to what is alive:
//! - large buffers are pages of their own, not pieces of a heap that keeps what is freed;
//! - size classes are an eighth of an octave apart, and the slack of a class is never touched, so never resident;
//! - a request that finds no waiting buffer first releases waiting ones of other sizes, those that wait longest first, as
//!   long as alive, waiting and requested bytes together exceed the highest count of alive bytes so far by a sixteenth.
//!
//! The cache is one per process, as an allocator is. Nothing about results depends on it: a buffer's contents are
//! unspecified until its operation has written them, and every operation writes all of its output.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

use bytemuck::Pod;
use memmap2::MmapMut;

/// Buffers below this size (bytes) come from the heap and go back to it.
const SMALLEST_CACHED: usize = 1 << 16;
/// Waiting bytes that are tolerated beyond the peak of alive ones, and with them the inverse of a share of that peak: enough
/// for a step of many sizes not to release what it will ask for again.
const SLACK: usize = 16 << 20;
const SLACK_DIVISOR: usize = 16;

/// Bytes held by tensors now and at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// In tensors that exist.
    pub alive: usize,
    /// The highest value of `alive` since the start or the last [`reset_peak`].
    pub peak_alive: usize,
    /// In buffers that wait for reuse.
    pub waiting: usize,
}

/// What the process's tensors hold.
pub fn stats() -> Stats {
    lock().stats
}

/// Starts a new measurement of the peak.
pub fn reset_peak() {
    let mut cache = lock();
    cache.stats.peak_alive = cache.stats.alive;
}

/// Returns all waiting buffers to the system.
pub fn trim() {
    lock().release(usize::MAX);
}

/// Waiting pages.
struct Cache {
    /// By size class, each with the time at which it began to wait, the oldest first.
    waiting: BTreeMap<usize, VecDeque<(u64, MmapMut)>>,
    stats: Stats,
    /// Counts buffers that began to wait.
    time: u64,
}

static CACHE: Mutex<Cache> =
    Mutex::new(Cache { waiting: BTreeMap::new(), stats: Stats { alive: 0, peak_alive: 0, waiting: 0 }, time: 0 });

fn lock() -> MutexGuard<'static, Cache> {
    // A panic elsewhere cannot leave the cache half-changed: no user code runs under the lock.
    CACHE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Cache {
    /// Returns waiting buffers to the system, those that wait longest first, until `bytes` of them are gone or none is
    /// left.
    fn release(&mut self, bytes: usize) {
        let mut released = 0;
        while released < bytes {
            let oldest = self.waiting.iter().filter_map(|(&class, buffers)| Some((buffers.front()?.0, class))).min();
            let Some((_, class)) = oldest else { break };
            self.waiting.get_mut(&class).and_then(VecDeque::pop_front);
            released += class;
            self.stats.waiting -= class;
        }
    }

    fn count_alive(&mut self, bytes: usize) {
        self.stats.alive += bytes;
        self.stats.peak_alive = self.stats.peak_alive.max(self.stats.alive);
    }

    /// Pages for `bytes`, which are counted as alive already.
    fn pages(&mut self, bytes: usize) -> Option<MmapMut> {
        let class = size_class(bytes);
        // The one that waits shortest: the others may be of a size that is no longer asked for.
        if let Some((_, pages)) = self.waiting.get_mut(&class).and_then(VecDeque::pop_back) {
            self.stats.waiting -= class;
            return Some(pages);
        }
        let limit = self.stats.peak_alive + self.stats.peak_alive / SLACK_DIVISOR + SLACK;
        let over = (self.stats.alive + self.stats.waiting).saturating_sub(limit);
        self.release(over);
        None
    }
}

/// The bytes to map for a buffer of `bytes`: the next of eight steps per octave.
fn size_class(bytes: usize) -> usize {
    let step = (bytes.next_power_of_two() >> 4).max(1);
    bytes.div_ceil(step) * step
}

/// An owned buffer whose pages return to the cache when it is dropped.
pub(crate) struct Buffer<T: Pod> {
    memory: Memory<T>,
    len: usize,
}

enum Memory<T> {
    Heap(Vec<T>),
    /// `None` only while it is being dropped.
    Pages(Option<MmapMut>),
}

impl<T: Pod> Buffer<T> {
    /// `len` elements of unspecified value, for outputs that are about to be written in full.
    pub(crate) fn unspecified(len: usize) -> Self {
        let bytes = len * size_of::<T>();
        let mut cache = lock();
        cache.count_alive(bytes);
        if bytes < SMALLEST_CACHED {
            return Buffer { memory: Memory::Heap(vec![T::zeroed(); len]), len };
        }
        let waiting = cache.pages(bytes);
        drop(cache);
        // Fresh pages are mapped without being touched.
        let pages = waiting.unwrap_or_else(|| MmapMut::map_anon(size_class(bytes)).expect("memory for a tensor"));
        Buffer { memory: Memory::Pages(Some(pages)), len }
    }

    /// A copy of `elements`.
    pub(crate) fn copied_from(elements: &[T]) -> Self {
        let mut buffer = Self::unspecified(elements.len());
        buffer.copy_from_slice(elements);
        buffer
    }

    /// Takes over a vector.
    pub(crate) fn from_vec(elements: Vec<T>) -> Self {
        lock().count_alive(elements.len() * size_of::<T>());
        Buffer { len: elements.len(), memory: Memory::Heap(elements) }
    }

    fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }
}

impl<T: Pod> Drop for Buffer<T> {
    fn drop(&mut self) {
        let bytes = self.bytes();
        let mut cache = lock();
        cache.stats.alive -= bytes;
        if let Memory::Pages(Some(pages)) = std::mem::replace(&mut self.memory, Memory::Pages(None)) {
            cache.stats.waiting += pages.len();
            cache.time += 1;
            let time = cache.time;
            cache.waiting.entry(pages.len()).or_default().push_back((time, pages));
        }
    }
}

impl<T: Pod> std::ops::Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.memory {
            Memory::Heap(elements) => elements,
            // Pages are aligned to 4 KiB, so to any element.
            Memory::Pages(pages) => bytemuck::cast_slice(&pages.as_ref().expect("not dropped")[..self.bytes()]),
        }
    }
}

impl<T: Pod> std::ops::DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        let bytes = self.bytes();
        match &mut self.memory {
            Memory::Heap(elements) => elements,
            Memory::Pages(pages) => bytemuck::cast_slice_mut(&mut pages.as_mut().expect("not dropped")[..bytes]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_class_holds_its_length_and_wastes_at_most_an_eighth() {
        for bytes in (1..5000).chain([123_456, 1 << 20, (1 << 20) + 1]) {
            let class = size_class(bytes);
            assert!(class >= bytes && class as f64 <= bytes as f64 * 1.125 + 1.0, "{bytes} → {class}");
            assert_eq!(size_class(class), class, "a class is its own class");
        }
    }

    #[test]
    fn a_reused_buffer_holds_what_is_copied_into_it() {
        let mut first = Buffer::<f32>::unspecified(100_003);
        first.fill(7.0);
        drop(first);
        assert!(Buffer::copied_from(&vec![0.0_f32; 100_001]).iter().all(|&x| x == 0.0));
    }

    #[test]
    fn buffers_that_wait_longest_are_released_first() {
        let mut cache = Cache { waiting: BTreeMap::new(), stats: Stats::default(), time: 0 };
        for (time, class) in [(1, 1 << 16), (2, 1 << 13), (3, 1 << 15)] {
            cache.waiting.entry(class).or_default().push_back((time, MmapMut::map_anon(class).unwrap()));
            cache.stats.waiting += class;
        }
        cache.release(1);
        assert_eq!(cache.waiting.values().map(VecDeque::len).sum::<usize>(), 2);
        assert!(cache.waiting[&(1 << 16)].is_empty(), "the oldest, though the largest");
        cache.release(usize::MAX);
        assert_eq!(cache.stats.waiting, 0);
    }
}
