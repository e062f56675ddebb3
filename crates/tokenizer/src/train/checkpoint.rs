//! Merges on disk: what is learned, and every pre-token as the merges have left it.
//!
//! Numbers are written as in a run (`spill.rs`): tokens (their bytes and the symbols that they cover), merges, words
//! (their ids and counts). With all symbols saved, nothing need be merged again.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use super::merge::{BPE, Merger};
use super::spill::{read_number, write_number};
use super::text::Text;
use super::work::write_whole;
use crate::{Error, TokenId};

/// No token is longer, nor has a word more symbols: what a damaged file asks for is not believed.
const MAX_LEN: u64 = u32::MAX as u64;

/// Writes the state of `merger` to `path`, whole or not at all.
pub(super) fn save(merger: &Merger, key: &str, path: &Path) -> Result<(), Error> {
    write_whole(path, |file| {
        write_number(file, key.len() as u64)?;
        file.write_all(key.as_bytes())?;
        write_number(file, merger.n_learned() as u64)?;
        for (token, len) in merger.learned().zip(merger.text.lens().skip(merger.n_given)) {
            write_number(file, token.len() as u64)?;
            file.write_all(token)?;
            write_number(file, len.into())?;
        }
        write_number(file, merger.merges.len() as u64)?;
        for id in merger.merges.iter().flatten() {
            write_number(file, (*id).into())?;
        }
        let (n_words, n_symbols) = merger.text.size();
        write_number(file, n_words)?;
        write_number(file, n_symbols)?;
        for (ids, count) in merger.text.words() {
            write_number(file, count)?;
            write_number(file, ids.len() as u64)?;
            ids.into_iter().try_for_each(|id| write_number(file, id.into()))?;
        }
        Ok(())
    })
}

/// Reads a state; `None` if there is none of this key. `given` are the tokens that were there at the start.
pub(super) fn load(path: &Path, key: &str, given: &[Box<[u8]>], n_special: usize) -> Result<Option<Merger>, Error> {
    let failed = |source| Error::work("read", path, source);
    let mut file = match File::open(path) {
        Ok(file) => BufReader::with_capacity(1 << 16, file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if read_bytes(&mut file).map_err(failed)? != key.as_bytes() {
        return Ok(None);
    }
    let (mut tokens, mut lens) = (given.to_vec(), vec![1; given.len()]);
    let merges = read_learned(&mut file, &mut tokens, &mut lens).map_err(failed)?;
    let (n_words, n_symbols) = read_number(&mut file).and_then(|n| Ok((n, read_number(&mut file)?))).map_err(failed)?;
    let mut text = Text::with_capacity(n_words, n_symbols, lens)?;
    let mut ids = Vec::new();
    for _ in 0..n_words {
        let count = read_word(&mut file, tokens.len(), &mut ids).map_err(failed)?;
        text.push_word(ids.iter().copied(), count);
    }
    Ok(Some(Merger::new(text, &tokens, given.len(), n_special, merges, BPE)))
}

fn read_learned(
    file: &mut impl Read,
    tokens: &mut Vec<Box<[u8]>>,
    lens: &mut Vec<u32>,
) -> io::Result<Vec<[TokenId; 3]>> {
    for _ in 0..read_number(file)? {
        tokens.push(read_bytes(file)?.into());
        lens.push(read_number(file)?.try_into().map_err(|_| damaged())?);
    }
    let n_merges = read_number(file)?;
    let mut merges = Vec::new();
    for _ in 0..n_merges {
        merges.push([read_id(file, tokens.len())?, read_id(file, tokens.len())?, read_id(file, tokens.len())?]);
    }
    Ok(merges)
}

fn read_bytes(file: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let len = read_number(file)?;
    if file.take(len.min(MAX_LEN)).read_to_end(&mut bytes)? as u64 != len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

fn read_word(file: &mut impl Read, n_tokens: usize, ids: &mut Vec<TokenId>) -> io::Result<u64> {
    let count = read_number(file)?;
    ids.clear();
    for _ in 0..read_number(file)? {
        ids.push(read_id(file, n_tokens)?);
    }
    Ok(count)
}

fn read_id(file: &mut impl Read, n_tokens: usize) -> io::Result<TokenId> {
    let id = read_number(file)?;
    if id < n_tokens as u64 { Ok(id as TokenId) } else { Err(damaged()) }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a number that cannot be")
}
