//! Each pattern against its regular expressions, run by an engine.

use proptest::prelude::*;

use super::char_class::class;
use super::window::{Classify, Portable, WINDOW};
use super::*;
use crate::reference;

fn known() -> [Pattern; 6] {
    [Pattern::Gpt2, Pattern::Cl100k, Pattern::O200k, Pattern::Llama3, Pattern::Qwen2, Pattern::DeepSeekV3]
}

/// The same pattern by the engine of regular expressions.
fn by_engine(pattern: &Pattern) -> CustomPattern {
    CustomPattern::new(&pattern.regexes()).unwrap()
}

fn fast<'a>(pattern: &Pattern, text: &'a [u8]) -> Vec<&'a [u8]> {
    pattern.pretokens(text).unwrap()
}

fn slow<'a>(engine: &CustomPattern, text: &'a [u8]) -> Vec<&'a [u8]> {
    Pattern::Custom(engine.clone()).pretokens(text).unwrap()
}

#[track_caller]
fn check_with(pattern: &Pattern, engine: &CustomPattern, text: &[u8]) {
    let (found, expected) = (fast(pattern, text), slow(engine, text));
    if found != expected {
        let i = found.iter().zip(&expected).position(|(a, b)| a != b).unwrap_or(found.len().min(expected.len()));
        let around = |pretokens: &[&[u8]]| {
            let shown = &pretokens[i.saturating_sub(2)..(i + 3).min(pretokens.len())];
            shown.iter().map(|pretoken| String::from_utf8_lossy(pretoken).into_owned()).collect::<Vec<_>>()
        };
        panic!("{pattern:?}: {:?} instead of {:?}", around(&found), around(&expected));
    }
}

#[track_caller]
fn check(text: &[u8]) {
    thread_local! {
        static ENGINES: Vec<(Pattern, CustomPattern)> =
            known().into_iter().map(|pattern| { let engine = by_engine(&pattern); (pattern, engine) }).collect();
    }
    ENGINES.with(|engines| {
        for (pattern, engine) in engines {
            check_with(pattern, engine, text);
        }
    });
    // Again with text behind it, so that windows are filled.
    let more = [text, text, b" a b c d e f g h i j k l m n o p q r s t u v w x y z a b c d e f g h i j k l m"].concat();
    ENGINES.with(|engines| {
        for (pattern, engine) in engines {
            check_with(pattern, engine, &more);
        }
    });
}

#[test]
fn contractions_words_numbers_and_punctuation_are_cut_as_by_the_patterns() {
    for text in [
        "",
        " ",
        "  ",
        "it's we'll 'tis they've'd I'm can't you're'",
        "'S 'LL '' 's's !'s 'ſ 'Ve'RE'lL x'ſx",
        "a  b\n\n c \t\n  ",
        "x = 3.14e10; // 42nd 1234567 12",
        "\u{a0}nbsp\u{3000}\u{3000}wide \u{85}",
        " \u{2003}em",
        "日本語の文。 Ünïcödé ٣٤ Ⅷ ½",
        "🙂🙂 👩‍👩‍👧 e\u{301}",
        "\r\n\r\nend\r\n",
        "  \n  \n\t",
        "camelCase HTTPServer ABCdef ǅǄ 語A語AAAb \u{301}A \u{301}\u{301}Ab",
        "!!\n//\n/x ./\r\n",
        "!abc $Foo _bar-baz \u{200b}\u{200b}a\u{200b} \u{200b}1",
        "  123  漢字 12漢かナー・x",
        "   ",
        "\n \n  x",
    ] {
        check(text.as_bytes());
    }
}

#[test]
fn gpt2_by_the_engine_of_this_crate_equals_gpt2_by_the_oracle() {
    let text = "it's  12 Ünïcödé\n\n x \u{3000}!!";
    let engine = by_engine(&Pattern::Gpt2);
    let expected: Vec<&[u8]> = reference::pretokens(text).into_iter().map(str::as_bytes).collect();
    assert_eq!(slow(&engine, text.as_bytes()), expected);
}

