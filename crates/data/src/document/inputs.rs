//! Which files are meant: patterns, folders, and a key for all of them.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use xxhash_rust::xxh3::Xxh3Default;

use super::is_stdin;
use super::reader::known_format;
use crate::Error;

/// The files that `paths` stand for: a folder is all files of known formats in it, at any depth, and a name with `*`, `?`
/// or `[` that is no file is a pattern (`**` goes through folders). Those of a folder or pattern are in the order of their
/// names.
///
/// **Errors**: a folder or pattern without a file, a pattern that is none, or a folder that cannot be read.
pub fn expand(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for path in paths {
        let before = files.len();
        let text = path.to_string_lossy();
        if path.is_dir() {
            files_in(path, &mut files)?;
            files[before..].sort();
        } else if text.contains(['*', '?', '[']) && !path.exists() {
            let bad = |reason: String| Error::BadPattern { pattern: text.to_string(), reason };
            for found in glob::glob(&text).map_err(|error| bad(error.to_string()))? {
                let found = found.map_err(|error| {
                    let path = error.path().to_owned();
                    Error::read(&path, error.into())
                })?;
                if found.is_file() {
                    files.push(found);
                }
            }
        } else {
            files.push(path.clone());
        }
        if files.len() == before {
            return Err(Error::NoMatch { pattern: text.into_owned() });
        }
    }
    Ok(files)
}

fn files_in(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    for entry in std::fs::read_dir(folder).map_err(|source| Error::read(folder, source))? {
        let path = entry.map_err(|source| Error::read(folder, source))?.path();
        // A link to a folder above would never end.
        if path.is_dir() && !path.is_symlink() {
            files_in(&path, files)?;
        } else if path.is_file() && known_format(&path).is_some() {
            files.push(path);
        }
    }
    Ok(())
}

/// Stands for the files by name, size and time of change: equal as long as nobody writes to them.
///
/// **Errors**: a file is missing. Standard input has no key, for it cannot be read again.
pub fn inputs_key(paths: &[PathBuf]) -> Result<Option<String>, Error> {
    let mut hasher = Xxh3Default::new();
    for path in paths {
        if is_stdin(path) {
            return Ok(None);
        }
        let failed = |source| Error::read(path, source);
        let metadata = std::fs::metadata(path).map_err(failed)?;
        let name = std::fs::canonicalize(path).map_err(failed)?;
        let changed =
            metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        for field in
            [name.as_os_str().as_encoded_bytes(), &metadata.len().to_le_bytes(), &changed.as_nanos().to_le_bytes()]
        {
            hasher.update(&(field.len() as u64).to_le_bytes());
            hasher.update(field);
        }
    }
    Ok(Some(format!("{:016x}", hasher.digest())))
}
