//! Writing `tokenizer.json`.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value, json};

use super::EVERY_CHARACTER;
use crate::vocab::Model;
use crate::{TokenId, Tokenizer, alphabet};

/// The file's content, in the layout of Hugging Face's `tokenizers`.
pub(super) fn tokenizer_json(tokenizer: &Tokenizer) -> Value {
    let added: Vec<Value> = tokenizer
        .special_tokens()
        .map(|(content, id)| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true,
            })
        })
        .collect();
    let (pre_tokenizer, post_processor, decoder, model) = match &tokenizer.model {
        Model::Bpe(bpe) => byte_level(tokenizer, bpe.add_prefix_space),
        Model::Bytes => byte_level(tokenizer, false),
        Model::Characters(_) => characters(tokenizer),
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": pre_tokenizer, "post_processor": post_processor,
        "decoder": decoder, "model": model,
    })
}

/// Pre-tokenizer, post-processor, decoder and model.
type Parts = (Value, Value, Value, Value);

fn byte_level(tokenizer: &Tokenizer, add_prefix_space: bool) -> Parts {
    let byte_level = |add_prefix_space: bool, trim_offsets: bool| {
        json!({
            "type": "ByteLevel", "add_prefix_space": add_prefix_space,
            "trim_offsets": trim_offsets, "use_regex": true,
        })
    };
    // `a b` rather than `["a", "b"]`: all versions of `tokenizers` read it, and no token has a space.
    let merges: Vec<String> = tokenizer
        .merges()
        .map(|(left, right)| format!("{} {}", alphabet::write(left), alphabet::write(right)))
        .collect();
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
        "ignore_merges": false, "vocab": vocab(tokenizer, alphabet::write), "merges": merges,
    });
    (byte_level(add_prefix_space, true), byte_level(true, false), byte_level(true, true), model)
}

fn characters(tokenizer: &Tokenizer) -> Parts {
    let pre_tokenizer = json!({
        "type": "Split", "pattern": {"Regex": EVERY_CHARACTER}, "behavior": "Isolated",
        "invert": false,
    });
    let utf8 = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let vocab = vocab(tokenizer, utf8);
    // The key is required. The token named must be missing, so that `tokenizers` refuses unknown
    // characters; it is longer than one character and can be made longer than any other.
    let mut unknown = "<|unknown|>".to_string();
    while vocab.contains_key(&unknown) {
        unknown.push('|');
    }
    let model = json!({"type": "WordLevel", "vocab": vocab, "unk_token": unknown});
    (pre_tokenizer, Value::Null, json!({"type": "Fuse"}), model)
}

/// All tokens in the order of their ids, special tokens as they are, others by `write`.
fn vocab(tokenizer: &Tokenizer, write: impl Fn(&[u8]) -> String) -> Map<String, Value> {
    let mut specials = tokenizer.special_tokens().peekable();
    (0..tokenizer.vocab_size() as TokenId)
        .zip(&tokenizer.tokens)
        .map(|(id, bytes)| match specials.next_if(|&(_, special)| special == id) {
            Some((token, _)) => (token.to_string(), id.into()),
            None => (write(bytes), id.into()),
        })
        .collect()
}

/// Writes to a new file beside `path`, then renames it to `path`.
pub(super) fn atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    static N_FILES: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut temporary_name = OsString::from(".");
    temporary_name.push(name);
    let n = N_FILES.fetch_add(1, Ordering::Relaxed);
    temporary_name.push(format!(".{}-{n}.tmp", std::process::id()));
    let temporary = path.with_file_name(temporary_name);

    let write = || {
        // A file of that name can only be what a killed process with our number has left.
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    let written = write();
    match written {
        Ok(()) => sync_folder(path),
        // The first error is the one to report.
        Err(_) => drop(fs::remove_file(&temporary)),
    }
    written
}

/// Makes the renaming last through a power failure, where the system can do so.
fn sync_folder(path: &Path) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Ok(folder) = File::open(folder.unwrap_or(Path::new("."))) {
        folder.sync_all().ok();
    }
}
