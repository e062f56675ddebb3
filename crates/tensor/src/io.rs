//! Tensors in safetensors files.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo};

use crate::storage::Storage;
use crate::{DType, Device, Error, Tensor};

/// Writes tensors with their names, and free text as metadata, to a safetensors file: all of it or nothing. The file
/// appears under its name only when it is complete and on disk.
///
/// # Errors
/// If the folder cannot be written or the disk is full; then what was there before is untouched.
pub fn save(path: &Path, tensors: &[(String, Tensor)], metadata: HashMap<String, String>) -> Result<(), Error> {
    // Not the `.safetensors` name: a reader of the folder must never take a half-written file for a whole one.
    let temporary = path.with_extension("safetensors.tmp");
    let result = write(&temporary, tensors, metadata)
        .and_then(|()| std::fs::rename(&temporary, path))
        .map_err(|source| Error::Io { action: "write", path: path.to_owned(), source });
    if result.is_err() {
        // Best effort: the error that matters is the one above.
        let _ = std::fs::remove_file(&temporary);
    }
    result
}

fn write(path: &Path, tensors: &[(String, Tensor)], metadata: HashMap<String, String>) -> std::io::Result<()> {
    let mut end = 0;
    let infos = tensors.iter().map(|(name, x)| {
        let start = end;
        end += x.len() * x.dtype().bytes();
        let dtype = match x.dtype() {
            DType::F32 => Dtype::F32,
            DType::Bf16 => Dtype::BF16,
            DType::U32 => Dtype::U32,
        };
        (name.clone(), TensorInfo { dtype, shape: x.shape().to_vec(), data_offsets: (start, end) })
    });
    let header = Metadata::new(Some(metadata), infos.collect()).map_err(std::io::Error::other)?;
    let mut header = serde_json::to_vec(&header)?;
    // The format wants the data aligned to 8 bytes; padding is spaces.
    header.resize(header.len().next_multiple_of(8), b' ');

    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    let mut bytes = Vec::new();
    for (_, x) in tensors {
        for chunk in 0..x.len().div_ceil(CHUNK) {
            let range = chunk * CHUNK..((chunk + 1) * CHUNK).min(x.len());
            bytes.clear();
            match x.dtype() {
                DType::F32 => bytes.extend(x.f32s()[range].iter().flat_map(|x| x.to_le_bytes())),
                DType::Bf16 => bytes.extend(x.bf16s()[range].iter().flat_map(|x| x.to_le_bytes())),
                DType::U32 => bytes.extend(x.u32s()[range].iter().flat_map(|x| x.to_le_bytes())),
            }
            file.write_all(&bytes)?;
        }
    }
    file.into_inner().map_err(|e| e.into_error())?.sync_all()
}

/// Elements converted to bytes at a time.
const CHUNK: usize = 1 << 16;

/// An opened safetensors file, memory-mapped: tensors are copied out one by one.
pub struct SafetensorsFile {
    path: PathBuf,
    mmap: Mmap,
}

impl SafetensorsFile {
    /// Opens a file and checks its header: lengths, offsets, overlaps.
    ///
    /// # Errors
    /// If the file cannot be read or is not a well-formed safetensors file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io { action: "read", path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        #[allow(unsafe_code)]
        // SAFETY: a file that another process changes under the map could change values, not lengths that were
        // checked: the map keeps its size. A truncation by another process raises SIGBUS, as with every mapped file.
        let mmap = unsafe { Mmap::map(&file) }.map_err(io)?;
        let opened = SafetensorsFile { path: path.to_owned(), mmap };
        opened.parse()?;
        Ok(opened)
    }

    fn parse(&self) -> Result<SafeTensors<'_>, Error> {
        let broken = |e: safetensors::SafeTensorError| self.broken(e.to_string());
        SafeTensors::deserialize(&self.mmap).map_err(broken)
    }

    fn broken(&self, reason: String) -> Error {
        Error::Safetensors { path: self.path.clone(), reason }
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> Vec<String> {
        let parsed = self.parse().expect("parsed when opened");
        let mut names: Vec<String> = parsed.names().into_iter().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// The free-text metadata.
    pub fn metadata(&self) -> HashMap<String, String> {
        let (_, metadata) = SafeTensors::read_metadata(&self.mmap).expect("parsed when opened");
        metadata.metadata().clone().unwrap_or_default()
    }

    /// The shape of a tensor, if it is there.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let parsed = self.parse().expect("parsed when opened");
        parsed.tensor(name).ok().map(|view| view.shape().to_vec())
    }

    /// Copies a tensor out. F32, BF16 and U32 keep their dtype; F16 becomes F32.
    ///
    /// # Errors
    /// If there is no such tensor, or its dtype is another.
    pub fn tensor(&self, name: &str) -> Result<Tensor, Error> {
        let parsed = self.parse()?;
        let missing = |_| Error::MissingTensor { path: self.path.clone(), name: name.to_owned() };
        let view = parsed.tensor(name).map_err(missing)?;
        let data = view.data();
        let len = view.shape().iter().product();
        let storage = match view.dtype() {
            Dtype::F32 => storage_of(len, DType::F32, data, f32::from_le_bytes),
            Dtype::U32 => storage_of(len, DType::U32, data, u32::from_le_bytes),
            Dtype::BF16 => storage_of(len, DType::Bf16, data, bf16::from_le_bytes),
            Dtype::F16 => storage_of(len, DType::F32, data, |bytes| f16::from_le_bytes(bytes).to_f32()),
            other => {
                let dtype = format!("{other:?}");
                return Err(Error::Dtype { path: self.path.clone(), name: name.to_owned(), dtype });
            }
        };
        Ok(Tensor::from_elements(view.shape(), storage))
    }

    /// Copies a tensor out as f32, and checks its shape.
    ///
    /// # Errors
    /// See [`SafetensorsFile::tensor`]; also if the shape is not `expected`, or the elements are integers.
    pub fn f32_tensor(&self, name: &str, expected: &[usize]) -> Result<Tensor, Error> {
        if let Some(found) = self.shape(name).filter(|found| found != expected) {
            let expected = expected.to_vec();
            return Err(Error::Shape { path: self.path.clone(), name: name.to_owned(), found, expected });
        }
        match self.tensor(name)? {
            x if x.dtype() == DType::U32 => {
                let dtype = "U32".to_owned();
                Err(Error::Dtype { path: self.path.clone(), name: name.to_owned(), dtype })
            }
            x => Ok(crate::ops::cast(&x, DType::F32)),
        }
    }
}

