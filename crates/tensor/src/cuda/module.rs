//! Kernels: CUDA C++ source, compiled by NVRTC to machine code of one device, kept in a folder, launched.
//!
//! Machine code (a cubin), not PTX: PTX of a newer compiler is refused by an older driver.

use std::ffi::{CString, c_char, c_int, c_void};
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use cudarc::driver::{result, sys};
use cudarc::nvrtc;

use super::{Context, Toolkit, driver_error};
use crate::Error;

/// A device architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// Compute capability 9.0, with the instructions of that generation alone (`wgmma`, `setmaxnreg`).
    Sm90a,
    /// Any other, as major · 10 + minor.
    Sm(usize),
}

impl Arch {
    /// The one of a compute capability.
    pub fn of_capability(major: usize, minor: usize) -> Self {
        match (major, minor) {
            (9, 0) => Arch::Sm90a,
            _ => Arch::Sm(10 * major + minor),
        }
    }
}

impl Arch {
    /// What portable kernels must compile for: Ampere, Ada and Hopper.
    pub const PORTABLE: &[Self] = &[Arch::Sm(80), Arch::Sm(89), Arch::Sm90a];
    /// What has matrix products of 8-bit floating-point numbers, and conversions to them.
    pub const FP8: &[Self] = &[Arch::Sm(89), Arch::Sm90a];
    /// For kernels of Hopper's own instructions.
    pub const HOPPER: &[Self] = &[Arch::Sm90a];

    /// Shared memory of a multiprocessor.
    pub(crate) fn shared_bytes(self) -> usize {
        match self {
            Arch::Sm90a | Arch::Sm(90 | 100 | 103) => 228 << 10,
            Arch::Sm(80 | 87) => 164 << 10,
            Arch::Sm(_) => 100 << 10,
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Arch::Sm90a => f.write_str("sm_90a"),
            Arch::Sm(number) => write!(f, "sm_{number}"),
        }
    }
}

/// What is compiled: the parts are joined, the options are NVRTC's (`-DNAME=VALUE`).
#[derive(Clone, Debug)]
pub struct Source {
    /// For messages and file names: letters, digits and underscores.
    pub name: &'static str,
    /// File name and text of each part, in order.
    pub parts: &'static [(&'static str, &'static str)],
    /// Options beside the architecture.
    pub options: Vec<String>,
}

impl Source {
    /// All parts as one text, in which the compiler's messages keep naming files and lines.
    fn text(&self) -> String {
        self.parts.iter().map(|(file, text)| format!("#line 1 \"{file}\"\n{text}\n")).collect()
    }
}

/// Machine code, and what the compiler said.
pub struct Compiled {
    /// A cubin.
    pub code: Vec<u8>,
    /// Empty, unless there are warnings or the source's options ask for a report.
    pub log: String,
}

/// Compiles to machine code. Needs no device.
///
/// # Errors
/// If NVRTC is not found, or with its log if it refuses the source.
pub fn compile(source: &Source, arch: Arch, toolkit: &Toolkit) -> Result<Compiled, Error> {
    nvrtc_version(toolkit)?;
    let text = CString::new(source.text()).expect("kernel sources are text without zeros");
    let mut options = vec![format!("-arch={arch}"), "-std=c++17".to_owned(), "-lineinfo".to_owned()];
    options.extend(source.options.iter().cloned());
    if let Some(folder) = &toolkit.include {
        options.push(format!("-I{}", folder.display()));
    }
    let options: Vec<CString> =
        options.into_iter().map(|x| CString::new(x).expect("options are text without zeros")).collect();
    let options: Vec<*const c_char> = options.iter().map(|x| x.as_ptr()).collect();

    let program = nvrtc::result::create_program(&text, None).map_err(compiler_error(source))?;
    // SAFETY: the program was made above and is destroyed below, on every path; buffers have the sizes asked for.
    unsafe {
        let compiled = nvrtc::sys::nvrtcCompileProgram(program, options.len() as c_int, options.as_ptr()).result();
        let log = nvrtc::result::get_program_log(program).unwrap_or_default();
        let log: Vec<u8> = log.into_iter().map(|x| x as u8).take_while(|&x| x != 0).collect();
        let log = String::from_utf8_lossy(&log).trim_end().to_owned();
        let result = match compiled {
            Ok(()) => cubin(program).map(|code| Compiled { code, log }).map_err(compiler_error(source)),
            Err(error) => Err(Error::Kernel { name: source.name, reason: format!("{error}\n{log}") }),
        };
        let _ = nvrtc::result::destroy_program(program);
        result
    }
}

