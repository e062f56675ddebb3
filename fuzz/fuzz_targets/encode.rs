//! Any text has the ids that the merges one by one give, at once and as a stream.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tokenizer::Tokenizer;

/// Of two patterns, and without stages before the model, which explanations leave out.
static TOKENIZERS: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
    let files: [(&[u8], &str); 2] = [
        (include_bytes!("../../crates/tokenizer/tests/golden/formats/gpt2.tokenizer.json"), "gpt2.json"),
        (include_bytes!("../../crates/tokenizer/tests/golden/formats/llama3.tokenizer.json"), "llama3.json"),
    ];
    files.into_iter().map(|(file, name)| Tokenizer::from_bytes(file, Path::new(name), None).expect("a valid file")).collect()
});

fuzz_target!(|input: (u8, u8, Vec<u8>)| {
    let (which, n_times, text) = input;
    let tokenizer = &TOKENIZERS[usize::from(which) % TOKENIZERS.len()];
    // Repeated, so that it gets long and known.
    let text = text.repeat(1 + usize::from(n_times) % 8);
    let ids = tokenizer.encode_ordinary(&text);
    let streamed: Result<Vec<u32>, _> = tokenizer.encode_stream(&text[..]).collect();
    assert_eq!(streamed.expect("bytes can be read"), tokenizer.encode(&text));
    assert_eq!(tokenizer.encode_flat(&[&text, b"", &text]).ids(), [tokenizer.encode(&text), tokenizer.encode(&text)].concat());
    let Ok(Some(explained)) = tokenizer.explain(&text) else { return };
    let mut rest = &ids[..];
    for explanation in explained {
        let bytes: Vec<Vec<u8>> = explanation.pretoken.iter().map(|&byte| vec![byte]).collect();
        let expected = explanation.steps.last().map_or(bytes, |step| step.tokens.clone());
        // A token as a whole may be one that no merges lead to.
        let is_whole = rest.first().is_some_and(|&id| tokenizer.token_bytes(id) == Some(&explanation.pretoken[..]));
        let n = if is_whole { 1 } else { expected.len() };
        let (found, behind) = rest.split_at(n);
        if !is_whole {
            let found: Vec<&[u8]> = found.iter().map(|&id| tokenizer.token_bytes(id).expect("an id")).collect();
            assert_eq!(found, expected);
        }
        rest = behind;
    }
    assert!(rest.is_empty());
});