/// Reads `len` little-endian elements of `N` bytes.
fn storage_of<T: Writable, const N: usize>(
    len: usize,
    dtype: DType,
    data: &[u8],
    read: impl Fn([u8; N]) -> T,
) -> Storage {
    let mut storage = Storage::unspecified(Device::Cpu, len, dtype);
    let (elements, _) = data.as_chunks::<N>();
    for (x, &bytes) in T::slice(&mut storage).iter_mut().zip(elements) {
        *x = read(bytes);
    }
    storage
}

/// Element types that a storage can be filled with.
trait Writable: Sized {
    fn slice(storage: &mut Storage) -> &mut [Self];
}

impl Writable for f32 {
    fn slice(storage: &mut Storage) -> &mut [f32] {
        match storage {
            Storage::F32(x) => x,
            _ => unreachable!("made as f32"),
        }
    }
}

impl Writable for bf16 {
    fn slice(storage: &mut Storage) -> &mut [bf16] {
        match storage {
            Storage::Bf16(x) => x,
            _ => unreachable!("made as bf16"),
        }
    }
}

impl Writable for u32 {
    fn slice(storage: &mut Storage) -> &mut [u32] {
        match storage {
            Storage::U32(x) => x,
            _ => unreachable!("made as u32"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<(String, Tensor)> {
        vec![
            ("b".to_owned(), Tensor::from_f32(&[2, 3], vec![1.0, -2.0, f32::MIN_POSITIVE, 4.0, 5.0, 6.5])),
            ("a".to_owned(), Tensor::from_bf16(&[3], [0.5, 1.5, -3.0].map(bf16::from_f32).to_vec())),
            ("c".to_owned(), Tensor::from_u32(&[1, 2], vec![7, u32::MAX])),
        ]
    }

    #[test]
    fn what_is_saved_comes_back_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        save(&path, &sample(), HashMap::from([("step".to_owned(), "3".to_owned())])).unwrap();
        let file = SafetensorsFile::open(&path).unwrap();
        assert_eq!(file.names(), ["a", "b", "c"]);
        assert_eq!(file.metadata()["step"], "3");
        assert_eq!(file.tensor("b").unwrap().f32s(), sample()[0].1.f32s());
        assert_eq!(file.tensor("a").unwrap().bf16s(), sample()[1].1.bf16s());
        assert_eq!(file.tensor("c").unwrap().u32s(), sample()[2].1.u32s());
        assert_eq!(file.f32_tensor("a", &[3]).unwrap().f32s(), [0.5, 1.5, -3.0]);
    }

    #[test]
    fn a_wrong_shape_and_a_missing_tensor_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        save(&path, &sample(), HashMap::new()).unwrap();
        let file = SafetensorsFile::open(&path).unwrap();
        let message = file.f32_tensor("b", &[3, 2]).unwrap_err().to_string();
        assert!(message.contains("tensor b has shape [2, 3], expected [3, 2]"), "{message}");
        let message = file.f32_tensor("c", &[1, 2]).unwrap_err().to_string();
        assert!(message.contains("tensor c has dtype U32"), "{message}");
        let message = file.tensor("d").unwrap_err().to_string();
        assert!(message.contains("no tensor d"), "{message}");
    }

    #[test]
    fn every_truncation_and_many_flipped_bytes_give_errors_or_tensors_never_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        save(&path, &sample(), HashMap::new()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert!(SafetensorsFile::open(&path).is_err(), "accepted {len} of {} bytes", whole.len());
        }
        for position in 0..whole.len().min(300) {
            let mut damaged = whole.clone();
            damaged[position] ^= 0x55;
            std::fs::write(&path, &damaged).unwrap();
            if let Ok(file) = SafetensorsFile::open(&path) {
                for name in file.names() {
                    let _ = file.tensor(&name);
                }
            }
        }
    }
}
