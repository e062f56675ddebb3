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
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true});
    for (pointer, value, name) in [
        ("/normalizer", json!({"type": "ByteLevel"}), "normalizer"),
        (
            "/normalizer",
            json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Magic"}]}),
            "normalizer.normalizers[1]",
        ),
        ("/model/type", json!("Trigram"), "model.type"),
        ("/model/dropout", json!(0.1), "model.dropout"),
        ("/model/end_of_word_suffix", json!("</w>"), "model.end_of_word_suffix"),
        ("/pre_tokenizer", json!({"type": "UnicodeScripts"}), "pre_tokenizer"),
        (
            "/pre_tokenizer",
            json!({"type": "Sequence", "pretokenizers": [{"type": "Sequence", "pretokenizers": [
                {"type": "FixedLength", "length": 5}]}, bytes]}),
            "pre_tokenizer.pretokenizers[0].pretokenizers[0]",
        ),
        (
            "/pre_tokenizer",
            json!({"type": "Sequence", "pretokenizers": [bytes, {"type": "Digits", "individual_digits": true}]}),
            "pre_tokenizer.pretokenizers[0]",
        ),
        ("/post_processor", json!({"type": "Wrapping"}), "post_processor"),
        ("/decoder", json!({"type": "WordPiece", "prefix": "##", "cleanup": true}), "decoder"),
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
        ("/model/vocab/ab", json!(4_000_000_000_u32), "has id 4000000000, but there are only 259 tokens"),
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
        ("/added_tokens/0/content", json!("<|new|>"), "has id 258, which is that of \"<|endoftext|>\""),
        ("/normalizer", json!({"type": "Prepend"}), "normalizer is {\"type\":\"Prepend\"}: missing field"),
        ("/normalizer", json!({"type": "Replace", "pattern": {"Regex": "("}, "content": ""}), "cannot be used"),
        ("/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "AA="}), "no"),
        ("/normalizer", json!({"type": "Sequence"}), "a sequence without normalizers"),
        ("/normalizer", expanding(), "may make a text"),
        ("/pre_tokenizer", many_steps(), "more than 64 pretokenizers"),
        ("/post_processor", json!({"type": "BertProcessing", "sep": ["a", 1], "cls": ["b", 999]}), "adds the id 999"),
        (
            "/post_processor",
            json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}],
                "pair": [], "special_tokens": {}}),
            "has the special token \"<s>\", but does not say its ids",
        ),
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

/// Each step makes a text a hundred times longer.
fn expanding() -> Value {
    let step = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "a".repeat(100)});
    json!({"type": "Sequence", "normalizers": vec![step; 20]})
}

fn many_steps() -> Value {
    json!({"type": "Sequence", "pretokenizers": vec![json!({"type": "WhitespaceSplit"}); 100_000]})
}

