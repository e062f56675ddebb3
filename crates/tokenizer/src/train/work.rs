//! The folder in which a long training keeps what does not fit in memory and what it has done.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::Error;

const STATE_FILE: &str = "state.json";
const LOCK_FILE: &str = "lock";
/// All counts in one run.
const WORDS_FILE: &str = "words";
/// See `checkpoint.rs`.
const MERGES_FILE: &str = "merges";
const RUN_PREFIX: &str = "run_";
const VERSION: u64 = 1;

/// Where a training may keep files while it works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkFolder {
    /// Made if it is not there; removed when training is done. It may hold nothing else.
    pub path: PathBuf,
    /// Stands for the text, to go on after a kill: a training finds only what one with an equal key and an equal config
    /// has left. Without one nothing is kept.
    pub resume_key: Option<String>,
    /// Counts are saved after so many bytes of text, merges after so many have been learned, if there is a key.
    pub checkpoint: Checkpoint,
}

/// How often what was done is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Bytes of text counted between two savings.
    pub n_bytes: u64,
    /// Merges learned between two savings.
    pub n_merges: usize,
}

impl Default for Checkpoint {
    /// 8 GB and 16,384 merges: a minute or so.
    fn default() -> Self {
        Self { n_bytes: 8_000_000_000, n_merges: 1 << 14 }
    }
}

/// What is saved of counting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    version: u64,
    key: String,
    /// Bytes of the text, from its start, whose counts are in the runs.
    n_bytes: u64,
    runs: Vec<String>,
    /// Whether all of the text is counted, and the counts lie in [`WORDS_FILE`].
    is_counted: bool,
}

/// The folder while it is in use.
pub(super) struct Work {
    path: PathBuf,
    /// Unlocked when dropped.
    _lock: File,
    state: State,
    next_run: AtomicU64,
    checkpoint: Option<Checkpoint>,
    is_done: bool,
}

