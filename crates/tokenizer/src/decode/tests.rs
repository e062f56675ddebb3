use proptest::prelude::*;

use super::*;

#[test]
fn bytes_that_are_not_utf8_become_replacement_characters() {
    let tokenizer = Tokenizer::bytes();
    assert_eq!(tokenizer.decode(&[0x61, 0xFF, 0xE2, 0x82, 0x62]), "a\u{FFFD}\u{FFFD}b");
    assert_eq!(tokenizer.decode_bytes(&[0xFF]), b"\xFF");
}

#[test]
fn an_unknown_id_is_replaced_or_refused() {
    let tokenizer = Tokenizer::bytes();
    assert_eq!(tokenizer.decode(&[97, 256, u32::MAX]), "a\u{FFFD}\u{FFFD}");
    let error = tokenizer.try_decode(&[97, 256]).unwrap_err();
    assert!(
        error.to_string().starts_with("token id 256 is outside of the vocabulary, whose size is 256\nhint: "),
        "{error}"
    );
    assert_eq!(tokenizer.try_decode(&[97]).unwrap(), "a");
}

#[test]
fn a_stream_waits_for_complete_characters() {
    let tokenizer = Tokenizer::bytes();
    let mut stream = DecodeStream::new(&tokenizer);
    let texts: Vec<String> = "a€b".bytes().map(|byte| stream.push(byte.into())).collect();
    assert_eq!(texts, ["a", "", "", "€", "b"]);
    assert_eq!(stream.push(0xF0), "");
    assert_eq!(stream.finish(), "\u{FFFD}");
}

proptest! {
    #[test]
    fn a_stream_yields_the_text_of_all_ids(ids in prop::collection::vec(
        prop_oneof![0_u32..300, Just(0xE2), Just(0x82), Just(0xAC), Just(0xF0), Just(0x9F)], 0..60,
    )) {
        let tokenizer = Tokenizer::bytes();
        let mut stream = DecodeStream::new(&tokenizer);
        let mut text: String = ids.iter().map(|&id| stream.push(id)).collect();
        text += &stream.finish();
        prop_assert_eq!(text, tokenizer.decode(&ids));
    }
}
