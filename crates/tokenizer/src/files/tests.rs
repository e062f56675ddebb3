use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::alphabet;

/// A small valid file: 256 bytes, `ab`, ` ab` and a special token.
fn valid() -> Value {
    let mut vocab = serde_json::Map::new();
    for byte in alphabet::BYTES_IN_ORDER {
        vocab.insert(alphabet::write(&[byte]), vocab.len().into());
    }
    for token in ["ab", "Ġab", "<|endoftext|>"] {
        vocab.insert(token.into(), vocab.len().into());
    }
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": 258, "content": "<|endoftext|>", "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": true, "special": true}],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": ["a b", ["Ġ", "ab"]]},
    })
}

fn parse(value: &Value) -> Result<Tokenizer, Error> {
    parse::tokenizer(value.to_string().as_bytes()).map_err(|p| p.of(Path::new("tokenizer.json")))
}

#[test]
fn both_spellings_of_merges_are_read() {
    let tokenizer = parse(&valid()).unwrap();
    let ids = tokenizer.encode(b"ab ab<|endoftext|>");
    assert_eq!(ids, [256, 257, 258]);
}

#[test]
fn flags_and_the_split_form_of_the_pretokenizer_are_read() {
    let mut file = valid();
    let plain = parse(&file).unwrap();
    file["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": crate::reference::PATTERN}, "behavior": "Isolated",
         "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
    ]});
    assert!(parse(&file).unwrap() == plain);
    file["pre_tokenizer"] = json!({"type": "ByteLevel", "add_prefix_space": true, "use_regex": true});
    assert_eq!(parse(&file).unwrap().encode(b"ab"), [257]);
}

#[test]
fn what_is_not_supported_is_named() {
    for (pointer, value, name) in [
        ("/normalizer", json!({"type": "NFC"}), "normalizer"),
        ("/truncation", json!({"max_length": 5}), "truncation"),
        ("/model/type", json!("Unigram"), "model.type"),
        ("/model/ignore_merges", json!(true), "model.ignore_merges"),
        ("/model/dropout", json!(0.1), "model.dropout"),
        ("/model/end_of_word_suffix", json!("</w>"), "model.end_of_word_suffix"),
        ("/pre_tokenizer", json!({"type": "Metaspace"}), "pre_tokenizer"),
        ("/pre_tokenizer", json!({"type": "ByteLevel", "use_regex": false}), "pre_tokenizer"),
        ("/pre_tokenizer", Value::Null, "pre_tokenizer"),
        ("/post_processor", json!({"type": "TemplateProcessing"}), "post_processor"),
        ("/decoder", json!({"type": "WordPiece"}), "decoder"),
        ("/added_tokens/0/lstrip", json!(true), "added_tokens.lstrip"),
    ] {
        let mut file = valid();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        file.pointer_mut(parent).unwrap()[key] = value;
        match parse(&file) {
            Err(Error::Unsupported { part, .. }) => assert_eq!(part, name),
            other => panic!("{pointer}: {other:?}"),
        }
    }
}

#[test]
fn a_file_that_contradicts_itself_is_refused_with_the_reason() {
    for (pointer, value, reason) in [
        ("/model/vocab/ab", json!(4_000_000_000_u32), "no token has id 256"),
        ("/model/vocab/ab", json!(u64::MAX), "the id 18446744073709551615"),
        ("/model/vocab/ab", json!(-1), "the id -1"),
        ("/model/vocab/ab", json!("256"), "the id \"256\""),
        ("/model/vocab/ab", json!(5), "more than one token has id 5"),
        ("/model/merges/0", json!("a q"), "\"aq\", which is not in the vocabulary"),
        ("/model/merges/0", json!("aab"), "not two tokens"),
        ("/model/merges/0", json!(7), "not two tokens"),
        ("/model/merges", json!(null), "no merges"),
        ("/model/vocab", json!([]), "model.vocab is [], not an object"),
        ("/added_tokens/0/id", json!(300), "has id 300, but 258 in model.vocab"),
        ("/added_tokens/0/content", json!("<|new|>"), "has id 258, but is not in model.vocab"),
        ("/added_tokens/0/content", json!(3), "lacks content or id"),
        ("/added_tokens", json!("x"), "added_tokens is \"x\""),
        ("/model", json!(null), "no model"),
    ] {
        let mut file = valid();
        *file.pointer_mut(pointer).unwrap() = value;
        let error = parse(&file).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{pointer}: {error}");
        assert!(error.to_string().contains(reason), "{pointer}: {error}");
    }
    let mut file = valid();
    file["model"]["vocab"].as_object_mut().unwrap().shift_remove("!");
    file["model"]["vocab"]["zz"] = json!(0);
    assert!(parse(&file).unwrap_err().to_string().contains("lacks the byte 0x21"));
}