/// The parts of a unigram, a WordPiece and a BPE model over text, as small as they can be.
fn over_text() -> [Value; 3] {
    let rest = |model: Value, pre_tokenizer: Value, decoder: Value| {
        json!({
            "added_tokens": [{"id": 1, "content": "<s>", "special": true, "normalized": false, "lstrip": true},
                {"id": 5, "content": "Word", "normalized": true, "single_word": true}],
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"},
                {"type": "Replace", "pattern": {"Regex": " +"}, "content": " "}, {"type": "Strip",
                "strip_left": false, "strip_right": true}]},
            "pre_tokenizer": pre_tokenizer, "decoder": decoder, "model": model,
            "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}}], "pair": [{"Sequence": {"id": "B", "type_id": 0}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        })
    };
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true});
    let pieces = json!([["<unk>", 0.0], ["<s>", 0.0], ["▁", -1.0], ["ab", -2.0], ["▁a", -1.5]]);
    let unigram = json!({"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": false});
    let words = json!({"[UNK]": 0, "<s>": 1, "a": 2, "##b": 3, "ab": 4});
    let wordpiece = json!({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 10, "vocab": words});
    let vocab = json!({"<unk>": 0, "<s>": 1, "a": 2, "b": 3, "ab": 4});
    let bpe = json!({"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true, "vocab": vocab,
        "merges": [["a", "b"]]});
    let bytes = json!({"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 1}]});
    [
        rest(unigram, metaspace.clone(), metaspace),
        rest(
            wordpiece,
            json!({"type": "BertPreTokenizer"}),
            json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
        ),
        rest(bpe, Value::Null, bytes),
    ]
}

#[test]
fn models_over_text_are_read_and_written() {
    let ids = [vec![2, 3, 2, 0, 1, 3, 2, 5], vec![4, 0, 1, 4, 5], vec![4, 0, 1, 4, 0, 5]];
    for (file, ids) in over_text().into_iter().zip(ids) {
        let tokenizer = parse(&file).unwrap();
        assert_eq!(tokenizer.special_tokens().collect::<Vec<_>>(), [("<s>", 1)]);
        assert_eq!(tokenizer.added_tokens().collect::<Vec<_>>(), [("<s>", 1), ("Word", 5)]);
        assert_eq!((tokenizer.vocab_size(), tokenizer.special_token_id("Word")), (6, Some(5)));
        assert_eq!(tokenizer.encode("ab x  <s>AB word".as_bytes()), ids);
        let copy = parse(&write::tokenizer_json(&tokenizer)).unwrap();
        assert!(copy == tokenizer);
    }
}

#[test]
fn ids_may_have_gaps() {
    let mut file = valid();
    file["model"]["vocab"]["<|endoftext|>"] = json!(300);
    file["added_tokens"][0]["id"] = json!(300);
    let tokenizer = parse(&file).unwrap();
    assert_eq!((tokenizer.vocab_size(), tokenizer.end_of_text()), (301, Some(300)));
    assert_eq!((tokenizer.token_bytes(299), tokenizer.decode(&[299])), (None, "\u{FFFD}".to_string()));
    assert!(parse(&write::tokenizer_json(&tokenizer)).unwrap() == tokenizer);
}

#[test]
fn rank_files_that_are_none_are_refused() {
    let encoding = TiktokenEncoding::named("r50k_base").unwrap();
    let read = |text: &str| {
        tiktoken::tokenizer(text.as_bytes(), &encoding).map_err(|p| p.of(Path::new("r50k_base.tiktoken")).to_string())
    };
    for (text, reason) in [
        ("", "lacks the byte 0x00"),
        ("IQ== x", "line 1 is not a token"),
        ("\nIQ==", "line 2 is not a token"),
        ("!!! 0", "line 1 is not a token"),
        ("IQ== 4294967296", "line 1 is not a token"),
        (&format!("{} 0", "QUFB".repeat(1000)), "a token has 3000 bytes"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(reason), "{text:?}: {error}");
    }
    let bytes = |rank: u32| -> String {
        use base64::Engine;
        let line = |byte: u8| {
            let token = base64::prelude::BASE64_STANDARD.encode([byte]);
            format!("{token} {}\n", if byte == 255 { rank } else { byte.into() })
        };
        (0..=255).map(line).collect()
    };
    assert!(read(&bytes(4_000_000_000)).unwrap_err().contains("the highest id is 4000000000"));
    assert!(read(&bytes(3)).unwrap_err().contains("the rank 3 is that of two tokens"));
    assert_eq!(read(&bytes(255)).unwrap().vocab_size(), 50257);
}

#[test]
fn models_of_sentencepiece_that_are_none_are_refused() {
    let read = |bytes: &[u8]| {
        sentencepiece::tokenizer(bytes).map_err(|p| p.of(Path::new("tokenizer.model")).to_string()).map(|_| ())
    };
    for (bytes, reason) in [
        (&b""[..], "no pieces"),
        (b"\x0A\xFF\xFF\xFF\xFF\x7F", "ends within a field"),
        (b"\x0A\x02\x0A\x00", "piece 0 is empty"),
        (b"\x0A\x03\x0A\x01\xFF", "a piece is not UTF-8"),
        (b"\x0A\x03\x0A\x01a", "no piece is the unknown one"),
        (b"\x0A\x05\x0A\x01a\x18\x09", "piece 0 is of no type"),
        (b"\x0A\x05\x0A\x01a\x18\x02\x12\x02\x18\x03", "trainer_spec.model_type = \"WORD\""),
        (b"\x0A\x05\x0A\x01a\x18\x02\x1A\x04\x12\x02ab", "the charsmap ends before"),
        (b"\x0A\x05\x0A\x01a\x18\x02\x12\x03\x98\x02\x01", "not every byte has a piece"),
    ] {
        let error = read(bytes).unwrap_err();
        assert!(error.contains(reason), "{bytes:?}: {error}");
    }
    assert_eq!(read(b"\x0A\x05\x0A\x01a\x18\x02"), Ok(()));
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
        prop::sample::select(vec![
            "BPE",
            "WordLevel",
            "Unigram",
            "WordPiece",
            "ByteLevel",
            "Split",
            "NFC",
            "NFKD",
            "Strip",
            "Sequence",
            "Digits",
            "Metaspace",
            "Fuse",
            "a",
            "ab",
            "a b",
            "Ġ",
            "▁",
            "(a*)*",
        ])
        .prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!(["a", "b"])),
    ]
}