impl Work {
    /// Opens the folder, empty or as a training with the same `key` has left it.
    pub(super) fn open(folder: &WorkFolder, config_key: &str) -> Result<Self, Error> {
        let path = folder.path.clone();
        let failed = |source| Error::work("use", &path, source);
        fs::create_dir_all(&path).map_err(failed)?;
        let names = fs::read_dir(&path).map_err(failed)?;
        let names: Vec<String> = names
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<_>>()
            .map_err(failed)?;
        if let Some(other) = names.iter().find(|name| !is_ours(name)) {
            return Err(Error::WorkFolder {
                path: path.clone(),
                reason: format!("holds {other}, which is not of a training"),
            });
        }
        let lock = File::create(path.join(LOCK_FILE)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::WorkFolder {
                    path: path.clone(),
                    reason: "is in use by another training".to_string(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let key = format!("{config_key} {}", folder.resume_key.as_deref().unwrap_or_default());
        let fresh = State { version: VERSION, key, n_bytes: 0, runs: Vec::new(), is_counted: false };
        let state = match (&folder.resume_key, read_state(&path)?) {
            (Some(_), Some(found)) if (found.version, &found.key) != (VERSION, &fresh.key) => {
                let reason = "holds the state of a training of other text or with another config".to_string();
                return Err(Error::WorkFolder { path, reason });
            }
            (Some(_), Some(found)) => found,
            _ => fresh,
        };
        let keeps = |name: &str| match name {
            LOCK_FILE => true,
            STATE_FILE => state.is_counted || !state.runs.is_empty(),
            WORDS_FILE | MERGES_FILE => state.is_counted,
            _ => state.runs.iter().any(|run| run == name),
        };
        for name in names.iter().filter(|name| !keeps(name)) {
            fs::remove_file(path.join(name)).map_err(failed)?;
        }
        let number = |run: &String| run.strip_prefix(RUN_PREFIX)?.parse::<u64>().ok();
        let next_run = state.runs.iter().filter_map(number).max().map_or(0, |last| last.saturating_add(1));
        let checkpoint = folder.resume_key.is_some().then_some(folder.checkpoint);
        Ok(Self { path, _lock: lock, state, next_run: next_run.into(), checkpoint, is_done: false })
    }

    /// How often to save; `None` if nobody will go on from it.
    pub(super) fn checkpoint(&self) -> Option<Checkpoint> {
        self.checkpoint
    }

    /// A place for a run. It may be called from many threads.
    pub(super) fn new_run(&self) -> PathBuf {
        self.path.join(format!("{RUN_PREFIX}{}", self.next_run.fetch_add(1, Ordering::Relaxed)))
    }

    /// The saved runs and the bytes of text that are counted in them.
    pub(super) fn saved(&self) -> (Vec<PathBuf>, u64) {
        (self.state.runs.iter().map(|run| self.path.join(run)).collect(), self.state.n_bytes)
    }

    /// All counts, if all of the text is counted.
    pub(super) fn words(&self) -> Option<PathBuf> {
        self.state.is_counted.then(|| self.path.join(WORDS_FILE))
    }

    /// Where merges are saved.
    pub(super) fn merges(&self) -> PathBuf {
        self.path.join(MERGES_FILE)
    }

    /// Saves that the first `n_bytes` of the text are counted in `runs`, which are complete.
    pub(super) fn save_counting(&mut self, runs: &[PathBuf], n_bytes: u64) -> Result<(), Error> {
        let (before, _) = self.saved();
        let name = |run: &PathBuf| run.file_name().expect("a run has a name").to_string_lossy().into_owned();
        self.state.runs = runs.iter().map(name).collect();
        self.state.n_bytes = n_bytes;
        self.save_state()?;
        remove(before.iter().filter(|run| !runs.contains(run)))
    }

    /// Saves all counts, which `write` writes to a file; the runs that they were in are removed.
    pub(super) fn save_words(
        &mut self,
        runs: &[PathBuf],
        write: impl FnOnce(PathBuf) -> Result<(), Error>,
    ) -> Result<PathBuf, Error> {
        let temporary = self.new_run();
        write(temporary.clone())?;
        let words = self.path.join(WORDS_FILE);
        fs::rename(&temporary, &words).map_err(|source| Error::work("write", &words, source))?;
        self.state.runs.clear();
        self.state.is_counted = true;
        self.save_state()?;
        remove(runs)?;
        Ok(words)
    }

    fn save_state(&self) -> Result<(), Error> {
        if self.checkpoint.is_none() {
            return Ok(());
        }
        write_whole(&self.path.join(STATE_FILE), |file| {
            file.write_all(&serde_json::to_vec(&self.state).expect("numbers and strings are JSON"))
        })
    }

    /// Removes the folder: training is done.
    pub(super) fn finish(mut self) {
        self.is_done = true;
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if self.is_done || self.checkpoint.is_none() {
            // What cannot be removed does no harm, and there is nobody to tell.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Removes runs that are part of another.
pub(super) fn remove<'a>(runs: impl IntoIterator<Item = &'a PathBuf>) -> Result<(), Error> {
    runs.into_iter().try_for_each(|run| fs::remove_file(run).map_err(|source| Error::work("remove", run, source)))
}

/// Writes a file as a whole or not at all.
pub(super) fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut io::BufWriter<File>) -> io::Result<()>,
) -> Result<(), Error> {
    let temporary = path.with_extension("tmp");
    let written = File::create(&temporary).and_then(|file| {
        let mut file = io::BufWriter::with_capacity(1 << 16, file);
        write(&mut file)?;
        file.flush()?;
        file.get_ref().sync_all()?;
        fs::rename(&temporary, path)
    });
    written.map_err(|source| Error::work("write", path, source))
}

fn read_state(path: &Path) -> Result<Option<State>, Error> {
    let path = path.join(STATE_FILE);
    match fs::read(&path) {
        Ok(json) => match serde_json::from_slice::<State>(&json) {
            // A name of another form could point out of the folder.
            Ok(state) if state.runs.iter().all(|run| is_run(run)) => Ok(Some(state)),
            Ok(_) => Err(Error::WorkFolder { path, reason: "names files that no training makes".to_string() }),
            Err(source) => Err(Error::WorkFolder { path, reason: format!("is not a training's state: {source}") }),
        },
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::work("read", &path, source)),
    }
}

fn is_run(name: &str) -> bool {
    name.strip_prefix(RUN_PREFIX).is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

fn is_ours(name: &str) -> bool {
    let name = name.strip_suffix(".tmp").unwrap_or(name);
    is_run(name) || [STATE_FILE, LOCK_FILE, WORDS_FILE, MERGES_FILE, "state"].contains(&name)
}
