//! Writing a dataset: into a temporary folder beside its place, renamed when it is complete and
//! synced.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::index::{Dtype, Index, ShardEntry};
use super::resume::{self, Resumed};
use super::{FORMAT_VERSION, INDEX_FILE, checksum_hex, documents_file, tokens_file};
use crate::Error;

/// Held locked by the process that writes, so that what a killed one left behind can be told from
/// work in progress.
const LOCK_FILE: &str = "writer.lock";

/// What a dataset is and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterOptions {
    /// The dataset's folder; its parent must exist.
    pub output: PathBuf,
    /// Replace a dataset that is already there, once the new one is complete. Other folders are
    /// never replaced.
    pub overwrite: bool,
    /// Every token id must be below this.
    pub vocab_size: usize,
    /// [`super::checksum`] of the tokenizer's file, kept in the index.
    pub tokenizer_xxh3: String,
    /// All shards but the last have exactly this many tokens.
    pub max_tokens_per_shard: u64,
    /// Stands for the documents. With one, finished shards outlive a kill or an error, and the next writer with the same
    /// options goes on behind them.
    pub resume_key: Option<String>,
}

impl WriterOptions {
    /// 100 Mi tokens: 200 or 400 MiB a file.
    pub const DEFAULT_TOKENS_PER_SHARD: u64 = 100 << 20;
}

/// Writes a dataset document by document; nothing is seen at its place before
/// [`ShardWriter::finish`].
///
/// Dropped before that, it removes what it wrote, but for finished shards where there is a key to resume with. What a
/// killed process left behind is taken up or removed by the next writer of the same dataset.
pub struct ShardWriter {
    options: WriterOptions,
    temporary: PathBuf,
    /// Unlocked when dropped.
    _lock: File,
    index: Index,
    shard: Option<OpenShard>,
    resumed: Resumed,
    /// Tokens of the next document that are written already.
    n_skipped: u64,
    is_finished: bool,
}

struct OpenShard {
    tokens: HashedFile,
    documents: HashedFile,
    n_tokens: u64,
    n_documents: u64,
}

impl ShardWriter {
    /// Prepares the temporary folder.
    ///
    /// **Errors**: the output exists (and is not a dataset to be overwritten), another process
    /// writes it, the parent folder is missing or cannot be written to, or an option is out of
    /// range.
    pub fn create(options: WriterOptions) -> Result<ShardWriter, Error> {
        if options.vocab_size == 0 || u32::try_from(options.vocab_size).is_err() {
            let value = options.vocab_size as u64;
            return Err(Error::InvalidOption { name: "vocab_size", value, expected: "1 to 2^32 - 1".to_owned() });
        }
        if options.max_tokens_per_shard == 0 {
            let expected = "at least 1".to_owned();
            return Err(Error::InvalidOption { name: "max_tokens_per_shard", value: 0, expected });
        }
        check_output(&options.output, options.overwrite)?;
        let temporary = sibling(&options.output, "tmp");
        let lock = claim(&temporary, &options.output)?;
        let fresh = Index {
            format_version: FORMAT_VERSION,
            dtype: Dtype::for_vocab_size(options.vocab_size),
            vocab_size: options.vocab_size,
            tokenizer_xxh3: options.tokenizer_xxh3.clone(),
            n_tokens: 0,
            n_documents: 0,
            n_text_bytes: 0,
            shards: Vec::new(),
        };
        let saved = match &options.resume_key {
            Some(key) => resume::load(&temporary, key, &fresh)?,
            None => None,
        };
        let (index, resumed) = saved.unwrap_or((fresh, Resumed::default()));
        remove_leftovers(&temporary, index.shards.len())
            .map_err(|source| Error::write("the dataset", &options.output, source))?;
        let n_skipped = resumed.n_tokens_of_next;
        Ok(ShardWriter { options, temporary, _lock: lock, index, shard: None, resumed, n_skipped, is_finished: false })
    }

    /// What an earlier writer has done: the documents to push begin behind it.
    pub fn resumed(&self) -> Resumed {
        self.resumed
    }

