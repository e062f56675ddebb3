//! The folder of a run and what lies where in it.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::{Error, whole_file};

/// A run's folder. Its final weights lie at the top, in the layout of Hugging Face.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
}

/// Held while a process trains in a folder; released when dropped, or when the process dies.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl RunFolder {
    /// The folder at `path`, which need not exist yet.
    pub fn new(path: &Path) -> Self {
        RunFolder { path: path.to_owned() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The effective config: every key written out, everything automatic chosen.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// The tokenizer in the format of Hugging Face.
    pub fn tokenizer(&self) -> PathBuf {
        self.path.join("tokenizer.json")
    }

    /// How `transformers` is to take the tokenizer.
    pub fn tokenizer_config(&self) -> PathBuf {
        self.path.join("tokenizer_config.json")
    }

    /// Token shards of the training text, if the run made them.
    pub fn train_shards(&self) -> PathBuf {
        self.path.join("data").join("train")
    }

    /// Token shards of the held-out text, if the run made them.
    pub fn validation_shards(&self) -> PathBuf {
        self.path.join("data").join("validation")
    }

    /// One JSON object per step.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// Which algorithms a GPU's matrix products use; there once the first step is made on one.
    pub fn matmul_choices(&self) -> PathBuf {
        self.path.join("matmul_choices.txt")
    }

    /// Event files for TensorBoard.
    pub fn tensorboard(&self) -> PathBuf {
        self.path.join("tensorboard")
    }

    /// One folder per checkpoint.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// The report for people.
    pub fn report(&self) -> PathBuf {
        self.path.join("report.html")
    }

    /// The final weights; there once the run is finished.
    pub fn weights(&self) -> PathBuf {
        self.path.join("model.safetensors")
    }

    /// What came out, for programs; there once the run is finished.
    pub fn summary(&self) -> PathBuf {
        self.path.join("summary.json")
    }

    /// Whether a run was started here.
    pub fn is_started(&self) -> bool {
        self.config().is_file()
    }

    /// Whether the run came to its end.
    pub fn is_finished(&self) -> bool {
        self.summary().is_file() && self.weights().is_file()
    }

    /// Makes the folder if needed, and makes sure that this process is the only one that trains in it.
    ///
    /// # Errors
    /// If the folder cannot be made or written, or another process trains in it.
    pub fn lock(&self) -> Result<FolderLock, Error> {
        let io = |source| Error::Io { action: "write to", path: self.path.clone(), source };
        fs::create_dir_all(&self.path).map_err(io)?;
        let path = self.path.join("lock");
        let file = File::create(&path).map_err(|source| Error::Io { action: "write", path, source })?;
        match file.try_lock() {
            Ok(()) => Ok(FolderLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::Busy { path: self.path.clone() }),
            Err(TryLockError::Error(source)) => Err(io(source)),
        }
    }
}

/// Writes a file whole or not at all.
///
/// # Errors
/// If the folder cannot be written or the disk is full; what was there before stays.
pub fn write_whole(path: &Path, content: &[u8]) -> Result<(), Error> {
    whole_file::replace(path, content).map_err(|source| Error::Io { action: "write", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_trained_in_is_refused_until_it_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::new(&folder.path().join("run"));
        let lock = run.lock().unwrap();
        assert!(run.lock().unwrap_err().to_string().contains("another process"));
        drop(lock);
        run.lock().unwrap();
    }
}
