//! Every kind of file against the program whose format it is (`oracle/tokenizer_formats.py`).

use serde::Deserialize;
use tokenizer::{DecodeStream, Kind, Pattern, TiktokenEncoding, Tokenizer};

use crate::fixtures::{path, read};

#[derive(Deserialize)]
struct Golden {
    /// The ids of "first text" and "second" with the tokens around them.
    pair: Option<Vec<u32>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    framed: Option<Vec<u32>>,
    decoded: String,
    /// The text of `framed` without special tokens.
    plain: Option<String>,
}

fn golden(name: &str) -> Golden {
    let golden: Golden = serde_json::from_str(&read(&format!("golden/formats/{name}.json"))).unwrap();
    assert!(golden.cases.len() > 70);
    golden
}

/// Everything that can be asked of a tokenizer, against the golden cases.
fn check(tokenizer: &Tokenizer, name: &str) {
    let Golden { pair, cases } = golden(name);
    for Case { text, ids, framed, decoded, plain } in cases {
        let encoded = tokenizer.encode(text.as_bytes());
        assert_eq!(encoded, ids, "{name}: {text:?}, here {:?}", tokenizer.decode(&encoded));
        let streamed: Result<Vec<u32>, _> = tokenizer.encode_stream(text.as_bytes()).collect();
        assert_eq!(streamed.unwrap(), ids, "{name}, streamed: {text:?}");
        assert_eq!(tokenizer.decode(&ids), decoded, "{name}: {text:?}");
        if let Some(framed) = framed {
            assert_eq!(tokenizer.post_process(&ids), framed, "{name}: {text:?}");
            if let Some(plain) = plain {
                assert_eq!(tokenizer.decode_without_special(&framed), plain, "{name}: {text:?}");
            }
        }
        let mut stream = DecodeStream::new(tokenizer);
        let mut chat: String = ids.iter().map(|&id| stream.push(id)).collect();
        chat += &stream.finish();
        assert_eq!(chat, decoded, "{name}, streamed: {text:?}");
    }
    if let Some(pair) = pair {
        let [first, second] = ["first text", "second"].map(|text| tokenizer.encode(text.as_bytes()));
        assert_eq!(tokenizer.post_process_pair(&first, &second), pair, "{name}");
    }
}

/// A `tokenizer.json` as it is read, and as it is read again after it was written.
fn check_json(name: &str, kind: Kind) {
    let tokenizer = Tokenizer::from_file(&path(&format!("golden/formats/{name}.tokenizer.json"))).unwrap();
    assert_eq!(tokenizer.kind(), kind);
    check(&tokenizer, name);
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("tokenizer.json");
    tokenizer.save(&copy).unwrap();
    assert!(Tokenizer::from_file(&copy).unwrap() == tokenizer, "{name} is not what was written");
}

macro_rules! json_files {
    ($($test:ident: $name:literal is $kind:ident,)*) => {$(
        #[test]
        fn $test() {
            check_json($name, Kind::$kind);
        }
    )*};
}

json_files! {
    ids_of_gpt2s_kind_are_those_of_hugging_face: "gpt2" is Bpe,
    ids_with_nfc_and_added_tokens_are_those_of_hugging_face: "neox" is Bpe,
    ids_of_robertas_kind_are_those_of_hugging_face: "roberta" is Bpe,
    ids_with_all_flags_of_added_tokens_are_those_of_hugging_face: "flags" is Bpe,
    ids_of_llama_3s_kind_are_those_of_hugging_face: "llama3" is Bpe,
    ids_of_blooms_kind_are_those_of_hugging_face: "bloom" is Bpe,
    ids_with_single_digits_are_those_of_hugging_face: "digits" is Bpe,
    ids_with_a_sequence_of_cuts_are_those_of_hugging_face: "sequence" is Bpe,
    ids_of_text_that_is_not_cut_are_those_of_hugging_face: "whole" is Bpe,
    ids_of_llama_2s_kind_are_those_of_hugging_face: "llama2" is CharBpe,
    ids_of_mistrals_kind_are_those_of_hugging_face: "mistral" is CharBpe,
    ids_with_single_unknown_tokens_are_those_of_hugging_face: "unfused" is CharBpe,
    ids_with_fused_unknown_tokens_are_those_of_hugging_face: "fused" is CharBpe,
    ids_of_t5s_kind_are_those_of_hugging_face: "t5" is Unigram,
    ids_of_berts_kind_are_those_of_hugging_face: "bert" is WordPiece,
    ids_of_cased_berts_kind_are_those_of_hugging_face: "bert-cased" is WordPiece,
    ids_of_plain_wordpiece_are_those_of_hugging_face: "wordpiece-whitespace" is WordPiece,
}

/// A token that takes the spaces before it along, however far away a stream has read them.
#[test]
fn a_stream_sees_the_spaces_that_a_token_takes_along() {
    let tokenizer = Tokenizer::from_file(&path("golden/formats/roberta.tokenizer.json")).unwrap();
    let text = "word".to_string() + &" ".repeat(200_000) + "<mask> word";
    let streamed: Result<Vec<u32>, _> = tokenizer.encode_stream(text.as_bytes()).collect();
    let ids = streamed.unwrap();
    assert!(ids.len() < 20);
    assert_eq!(ids, tokenizer.encode(text.as_bytes()));
}

