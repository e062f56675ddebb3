//! The committed files, and the vocabularies they hold.

use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};

use tokenizer::Tokenizer;
use tokenizer::train::{BpeConfig, train_bpe};

/// The special token of all fixtures.
pub(crate) const END_OF_TEXT: &str = "<|endoftext|>";

pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

pub(crate) fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap()
}

/// The folder with more test data, beside the repository where there is one.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let found = ["shared", "../shared"].map(|shared| root.join(shared).join(name));
    let found = found.into_iter().find(|path| path.exists());
    if found.is_none() {
        eprintln!("skipped: shared/{name} is missing");
    }
    found
}

/// Trains on `corpus.en` with the special token `<|endoftext|>`.
pub(crate) fn train_on_corpus(vocab_size: usize) -> Tokenizer {
    let special_tokens = vec![END_OF_TEXT.to_string()];
    let documents = [Ok::<_, Infallible>(fs::read(path("fixtures/corpus.en")).unwrap())];
    train_bpe(documents, &BpeConfig { vocab_size, special_tokens, ..BpeConfig::default() }, &|_| {}).unwrap()
}

/// The vocabularies that Hugging Face's `tokenizers` is compared on, by the name of their file.
pub(crate) fn vocabularies() -> [(&'static str, Tokenizer); 3] {
    let specials = [END_OF_TEXT.to_string()];
    let corpus = read("fixtures/corpus.en");
    [
        ("corpus-500", train_on_corpus(500)),
        ("corpus-characters", Tokenizer::characters([corpus.as_str()], &specials).unwrap()),
        ("bytes", Tokenizer::bytes_with_specials(&specials).unwrap()),
    ]
}
