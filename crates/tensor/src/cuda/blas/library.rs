//! The library, and which way every product goes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use cudarc::cublaslt::{result, sys};

use super::Pointers;
use super::key::Key;
use super::plan::Plan;
use super::tune::Choice;
use crate::Error;
use crate::cuda::Context;
use crate::cuda::gemm::{self, Tiling};

/// What algorithms may use beside their operands. Hopper's want 32 MiB; more lets long sums be split.
pub const WORKSPACE_BYTES: usize = 64 << 20;

/// How many products are remembered before those that were not measured are forgotten: texts of every length come by.
const MAX_UNMEASURED: usize = 4096;

/// The state of matrix products on one device.
#[derive(Default)]
pub(in crate::cuda) struct Blas {
    library: Option<Library>,
    pub(super) ways: HashMap<Key, Way>,
    /// By the text of a key: choices of an earlier run.
    pub(super) chosen: HashMap<String, Choice>,
    pub(super) autotune: bool,
    /// Whether only cuBLASLt's algorithms are measured.
    pub(super) without_own: bool,
}

/// The opened library.
#[derive(Clone, Copy)]
pub(super) struct Library {
    pub(super) handle: sys::cublasLtHandle_t,
    pub(super) version: usize,
    pub(super) workspace: u64,
}

/// How a product is computed.
pub(super) enum Way {
    Planned(Plan),
    /// By our own kernel for Hopper, except where `beta` is none of its own.
    Own {
        tiling: Tiling,
        instead: Option<Plan>,
        tuned: bool,
    },
    /// In two steps, or by our own kernel: cuBLASLt does not have it.
    Unsupported,
    /// In two steps, because they were measured to be faster.
    Separate,
}

impl Way {
    fn is_measured(&self) -> bool {
        match self {
            Way::Planned(plan) => plan.tuned,
            Way::Own { tuned, .. } => *tuned,
            Way::Unsupported => false,
            Way::Separate => true,
        }
    }
}

impl Blas {
    /// `false` if the product is to be computed in another way.
    pub(super) fn run(
        &mut self,
        context: &Arc<Context>,
        key: &Key,
        pointers: &Pointers,
        beta: f32,
    ) -> Result<bool, Error> {
        let library = self.library(context)?;
        if !self.ways.contains_key(key) {
            if self.ways.len() >= MAX_UNMEASURED {
                self.ways.retain(|_, way| way.is_measured());
            }
            let fits = gemm::fits(context, key, 0.0);
            let way = match (Plan::new(&library, key, pointers)?, self.chosen.get(&key.to_string())) {
                (instead, Some(Choice::Own(tiling))) if fits => Way::Own { tiling: *tiling, instead, tuned: true },
                (None, _) if fits && key.epilogue.is_gated() => {
                    Way::Own { tiling: Tiling::ALL[0], instead: None, tuned: false }
                }
                (None, _) => Way::Unsupported,
                (Some(mut plan), choice) => match choice {
                    Some(Choice::Separate) if key.epilogue.has_sums() => Way::Separate,
                    Some(Choice::Algorithm { version, data }) if *version == library.version => {
                        plan.choose_checked(&library, *data);
                        Way::Planned(plan)
                    }
                    _ => Way::Planned(plan),
                },
            };
            self.ways.insert(key.clone(), way);
        }
        if self.autotune && !context.is_recording() {
            self.tune(context, &library, key, pointers, beta)?;
        }
        match self.ways.get_mut(key) {
            Some(Way::Own { tiling, .. }) if gemm::fits(context, key, beta) => {
                gemm::launch(context, key, pointers, beta, tiling, false);
                Ok(true)
            }
            Some(Way::Planned(plan) | Way::Own { instead: Some(plan), .. }) => {
                plan.run(context, &library, key, pointers, beta).map(|()| true)
            }
            _ => Ok(false),
        }
    }

    /// Of cuBLASLt; 0 before it is loaded.
    pub(super) fn version(&self) -> usize {
        self.library.map_or(0, |library| library.version)
    }

    fn library(&mut self, context: &Arc<Context>) -> Result<Library, Error> {
        if let Some(library) = self.library {
            return Ok(library);
        }
        let start = Instant::now();
        if !context.toolkit.load_cublas_lt() {
            let reason = "libcublasLt is not installed here\nhint: it comes with the CUDA toolkit and with `pip install \
                          nvidia-cublas`; or use --device cpu";
            return Err(Error::Cuda { action: "load the library of matrix products", reason: reason.to_owned() });
        }
        let workspace = context.arena().take(context, WORKSPACE_BYTES)?;
        let handle = result::create_handle().map_err(blas_error("open cuBLASLt"))?;
        // SAFETY: the library is loaded.
        let version = unsafe { sys::cublasLtGetVersion() };
        context.spend(|spent| spent.library += start.elapsed());
        Ok(*self.library.insert(Library { handle, version, workspace }))
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        self.ways.clear();
        if let Some(library) = self.library.take() {
            // SAFETY: made above, and no plan is left. The workspace goes with the device's context.
            unsafe {
                let _ = result::destroy_handle(library.handle);
            }
        }
    }
}

pub(super) fn blas_error(action: &'static str) -> impl Fn(result::CublasError) -> Error {
    move |error| Error::Cuda { action, reason: error.to_string() }
}
