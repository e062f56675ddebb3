use proptest::prelude::*;

use super::*;
use crate::reference;

fn fast(text: &[u8]) -> Vec<&[u8]> {
    pretokens(text).collect()
}

#[track_caller]
fn check(text: &str) {
    let expected: Vec<&[u8]> = reference::pretokens(text).into_iter().map(str::as_bytes).collect();
    assert_eq!(fast(text.as_bytes()), expected, "{text:?}");
}

#[test]
fn contractions_words_numbers_and_punctuation_are_cut_as_by_the_pattern() {
    for text in [
        "",
        " ",
        "  ",
        "it's we'll 'tis they've'd I'm can't you're'",
        "'S 'LL '' 's's !'s",
        "a  b\n\n c \t\n  ",
        "x = 3.14e10; // 42nd",
        "\u{a0}nbsp\u{3000}\u{3000}wide \u{85}",
        " \u{2003}em",
        "日本語の文。 Ünïcödé ٣٤ Ⅷ ½",
        "🙂🙂 👩‍👩‍👧 e\u{301}",
        "\r\n\r\nend\r\n",
    ] {
        check(text);
    }
}

/// One regular-expression search per scalar value is slow, so each gets its contexts in one text.
#[test]
fn every_unicode_scalar_is_cut_as_by_the_pattern_in_its_contexts() {
    let mut text = String::new();
    for c in '\0'..=char::MAX {
        text.extend(['a', c, 'a', ' ', c, c, ' ', '1', c, '1', '!', c, '!', ' ', ' ', c, '\n', c, ' ', '\'', c]);
        if text.len() > 4000 {
            check(&text);
            text.clear();
        }
    }
    check(&text);
}

#[test]
fn a_byte_that_is_not_utf8_counts_as_one_character_of_punctuation() {
    assert_eq!(fast(b"ab\xFFcd"), [&b"ab"[..], b"\xFF", b"cd"]);
    assert_eq!(fast(b"a \xE2\x82!\xF0\x9F b"), [&b"a"[..], b" \xE2\x82!\xF0\x9F", b" b"]);
    assert_eq!(fast(b"\xC0\xAF\xED\xA0\x80"), [&b"\xC0\xAF\xED\xA0\x80"[..]]);
}

/// Text in which the pattern's cases are likely.
fn texts() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            " ", "  ", "\n", "\t", "'", "'s", "'ll", "'t", "a", "Zz", "é", "7", "½", "!", "--", "\u{a0}",
            "\u{2009}", "\u{3000}", "語", "🙂", "<|end|>",
        ]).prop_map(str::to_string),
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_text_is_cut_as_by_the_pattern(text in texts()) {
        check(&text);
    }

    #[test]
    fn pretokens_of_any_bytes_join_to_the_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(fast(&bytes).concat(), bytes);
    }

    #[test]
    fn pretokens_of_the_parts_are_those_of_the_whole(text in texts(), len in 1_usize..20) {
        let parts = parts(text.as_bytes(), len);
        let of_parts: Vec<&[u8]> = parts.iter().flat_map(|part| pretokens(part)).collect();
        prop_assert_eq!(of_parts, fast(text.as_bytes()));
    }

    #[test]
    fn a_pretoken_depends_on_no_more_than_the_lookahead(text in texts(), more in texts()) {
        let whole = [text.as_bytes(), more.as_bytes()].concat();
        let len = pretoken_len(text.as_bytes());
        if len + LOOKAHEAD <= text.len() {
            prop_assert_eq!(len, pretoken_len(&whole));
        }
    }
}
