//! Writing `tokenizer.json`.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::EVERY_CHARACTER;
use super::read_bpe::{CL100K, split_of_regex};
use crate::char_bpe::CharBpe;
use crate::decode::{Decoder, Step};
use crate::encode::Bpe;
use crate::pretokenize::Pattern;
use crate::unigram::Unigram;
use crate::vocab::Model;
use crate::wordpiece::WordPiece;
use crate::{Error, TokenId, Tokenizer, alphabet};

/// The file's content, in the layout of Hugging Face's `tokenizers`.
pub(super) fn tokenizer_json(tokenizer: &Tokenizer) -> Value {
    let added: Vec<Value> = tokenizer
        .added_sorted()
        .into_iter()
        .map(|token| {
            json!({
                "id": token.id, "content": token.content, "single_word": token.single_word, "lstrip": token.lstrip,
                "rstrip": token.rstrip, "normalized": token.normalized, "special": token.special,
            })
        })
        .collect();
    let Parts { pre_tokenizer, post_processor, decoder, model } = match &tokenizer.model {
        Model::Bpe(bpe) => byte_level(tokenizer, Some(bpe)),
        Model::Bytes => byte_level(tokenizer, None),
        Model::Characters(_) => characters(tokenizer),
        Model::CharBpe(bpe) => over_text(tokenizer, char_bpe(tokenizer, bpe)),
        Model::Unigram(unigram) => over_text(tokenizer, unigram_model(unigram)),
        Model::WordPiece(wordpiece) => over_text(tokenizer, wordpiece_model(tokenizer, wordpiece)),
    };
    let added_around = tokenizer.post_processor.iter().map(|step| json!(step));
    let post_processor = sequence(post_processor.into_iter().chain(added_around).collect(), "processors");
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": written_steps(&tokenizer.pipeline.normalizer, "normalizers"),
        "pre_tokenizer": pre_tokenizer, "post_processor": post_processor, "decoder": decoder, "model": model,
    })
}

struct Parts {
    pre_tokenizer: Value,
    post_processor: Option<Value>,
    decoder: Value,
    model: Value,
}

/// Steps as a file has them: nothing, one, or a sequence.
fn written_steps(steps: &[impl Serialize], list: &str) -> Value {
    sequence(steps.iter().map(|step| json!(step)).collect(), list)
}

fn sequence(mut steps: Vec<Value>, list: &str) -> Value {
    match steps.len() {
        0 => Value::Null,
        1 => steps.remove(0),
        _ => json!({"type": "Sequence", list: steps}),
    }
}

fn byte_level(tokenizer: &Tokenizer, bpe: Option<&Bpe>) -> Parts {
    let byte_level = |add_prefix_space: bool, trim_offsets: bool, use_regex: bool| {
        json!({
            "type": "ByteLevel", "add_prefix_space": add_prefix_space,
            "trim_offsets": trim_offsets, "use_regex": use_regex,
        })
    };
    let add_prefix_space = bpe.is_some_and(|bpe| bpe.add_prefix_space);
    let pattern = bpe.map_or(&Pattern::Gpt2, Bpe::pattern);
    let mut steps: Vec<Value> = tokenizer.pipeline.splits.iter().map(|split| json!(split)).collect();
    match pattern {
        Pattern::Gpt2 => {}
        Pattern::Cl100k => steps.push(split_of_regex(CL100K)),
        other => steps.extend(other.regexes().into_iter().map(split_of_regex)),
    }
    steps.push(byte_level(add_prefix_space, true, *pattern == Pattern::Gpt2));
    // `a b` rather than `["a", "b"]`: all versions of `tokenizers` read it, and no token has a space.
    let merges: Vec<String> = tokenizer
        .merges()
        .map(|(left, right)| format!("{} {}", alphabet::write(left), alphabet::write(right)))
        .collect();
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
        "ignore_merges": bpe.is_some_and(Bpe::ignores_merges),
        "vocab": vocab(tokenizer, alphabet::write), "merges": merges,
    });
    Parts {
        pre_tokenizer: sequence(steps, "pretokenizers"),
        post_processor: Some(byte_level(true, false, true)),
        decoder: byte_level(true, true, true),
        model,
    }
}

fn characters(tokenizer: &Tokenizer) -> Parts {
    let pre_tokenizer = split_of_regex(EVERY_CHARACTER);
    let utf8 = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let vocab = vocab(tokenizer, utf8);
    // The key is required. The token named must be missing, so that `tokenizers` refuses unknown
    // characters; it is longer than one character and can be made longer than any other.
    let mut unknown = "<|unknown|>".to_string();
    while vocab.contains_key(&unknown) {
        unknown.push('|');
    }
    let model = json!({"type": "WordLevel", "vocab": vocab, "unk_token": unknown});
    Parts { pre_tokenizer, post_processor: None, decoder: json!({"type": "Fuse"}), model }
}

