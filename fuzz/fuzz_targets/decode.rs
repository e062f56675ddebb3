//! Any ids are decoded, at once and one by one.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tokenizer::{DecodeStream, Tokenizer};

/// One of each way to decode.
static TOKENIZERS: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
    let files: [&[u8]; 6] = [
        include_bytes!("../../crates/tokenizer/tests/golden/formats/gpt2.tokenizer.json"),
        include_bytes!("../../crates/tokenizer/tests/golden/formats/llama2.tokenizer.json"),
        include_bytes!("../../crates/tokenizer/tests/golden/formats/t5.tokenizer.json"),
        include_bytes!("../../crates/tokenizer/tests/golden/formats/bert.tokenizer.json"),
        include_bytes!("../../crates/tokenizer/tests/golden/formats/llama.model"),
        include_bytes!("../../crates/tokenizer/tests/golden/formats/unfused.tokenizer.json"),
    ];
    files.into_iter().map(|file| Tokenizer::from_bytes(file, Path::new("file"), None).expect("a valid file")).collect()
});

fuzz_target!(|input: (u8, Vec<u16>)| {
    let (which, ids) = input;
    let tokenizer = &TOKENIZERS[usize::from(which) % TOKENIZERS.len()];
    let ids: Vec<u32> = ids.into_iter().map(|id| u32::from(id) % (tokenizer.vocab_size() as u32 + 2)).collect();
    let text = tokenizer.decode(&ids);
    let mut stream = DecodeStream::new(tokenizer);
    let mut streamed: String = ids.iter().map(|&id| stream.push(id)).collect();
    streamed += &stream.finish();
    // A run of bytes that is not UTF-8 may have another number of replacement characters.
    if !text.contains('\u{FFFD}') && !streamed.contains('\u{FFFD}') {
        assert_eq!(streamed, text);
    }
});
