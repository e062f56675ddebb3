//! Everything that a run needs to go on as if it had never stopped.
//!
//! A checkpoint is a folder `checkpoints/step-000000500`: the weights under the names of Hugging Face, the optimizer's
//! moments, and `state.json` with the step, the place in the data, and a checksum of each file. It is written under
//! another name, synced, and renamed: a folder that has its name is complete, whenever the process was killed.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use data::loader::LoaderState;
use nn::{Transformer, hugging_face};
use serde::{Deserialize, Serialize};
use tensor::io::SafetensorsFile;
use tensor::{Device, Tensor, cuda};

use crate::folder::write_whole;
use crate::optimizer::Optimizer;
use crate::stepper::TrainState;
use crate::whole_file::sync_folder;
use crate::{Error, RunConfig, RunFolder};

const WEIGHTS: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";
const FORMAT_VERSION: u32 = 1;

/// Where a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Updates made.
    pub step: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Seconds of training, over all processes of the run.
    pub elapsed_seconds: f64,
    /// The place in the data.
    pub loader: LoaderState,
}

impl Progress {
    /// Checks that the numbers are those that a run of `config` can have come to.
    ///
    /// # Errors
    /// If they are not: the checkpoint at `path` is damaged.
    pub fn check(&self, config: &RunConfig, path: &Path) -> Result<(), Error> {
        let sequences = self.step.checked_mul(config.training.batch_size as u64);
        let tokens = self.step.checked_mul(config.tokens_per_step());
        let good = self.step <= config.training.steps
            && sequences == Some(self.loader.sequences_consumed)
            && tokens == Some(self.tokens)
            && self.elapsed_seconds.is_finite();
        if good {
            return Ok(());
        }
        let reason = format!("{STATE} says step {} and {} tokens, which this run cannot have", self.step, self.tokens);
        Err(Error::DamagedCheckpoint { path: path.to_owned(), reason })
    }
}

/// The content of `state.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    format_version: u32,
    progress: Progress,
    /// Checksum of each file.
    files: BTreeMap<String, String>,
}

/// Writes a checkpoint and removes the oldest ones beyond `keep`.
///
/// # Errors
/// If the disk is full or the folder cannot be written: then the earlier checkpoints are untouched.
pub fn save(folder: &RunFolder, progress: &Progress, state: &TrainState, keep: usize) -> Result<PathBuf, Error> {
    let parent = folder.checkpoints();
    let path = parent.join(format!("step-{:09}", progress.step));
    if path.is_dir() {
        return Ok(path);
    }
    let temporary = parent.join(format!(".step-{:09}.tmp", progress.step));
    let written = write(&temporary, progress, state).and_then(|()| {
        let io = |source| Error::Io { action: "write the checkpoint", path: path.clone(), source };
        fs::rename(&temporary, &path).and_then(|()| sync_folder(&parent)).map_err(io)
    });
    if let Err(error) = written {
        // Best effort: the error that matters is the one that is returned.
        let _ = fs::remove_dir_all(&temporary);
        return Err(error);
    }
    let complete = list(folder)?;
    for old in complete.iter().rev().skip(keep) {
        remove(old)?;
    }
    Ok(path)
}

fn write(folder: &Path, progress: &Progress, state: &TrainState) -> Result<(), Error> {
    let io = |source| Error::Io { action: "write the checkpoint", path: folder.to_owned(), source };
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(io)?;
    }
    fs::create_dir_all(folder).map_err(io)?;
    let (model, optimizer) = cuda::catch(|| (state.model.to(Device::Cpu), state.optimizer.to(Device::Cpu)))?;
    hugging_face::save_weights(&folder.join(WEIGHTS), &model)?;
    let moments: Vec<(String, Tensor)> = moment_names(&model)
        .into_iter()
        .zip(optimizer.first_moments.iter().chain(&optimizer.second_moments).cloned())
        .collect();
    tensor::io::save(&folder.join(OPTIMIZER), &moments, HashMap::new())?;
    let files = [WEIGHTS, OPTIMIZER].map(|name| Ok((name.to_owned(), checksum(&folder.join(name))?)));
    let files = files.into_iter().collect::<std::io::Result<_>>().map_err(io)?;
    let state = State { format_version: FORMAT_VERSION, progress: *progress, files };
    let state = serde_json::to_vec_pretty(&state).expect("a state has a JSON text");
    write_whole(&folder.join(STATE), &state)?;
    sync_folder(folder).map_err(io)
}

