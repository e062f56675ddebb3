//! A caching allocator for the large buffers of a training step.
//!
//! A step asks for the same sizes again and again. Giving each large buffer back to the system would cost a page fault
//! for every 4 KiB of it on the next step, which on a small model is a tenth of the time. So buffers of dropped tensors
//! wait here, by size class, for the next tensor of their size.
//!
//! Two rules keep the resident memory close to what is alive:
//! - size classes are an eighth of an octave apart, and the slack of a class is never touched, so never resident;
//! - a request that finds no waiting buffer first releases waiting ones of other sizes, those that wait longest first, as
//!   long as alive, waiting and requested bytes together exceed the highest count of alive bytes so far.
//!
//! The cache is one per process, as an allocator is. Nothing about results depends on it: a buffer's contents are
//! unspecified until its operation has written them, and every operation writes all of its output.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use half::bf16;

/// Buffers below this size (bytes) go straight to the system allocator.
const SMALLEST_CACHED: usize = 1 << 14;
/// Waiting bytes that are tolerated beyond the peak of alive ones.
const SLACK: usize = 16 << 20;

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

/// Element types that tensors hold.
pub(crate) trait Element: Copy + Default + Send + Sync + 'static {
    fn waiting(cache: &mut Cache) -> &mut Waiting<Self>;
}

/// Waiting buffers of one element type by capacity, each with the time at which it began to wait, the oldest first.
type Waiting<T> = BTreeMap<usize, VecDeque<(u64, Vec<T>)>>;

#[derive(Default)]
pub(crate) struct Cache {
    f32s: Waiting<f32>,
    bf16s: Waiting<bf16>,
    u32s: Waiting<u32>,
    stats: Stats,
    /// Counts buffers that began to wait.
    time: u64,
}

static CACHE: Mutex<Option<Cache>> = Mutex::new(None);

struct Locked(std::sync::MutexGuard<'static, Option<Cache>>);

impl std::ops::Deref for Locked {
    type Target = Cache;
    fn deref(&self) -> &Cache {
        self.0.as_ref().expect("filled by lock()")
    }
}

impl std::ops::DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut Cache {
        self.0.as_mut().expect("filled by lock()")
    }
}

fn lock() -> Locked {
    // A panic elsewhere cannot leave the cache half-changed: no user code runs under the lock.
    let mut guard = CACHE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    guard.get_or_insert_with(Cache::default);
    Locked(guard)
}

impl Element for f32 {
    fn waiting(cache: &mut Cache) -> &mut Waiting<f32> {
        &mut cache.f32s
    }
}

impl Element for bf16 {
    fn waiting(cache: &mut Cache) -> &mut Waiting<bf16> {
        &mut cache.bf16s
    }
}

impl Element for u32 {
    fn waiting(cache: &mut Cache) -> &mut Waiting<u32> {
        &mut cache.u32s
    }
}

impl Cache {
    /// Returns waiting buffers to the system, those that wait longest first, until `bytes` of them are gone or none is
    /// left.
    fn release(&mut self, bytes: usize) {
        let mut released = 0;
        while released < bytes {
            let since = [oldest(&self.f32s), oldest(&self.bf16s), oldest(&self.u32s)];
            let freed = match since.iter().flatten().min() {
                None => break,
                first if first == since[0].as_ref() => release_oldest(&mut self.f32s),
                first if first == since[1].as_ref() => release_oldest(&mut self.bf16s),
                _ => release_oldest(&mut self.u32s),
            };
            released += freed;
            self.stats.waiting -= freed;
        }
    }
}

/// Since when the buffer waits that waits longest, and its capacity.
fn oldest<T>(waiting: &Waiting<T>) -> Option<(u64, usize)> {
    waiting.iter().filter_map(|(&class, buffers)| Some((buffers.front()?.0, class))).min()
}

/// Returns the buffer that waits longest to the system; its bytes.
fn release_oldest<T>(waiting: &mut Waiting<T>) -> usize {
    let Some((_, class)) = oldest(waiting) else { return 0 };
    waiting.get_mut(&class).and_then(VecDeque::pop_front);
    class * size_of::<T>()
}

/// The capacity for `len` elements: the next of eight steps per octave.
fn size_class(len: usize) -> usize {
    let step = (len.next_power_of_two() >> 4).max(1);
    len.div_ceil(step) * step
}

