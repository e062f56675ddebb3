//! Where tensors live and operations run.

use std::fmt;

use crate::{Error, cuda};

/// A place for tensors. A closed list: an operation matches on it once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The processor and its memory.
    Cpu,
    /// An NVIDIA GPU, by its number.
    Cuda(usize),
}

impl Device {
    /// The device of a name: `cpu`, `cuda` or `cuda:0`, `cuda:1`, …, or `auto` for the first GPU if one can be used and
    /// the CPU otherwise. A GPU is opened, so that one that cannot be used is found out here.
    ///
    /// # Errors
    /// If the device does not exist on this machine, or the name is unknown.
    pub fn from_name(name: &str) -> Result<Self, Error> {
        let number = match name {
            "cpu" => return Ok(Device::Cpu),
            "auto" => return Ok(cuda::context(0).map_or(Device::Cpu, |_| Device::Cuda(0))),
            "cuda" => Some(0),
            _ => name.strip_prefix("cuda:").and_then(|number| number.parse().ok()),
        };
        let Some(number) = number else { return Err(no_device(name, "known are auto, cpu, cuda:0, cuda:1, …")) };
        cuda::context(number).map(|_| Device::Cuda(number))
    }

    /// Bytes of memory that a new program could use, if the system says.
    pub fn available_memory(self) -> Option<usize> {
        match self {
            // Linux: what can be had without swapping, caches of files included.
            Device::Cpu => {
                let text = std::fs::read_to_string("/proc/meminfo").ok()?;
                let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
                let kibibytes: usize = line.trim().trim_end_matches("kB").trim().parse().ok()?;
                Some(kibibytes * 1024)
            }
            Device::Cuda(number) => {
                let context = cuda::context(number).ok()?;
                let waiting = context.memory().waiting;
                context.free_and_total_memory().ok().map(|(free, _)| free + waiting)
            }
        }
    }
}

fn no_device(name: &str, reason: &str) -> Error {
    Error::NoDevice { name: name.to_owned(), reason: reason.to_owned() }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}
