//! The devices that this process has opened: one context each, open to the end of the process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use cudarc::driver::{result, sys};

use super::{Context, Toolkit};
use crate::Error;

#[derive(Default)]
struct Settings {
    toolkit: Toolkit,
    kernel_folder: Option<PathBuf>,
}

static SETTINGS: OnceLock<Settings> = OnceLock::new();
static OPEN: Mutex<BTreeMap<usize, Arc<Context>>> = Mutex::new(BTreeMap::new());

/// Says where CUDA's libraries are and in which folder compiled kernels are kept. Has an effect once, before the first
/// device is opened; without it, the usual places are searched and kernels are compiled in every process.
pub fn configure(toolkit: Toolkit, kernel_folder: Option<PathBuf>) {
    let _ = SETTINGS.set(Settings { toolkit, kernel_folder });
}

/// Device `ordinal`, opened if it was not yet.
///
/// # Errors
/// As [`Context::open`].
pub fn context(ordinal: usize) -> Result<Arc<Context>, Error> {
    let mut open = OPEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(context) = open.get(&ordinal) {
        return Ok(context.clone());
    }
    let settings = SETTINGS.get_or_init(|| Settings { toolkit: Toolkit::find(&[]), kernel_folder: None });
    let context = Context::open(ordinal, settings.toolkit.clone(), settings.kernel_folder.clone())?;
    open.insert(ordinal, context.clone());
    Ok(context)
}

/// What can be said of GPUs without opening one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    /// The newest version of CUDA that the driver supports: major and minor.
    pub cuda_version: (usize, usize),
    /// How many devices there are.
    pub n_devices: usize,
}

/// Asks the driver.
///
/// # Errors
/// If there is none, or it does not start.
pub fn driver() -> Result<Driver, Error> {
    let missing = |reason: String| Error::NoDevice { name: "cuda".to_owned(), reason };
    // SAFETY: loads the driver's library if there is one. Without this question cudarc panics.
    if !unsafe { sys::is_culib_present() } {
        return Err(missing("no NVIDIA driver is installed here".to_owned()));
    }
    result::init().map_err(|error| missing(format!("the NVIDIA driver does not start ({error})")))?;
    let mut version = 0;
    // SAFETY: writes one integer.
    unsafe { sys::cuDriverGetVersion(&mut version) }
        .result()
        .map_err(|error| missing(format!("the NVIDIA driver has no version ({error})")))?;
    let n_devices = result::device::get_count().map_err(|error| missing(error.to_string()))?;
    let version = usize::try_from(version).unwrap_or(0);
    Ok(Driver {
        cuda_version: (version / 1000, version % 1000 / 10),
        n_devices: usize::try_from(n_devices).unwrap_or(0),
    })
}
