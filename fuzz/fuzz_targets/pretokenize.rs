//! Any bytes are cut as the published regular expressions cut them, and a stream has the ids of the whole.
#![no_main]

use std::convert::Infallible;
use std::io::BufReader;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tokenizer::train::{BpeConfig, train_bpe};
use tokenizer::{Pattern, Tokenizer};

/// Each pattern written by hand, and the same through an engine of regular expressions.
static PATTERNS: LazyLock<Vec<[Tokenizer; 2]>> = LazyLock::new(|| {
    use Pattern::{Cl100k, DeepSeekV3, Gpt2, Llama3, O200k, Qwen2};
    let pair = |pattern: Pattern| {
        // Another spelling, so that it is not recognised.
        let regexes: Vec<String> = pattern.regexes().iter().map(|regex| format!("(?:{regex})")).collect();
        let engine = Pattern::of_regexes(&regexes.iter().map(String::as_str).collect::<Vec<_>>()).expect("an expression");
        assert!(engine.is_custom());
        [bytes_cut_by(pattern), bytes_cut_by(engine)]
    };
    [Gpt2, Cl100k, O200k, Llama3, Qwen2, DeepSeekV3].into_iter().map(pair).collect()
});

/// The 256 bytes without merges.
fn bytes_cut_by(pattern: Pattern) -> Tokenizer {
    let config = BpeConfig { vocab_size: 256, pattern, ..BpeConfig::default() };
    train_bpe([Ok::<_, Infallible>(Vec::new())], &config, &|_| {}).expect("a vocabulary")
}

/// `None` if the engine gives up.
fn pretokens(tokenizer: &Tokenizer, text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let explained = tokenizer.explain(text).ok()?.expect("byte-level BPE");
    Some(explained.into_iter().map(|one| one.pretoken).collect())
}

fuzz_target!(|text: &[u8]| {
    for [fast, slow] in PATTERNS.iter() {
        let found = pretokens(fast, text).expect("patterns written by hand do not give up");
        if let Some(expected) = pretokens(slow, text) {
            assert_eq!(found, expected, "{:?}", fast.pattern());
        }
        let reader = BufReader::with_capacity(1 + text.len() / 3, text);
        let streamed: Vec<u32> = fast.encode_stream(reader).map(|id| id.expect("any bytes")).collect();
        assert_eq!(streamed, fast.encode(text));
    }
});
