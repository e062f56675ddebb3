//! A damaged rank file is refused, or gives every text back.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tokenizer::{TiktokenEncoding, Tokenizer};

const TEXT: &[u8] = b"Some text, \xFF\xC3 aaaa  2024\n";
static ENCODING: LazyLock<TiktokenEncoding> =
    LazyLock::new(|| TiktokenEncoding::named("cl100k_base").expect("a known name"));
/// The 256 bytes, without which every file is refused.
static BYTES: &[u8] = include_bytes!("../../crates/tokenizer/tests/golden/formats/small.tiktoken");

fuzz_target!(|bytes: &[u8]| {
    let ranks = [BYTES, bytes].concat();
    if let Ok(tokenizer) = Tokenizer::from_bytes(&ranks, Path::new("cl100k_base.tiktoken"), Some(&ENCODING)) {
        assert_eq!(tokenizer.decode_bytes(&tokenizer.encode(TEXT)), TEXT);
    }
});
