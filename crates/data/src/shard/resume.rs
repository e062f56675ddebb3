//! Going on where a killed writer stood: the shards that it finished, and how far the documents went into them.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::index::{Index, ShardEntry};
use super::{FORMAT_VERSION, checksum_hex, documents_file, tokens_file};
use crate::Error;

/// Lies in the temporary folder and is replaced whenever a shard is finished.
pub(super) const PROGRESS_FILE: &str = "progress.json";
const TEMPORARY_FILE: &str = "progress.json.tmp";

/// How far the shards of an earlier writer go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resumed {
    /// Documents that lie in them as a whole: the next one to push.
    pub n_documents: u64,
    /// Tokens in them.
    pub n_tokens: u64,
    /// Bytes of the text of these documents.
    pub n_text_bytes: u64,
    /// The first tokens of the next document, which lie in them too.
    pub n_tokens_of_next: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    key: String,
    done: Resumed,
    index: Index,
}

/// Saves that the shards in `index` are finished.
pub(super) fn save(folder: &Path, key: &str, done: Resumed, index: &Index) -> Result<(), Error> {
    let progress = Progress { key: key.to_owned(), done, index: index.clone() };
    let json = serde_json::to_vec(&progress).expect("numbers and strings are JSON");
    let (temporary, path) = (folder.join(TEMPORARY_FILE), folder.join(PROGRESS_FILE));
    let written = File::create(&temporary)
        .and_then(|mut file| file.write_all(&json).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, &path));
    written.map_err(|source| Error::write("the progress", &path, source))
}

/// What a writer with the same key and the same `fresh` index has finished in `folder`, if all of it is whole.
pub(super) fn load(folder: &Path, key: &str, fresh: &Index) -> Result<Option<(Index, Resumed)>, Error> {
    let path = folder.join(PROGRESS_FILE);
    let json = match fs::read(&path) {
        Ok(json) => json,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::read(&path, source)),
    };
    let Ok(Progress { key: found, done, index }) = serde_json::from_slice(&json) else { return Ok(None) };
    let bare = Index { shards: Vec::new(), n_tokens: 0, n_documents: 0, n_text_bytes: 0, ..index.clone() };
    let is_same = found == key && bare == *fresh && index.format_version == FORMAT_VERSION;
    let n_tokens = index.shards.iter().map(|shard| shard.n_tokens).sum();
    let n_documents = index.shards.iter().map(|shard| shard.n_documents).sum();
    let adds_up = (done.n_tokens, done.n_documents) == (n_tokens, n_documents);
    if !is_same || !adds_up || done.n_tokens_of_next > n_tokens {
        return Ok(None);
    }
    for (i, shard) in index.shards.iter().enumerate() {
        if shard.file != tokens_file(i) || !is_whole(folder, i, shard, &index)? {
            return Ok(None);
        }
    }
    let Resumed { n_documents, n_tokens, n_text_bytes, .. } = done;
    Ok(Some((Index { n_documents, n_tokens, n_text_bytes, ..index }, done)))
}

/// Whether both files of a shard are as they were written.
fn is_whole(folder: &Path, shard_idx: usize, shard: &ShardEntry, index: &Index) -> Result<bool, Error> {
    let tokens = checked(&folder.join(tokens_file(shard_idx)), shard.n_tokens.checked_mul(index.dtype.n_bytes()))?;
    let documents = checked(&folder.join(documents_file(shard_idx)), shard.n_documents.checked_mul(8))?;
    Ok(tokens.as_ref() == Some(&shard.xxh3) && documents.as_ref() == Some(&shard.documents_xxh3))
}

/// The checksum of a file, if it is there and has so many bytes.
fn checked(path: &Path, n_bytes: Option<u64>) -> Result<Option<String>, Error> {
    let failed = |source| Error::read(path, source);
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if Some(file.metadata().map_err(failed)?.len()) != n_bytes {
        return Ok(None);
    }
    let (mut hash, mut buffer) = (Xxh3::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(Some(checksum_hex(hash.digest()))),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// Whether a file in the temporary folder is one of these.
pub(super) fn is_progress(name: &str) -> bool {
    [PROGRESS_FILE, TEMPORARY_FILE].contains(&name)
}
