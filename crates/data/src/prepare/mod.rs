//! Documents to a dataset: tokenised in parallel, written in order.

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use rayon::prelude::*;
use tokenizer::{Kind, Tokenizer};

use crate::Error;
use crate::document::Document;
use crate::shard::{Resumed, ShardWriter, WriterOptions};

/// A batch ends once it has this much text (its last document may exceed it) ...
const MAX_BATCH_BYTES: usize = 8 << 20;
/// ... or this many documents. Both bound the memory, whatever the size of the input.
const MAX_BATCH_DOCUMENTS: usize = 4096;

/// What to write and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrepareOptions {
    /// The dataset's folder; its parent must exist.
    pub output: PathBuf,
    /// Replace a dataset that is already there.
    pub overwrite: bool,
    /// Put the tokenizer's end-of-text id, if it has one, after each document.
    pub append_end_of_text: bool,
    /// [`crate::shard::checksum`] of the tokenizer's file.
    pub tokenizer_xxh3: String,
    /// Usually [`WriterOptions::DEFAULT_TOKENS_PER_SHARD`].
    pub max_tokens_per_shard: u64,
    /// Stands for the documents, such as [`crate::document::inputs_key`]. With one, finished shards outlive a kill or an
    /// error, and the same call goes on behind them; without, nothing is left behind.
    pub resume_key: Option<String>,
}

/// How far it is, or how far it got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the input files, as they lie on disk, that were consumed.
    pub input_bytes: u64,
    /// Documents written.
    pub n_documents: u64,
    /// Tokens written, end-of-text ids included.
    pub n_tokens: u64,
    /// Bytes of the text of these documents.
    pub n_text_bytes: u64,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The last progress.
    pub totals: Progress,
    /// Number of shards.
    pub n_shards: usize,
}

/// Tokenises `documents` into a new dataset; calls `progress` after each batch of some megabytes.
///
/// The text of a document is ordinary text throughout: a special token spelt out in it is encoded
/// as its characters, so that no document can forge a boundary. The result does not depend on the
/// number of threads.
///
/// **Errors**: the first error of `documents`, a character that a character vocabulary does not
/// have, no text at all, or a failed write. The dataset is not there before it is complete.
pub fn prepare(
    documents: impl IntoIterator<Item = Result<Document, Error>>,
    tokenizer: &Tokenizer,
    options: PrepareOptions,
    progress: &dyn Fn(Progress),
) -> Result<Summary, Error> {
    let PrepareOptions { output, overwrite, append_end_of_text, tokenizer_xxh3, max_tokens_per_shard, resume_key } =
        options;
    let vocab_size = tokenizer.vocab_size();
    let end_of_text = tokenizer.end_of_text().filter(|_| append_end_of_text);
    // What the tokens depend on beside the documents and the tokenizer.
    let resume_key = resume_key.map(|key| format!("{key} {append_end_of_text} {max_tokens_per_shard}"));
    let mut writer = ShardWriter::create(WriterOptions {
        output,
        overwrite,
        vocab_size,
        tokenizer_xxh3,
        max_tokens_per_shard,
        resume_key,
    })?;

    let mut documents = documents.into_iter();
    let Resumed { n_documents, n_tokens, n_text_bytes, n_tokens_of_next } = writer.resumed();
    let mut totals = Progress { input_bytes: 0, n_documents, n_tokens: n_tokens - n_tokens_of_next, n_text_bytes };
    for _ in 0..n_documents {
        // Read, but not tokenised again.
        let Some(document) = documents.next().transpose()? else { break };
        if document.input_bytes - totals.input_bytes >= MAX_BATCH_BYTES as u64 {
            totals.input_bytes = document.input_bytes;
            progress(totals);
        }
    }
    loop {
        let batch = next_batch(&mut documents)?;
        if batch.is_empty() {
            break;
        }
        let tokens_by_document: Vec<Vec<u32>> = batch
            .par_iter()
            .map(|document| {
                let mut tokens = encode(tokenizer, document)?;
                tokens.extend(end_of_text);
                Ok(tokens)
            })
            .collect::<Result<_, Error>>()?;
        for (document, tokens) in batch.iter().zip(&tokens_by_document) {
            let n_text_bytes = document.text.len() as u64;
            writer.push_document(tokens, n_text_bytes)?;
            totals.input_bytes = document.input_bytes;
            totals.n_documents += 1;
            totals.n_tokens += tokens.len() as u64;
            totals.n_text_bytes += n_text_bytes;
        }
        progress(totals);
    }
    Ok(Summary { totals, n_shards: writer.finish()? })
}

fn next_batch(documents: &mut dyn Iterator<Item = Result<Document, Error>>) -> Result<Vec<Document>, Error> {
    let mut batch = Vec::new();
    let mut n_bytes = 0;
    while n_bytes < MAX_BATCH_BYTES && batch.len() < MAX_BATCH_DOCUMENTS {
        let Some(document) = documents.next().transpose()? else { break };
        n_bytes += document.text.len();
        batch.push(document);
    }
    Ok(batch)
}

/// The ids of the whole text, or an error where a character vocabulary would leave something out.
fn encode(tokenizer: &Tokenizer, document: &Document) -> Result<Vec<u32>, Error> {
    let tokens = tokenizer.encode_ordinary(&document.text);
    if tokenizer.kind() == Kind::Characters {
        let decoded = tokenizer.decode_bytes(&tokens);
        if decoded != document.text {
            let known = decoded.iter().zip(&document.text).take_while(|(a, b)| a == b).count();
            return Err(unknown_character(document, known));
        }
    }
    Ok(tokens)
}

/// `known` bytes of the document agree with what its tokens decode to; the character around that place is unknown.
fn unknown_character(document: &Document, known: usize) -> Error {
    let text = &document.text;
    // Two characters may share their first bytes, so the difference can lie within one.
    let start = (0..=known).rev().find(|&i| text.get(i).is_none_or(|byte| byte & 0xc0 != 0x80)).unwrap_or(0);
    let found = String::from_utf8_lossy(&text[start..text.len().min(start + 4)]).chars().next().unwrap_or_default();
    Error::UnknownCharacter {
        path: document.source.path.to_path_buf(),
        line: document.source.line,
        offset: start as u64,
        found,
    }
}