/// SentencePiece takes the names of control symbols for text.
fn check_ordinary(tokenizer: &Tokenizer, name: &str) {
    for Case { text, ids, decoded, .. } in golden(name).cases {
        let encoded = tokenizer.encode_ordinary(text.as_bytes());
        assert_eq!(encoded, ids, "{name}: {text:?}, here {:?}", tokenizer.decode(&encoded));
        assert_eq!(tokenizer.decode(&ids), decoded, "{name}: {text:?}");
    }
}

fn check_model(name: &str, kind: Kind) {
    let file = path(&format!("golden/formats/{name}.model"));
    let tokenizer = Tokenizer::from_file(&file).unwrap();
    assert_eq!(tokenizer.kind(), kind);
    check_ordinary(&tokenizer, name);
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("tokenizer.model");
    tokenizer.save(&copy).unwrap();
    assert!(Tokenizer::from_file(&copy).unwrap() == tokenizer, "{name} is not what was written");
    assert!(Tokenizer::from_file(folder.path()).unwrap() == tokenizer, "{name} is not found in its folder");
}

macro_rules! sentencepiece_files {
    ($($test:ident: $name:literal is $kind:ident,)*) => {$(
        #[test]
        fn $test() {
            check_model($name, Kind::$kind);
        }
    )*};
}

sentencepiece_files! {
    ids_of_llamas_kind_of_model_are_those_of_sentencepiece: "llama" is CharBpe,
    ids_of_bpe_with_rules_and_user_symbols_are_those_of_sentencepiece: "bpe" is CharBpe,
    ids_of_unigram_with_rules_and_user_symbols_are_those_of_sentencepiece: "unigram" is Unigram,
    ids_of_unigram_with_bytes_are_those_of_sentencepiece: "unigram-bytes" is Unigram,
    ids_with_spaces_behind_words_are_those_of_sentencepiece: "suffix" is Unigram,
}

/// The `tokenizer.json` of a model gives the model's ids, where no symbol of the user is in the text.
#[test]
fn a_sentencepiece_model_is_converted() {
    for name in ["llama", "unigram-bytes"] {
        let model = Tokenizer::from_file(&path(&format!("golden/formats/{name}.model"))).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokenizer.json");
        model.save(&file).unwrap();
        let converted = Tokenizer::from_file(&file).unwrap();
        for Case { text, ids, .. } in golden(name).cases {
            // Text is cut at the names of special tokens, and names of bytes are taken for them. Between paths of one score (`ab` and `ba` in a row of
            // both) rounding decides, which is SentencePiece's own.
            if !["<s>", "</s>", "<unk>", "<0x", "abab", "aaaa", "xxxx"].iter().any(|part| text.contains(part)) {
                assert_eq!(converted.encode(text.as_bytes()), ids, "{name}: {text:?}");
            }
        }
    }
}

#[test]
fn ids_by_ranks_are_those_of_tiktoken() {
    let file = path("golden/formats/small.tiktoken");
    let special_tokens = vec![("<|endoftext|>".to_string(), 497), ("<mask>".to_string(), 500)];
    let encoding = TiktokenEncoding { pattern: Pattern::Gpt2, special_tokens };
    let tokenizer = Tokenizer::from_tiktoken(&file, &encoding).unwrap();
    assert_eq!(tokenizer.vocab_size(), 501);
    check(&tokenizer, "small");
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.tiktoken");
    tokenizer.save(&copy).unwrap();
    assert!(std::fs::read(&copy).unwrap() == std::fs::read(&file).unwrap());
    let json = folder.path().join("tokenizer.json");
    tokenizer.save(&json).unwrap();
    check(&Tokenizer::from_file(&json).unwrap(), "small");
    // Patterns are known again, however they are written.
    for pattern in [Pattern::Cl100k, Pattern::O200k, Pattern::Llama3, Pattern::Qwen2, Pattern::DeepSeekV3] {
        let encoding = TiktokenEncoding { pattern: pattern.clone(), ..encoding.clone() };
        Tokenizer::from_tiktoken(&file, &encoding).unwrap().save(&json).unwrap();
        assert_eq!(Tokenizer::from_file(&json).unwrap().pattern(), Some(&pattern));
    }
    let error = Tokenizer::from_file(&file).unwrap_err().to_string();
    assert!(error.contains("name it as its encoding"), "{error}");
}

#[test]
fn the_two_files_of_gpt2_are_written_as_they_are_read() {
    let tokenizer = Tokenizer::from_file(&path("golden/formats/gpt2.tokenizer.json")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    tokenizer.save_vocab_and_merges(folder.path()).unwrap();
    let copy = Tokenizer::from_file(folder.path()).unwrap();
    for Case { text, ids, .. } in golden("gpt2").cases {
        assert_eq!(copy.encode(text.as_bytes()), ids, "{text:?}");
    }
}
