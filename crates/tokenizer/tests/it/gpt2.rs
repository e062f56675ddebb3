//! GPT-2's own vocabulary, which is too large to commit.

use serde::Deserialize;
use tokenizer::{Kind, Tokenizer};

use crate::fixtures::{read, shared};

/// Written by `oracle/tokenizer_golden.py`.
#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    text: String,
    ids: Vec<u32>,
}

fn gpt2() -> Option<Tokenizer> {
    let vocab = shared("data/02_tokenizer/cs336/gpt2_vocab.json")?;
    let merges = shared("data/02_tokenizer/cs336/gpt2_merges.txt")?;
    Some(Tokenizer::from_vocab_and_merges(&vocab, &merges).unwrap())
}

#[test]
fn ids_of_gpt2_equal_those_of_tiktoken() {
    let Some(tokenizer) = gpt2() else { return };
    assert_eq!((tokenizer.vocab_size(), tokenizer.merges().len()), (50257, 50000));
    assert_eq!((tokenizer.kind(), tokenizer.end_of_text()), (Kind::Bpe, Some(50256)));
    let golden: Golden = serde_json::from_str(&read("golden/gpt2.json")).unwrap();
    assert!(golden.cases.len() > 50);
    for Case { name, text, ids } in golden.cases {
        assert_eq!(tokenizer.encode_ordinary(text.as_bytes()), ids, "{name}");
        assert_eq!(tokenizer.decode(&ids), text, "{name}");
    }
}

#[derive(Deserialize)]
struct Checked {
    name: String,
    text: String,
    n_ids: usize,
    crc32: u32,
}

/// The shorter texts of `tiktoken_gold.jsonl.gz`: UDHR in many languages, and edge cases; the ids of tiktoken's
/// `r50k_base` by their number and the CRC-32 of them as little-endian numbers.
#[test]
fn ids_of_many_languages_equal_those_of_tiktoken() {
    let Some(tokenizer) = gpt2() else { return };
    let lines = read("golden/tiktoken_r50k.jsonl");
    let cases: Vec<Checked> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(cases.len() > 100);
    // Again and again: the second time all is known.
    for _ in 0..2 {
        for Checked { name, text, n_ids, crc32 } in &cases {
            let ids = tokenizer.encode_ordinary(text.as_bytes());
            assert_eq!(
                (ids.len(), crate::real::crc32(ids.iter().flat_map(|id| id.to_le_bytes()))),
                (*n_ids, *crc32),
                "{name}"
            );
        }
    }
}

#[test]
fn a_saved_gpt2_is_read_back_equal() {
    let Some(tokenizer) = gpt2() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    tokenizer.save(&path).unwrap();
    assert!(Tokenizer::from_file(&path).unwrap() == tokenizer);
}

const OLMO_IDS: [u32; 6] = [860, 50271, 89, 426, 337, 50279];

/// GPT-NeoX normalises text, and takes runs of spaces for tokens.
#[test]
fn the_tokenizer_of_olmo_is_read_and_written() {
    let Some(path) = shared("data/02_tokenizer/gpt-neox-olmo-dolma-v1_5.tokenizer.json") else { return };
    let tokenizer = Tokenizer::from_file(&path).unwrap();
    assert_eq!((tokenizer.vocab_size(), tokenizer.end_of_text()), (50280, Some(50279)));
    // By `tokenizers` 0.23.3.
    let text = "e\u{301}       x = 1<|endoftext|>";
    assert_eq!(tokenizer.encode(text.as_bytes()), OLMO_IDS);
    assert_eq!(tokenizer.decode(&OLMO_IDS), "\u{e9}       x = 1<|endoftext|>");
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("tokenizer.json");
    tokenizer.save(&copy).unwrap();
    assert!(Tokenizer::from_file(&copy).unwrap() == tokenizer);
}
