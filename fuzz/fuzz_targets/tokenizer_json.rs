//! A damaged `tokenizer.json` is refused or used: no panic, no hang, no memory without bound.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tokenizer::Tokenizer;

const TEXT: &str = "Some text, e\u{301} ▁ <s>\u{1F642}  2024\n";

fuzz_target!(|bytes: &[u8]| {
    let json = [b"{", bytes].concat();
    if let Ok(tokenizer) = Tokenizer::from_bytes(&json, Path::new("tokenizer.json"), None) {
        let ids = tokenizer.encode(TEXT.as_bytes());
        tokenizer.decode(&tokenizer.post_process(&ids));
    }
});