/// One search per scalar value is slow, so each gets its contexts in one text.
fn check_every_scalar(pattern: &Pattern) {
    let engine = by_engine(pattern);
    let mut text = String::new();
    let check = |text: &mut String| {
        check_with(pattern, &engine, text.as_bytes());
        text.clear();
    };
    for c in '\0'..=char::MAX {
        text.extend([
            'a', c, 'A', c, 'a', ' ', c, c, ' ', '1', c, '1', '2', '!', c, '!', ' ', ' ', c, '\n', c, ' ', '\'',
        ]);
        text.extend([c, '\'', 's', c, '語', c, '\n', '/', c, '\u{301}', c, '\t', c, '\r', c]);
        if text.len() > 4000 {
            check(&mut text);
        }
        // What ends the text matters to white space.
        if class(c) & SPACE != 0 {
            for end in [["a", ""], [" ", ""], ["\n", ""], ["\n", " "], ["\n", "\t"], [" ", "\n"]] {
                text.extend([end[0], c.to_string().as_str(), end[1]]);
                check(&mut text);
            }
        }
    }
    check(&mut text);
}

#[test]
fn every_unicode_scalar_is_cut_as_by_gpt2() {
    check_every_scalar(&Pattern::Gpt2);
}

#[test]
fn every_unicode_scalar_is_cut_as_by_cl100k() {
    check_every_scalar(&Pattern::Cl100k);
}

#[test]
fn every_unicode_scalar_is_cut_as_by_o200k() {
    check_every_scalar(&Pattern::O200k);
}

#[test]
fn every_unicode_scalar_is_cut_as_by_llama3() {
    check_every_scalar(&Pattern::Llama3);
}

#[test]
fn every_unicode_scalar_is_cut_as_by_qwen2() {
    check_every_scalar(&Pattern::Qwen2);
}

#[test]
fn every_unicode_scalar_is_cut_as_by_deepseek_v3() {
    check_every_scalar(&Pattern::DeepSeekV3);
}

/// All texts of up to six characters from one of each kind that a pattern tells apart.
#[test]
fn every_short_text_of_the_kinds_of_characters_is_cut_as_by_the_patterns() {
    let kinds = ['a', 'A', '語', '\u{301}', '7', ' ', '\n', '!', '\'', 's', '/', '\u{200b}'];
    for n in 1..=4 {
        let mut indices = vec![0; n];
        loop {
            let text: String = indices.iter().map(|&i| kinds[i]).collect();
            check(text.as_bytes());
            let Some(next) = indices.iter().rposition(|&i| i + 1 < kinds.len()) else { break };
            indices[next] += 1;
            indices[next + 1..].fill(0);
        }
    }
}

#[test]
fn a_byte_that_is_not_utf8_counts_as_one_character_of_punctuation() {
    let gpt2 = |text| fast(&Pattern::Gpt2, text);
    assert_eq!(gpt2(b"ab\xFFcd"), [&b"ab"[..], b"\xFF", b"cd"]);
    assert_eq!(gpt2(b"a \xE2\x82!\xF0\x9F b"), [&b"a"[..], b" \xE2\x82!\xF0\x9F", b" b"]);
    assert_eq!(gpt2(b"\xC0\xAF\xED\xA0\x80"), [&b"\xC0\xAF\xED\xA0\x80"[..]]);
    check(b"ab\xFFcd \xE2\x82!\xF0\x9F b\xC0\xAF\xED\xA0\x80\n\xF5\xE0\x9F\x80 \xF4\x90\x80\x80");
}

#[test]
fn known_spellings_are_recognised_and_others_compiled() {
    for pattern in known() {
        assert_eq!(Pattern::of_regexes(&pattern.regexes()).unwrap(), pattern);
    }
    for (text, pattern) in SPELLINGS {
        assert_eq!(Pattern::of_regex(text).unwrap(), pattern);
    }
    let escaped: Vec<String> = DEEPSEEK_V3.iter().map(|text| text.replace('\r', r"\r").replace('\n', r"\n")).collect();
    let escaped: Vec<&str> = escaped.iter().map(String::as_str).collect();
    assert_eq!(Pattern::of_regexes(&escaped).unwrap(), Pattern::DeepSeekV3);
    assert!(Pattern::of_regex(r"\w+").unwrap().is_custom());
    let error = Pattern::of_regex("(").unwrap_err().to_string();
    assert!(error.starts_with("the pattern \"(\" is no regular expression: "), "{error}");
}

