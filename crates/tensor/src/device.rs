//! Where tensors live and operations run.

use std::fmt;

use crate::Error;

/// A place for tensors. A closed list: an operation matches on it once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The processor and its memory.
    Cpu,
}

impl Device {
    /// The device of a name: `cpu`, or `auto` for the fastest one that is there.
    ///
    /// # Errors
    /// If the device does not exist on this machine or in this version, or the name is unknown.
    pub fn from_name(name: &str) -> Result<Self, Error> {
        match name {
            "cpu" | "auto" => Ok(Device::Cpu),
            _ if name == "cuda" || name.starts_with("cuda:") => {
                Err(no_device(name, "this version computes on the CPU only"))
            }
            _ => Err(no_device(name, "known are auto and cpu")),
        }
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
        }
    }
}