/// # Safety
/// `program` must have been compiled for a real architecture.
unsafe fn cubin(program: nvrtc::sys::nvrtcProgram) -> Result<Vec<u8>, nvrtc::result::NvrtcError> {
    let mut len = 0;
    // SAFETY: as above; the buffer has the size that NVRTC asks for.
    unsafe {
        nvrtc::sys::nvrtcGetCUBINSize(program, &mut len).result()?;
        let mut code = vec![0u8; len];
        nvrtc::sys::nvrtcGetCUBIN(program, code.as_mut_ptr().cast()).result()?;
        Ok(code)
    }
}

fn compiler_error(source: &Source) -> impl Fn(nvrtc::result::NvrtcError) -> Error {
    let name = source.name;
    move |error| Error::Kernel { name, reason: error.to_string() }
}

/// The compiler's version, once it is loaded.
fn nvrtc_version(toolkit: &Toolkit) -> Result<(c_int, c_int), Error> {
    if !toolkit.load_nvrtc() {
        let reason = "libnvrtc is not installed here; it comes with the CUDA toolkit and with `pip install \
                      nvidia-cuda-nvrtc`";
        return Err(Error::Cuda { action: "load the compiler of kernels", reason: reason.to_owned() });
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library is loaded.
    unsafe { nvrtc::sys::nvrtcVersion(&mut major, &mut minor) }
        .result()
        .map_err(|error| Error::Cuda { action: "ask NVRTC's version", reason: error.to_string() })?;
    Ok((major, minor))
}

/// Loaded machine code.
pub struct Module {
    context: Arc<Context>,
    module: sys::CUmodule,
}

// SAFETY: as for the context.
unsafe impl Send for Module {}
// SAFETY: as for the context.
unsafe impl Sync for Module {}

impl Module {
    /// Takes the machine code from the context's folder, or compiles it and puts it there.
    ///
    /// What does not load from the folder is compiled anew; a folder that cannot be written is no error.
    ///
    /// # Errors
    /// As [`compile`].
    pub fn load(context: &Arc<Context>, source: &Source) -> Result<Arc<Self>, Error> {
        let start = Instant::now();
        context.enter()?;
        let file = match &context.cache {
            Some(folder) => {
                let version = nvrtc_version(&context.toolkit)?;
                Some(folder.join(file_name(source, context.arch, version)))
            }
            None => None,
        };
        if let Some(code) = file.as_deref().and_then(read_checked)
            && let Ok(module) = Self::from_code(context, &code)
        {
            context.spend(|spent| (spent.kernels, spent.n_read) = (spent.kernels + start.elapsed(), spent.n_read + 1));
            return Ok(module);
        }
        let Compiled { code, .. } = compile(source, context.arch, &context.toolkit)?;
        if let Some(file) = &file {
            let _ = write_checked(file, &code);
        }
        let module = Self::from_code(context, &code)?;
        context
            .spend(|spent| (spent.kernels, spent.n_compiled) = (spent.kernels + start.elapsed(), spent.n_compiled + 1));
        Ok(module)
    }

    fn from_code(context: &Arc<Context>, code: &[u8]) -> Result<Arc<Self>, Error> {
        // SAFETY: the driver reads the length from the image itself, which comes from the compiler or from a file
        // whose checksum held.
        let module =
            unsafe { result::module::load_data(code.as_ptr().cast()) }.map_err(driver_error("load kernels"))?;
        Ok(Arc::new(Self { context: context.clone(), module }))
    }

    /// The kernel of that name, allowed to use `shared_bytes` of dynamic shared memory.
    ///
    /// # Errors
    /// If there is no such kernel, or the device has less shared memory.
    pub fn kernel(self: &Arc<Self>, name: &str, shared_bytes: usize) -> Result<Kernel, Error> {
        self.context.enter()?;
        let symbol = CString::new(name).expect("kernel names are text without zeros");
        // SAFETY: the module is loaded.
        let function =
            unsafe { result::module::get_function(self.module, symbol) }.map_err(driver_error("find a kernel"))?;
        let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function was found above.
        let allowed = unsafe { result::function::get_function_attribute(function, attribute) }
            .map_err(driver_error("ask for a kernel's shared memory"))?;
        // The function is one, however many kernels are made of it: what an earlier one may use stays allowed.
        let allowed = (shared_bytes as i32).max(allowed);
        // SAFETY: as above.
        unsafe { result::function::set_function_attribute(function, attribute, allowed) }
            .map_err(driver_error("reserve shared memory"))?;
        Ok(Kernel { module: self.clone(), function, shared_bytes })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: loaded in this context; kernels hold an `Arc` of this value.
            unsafe {
                let _ = result::module::unload(self.module);
            }
        }
    }
}

/// A function of a module, ready to be launched.
pub struct Kernel {
    module: Arc<Module>,
    function: sys::CUfunction,
    shared_bytes: usize,
}