    /// Appends a document that stands for `n_text_bytes` of text.
    ///
    /// **Errors**: an id beyond the vocabulary, or a failed write.
    pub fn push_document(&mut self, tokens: &[u32], n_text_bytes: u64) -> Result<(), Error> {
        let vocab_size = self.index.vocab_size;
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
            let document_idx = self.index.n_documents;
            return Err(Error::TokenOutOfVocabulary { document_idx, token, vocab_size });
        }
        let (dtype, max_tokens) = (self.index.dtype, self.options.max_tokens_per_shard);
        let n_skipped = std::mem::take(&mut self.n_skipped) as usize;
        let Some(mut rest) = tokens.get(n_skipped..) else {
            let reason = "the documents are not those that it was begun with".to_owned();
            return Err(Error::InconsistentShard { path: self.temporary.clone(), reason });
        };
        let n_new_tokens = rest.len() as u64;
        loop {
            let shard = self.open_shard()?;
            let room = usize::try_from(max_tokens - shard.n_tokens).unwrap_or(usize::MAX);
            let (fitting, remaining) = rest.split_at(rest.len().min(room));
            shard.push(dtype, fitting)?;
            if remaining.is_empty() {
                shard.documents.write(&shard.n_tokens.to_le_bytes())?;
                shard.n_documents += 1;
                break;
            }
            rest = remaining;
            self.close_shard()?;
            self.save_progress((tokens.len() - rest.len()) as u64)?;
        }
        self.index.n_documents += 1;
        self.index.n_tokens += n_new_tokens;
        self.index.n_text_bytes += n_text_bytes;
        Ok(())
    }

    /// Number of tokens so far.
    pub fn n_tokens(&self) -> u64 {
        self.index.n_tokens
    }

    /// Completes the dataset, syncs it and renames it to its place; returns the number of shards.
    ///
    /// When a dataset is replaced, the old one is moved aside, and removed once the new one is in
    /// place.
    ///
    /// **Errors**: no tokens were written, or a failed write.
    pub fn finish(mut self) -> Result<usize, Error> {
        if self.index.n_tokens == 0 {
            return Err(Error::NoTokens { path: self.options.output.clone() });
        }
        self.close_shard()?;
        let index_path = self.temporary.join(INDEX_FILE);
        let mut index = HashedFile::create("the index", index_path)?;
        let json = serde_json::to_string_pretty(&self.index).expect("an index of numbers and strings is JSON");
        index.write(json.as_bytes())?;
        index.write(b"\n")?;
        index.finish()?;
        match fs::remove_file(self.temporary.join(resume::PROGRESS_FILE)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(Error::write("the dataset", &self.options.output, source));
            }
            _ => {}
        }
        sync_folder(&self.temporary)?;
        // Somebody may have made a dataset here in the meantime.
        check_output(&self.options.output, self.options.overwrite)?;
        self.move_into_place()?;
        Ok(self.index.shards.len())
    }

    fn move_into_place(&mut self) -> Result<(), Error> {
        let output = &self.options.output;
        let failed = |source| Error::write("the dataset", output, source);
        let aside = sibling(output, "old");
        let has_old = output.join(INDEX_FILE).exists();
        if has_old {
            remove_dataset(&aside).map_err(failed)?;
            fs::rename(output, &aside).map_err(failed)?;
        } else if output.exists() {
            fs::remove_dir(output).map_err(failed)?;
        }
        if let Err(source) = fs::rename(&self.temporary, output) {
            if has_old {
                fs::rename(&aside, output).map_err(failed)?;
            }
            return Err(failed(source));
        }
        self.is_finished = true;
        // The lock file goes last: before the rename, its absence would let another writer take the
        // folder over.
        fs::remove_file(output.join(LOCK_FILE)).map_err(failed)?;
        remove_dataset(&aside).map_err(failed)?;
        sync_folder(parent(output))
    }

    /// Saves the shards that are finished, with so many tokens of the document that is being pushed.
    fn save_progress(&self, n_tokens_of_next: u64) -> Result<(), Error> {
        let Some(key) = &self.options.resume_key else { return Ok(()) };
        let Index { n_documents, n_text_bytes, .. } = self.index;
        let n_tokens = self.index.shards.iter().map(|shard| shard.n_tokens).sum();
        let done = Resumed { n_documents, n_tokens, n_text_bytes, n_tokens_of_next };
        resume::save(&self.temporary, key, done, &self.index)
    }

    fn open_shard(&mut self) -> Result<&mut OpenShard, Error> {
        let shard = match self.shard.take() {
            Some(shard) => shard,
            None => {
                let shard_idx = self.index.shards.len();
                let tokens = HashedFile::create("the token shard", self.temporary.join(tokens_file(shard_idx)))?;
                let documents = self.temporary.join(documents_file(shard_idx));
                let documents = HashedFile::create("the document ends", documents)?;
                OpenShard { tokens, documents, n_tokens: 0, n_documents: 0 }
            }
        };
        Ok(self.shard.insert(shard))
    }

    fn close_shard(&mut self) -> Result<(), Error> {
        let Some(shard) = self.shard.take() else { return Ok(()) };
        self.index.shards.push(ShardEntry {
            file: tokens_file(self.index.shards.len()),
            n_tokens: shard.n_tokens,
            n_documents: shard.n_documents,
            xxh3: shard.tokens.finish()?,
            documents_xxh3: shard.documents.finish()?,
        });
        Ok(())
    }
}

