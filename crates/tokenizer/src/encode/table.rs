//! Tables that are read all over.

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