// SAFETY: as for the context.
unsafe impl Send for Kernel {}
// SAFETY: as for the context.
unsafe impl Sync for Kernel {}

impl Kernel {
    /// Asks for the kernel to be run after all work asked for before.
    ///
    /// # Safety
    /// `arguments` point to values of the types and in the order of the kernel's parameters, and the kernel stays within
    /// the memory that they name.
    ///
    /// # Errors
    /// If the launch is refused.
    pub unsafe fn launch(&self, grid: [usize; 3], threads: usize, arguments: &[*const c_void]) -> Result<(), Error> {
        let context = &self.module.context;
        context.enter()?;
        let mut arguments: Vec<*mut c_void> = arguments.iter().map(|x| x.cast_mut()).collect();
        let grid = (grid[0] as u32, grid[1] as u32, grid[2] as u32);
        // SAFETY: promised by the caller; the driver copies the arguments before it returns.
        unsafe {
            result::launch_kernel(
                self.function,
                grid,
                (threads as u32, 1, 1),
                self.shared_bytes as u32,
                context.stream,
                &mut arguments,
            )
        }
        .map_err(driver_error("launch a kernel"))
    }
}

// ---- the folder of compiled kernels: a file is its checksum, then the code ----

/// FNV-1a: no cryptography, only a name that changes whenever the code would.
fn hash(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.iter().copied().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

fn file_name(source: &Source, arch: Arch, (major, minor): (c_int, c_int)) -> String {
    let key = hash(&[source.text().as_bytes(), source.options.join("\n").as_bytes()]);
    format!("{}-{arch}-nvrtc{major}.{minor}-{key:016x}.cubin", source.name)
}

/// The code, unless the file is missing, cut short or damaged.
fn read_checked(file: &Path) -> Option<Vec<u8>> {
    let bytes = std::fs::read(file).ok()?;
    let (checksum, code) = bytes.split_first_chunk::<8>()?;
    (*checksum == hash(&[code]).to_le_bytes() && !code.is_empty()).then(|| code.to_vec())
}

fn write_checked(file: &Path, code: &[u8]) -> std::io::Result<()> {
    let folder = file.parent().expect("a file in a folder");
    std::fs::create_dir_all(folder)?;
    // Several processes may compile the same kernel: each writes its own file, the last rename stays.
    let temporary: PathBuf = folder.join(format!(".{}-{:016x}.tmp", std::process::id(), hash(&[code])));
    let mut out = std::fs::File::create(&temporary)?;
    out.write_all(&hash(&[code]).to_le_bytes())?;
    out.write_all(code)?;
    out.sync_all()?;
    std::fs::rename(&temporary, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &'static [(&'static str, &'static str)], options: &[&str]) -> Source {
        Source { name: "kernel", parts: text, options: options.iter().map(|&x| x.to_owned()).collect() }
    }

    #[test]
    fn kept_code_is_read_back_unless_it_is_damaged() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("kernels/kernel.cubin");
        assert_eq!(read_checked(&file), None);
        write_checked(&file, b"code").expect("written");
        assert_eq!(read_checked(&file).as_deref(), Some(b"code".as_slice()));

        let whole = std::fs::read(&file).expect("read");
        for damaged in
            [&whole[..0], &whole[..5], &whole[..8], &whole[..whole.len() - 1], &[whole.clone(), vec![0]].concat()]
        {
            std::fs::write(&file, damaged).expect("written");
            assert_eq!(read_checked(&file), None, "{damaged:?}");
        }
        write_checked(&file, b"code").expect("written over the damage");
        assert_eq!(read_checked(&file).as_deref(), Some(b"code".as_slice()));
        let left: Vec<_> = std::fs::read_dir(file.parent().expect("a folder")).expect("listed").collect();
        assert_eq!(left.len(), 1, "no temporary file stays");
    }

    #[test]
    fn names_of_kept_code_tell_sources_options_devices_and_compilers_apart() {
        let a = source(&[("a.cu", "int x;")], &["-DN=1"]);
        let names = [
            file_name(&a, Arch::Sm90a, (13, 0)),
            file_name(&a, Arch::Sm(90), (13, 0)),
            file_name(&a, Arch::Sm90a, (13, 1)),
            file_name(&source(&[("a.cu", "int y;")], &["-DN=1"]), Arch::Sm90a, (13, 0)),
            file_name(&source(&[("a.cu", "int x;")], &["-DN=2"]), Arch::Sm90a, (13, 0)),
            file_name(&source(&[("a.cu", "int x;")], &["-DN=", "1"]), Arch::Sm90a, (13, 0)),
        ];
        assert_eq!(names.iter().collect::<std::collections::HashSet<_>>().len(), names.len());
        assert_eq!(names[0], file_name(&a, Arch::Sm90a, (13, 0)));
    }
}
