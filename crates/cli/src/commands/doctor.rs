//! `cupola doctor`: what this machine offers, and what is missing for more.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tensor::cuda::{self, Toolkit};
use tensor::{DType, Device};
use train::ceiling::matrix_product_rate;

use crate::cuda_paths;
use crate::machine::Machine;
use crate::ui;
use crate::ui::units::{bytes, with_unit};

const EXAMPLES: &str = "\
EXAMPLES:
  cupola doctor
  cupola doctor --json

With --json: machine, available_memory_bytes, matrix_product_flops_per_second, gpus (device, name, memory),
driver_cuda_version, libraries (name, path or null), devices (those that can be computed on), advice.";

/// The driver.
const DRIVER: [&str; 1] = ["libcuda.so.1"];
/// Communication between GPUs, which several of them will need.
const NCCL: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

/// Folders in which libraries lie on the systems that have them, beside those where CUDA is looked for.
const LIBRARY_FOLDERS: [&str; 6] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/lib/wsl/lib",
    "/usr/local/nvidia/lib64",
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
    gpus: Vec<Gpu>,
    /// Of CUDA, that the driver supports.
    driver_cuda_version: Option<String>,
    libraries: Vec<Library>,
    devices: Vec<String>,
    advice: Vec<String>,
}

#[derive(Serialize)]
struct Gpu {
    device: String,
    name: String,
    free_memory_bytes: usize,
    total_memory_bytes: usize,
}

#[derive(Serialize)]
struct Library {
    name: &'static str,
    path: Option<PathBuf>,
}

impl Doctor {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let machine = Machine::detect();
        let roots = cuda_paths::roots();
        let toolkit = Toolkit::find(&roots);
        let folders: Vec<PathBuf> = roots.into_iter().chain(LIBRARY_FOLDERS.map(PathBuf::from)).collect();
        let library = |name, path| Library { name, path };
        let driver = cuda::driver();
        let n_devices = driver.as_ref().map_or(0, |driver| driver.n_devices);
        let opened: Vec<Result<Gpu, tensor::Error>> = (0..n_devices).map(gpu).collect();
        let advice = advice(&machine, &driver, &toolkit, &opened);
        let gpus: Vec<Gpu> = opened.into_iter().flatten().collect();
        let output = Output {
            available_memory_bytes: Device::Cpu.available_memory(),
            matrix_product_flops_per_second: matrix_product_rate(Device::Cpu, DType::F32, Duration::from_millis(500))?,
            advice,
            machine,
            driver_cuda_version: driver
                .ok()
                .map(|driver| format!("{}.{}", driver.cuda_version.0, driver.cuda_version.1)),
            libraries: vec![
                library("CUDA driver (libcuda)", find(&DRIVER, &folders)),
                library("run-time compiler (libnvrtc)", toolkit.nvrtc),
                library("matrix products (libcublasLt)", toolkit.cublas_lt),
                library("GPU communication (libnccl)", find(&NCCL, &folders)),
                library("compiled kernels are kept in", cuda_paths::kernel_folder()),
            ],
            devices: ["cpu".to_owned()].into_iter().chain(gpus.iter().map(|gpu| gpu.device.clone())).collect(),
            gpus,
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
    if output.gpus.is_empty() {
        pairs.push(pair("GPU", "none that can be used".to_owned()));
    }
    for Gpu { device, name, free_memory_bytes, total_memory_bytes } in &output.gpus {
        let memory = [free_memory_bytes, total_memory_bytes].map(|&n| bytes(n as u64));
        pairs.push(pair(device, format!("{name}, {} of {} free", memory[0], memory[1])));
    }
    pairs.extend(output.driver_cuda_version.iter().map(|version| pair("driver", format!("supports CUDA {version}"))));
    for Library { name, path } in &output.libraries {
        let path = path.as_ref().map_or("not found".to_owned(), |path| path.display().to_string());
        pairs.push(pair(name, path));
    }
    pairs.push(pair("devices", output.devices.join(", ")));
    let advice: String = output.advice.iter().map(|line| format!("- {line}\n")).collect();
    format!("{}\n{advice}", ui::pairs(&pairs))
}

/// The least that the driver must support: NVRTC and cuBLASLt of CUDA 12 are loaded as well as those of 13.
const LEAST_CUDA: (usize, usize) = (12, 0);

fn advice(
    machine: &Machine,
    driver: &Result<cuda::Driver, tensor::Error>,
    toolkit: &Toolkit,
    gpus: &[Result<Gpu, tensor::Error>],
) -> Vec<String> {
    let mut advice = Vec::new();
    match driver {
        Err(error) => advice.push(first_line(error)),
        Ok(driver) if driver.n_devices == 0 => advice.push("the NVIDIA driver sees no GPU".to_owned()),
        Ok(driver) => {
            if driver.cuda_version < LEAST_CUDA {
                let (major, minor) = LEAST_CUDA;
                advice
                    .push(format!("the NVIDIA driver is too old: it must support CUDA {major}.{minor} (525 or newer)"));
            }
            for (library, wheel, path) in [
                ("libnvrtc", "nvidia-cuda-nvrtc", &toolkit.nvrtc),
                ("libcublasLt", "nvidia-cublas", &toolkit.cublas_lt),
            ] {
                if path.is_none() {
                    advice.push(format!(
                        "{library} was not found: install the CUDA toolkit, or `pip install {wheel}`, and name the folder of \
                         either in CUPOLA_CUDA if it is not found by itself"
                    ));
                }
            }
        }
    }
    advice.extend(gpus.iter().filter_map(|gpu| gpu.as_ref().err()).map(first_line));
    if machine.matrix_kernel == "portable" {
        advice.push("without AVX2 or AVX-512, matrix products are many times slower".to_owned());
    }
    if cfg!(debug_assertions) {
        advice.push("this is a debug build: `cargo build --release` makes a faster one".to_owned());
    }
    advice
}

/// An error without its hint, which would repeat that there is a CPU.
fn first_line(error: &tensor::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

fn gpu(ordinal: usize) -> Result<Gpu, tensor::Error> {
    let context = cuda::context(ordinal)?;
    let (free_memory_bytes, total_memory_bytes) = context.free_and_total_memory()?;
    Ok(Gpu { device: format!("cuda:{ordinal}"), name: context.name(), free_memory_bytes, total_memory_bytes })
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
}