impl Drop for ShardWriter {
    fn drop(&mut self) {
        let keeps = self.options.resume_key.is_some() && !self.index.shards.is_empty();
        if !self.is_finished && !keeps {
            // Nothing is left to report to; the next writer tries again.
            let _ = fs::remove_dir_all(&self.temporary);
        }
    }
}

impl OpenShard {
    fn push(&mut self, dtype: Dtype, tokens: &[u32]) -> Result<(), Error> {
        let bytes: Vec<u8> = match dtype {
            // push_document has checked that each id is below a vocabulary size of at most 2^16.
            Dtype::U16 => tokens.iter().flat_map(|&token| (token as u16).to_le_bytes()).collect(),
            Dtype::U32 => tokens.iter().flat_map(|&token| token.to_le_bytes()).collect(),
        };
        self.n_tokens += tokens.len() as u64;
        self.tokens.write(&bytes)
    }
}

/// A file with a running checksum.
struct HashedFile {
    what: &'static str,
    path: PathBuf,
    file: BufWriter<File>,
    hash: Box<Xxh3>,
}

impl HashedFile {
    fn create(what: &'static str, path: PathBuf) -> Result<HashedFile, Error> {
        let file = File::create(&path).map_err(|source| Error::write(what, &path, source))?;
        Ok(HashedFile { what, path, file: BufWriter::with_capacity(1 << 20, file), hash: Box::default() })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.hash.update(bytes);
        self.file.write_all(bytes).map_err(|source| Error::write(self.what, &self.path, source))
    }

    /// Flushes and syncs; returns the checksum.
    fn finish(mut self) -> Result<String, Error> {
        let result = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        result.map_err(|source| Error::write(self.what, &self.path, source))?;
        Ok(checksum_hex(self.hash.digest()))
    }
}

/// An output may be absent, an empty folder, or a dataset that the caller wants replaced.
fn check_output(output: &Path, overwrite: bool) -> Result<(), Error> {
    let path = output.to_owned();
    if output.file_name().is_none() {
        return Err(Error::OutputInUse { path });
    }
    match fs::read_dir(output).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) if !output.join(INDEX_FILE).is_file() => Err(Error::OutputInUse { path }),
        Ok(false) if !overwrite => Err(Error::DatasetExists { path }),
        Ok(false) => Ok(()),
        Err(_) if fs::symlink_metadata(output).is_ok() => Err(Error::OutputInUse { path }),
        // Absent, or under a parent that cannot be read: creating the folder will tell.
        Err(_) => Ok(()),
    }
}

/// Creates the temporary folder, or takes over one that no living process holds; locks it.
fn claim(temporary: &Path, output: &Path) -> Result<File, Error> {
    let failed = |source| Error::write("the dataset", output, source);
    match fs::create_dir(temporary) {
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {}
        result => result.map_err(failed)?,
    }
    let lock_path = temporary.join(LOCK_FILE);
    let lock = File::create(&lock_path).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(Error::WriterBusy { path: output.to_owned() }),
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    for name in names(temporary).map_err(failed)? {
        if !(name == LOCK_FILE || name == INDEX_FILE || name.starts_with("shard_") || resume::is_progress(&name)) {
            return Err(Error::OutputInUse { path: temporary.to_owned() });
        }
    }
    Ok(lock)
}

/// Removes what an earlier writer left, but for its first shards and what is saved of them.
fn remove_leftovers(temporary: &Path, n_shards: usize) -> io::Result<()> {
    let mut kept: Vec<String> = (0..n_shards).flat_map(|i| [tokens_file(i), documents_file(i)]).collect();
    kept.push(LOCK_FILE.to_owned());
    if n_shards > 0 {
        kept.push(resume::PROGRESS_FILE.to_owned());
    }
    kept.sort();
    let leftovers = names(temporary)?.into_iter().filter(|name| kept.binary_search(name).is_err());
    leftovers.into_iter().try_for_each(|name| fs::remove_file(temporary.join(name)))
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// `folder/name` becomes `folder/.name.suffix`.
fn sibling(output: &Path, suffix: &str) -> PathBuf {
    let name = output.file_name().expect("check_output has seen a file name").to_string_lossy();
    output.with_file_name(format!(".{name}.{suffix}"))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Removes the dataset in `path`, if there is one.
fn remove_dataset(path: &Path) -> io::Result<()> {
    match path.join(INDEX_FILE).is_file() {
        true => fs::remove_dir_all(path),
        false => Ok(()),
    }
}

/// Makes the names in a folder survive a power cut. Only Unix can open a folder to sync it.
fn sync_folder(path: &Path) -> Result<(), Error> {
    if cfg!(unix) {
        let result = File::open(path).and_then(|folder| folder.sync_all());
        result.map_err(|source| Error::write("the folder", path, source))?;
    }
    Ok(())
}
