use super::*;

/// nanoGPT: `sorted(list(set(data)))`, ids by position.
#[test]
fn characters_are_numbered_in_code_point_order() {
    let tokenizer = Tokenizer::characters(["hello\n", "Hé"], &[]).unwrap();
    let tokens: Vec<&[u8]> = (0..7).filter_map(|id| tokenizer.token_bytes(id)).collect();
    assert_eq!(tokens, ["\n", "H", "e", "h", "l", "o", "é"].map(str::as_bytes));
    assert_eq!((tokenizer.vocab_size(), tokenizer.kind()), (7, Kind::Characters));
}

#[test]
fn special_tokens_follow_characters_and_are_not_made_of_them() {
    let tokenizer = Tokenizer::characters(["ab<|end|>ba"], &["<|end|>".to_string()]).unwrap();
    assert_eq!(tokenizer.vocab_size(), 3);
    assert_eq!(tokenizer.special_tokens().collect::<Vec<_>>(), [("<|end|>", 2)]);
    assert_eq!(tokenizer.encode(b"b<|end|>a"), [1, 2, 0]);
}

#[test]
fn byte_ids_are_the_bytes_and_special_tokens_follow() {
    let tokenizer = Tokenizer::bytes_with_specials(&["<|endoftext|>".to_string()]).unwrap();
    assert_eq!(tokenizer.encode(b"\x00\xFFA<|endoftext|>"), [0, 255, 65, 256]);
    assert_eq!(tokenizer.end_of_text(), Some(256));
    assert_eq!(tokenizer.special_token_id("A"), None);
    assert_eq!((tokenizer.vocab_size(), Tokenizer::bytes().vocab_size()), (257, 256));
    assert_eq!((tokenizer.kind(), tokenizer.merges().len()), (Kind::Bytes, 0));
}

#[test]
fn wrong_special_tokens_are_refused() {
    for specials in [&["a"][..], &["Ġ"], &[""], &["<|x|>", "<|x|>"]] {
        let specials: Vec<String> = specials.iter().map(ToString::to_string).collect();
        let error = Tokenizer::bytes_with_specials(&specials).unwrap_err();
        assert!(matches!(error, Error::SpecialToken { .. }));
    }
}

/// A special token may be a character: it is cut out, so it never is one of the text as well.
#[test]
fn a_special_token_of_one_character_is_no_character_of_the_text() {
    let specials = ["b".to_string(), "bc".to_string()];
    let tokenizer = Tokenizer::characters(["abcb"], &specials).unwrap();
    assert_eq!((tokenizer.vocab_size(), tokenizer.encode(b"abcb")), (3, vec![0, 2, 1]));
}