/// What stands around a model over text.
fn over_text(tokenizer: &Tokenizer, model: Value) -> Parts {
    let decoder = match &tokenizer.decoder {
        Decoder::Steps { steps, .. } if *steps != [Step::Join] => written_steps(steps, "decoders"),
        _ => Value::Null,
    };
    let pre_tokenizer = written_steps(&tokenizer.pipeline.splits, "pretokenizers");
    Parts { pre_tokenizer, post_processor: None, decoder, model }
}

fn char_bpe(tokenizer: &Tokenizer, bpe: &CharBpe) -> Value {
    let written = written(tokenizer);
    let name = |id: TokenId| &*written[id as usize];
    let merges: Vec<[&str; 2]> = bpe.pairs().iter().map(|pair| pair.map(name)).collect();
    let options = &bpe.options;
    json!({
        "type": "BPE", "dropout": null, "unk_token": options.unknown.map(name),
        "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": options.fuse_unknown,
        "byte_fallback": options.byte_ids.is_some(), "ignore_merges": options.whole.is_some(),
        "vocab": text_vocab(tokenizer), "merges": merges,
    })
}

fn unigram_model(unigram: &Unigram) -> Value {
    let vocab: Vec<(&str, f64)> = unigram.pieces().iter().map(|piece| (&*piece.text, piece.score)).collect();
    let options = unigram.options();
    json!({
        "type": "Unigram", "unk_id": options.unknown, "vocab": vocab, "byte_fallback": options.byte_ids.is_some(),
    })
}

fn wordpiece_model(tokenizer: &Tokenizer, wordpiece: &WordPiece) -> Value {
    json!({
        "type": "WordPiece", "unk_token": written(tokenizer)[wordpiece.unknown() as usize],
        "continuing_subword_prefix": wordpiece.prefix(), "max_input_chars_per_word": wordpiece.max_chars(),
        "vocab": text_vocab(tokenizer),
    })
}

/// The tokens as they are written, of a vocabulary over text.
fn written(tokenizer: &Tokenizer) -> &[Box<str>] {
    match &tokenizer.decoder {
        Decoder::Steps { written, .. } => written,
        Decoder::Bytes => unreachable!("a vocabulary over text is decoded by steps"),
    }
}

/// All tokens of a vocabulary over text in the order of their ids.
fn text_vocab(tokenizer: &Tokenizer) -> Map<String, Value> {
    let added = tokenizer.added_sorted();
    let mut added = added.iter().peekable();
    let numbered = (0..).zip(written(tokenizer));
    numbered
        .filter(|(_, token)| !token.is_empty())
        .filter_map(|(id, token)| match added.next_if(|added| added.id == id) {
            Some(added) => added.in_model.then(|| (added.content.clone(), id.into())),
            None => Some((token.to_string(), id.into())),
        })
        .collect()
}

/// All tokens in the order of their ids, added tokens as they are, others by `write`.
fn vocab(tokenizer: &Tokenizer, write: impl Fn(&[u8]) -> String) -> Map<String, Value> {
    let added = tokenizer.added_sorted();
    let mut added = added.iter().peekable();
    let numbered = (0 as TokenId..).zip(&tokenizer.tokens);
    numbered
        .filter(|(_, bytes)| !bytes.is_empty())
        .filter_map(|(id, bytes)| match added.next_if(|added| added.id == id) {
            Some(added) => added.in_model.then(|| (added.content.clone(), id.into())),
            None => Some((write(bytes), id.into())),
        })
        .collect()
}

/// The two files of GPT-2.
///
/// # Errors
/// If the vocabulary is none of byte-level BPE.
pub(super) fn vocab_and_merges(tokenizer: &Tokenizer) -> Result<(String, String), Error> {
    if !matches!(tokenizer.model, Model::Bpe(_) | Model::Bytes) {
        let reason = "it is no byte-level BPE".to_string();
        return Err(Error::Format { format: "vocab.json and merges.txt", reason });
    }
    let merges =
        tokenizer.merges().map(|(left, right)| format!("{} {}\n", alphabet::write(left), alphabet::write(right)));
    let vocab = json!(vocab(tokenizer, alphabet::write)).to_string();
    Ok((vocab, std::iter::once("#version: 0.2\n".to_string()).chain(merges).collect()))
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
