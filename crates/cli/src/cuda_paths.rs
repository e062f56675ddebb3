//! Where people have CUDA's libraries, and where compiled kernels are kept.

use std::path::{Path, PathBuf};

use tensor::cuda::{self, Toolkit};

/// Tells the GPU part where to look, before a device is opened.
pub(crate) fn configure() {
    cuda::configure(Toolkit::find(&roots()), kernel_folder());
}

/// Folders below which a toolkit or NVIDIA's wheels may be, the most deliberate first: what the user names, the active
/// Python environment, the loader's path, the user's and the system's Python packages.
pub(crate) fn roots() -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let mut roots: Vec<PathBuf> = ["CUPOLA_CUDA", "CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(variable).collect();
    for environment in ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(variable) {
        roots.extend(python_packages(&environment.join("lib")));
        roots.push(environment);
    }
    let path = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    roots.extend(std::env::split_paths(&path).filter(|folder| !folder.as_os_str().is_empty()));
    roots.extend(variable("HOME").into_iter().flat_map(|home| python_packages(&home.join(".local/lib"))));
    roots.extend(["/usr/local/lib", "/usr/lib"].into_iter().flat_map(|lib| python_packages(Path::new(lib))));
    roots
}

/// `python3*/site-packages` and `dist-packages` in a folder of libraries.
fn python_packages(lib: &Path) -> Vec<PathBuf> {
    let pythons = std::fs::read_dir(lib).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut pythons: Vec<PathBuf> = pythons
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python3")))
        .collect();
    pythons.sort();
    let packages = ["site-packages", "dist-packages"];
    pythons.iter().flat_map(|python| packages.map(|name| python.join(name))).filter(|path| path.is_dir()).collect()
}

/// The user's cache folder for this program, if there is one.
pub(crate) fn kernel_folder() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))?;
    Some(cache.join("cupola/kernels"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_of_every_python_are_found() {
        let lib = tempfile::tempdir().unwrap();
        for folder in ["python3.12/site-packages", "python3/dist-packages", "ruby/site-packages", "python3.13"] {
            std::fs::create_dir_all(lib.path().join(folder)).unwrap();
        }
        let expected = ["python3/dist-packages", "python3.12/site-packages"].map(|folder| lib.path().join(folder));
        assert_eq!(python_packages(lib.path()), expected);
    }
}