/// Names of the first moments, then of the second ones.
fn moment_names(model: &Transformer) -> Vec<String> {
    let names = |moment: &str| -> Vec<String> {
        model.parameters().iter().map(|(name, _)| format!("{moment}.{name}")).collect()
    };
    [names("first_moment"), names("second_moment")].concat()
}

/// All complete checkpoints of a run, from the first to the last step.
///
/// # Errors
/// If the folder cannot be read.
pub fn list(folder: &RunFolder) -> Result<Vec<PathBuf>, Error> {
    let parent = folder.checkpoints();
    let io = |source| Error::Io { action: "read", path: parent.clone(), source };
    if !parent.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(&parent).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(step) = name.strip_prefix("step-").and_then(|step| step.parse::<u64>().ok()) {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Removes what a killed process left half-written or half-removed.
///
/// # Errors
/// If the folder cannot be read or written.
pub fn clean(folder: &RunFolder) -> Result<(), Error> {
    let parent = folder.checkpoints();
    if !parent.is_dir() {
        return Ok(());
    }
    let io = |source| Error::Io { action: "clean", path: parent.clone(), source };
    for entry in fs::read_dir(&parent).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(".step-") {
            fs::remove_dir_all(&path).map_err(io)?;
        }
    }
    Ok(())
}

/// Removes a checkpoint: renamed first, so that a half-removed one never has the name of a complete one.
fn remove(path: &Path) -> Result<(), Error> {
    let io = |source| Error::Io { action: "remove the old checkpoint", path: path.to_owned(), source };
    let name = path.file_name().expect("a checkpoint has a name").to_string_lossy();
    let dying = path.with_file_name(format!(".{name}.removed"));
    fs::rename(path, &dying).and_then(|()| fs::remove_dir_all(&dying)).map_err(io)
}

/// Reads a checkpoint of a run of `config`, to the CPU's memory.
///
/// # Errors
/// If a file is missing, does not have its checksum, or does not fit the config.
pub fn load(path: &Path, config: &RunConfig) -> Result<(Progress, Transformer, Optimizer), Error> {
    let damaged = |reason: String| Error::DamagedCheckpoint { path: path.to_owned(), reason };
    let state = fs::read(path.join(STATE)).map_err(|e| damaged(format!("cannot read {STATE}: {e}")))?;
    let state: State = serde_json::from_slice(&state).map_err(|e| damaged(format!("{STATE}: {e}")))?;
    if state.format_version != FORMAT_VERSION {
        let found = state.format_version;
        return Err(damaged(format!("format_version is {found}, this version reads {FORMAT_VERSION}")));
    }
    for name in [WEIGHTS, OPTIMIZER] {
        let expected = state.files.get(name).ok_or_else(|| damaged(format!("{STATE} has no checksum of {name}")))?;
        let found = checksum(&path.join(name)).map_err(|e| damaged(format!("cannot read {name}: {e}")))?;
        if found != *expected {
            return Err(damaged(format!("{name} has checksum {found}, expected {expected}")));
        }
    }
    let model = hugging_face::load_weights(&path.join(WEIGHTS), &config.model)?;
    let mut optimizer = Optimizer::new(&config.optimizer, config.training.grad_clip_norm, &model);
    let file = SafetensorsFile::open(&path.join(OPTIMIZER))?;
    let names = moment_names(&model);
    let moments = optimizer.first_moments.iter_mut().chain(&mut optimizer.second_moments);
    for (name, moment) in names.iter().zip(moments) {
        *moment = file.f32_tensor(name, moment.shape())?;
    }
    Ok((state.progress, model, optimizer))
}

/// Checksum of a file that is read in pieces.
fn checksum(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut hasher = xxhash_rust::xxh3::Xxh3Default::new();
    let mut file = File::open(path)?;
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(format!("{:016x}", hasher.digest())),
            n => hasher.update(&piece[..n]),
        }
    }
}
