//! `cupola doctor`: what this machine offers, and what is missing for more.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use tensor::Device;
use train::ceiling::matrix_product_rate;

use crate::machine::Machine;
use crate::ui;
use crate::ui::units::{bytes, with_unit};

const EXAMPLES: &str = "\
EXAMPLES:
  cupola doctor
  cupola doctor --json

With --json: machine, available_memory_bytes, matrix_product_flops_per_second, gpus, libraries (name, path or null),
devices (those that this version computes on), advice.";

/// Folders in which CUDA libraries lie on the systems that have them.
const LIBRARY_FOLDERS: [&str; 9] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/lib/wsl/lib",
    "/usr/local/cuda/lib64",
    "/usr/local/nvidia/lib64",
    "/usr/local/lib",
    "/opt/cuda/lib64",
];

/// Libraries of a GPU, by what they do.
const LIBRARIES: [(&str, &[&str]); 4] = [
    ("CUDA driver (libcuda)", &["libcuda.so.1"]),
    ("run-time compiler (libnvrtc)", &["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"]),
    ("matrix products (libcublasLt)", &["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"]),
    ("GPU communication (libnccl)", &["libnccl.so.2", "libnccl.so"]),
];

/// Say what this machine offers, and what is missing for more
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Doctor {
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Output {
    machine: Machine,
    available_memory_bytes: Option<usize>,
    matrix_product_flops_per_second: f64,
    gpus: Vec<String>,
    libraries: Vec<Library>,
    devices: [&'static str; 1],
    advice: Vec<String>,
}

#[derive(Serialize)]
struct Library {
    name: &'static str,
    path: Option<PathBuf>,
}

impl Doctor {
    pub(super) fn run(self) -> Result<()> {
        let machine = Machine::detect();
        let gpus = gpus(Path::new("/proc/driver/nvidia/gpus"));
        let folders = library_folders();
        let libraries: Vec<Library> =
            LIBRARIES.iter().map(|&(name, files)| Library { name, path: find(files, &folders) }).collect();
        let output = Output {
            available_memory_bytes: Device::Cpu.available_memory(),
            matrix_product_flops_per_second: matrix_product_rate(Duration::from_millis(500)),
            advice: advice(&machine, !gpus.is_empty()),
            machine,
            gpus,
            libraries,
            devices: ["cpu"],
        };
        ui::print_result(self.json, &output, &|| text(&output))
    }
}

fn text(output: &Output) -> String {
    let pair = |name: &str, value: String| (name.to_owned(), value);
    let mut pairs = output.machine.pairs();
    pairs.extend(output.available_memory_bytes.map(|n| pair("free memory", bytes(n as u64))));
    let rate = with_unit(output.matrix_product_flops_per_second, "FLOP/s");
    pairs.push(pair("matrix products", format!("{rate} measured in f32, all threads")));
    let gpus = if output.gpus.is_empty() { "none found".to_owned() } else { output.gpus.join(", ") };
    pairs.push(pair("GPU", gpus));
    for Library { name, path } in &output.libraries {
        let path = path.as_ref().map_or("not found".to_owned(), |path| path.display().to_string());
        pairs.push(pair(name, path));
    }
    pairs.push(pair("devices", output.devices.join(", ")));
    let advice: String = output.advice.iter().map(|line| format!("- {line}\n")).collect();
    format!("{}\n{advice}", ui::pairs(&pairs))
}

fn advice(machine: &Machine, has_gpu: bool) -> Vec<String> {
    let mut advice = vec![match has_gpu {
        true => "this version computes on the CPU only: the GPU is left alone".to_owned(),
        false => "this version computes on the CPU only, so nothing is missing for it".to_owned(),
    }];
    if machine.matrix_kernel == "portable" {
        advice.push("without AVX2 or AVX-512, matrix products are many times slower".to_owned());
    }
    if cfg!(debug_assertions) {
        advice.push("this is a debug build: `cargo build --release` makes a faster one".to_owned());
    }
    advice
}

/// The names of NVIDIA's GPUs, as their driver tells them.
fn gpus(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| {
        let text = std::fs::read_to_string(entry.path().join("information")).ok()?;
        let model = text.lines().find_map(|line| line.strip_prefix("Model:"))?;
        Some(model.trim().to_owned())
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// Where the loader looks first, then the usual places.
fn library_folders() -> Vec<PathBuf> {
    let path = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(LIBRARY_FOLDERS.map(PathBuf::from)).collect()
}

fn find(files: &[&str], folders: &[PathBuf]) -> Option<PathBuf> {
    folders.iter().flat_map(|folder| files.iter().map(|file| folder.join(file))).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_found_in_the_first_folder_that_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
        for folder in [&a, &b] {
            std::fs::create_dir(folder).unwrap();
        }
        let folders = [a.clone(), b.clone()];
        assert_eq!(find(&["libx.so.1"], &folders), None);
        std::fs::write(b.join("libx.so.1"), "").unwrap();
        assert_eq!(find(&["libx.so.2", "libx.so.1"], &folders), Some(b.join("libx.so.1")));
        std::fs::write(a.join("libx.so.1"), "").unwrap();
        assert_eq!(find(&["libx.so.1"], &folders), Some(a.join("libx.so.1")));
    }

    #[test]
    fn names_of_gpus_are_those_the_driver_tells() {
        let folder = tempfile::tempdir().unwrap();
        assert!(gpus(folder.path()).is_empty());
        let gpu = folder.path().join("0000:01:00.0");
        std::fs::create_dir(&gpu).unwrap();
        std::fs::write(gpu.join("information"), "Model: \t NVIDIA H100\nIRQ: 1\n").unwrap();
        assert_eq!(gpus(folder.path()), ["NVIDIA H100"]);
    }
}
