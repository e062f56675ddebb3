//! Every kernel compiles for every architecture that it is for, on a machine without a GPU.
//!
//! NVRTC is looked for below the folder `CUPOLA_NVRTC` (a toolkit, a `site-packages`, or unpacked wheels `nvidia-cuda-nvrtc`
//! and `nvidia-cuda-runtime`) and where toolkits usually are; without one the tests say that they were skipped. With the
//! variable set, NVRTC must be there.

use std::path::PathBuf;

use tensor::cuda::{Arch, Source, Toolkit, compile, sources};

fn toolkit() -> Option<Toolkit> {
    let root = std::env::var_os("CUPOLA_NVRTC").map(PathBuf::from);
    let toolkit = Toolkit::find(root.as_slice());
    if toolkit.nvrtc.is_some() {
        return Some(toolkit);
    }
    assert!(root.is_none(), "CUPOLA_NVRTC is {root:?}, but there is no libnvrtc below it");
    eprintln!("skipped: no libnvrtc; set CUPOLA_NVRTC to the folder of the wheels nvidia-cuda-nvrtc and -runtime");
    None
}

/// The compiler falls back to one product at a time where it cannot prove that registers are left alone, and only
/// mentions it. Half of the speed would be lost.
#[test]
fn every_kernel_compiles_without_serialised_products() {
    let Some(toolkit) = toolkit() else { return };
    for (mut source, arches) in sources() {
        // Code from the compiler's own cache would come without a report.
        source.options.extend(["--ptxas-options=-v", "--no-cache"].map(str::to_owned));
        for &arch in arches {
            let compiled = compile(&source, arch, &toolkit).unwrap_or_else(|error| panic!("{arch}: {error}"));
            let what = format!("{} {:?} for {arch}", source.name, source.options);
            assert!(compiled.code.starts_with(b"\x7fELF"), "{what} is no machine code");
            assert!(compiled.log.contains("registers"), "{what} has no report:\n{}", compiled.log);
            assert!(!compiled.log.contains("Potential Performance Loss"), "{what}:\n{}", compiled.log);
        }
    }
}

#[test]
fn an_error_shows_the_compilers_log_with_file_and_line() {
    let Some(toolkit) = toolkit() else { return };
    let parts = &[("good.cuh", "int good;\n"), ("bad.cu", "\n__global__ void kernel() { wrong(); }")];
    let source = Source { name: "bad", parts, options: Vec::new() };
    let error = compile(&source, Arch::Sm(80), &toolkit).err().expect("an undefined function").to_string();
    assert!(error.starts_with("cannot compile the kernel bad: "), "{error}");
    assert!(error.contains("bad.cu(2): error: identifier \"wrong\" is undefined"), "{error}");
}
