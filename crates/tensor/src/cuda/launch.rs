//! From an operation to a kernel: compiled once per process, launched with typed arguments.

use std::ffi::c_void;
use std::sync::Arc;

use super::{Context, Kernel, Module, Source, or_unwind};
use crate::Tensor;

/// One argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arg {
    /// An address on the device; 0 where an optional tensor is left out.
    Pointer(u64),
    U32(u32),
    U64(u64),
    F32(f32),
}

impl Arg {
    /// The elements of an optional tensor.
    pub(crate) fn optional(x: Option<&Tensor>) -> Self {
        x.map_or(Arg::Pointer(0), Arg::from)
    }

    fn value(&self) -> *const c_void {
        match self {
            Arg::Pointer(x) | Arg::U64(x) => std::ptr::from_ref(x).cast(),
            Arg::U32(x) => std::ptr::from_ref(x).cast(),
            Arg::F32(x) => std::ptr::from_ref(x).cast(),
        }
    }
}

impl From<&Tensor> for Arg {
    #[track_caller]
    fn from(x: &Tensor) -> Self {
        Arg::Pointer(x.device_pointer())
    }
}

impl From<&mut Tensor> for Arg {
    /// For an output: nothing else may share the elements.
    #[track_caller]
    fn from(x: &mut Tensor) -> Self {
        assert!(x.is_unique(), "a tensor of shape {:?} is shared and cannot be changed in place", x.shape());
        Arg::Pointer(x.device_pointer())
    }
}

impl From<usize> for Arg {
    /// A count below 2³².
    fn from(x: usize) -> Self {
        Arg::U32(u32::try_from(x).expect("a count below 2^32"))
    }
}

impl From<u64> for Arg {
    fn from(x: u64) -> Self {
        Arg::U64(x)
    }
}

impl From<f32> for Arg {
    fn from(x: f32) -> Self {
        Arg::F32(x)
    }
}

impl Context {
    /// The kernel `name` of `source`, with `shared_bytes` of dynamic shared memory; compiled or read from the folder the
    /// first time, remembered afterwards.
    pub(crate) fn kernel(self: &Arc<Self>, source: &Source, name: &str, shared_bytes: usize) -> Arc<Kernel> {
        let module_key = format!("{} {}", source.name, source.options.join(" "));
        let key = format!("{module_key} {name} {shared_bytes}");
        let mut loaded = self.loaded();
        if let Some(kernel) = loaded.kernels.get(&key) {
            return kernel.clone();
        }
        let module = match loaded.modules.get(&module_key) {
            Some(module) => module.clone(),
            None => {
                let module = or_unwind(Module::load(self, source));
                loaded.modules.insert(module_key, module.clone());
                module
            }
        };
        let kernel = Arc::new(or_unwind(module.kernel(name, shared_bytes)));
        loaded.kernels.insert(key, kernel.clone());
        kernel
    }
}

impl Kernel {
    /// [`Kernel::launch`] for an operation; a refusal unwinds to the edge.
    ///
    /// # Safety
    /// The arguments are the kernel's parameters in order, and the kernel stays within the tensors that they name.
    pub(crate) unsafe fn run(&self, grid: [usize; 3], threads: usize, arguments: &[Arg]) {
        if grid.contains(&0) {
            return;
        }
        let values: Vec<*const c_void> = arguments.iter().map(Arg::value).collect();
        // SAFETY: promised by the caller.
        or_unwind(unsafe { self.launch(grid, threads, &values) });
    }
}
