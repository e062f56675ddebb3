//! Where the compiler of kernels, the library of matrix products and CUDA's headers are.

use std::path::{Path, PathBuf};

/// Folders of an installed toolkit, or of the wheels `nvidia-cuda-nvrtc`, `nvidia-cublas` and `nvidia-cuda-runtime`.
#[derive(Clone, Debug, Default)]
pub struct Toolkit {
    /// The folder of `libnvrtc`; if none was found, the loader's own search is left to find it.
    pub nvrtc: Option<PathBuf>,
    /// The folder of `libcublasLt`; as above.
    pub cublas_lt: Option<PathBuf>,
    /// The folder of `cuda_bf16.h`. Kernels that include nothing do without.
    pub include: Option<PathBuf>,
}

/// Below a toolkit's root, a virtual environment's `site-packages`, or an unpacked wheel.
const LIBRARY_FOLDERS: [&str; 7] =
    ["lib64", "lib", "targets/x86_64-linux/lib", "nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib", "nvidia/cublas/lib", ""];
const INCLUDE_FOLDERS: [&str; 5] =
    ["include", "targets/x86_64-linux/include", "nvidia/cu13/include", "nvidia/cuda_runtime/include", ""];
const USUAL_ROOTS: [&str; 3] = ["/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda"];

impl Toolkit {
    /// Looks below `roots` in their order, then where toolkits are usually installed.
    pub fn find(roots: &[PathBuf]) -> Self {
        let all = || roots.iter().map(PathBuf::as_path).chain(USUAL_ROOTS.iter().map(Path::new));
        let first = |folders: &[&str], is: fn(&Path) -> bool| {
            all().flat_map(|root| folders.iter().map(move |folder| root.join(folder))).find(|folder| is(folder))
        };
        Self {
            nvrtc: first(&LIBRARY_FOLDERS, |folder| library(folder, "libnvrtc.so").is_some()),
            cublas_lt: first(&LIBRARY_FOLDERS, |folder| library(folder, "libcublasLt.so").is_some()),
            include: first(&INCLUDE_FOLDERS, |folder| folder.join("cuda_bf16.h").is_file()),
        }
    }

    /// Loads `libnvrtc`, so that the search by name which cudarc makes finds it; `false` if there is none.
    pub(super) fn load_nvrtc(&self) -> bool {
        // The second is opened by the first, by name alone.
        load(self.nvrtc.as_deref(), &["libnvrtc-builtins.so", "libnvrtc.so"]);
        // SAFETY: NVIDIA's libraries have no initialisers that depend on this program.
        unsafe { cudarc::nvrtc::sys::is_culib_present() }
    }

    /// The same for `libcublasLt`.
    pub(super) fn load_cublas_lt(&self) -> bool {
        load(self.cublas_lt.as_deref(), &["libcublasLt.so"]);
        // SAFETY: as above.
        unsafe { cudarc::cublaslt::sys::is_culib_present() }
    }
}

/// Loads libraries of a folder for good: the driver keeps pointers into them.
fn load(folder: Option<&Path>, names: &[&str]) {
    for path in names.iter().filter_map(|name| library(folder?, name)) {
        // SAFETY: NVIDIA's libraries have no initialisers that depend on this program.
        if let Ok(library) = unsafe { libloading::Library::new(path) } {
            std::mem::forget(library);
        }
    }
}

/// The library of that name in the folder, with the shortest version behind its name: `libnvrtc.so.13`, not
/// `libnvrtc.alt.so.13`.
fn library(folder: &Path, name: &str) -> Option<PathBuf> {
    let files = std::fs::read_dir(folder).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    let matching = files.filter(|path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name)));
    matching.min_by_key(|path| path.as_os_str().len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wheels_are_found_below_the_folder_given() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let folder = root.path().join("nvidia/cu13");
        let libraries = ["libnvrtc.so.13", "libnvrtc.alt.so.13", "libcublasLt.so.13"].map(|file| ("lib", file));
        for (sub, file) in libraries.into_iter().chain([("include", "cuda_bf16.h")]) {
            std::fs::create_dir_all(folder.join(sub)).expect("a folder");
            std::fs::write(folder.join(sub).join(file), "").expect("a file");
        }
        let toolkit = Toolkit::find(&[root.path().to_owned()]);
        assert_eq!(toolkit.nvrtc, Some(folder.join("lib")));
        assert_eq!(toolkit.cublas_lt, Some(folder.join("lib")));
        assert_eq!(toolkit.include, Some(folder.join("include")));
        assert_eq!(library(&folder.join("lib"), "libnvrtc.so"), Some(folder.join("lib/libnvrtc.so.13")));
    }
}
