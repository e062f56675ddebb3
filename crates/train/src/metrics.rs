//! `metrics.jsonl`: one JSON object per step, safe against being killed at any moment.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use crate::whole_file;

#[cfg(test)]
mod tests;

/// What is known about one training step.
///
/// Numbers that are not finite are written as `null` and read back as NaN.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Index of the step, counted from 0.
    pub step: u64,
    /// Training tokens seen so far, those of this step included.
    pub tokens: u64,
    /// Training time so far in seconds, earlier parts of a resumed run included.
    #[serde(deserialize_with = "null_as_nan")]
    pub elapsed_seconds: f64,
    /// Training loss of the step's batch, nats per token, before the update.
    #[serde(deserialize_with = "null_as_nan")]
    pub loss: f64,
    /// Global L2 norm of the gradient, before clipping.
    #[serde(deserialize_with = "null_as_nan")]
    pub grad_norm: f64,
    /// Learning rate of the update.
    #[serde(deserialize_with = "null_as_nan")]
    pub learning_rate: f64,
    /// Training tokens per second over this step.
    #[serde(deserialize_with = "null_as_nan")]
    pub tokens_per_second: f64,
    /// Model FLOPs utilisation in 0..=1, where the peak of the device is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mfu: Option<f64>,
    /// The most memory that the process has taken from its GPU at once so far, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_memory_bytes: Option<usize>,
    /// Held-out loss, at the steps where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
}

/// Loss on held-out text, with the weights that the step's update left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Nats per token.
    #[serde(deserialize_with = "null_as_nan")]
    pub loss: f64,
    /// Bits per byte of the text, where the bytes behind the tokens are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits_per_byte: Option<f64>,
}

/// A metrics file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The file cannot be opened or read.
    #[error("cannot read the metrics in {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file cannot be created, extended or replaced.
    #[error("cannot write the metrics to {path}\nhint: check free space and permissions, then resume the run")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A complete line is not a record.
    #[error("{path}, line {line} is not a metrics record\nhint: delete the line, or move the file away")]
    BadLine {
        /// The file.
        path: PathBuf,
        /// Number of the line, counted from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// Appends records to a `metrics.jsonl`, each written out at once.
#[derive(Debug)]
pub struct MetricsWriter {
    path: PathBuf,
    file: File,
}

impl MetricsWriter {
    /// Opens `path` for more records and creates it if it is missing; a torn last line is removed.
    ///
    /// # Errors
    /// If the file cannot be read or written, or holds something else than records.
    pub fn append(path: &Path) -> Result<Self, MetricsError> {
        Self::resume(path, u64::MAX)
    }

    /// Opens `path` for the records of step `from_step` and later.
    ///
    /// Records of those steps that an earlier part of the run left behind are dropped together with a
    /// torn last line, so that a run that was killed and resumed has every step once. The file is
    /// replaced in one go, and only if there is something to drop.
    ///
    /// # Errors
    /// As for [`MetricsWriter::append`].
    pub fn resume(path: &Path, from_step: u64) -> Result<Self, MetricsError> {
        let written = |source| MetricsError::Write { path: path.into(), source };
        let kept = match File::open(path) {
            Ok(file) => lines_before(path, file, from_step)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Lines::default(),
            Err(source) => return Err(MetricsError::Read { path: path.into(), source }),
        };
        if kept.differs {
            whole_file::replace(path, &kept.bytes).map_err(written)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(written)?;
        Ok(Self { path: path.into(), file })
    }

    /// Writes one record as one line.
    ///
    /// # Errors
    /// If the line cannot be written whole, such as on a full disk.
    pub fn write(&mut self, record: &Record) -> Result<(), MetricsError> {
        let mut line = serde_json::to_vec(record).expect("a record has no map keys that can fail");
        line.push(b'\n');
        // One write without a buffer: a killed process loses at most the line it was in.
        self.file.write_all(&line).map_err(|source| MetricsError::Write { path: self.path.clone(), source })
    }
}

/// Reads all records; a torn last line (without its end) is left out.
///
/// # Errors
/// If the file cannot be read, or a complete line is not a record.
pub fn read(path: &Path) -> Result<Vec<Record>, MetricsError> {
    let file = File::open(path).map_err(|source| MetricsError::Read { path: path.into(), source })?;
    let mut records = Vec::new();
    for_each_line(path, file, |_, record| records.push(record))?;
    Ok(records)
}

/// The part of a metrics file that survives a resume.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    /// Whether `bytes` is something else than what the file holds.
    differs: bool,
}

fn lines_before(path: &Path, file: File, from_step: u64) -> Result<Lines, MetricsError> {
    let mut kept = Lines::default();
    let torn = for_each_line(path, file, |line, record| {
        if record.step >= from_step {
            kept.differs = true;
            return;
        }
        kept.bytes.extend_from_slice(line);
        if line.last() != Some(&b'\n') {
            kept.bytes.push(b'\n');
            kept.differs = true;
        }
    })?;
    kept.differs |= torn;
    Ok(kept)
}

/// Calls `visit` with each line (its end included) and its record; returns whether the last was torn.
fn for_each_line(path: &Path, file: File, mut visit: impl FnMut(&[u8], Record)) -> Result<bool, MetricsError> {
    // A record has some 300 bytes. The bound keeps a file that is something else out of memory.
    const MAX_LINE_BYTES: u64 = 1 << 16;

    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let n_bytes = (&mut reader)
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut line)
            .map_err(|source| MetricsError::Read { path: path.into(), source })?;
        if n_bytes == 0 {
            break;
        }
        match serde_json::from_slice::<Record>(&line) {
            Ok(record) => visit(&line, record),
            Err(_) if line.last() != Some(&b'\n') && (n_bytes as u64) < MAX_LINE_BYTES => {
                return Ok(true);
            }
            Err(source) => {
                return Err(MetricsError::BadLine { path: path.into(), line: number, source });
            }
        }
    }
    Ok(false)
}

fn null_as_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}
