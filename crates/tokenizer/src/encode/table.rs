//! Memory in large pieces, on large pages where the system has them.

use std::marker::PhantomData;

/// Zeroed memory, on large pages where the system has them: translating addresses would otherwise take
/// longer than reading.
pub(super) struct Table<T> {
    memory: memmap2::MmapMut,
    of: PhantomData<T>,
}

impl<T: bytemuck::Pod> Table<T> {
    /// `n` is not 0. `None` if there is no memory.
    pub(super) fn new(n: usize) -> Option<Self> {
        let memory = memmap2::MmapMut::map_anon(n.checked_mul(size_of::<T>())?).ok()?;
        #[cfg(target_os = "linux")]
        // It works without.
        let _ = memory.advise(memmap2::Advice::HugePage);
        Some(Self { memory, of: PhantomData })
    }

    #[inline(always)]
    pub(super) fn as_slice(&self) -> &[T] {
        bytemuck::cast_slice(&self.memory)
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.memory)
    }
}

/// Has memory come that is read soon.
#[inline(always)]
pub(super) fn fetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    // SAFETY: every such processor has the instruction.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(std::ptr::from_ref(place).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// Bytes from which on large pages are asked for.
const LARGE: usize = 1 << 22;

/// An empty vector with room for `n`: each small page would be asked for by an interrupt.
pub(super) fn large_vec<T>(n: usize) -> Vec<T> {
    let mut vec = Vec::with_capacity(n);
    want_large_pages(vec.as_mut_ptr(), vec.capacity());
    vec
}

/// As many zeros. The memory is not touched yet if it is much.
pub(super) fn large_zeros<T: bytemuck::Zeroable + Copy>(n: usize) -> Vec<T> {
    let mut vec = vec![T::zeroed(); n];
    want_large_pages(vec.as_mut_ptr(), vec.capacity());
    vec
}

fn want_large_pages<T>(start: *mut T, n: usize) {
    let n_bytes = n * size_of::<T>();
    if cfg!(not(target_os = "linux")) || n_bytes < LARGE {
        return;
    }
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 1 << 12;
        let skip = start.cast::<u8>().align_offset(PAGE);
        #[allow(unsafe_code)]
        // SAFETY: these whole pages are within memory of the caller, and which pages the system uses for them
        // changes nothing in what they hold. It may refuse, and everything works without.
        let _ = unsafe {
            libc::madvise(start.cast::<u8>().add(skip).cast(), (n_bytes - skip) & !(PAGE - 1), libc::MADV_HUGEPAGE)
        };
    }
}