/// An owned buffer that returns to the cache when dropped.
pub(crate) struct Buffer<T: Element> {
    elements: Vec<T>,
}

impl<T: Element> Buffer<T> {
    /// `len` elements of unspecified value, for outputs that are about to be written in full.
    pub(crate) fn unspecified(len: usize) -> Self {
        let bytes = len * size_of::<T>();
        let mut cache = lock();
        let reused = (bytes >= SMALLEST_CACHED).then(|| take_waiting(&mut cache, len)).flatten();
        cache.stats.alive += bytes;
        if reused.is_none() && bytes >= SMALLEST_CACHED {
            let most = cache.stats.peak_alive.max(cache.stats.alive) + SLACK;
            let over = (cache.stats.alive + cache.stats.waiting).saturating_sub(most);
            cache.release(over);
        }
        cache.stats.peak_alive = cache.stats.peak_alive.max(cache.stats.alive);
        drop(cache);

        let elements = reused.unwrap_or_else(|| {
            let capacity = if bytes >= SMALLEST_CACHED { size_class(len) } else { len };
            // `vec!` of zeros maps fresh pages without touching them.
            let mut fresh = vec![T::default(); capacity];
            fresh.truncate(len);
            fresh
        });
        Buffer { elements }
    }

    /// `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        let mut buffer = Self::unspecified(len);
        buffer.elements.fill(T::default());
        buffer
    }

    /// Takes over a vector.
    pub(crate) fn from_vec(elements: Vec<T>) -> Self {
        let mut cache = lock();
        cache.stats.alive += elements.len() * size_of::<T>();
        cache.stats.peak_alive = cache.stats.peak_alive.max(cache.stats.alive);
        Buffer { elements }
    }
}

fn take_waiting<T: Element>(cache: &mut Cache, len: usize) -> Option<Vec<T>> {
    let class = size_class(len);
    // The one that waits shortest: the others may be of a size that is no longer asked for.
    let (_, mut reused) = T::waiting(cache).get_mut(&class)?.pop_back()?;
    cache.stats.waiting -= class * size_of::<T>();
    reused.resize(len, T::default());
    Some(reused)
}

impl<T: Element> Drop for Buffer<T> {
    fn drop(&mut self) {
        let elements = std::mem::take(&mut self.elements);
        let mut cache = lock();
        cache.stats.alive -= elements.len() * size_of::<T>();
        let capacity = elements.capacity();
        let cachable = capacity * size_of::<T>() >= SMALLEST_CACHED && capacity == size_class(capacity);
        if cachable {
            cache.stats.waiting += capacity * size_of::<T>();
            cache.time += 1;
            let time = cache.time;
            T::waiting(&mut cache).entry(capacity).or_default().push_back((time, elements));
        }
    }
}

impl<T: Element> std::ops::Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.elements
    }
}

impl<T: Element> std::ops::DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.elements
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_class_holds_its_length_and_wastes_at_most_an_eighth() {
        for len in (1..5000).chain([123_456, 1 << 20, (1 << 20) + 1]) {
            let class = size_class(len);
            assert!(class >= len && class as f64 <= len as f64 * 1.125 + 1.0, "{len} → {class}");
            assert_eq!(size_class(class), class, "a class is its own class");
        }
    }

    #[test]
    fn a_reused_buffer_of_zeros_holds_zeros() {
        let mut first = Buffer::<f32>::unspecified(100_003);
        first.fill(7.0);
        drop(first);
        assert!(Buffer::<f32>::zeroed(100_001).iter().all(|&x| x == 0.0));
    }

    #[test]
    fn buffers_that_wait_longest_are_released_first() {
        let mut cache = Cache::default();
        for (time, class) in [(1, 1 << 16), (2, 1 << 13), (3, 1 << 15)] {
            cache.f32s.entry(class).or_default().push_back((time, vec![0.0; class]));
            cache.stats.waiting += class * 4;
        }
        cache.release(1);
        assert_eq!(cache.f32s.values().map(VecDeque::len).sum::<usize>(), 2);
        assert!(cache.f32s[&(1 << 16)].is_empty(), "the oldest, though the largest");
        cache.release(usize::MAX);
        assert_eq!(cache.stats.waiting, 0);
    }
}