/// A file of each kind, with what can be done with it.
fn use_all(tokenizer: &Tokenizer, text: &str) {
    let ids = tokenizer.encode(text.as_bytes());
    tokenizer.decode(&tokenizer.post_process(&ids));
    let mut stream = crate::DecodeStream::new(tokenizer);
    ids.iter().for_each(|&id| drop(stream.push(id)));
    stream.finish();
    tokenizer.to_json();
}

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/formats");

proptest! {
    #[test]
    fn no_mutation_of_a_valid_file_panics(
        kind in 0_usize..4,
        changes in prop::collection::vec((any::<prop::sample::Index>(), wrong_values()), 1..4),
        text in "[ab ▁é<|>]{0,20}",
    ) {
        let mut file = if kind == 3 { valid() } else { over_text()[kind].clone() };
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
            use_all(&tokenizer, &text);
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

    #[test]
    fn no_mutation_of_a_sentencepiece_model_panics(
        name in prop::sample::select(vec!["bpe", "unigram", "llama"]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_usize..3), 1..8),
        text in "[ab ▁éＡﬁ<mask>]{0,20}",
    ) {
        let mut bytes = fs::read(format!("{GOLDEN}/{name}.model")).unwrap();
        for (at, byte, n_lost) in changes {
            let at = at.index(bytes.len());
            bytes.splice(at..(at + n_lost).min(bytes.len()), [byte]);
        }
        if let Ok(tokenizer) = sentencepiece::tokenizer(&bytes) {
            use_all(&tokenizer, &text);
        }
    }

    #[test]
    fn no_mutation_of_ranks_panics(
        at in any::<prop::sample::Index>(), n in 0_usize..200, new in "[A-Za-z0-9+/= \n]{0,12}", text in "\\PC{0,20}",
    ) {
        let mut bytes = fs::read(format!("{GOLDEN}/small.tiktoken")).unwrap();
        let start = at.index(bytes.len());
        bytes.splice(start..(start + n).min(bytes.len()), new.into_bytes());
        let encoding = TiktokenEncoding { pattern: crate::Pattern::Gpt2, special_tokens: Vec::new() };
        if let Ok(tokenizer) = tiktoken::tokenizer(&bytes, &encoding) {
            prop_assert_eq!(tokenizer.decode(&tokenizer.encode(text.as_bytes())), text);
        }
    }
}