#[test]
fn a_written_file_is_read_back_equal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let specials = ["<|endoftext|>".to_string(), "ẞpecial 🙂".to_string()];
    for tokenizer in [
        parse(&valid()).unwrap(),
        Tokenizer::bytes(),
        Tokenizer::bytes_with_specials(&specials).unwrap(),
        Tokenizer::characters(["größer 日本 \n\"\\"], &[]).unwrap(),
        Tokenizer::characters(["größer 日本 \n\"\\"], &specials).unwrap(),
    ] {
        tokenizer.save(&path).unwrap();
        assert!(Tokenizer::from_file(&path).unwrap() == tokenizer);
        assert!(Tokenizer::from_file(folder.path()).unwrap() == tokenizer);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn a_file_that_cannot_be_written_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    // A folder in the file's place: the renaming fails after all else has worked.
    let path = folder.path().join("tokenizer.json");
    fs::create_dir(&path).unwrap();
    assert!(matches!(Tokenizer::bytes().save(&path), Err(Error::Write { .. })));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(Tokenizer::bytes().save(&folder.path().join("missing/tokenizer.json")).is_err());
}

#[test]
fn missing_files_and_other_files_give_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let error = Tokenizer::from_file(folder.path()).unwrap_err();
    assert!(matches!(error, Error::NoTokenizerInFolder { .. }));
    let path = folder.path().join("tokenizer.json");
    assert!(matches!(Tokenizer::from_file(&path), Err(Error::Read { .. })));
    for text in ["", "{", "not json", "\u{feff}{}"] {
        fs::write(&path, text).unwrap();
        assert!(matches!(Tokenizer::from_file(&path), Err(Error::Json { .. })), "{text:?}");
    }
    fs::write(&path, "[".repeat(100_000)).unwrap();
    assert!(matches!(Tokenizer::from_file(&path), Err(Error::Json { .. })));
    fs::write(&path, "[]").unwrap();
    assert!(matches!(Tokenizer::from_file(&path), Err(Error::Invalid { .. })));
}

#[test]
fn vocab_and_merges_give_the_special_tokens_that_nothing_else_explains() {
    let folder = tempfile::tempdir().unwrap();
    let vocab = &valid()["model"]["vocab"];
    fs::write(folder.path().join("vocab.json"), vocab.to_string()).unwrap();
    let merges = folder.path().join("merges.txt");
    fs::write(&merges, "#version: 0.2\na b\nĠ ab\n").unwrap();
    let tokenizer = Tokenizer::from_file(folder.path()).unwrap();
    assert!(tokenizer == parse(&valid()).unwrap());
    fs::write(&merges, "a b\nĠab\n").unwrap();
    let error = Tokenizer::from_file(folder.path()).unwrap_err().to_string();
    assert!(error.contains("merges.txt") && error.contains("line 2"), "{error}");
}

/// All places of a document, as paths for [`Value::pointer_mut`].
fn places(value: &Value, path: &str, all: &mut Vec<String>) {
    all.push(path.to_string());
    let step = |key: &str| format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
    match value {
        Value::Object(object) => {
            object.iter().for_each(|(key, value)| places(value, &step(key), all));
        }
        Value::Array(array) => {
            let indexed = array.iter().enumerate();
            indexed.for_each(|(i, value)| places(value, &step(&i.to_string()), all));
        }
        _ => {}
    }
}

fn wrong_values() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (0_u64..300).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,5}".prop_map(Value::from),
        prop::sample::select(vec!["BPE", "WordLevel", "ByteLevel", "Split", "a", "ab", "a b", "Ġ"])
            .prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!(["a", "b"])),
    ]
}

proptest! {
    #[test]
    fn no_mutation_of_a_valid_file_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), wrong_values()), 1..4),
        text in "[ab <|>]{0,20}",
    ) {
        let mut file = valid();
        // The 256 bytes would take nearly all of the changes.
        let mut all = Vec::new();
        places(&file, "", &mut all);
        all.retain(|place| !place.starts_with("/model/vocab/") || place.len() < "/model/vocab/ab".len());
        for (place, value) in changes {
            if let Some(at) = file.pointer_mut(place.get(&all).as_str()) {
                *at = value;
            }
        }
        if let Ok(tokenizer) = parse(&file) {
            tokenizer.decode(&tokenizer.encode(text.as_bytes()));
        }
    }

    #[test]
    fn no_mutation_of_the_text_of_a_valid_file_panics(
        at in any::<prop::sample::Index>(), n in 0_usize..4,
        new in prop::collection::vec(any::<u8>(), 0..4),
    ) {
        let mut text = valid().to_string().into_bytes();
        let start = at.index(text.len());
        text.splice(start..(start + n).min(text.len()), new);
        parse::tokenizer(&text).ok();
    }
}