#[test]
fn spellings_of_one_pattern_cut_alike() {
    for (text, pattern) in SPELLINGS {
        let engine = CustomPattern::new(&[text]).unwrap();
        for text in ["it's  'S 12345 Ünïcödé\n\n x \u{3000}!!  \n ", "a'll \t ", "?!\r\n  7\n\t"] {
            check_with(&pattern, &engine, text.as_bytes());
        }
    }
}

#[test]
fn an_engine_that_gives_up_says_so() {
    let pattern = Pattern::of_regex(r"(?:(?:a|a)*)*(?!a)b\1?(x)?").unwrap();
    match pattern.pretokens(&b"a".repeat(60)) {
        Err(error) => assert!(error.to_string().contains("gives up"), "{error}"),
        Ok(pretokens) => assert_eq!(pretokens.concat().len(), 60),
    }
}

/// Text in which the patterns' cases are likely.
pub(crate) fn texts() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => prop::sample::select(vec![
            " ", "  ", "\n", "\t", "\r\n", "'", "'s", "'ll", "'T", "'RE", "'ſ", "a", "Zz", "é", "É", "7", "12345", "½", "!",
            "--", "\u{a0}", "\u{2009}", "\u{3000}", "語", "か", "・", "ㄅ", "🙂", "<|end|>", "/", "\u{301}", "\u{200b}", "ǅ",
            "ʰ", "“", "’", "—", "Слово", "\u{fffd}",
        ]).prop_map(str::to_string),
        1 => any::<char>().prop_map(String::from),
        1 => "[a-zA-Z]{1,40}",
        1 => "[ \n]{1,40}",
        1 => "[!-/]{1,40}",
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

/// The same with bytes that are not UTF-8.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    (texts(), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)).prop_map(|(text, changes)| {
        let mut bytes = text.into_bytes();
        for (index, byte) in changes {
            if !bytes.is_empty() {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 200, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn any_text_is_cut_as_by_the_patterns(text in texts()) {
        check(text.as_bytes());
    }

    #[test]
    fn any_bytes_are_cut_as_by_the_patterns(bytes in bytes()) {
        check(&bytes);
    }

    #[test]
    fn random_bytes_are_cut_as_by_the_patterns(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&bytes);
    }

    #[test]
    fn pretokens_of_the_parts_are_those_of_the_whole(text in bytes(), len in 1_usize..20) {
        for pattern in known() {
            let parts = pattern.parts(&text, len);
            let of_parts: Vec<&[u8]> = parts.iter().flat_map(|part| fast(&pattern, part)).collect();
            prop_assert_eq!(of_parts, fast(&pattern, &text), "{:?}", pattern);
        }
    }

    #[test]
    fn a_decided_pretoken_stays_whatever_is_appended(text in bytes(), more in bytes()) {
        let whole = [&text[..], &more].concat();
        for pattern in known() {
            let len = pattern.pretoken_len(&text);
            if pattern.is_decided(&text, len) {
                prop_assert_eq!(len, pattern.pretoken_len(&whole), "{:?}", pattern);
            }
        }
    }

    #[test]
    fn classifying_with_vector_instructions_is_classifying_without(
        bytes in prop::collection::vec(any::<u8>(), WINDOW),
        ascii in prop::collection::vec(0_u8..128, WINDOW),
        bits in any::<u64>(),
    ) {
        for text in [bytes, ascii] {
            let text: [u8; WINDOW] = text.try_into().unwrap();
            let expected = Portable::masks(&text);
            let mut places = [0; WINDOW];
            Portable::write_places(&mut places, 7, bits);
            let n = bits.count_ones() as usize;
            #[cfg(target_arch = "x86_64")]
            if simd::has_avx512() {
                prop_assert_eq!(simd::Avx512::masks(&text), expected);
                let mut found = [0; WINDOW];
                simd::Avx512::write_places(&mut found, 7, bits);
                prop_assert_eq!(&found[..n], &places[..n]);
            }
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") {
                prop_assert_eq!(simd::Avx2::masks(&text), expected);
            }
            let one_by_one: Vec<u32> = (0..64).filter(|i| bits >> i & 1 == 1).map(|i| i + 7).collect();
            prop_assert_eq!(&places[..n], &one_by_one[..]);
        }
    }
}
