//! Encoding and decoding against Hugging Face's `tokenizers` and tiktoken.

use serde::Deserialize;
use tokenizer::{DecodeStream, Tokenizer};

use crate::fixtures::{path, read};

/// Written by `oracle/tokenizer_golden.py`.
#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    /// None if `tokenizers` refuses the text.
    ids: Option<Vec<u32>>,
    decoded: Option<String>,
}

fn check(name: &str) {
    let tokenizer = Tokenizer::from_file(&path(&format!("fixtures/{name}.tokenizer.json"))).unwrap();
    let golden: Golden = serde_json::from_str(&read(&format!("golden/{name}.json"))).unwrap();
    assert!(golden.cases.len() > 30);
    for Case { text, ids, decoded } in golden.cases {
        let Some(ids) = ids else {
            assert!(tokenizer.try_encode(text.as_bytes()).is_err(), "{text:?}");
            continue;
        };
        assert_eq!(tokenizer.try_encode(text.as_bytes()).unwrap(), ids, "{text:?}");
        let streamed: Result<Vec<u32>, _> = tokenizer.encode_stream(text.as_bytes()).collect();
        assert_eq!(streamed.unwrap(), ids, "{text:?}");
        assert_eq!(Some(tokenizer.decode(&ids)), decoded);
        let mut stream = DecodeStream::new(&tokenizer);
        let mut chat: String = ids.iter().map(|&id| stream.push(id)).collect();
        chat += &stream.finish();
        assert_eq!(chat, text);
    }
}

#[test]
fn bpe_ids_equal_those_of_hugging_face_and_tiktoken() {
    check("corpus-500");
}

#[test]
fn character_ids_equal_those_of_hugging_face() {
    check("corpus-characters");
}

#[test]
fn byte_ids_equal_those_of_hugging_face() {
    check("bytes");
}
