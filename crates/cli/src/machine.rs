//! What this machine is.

use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tensor::cpu::gemm::Kernel;
use tensor::cpu::simd::{self, Level};

/// What a run ran on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The processor's name, if the system tells.
    pub(crate) processor: Option<String>,
    /// Threads that compute.
    pub(crate) threads: usize,
    /// The widest instruction set that vector code uses.
    pub(crate) instruction_set: String,
    /// The kernel of matrix products.
    pub(crate) matrix_kernel: String,
    /// Main memory in bytes, if the system tells.
    pub(crate) memory_bytes: Option<u64>,
    /// Name and architecture of the system.
    pub(crate) system: String,
    /// Version of this program.
    pub(crate) cupola: String,
}

impl Machine {
    /// This one.
    pub(crate) fn detect() -> Self {
        let level = match simd::level() {
            Level::Baseline => "baseline",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
        };
        Machine {
            processor: field_of(Path::new("/proc/cpuinfo"), "model name"),
            threads: rayon::current_num_threads(),
            instruction_set: level.to_owned(),
            matrix_kernel: Kernel::current().name().to_owned(),
            memory_bytes: memory_bytes(),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            cupola: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

static START: OnceLock<Instant> = OnceLock::new();

/// Remembers that this process begins now.
pub(crate) fn started() {
    START.get_or_init(Instant::now);
}

/// How long this process has run.
pub(crate) fn running_time() -> Duration {
    START.get_or_init(Instant::now).elapsed()
}

fn memory_bytes() -> Option<u64> {
    bytes_in(Path::new("/proc/meminfo"), "MemTotal")
}

/// The most memory that this process has held at once, if the system tells.
pub(crate) fn peak_memory_bytes() -> Option<u64> {
    bytes_in(Path::new("/proc/self/status"), "VmHWM")
}

/// A value that is given in kB.
fn bytes_in(path: &Path, key: &str) -> Option<u64> {
    let kibibytes = field_of(path, key)?;
    Some(kibibytes.trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}

/// The value of the first line `key : value` of a file.
fn field_of(path: &Path, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix(':'))?;
    Some(value.trim().to_owned())
}
