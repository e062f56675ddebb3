//! Against figures computed by hand, and against the plainest way to count.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::train::{BpeConfig, train_bpe};

fn measured(tokenizer: &Tokenizer, text: &[u8]) -> Measurement {
    let mut measure = Measure::new(tokenizer);
    measure.add(text, true);
    measure.finish()
}

fn trained(text: &str, special_tokens: &[&str]) -> Tokenizer {
    let special_tokens: Vec<String> = special_tokens.iter().map(|token| token.to_string()).collect();
    let config = BpeConfig { vocab_size: 280 + special_tokens.len(), special_tokens, ..BpeConfig::default() };
    train_bpe([Ok::<_, Infallible>(text.as_bytes().to_vec())], &config, &|_| {}).unwrap()
}

fn golden(name: &str) -> Tokenizer {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/formats");
    Tokenizer::from_file(&folder.join(name)).unwrap()
}

const TEXT: &str =
    "It was the best of times, it was the worst of times,\nit was the age of wisdom … ünd 世界 was 世 the age\n\n";

#[test]
fn the_figures_of_a_small_text_are_those_computed_by_hand() {
    let found = measured(&Tokenizer::bytes(), "aab aé".as_bytes());
    assert_eq!((found.n_bytes, found.n_tokens, found.n_ids), (7, 7, 256));
    // a three times; b, the space and the two bytes of é once each.
    assert_eq!(found.frequencies, [3, 1, 1, 1, 1]);
    assert_eq!((found.n_used(), found.n_unused(), found.n_used_once()), (5, 251, 4));
    assert_eq!((found.n_partial, found.n_unknown, found.first_change), (2, 0, None));
    assert_eq!(found.bytes_per_token(), Some(1.0));
    // (3/7) log2(7/3) + 4 (1/7) log2(7)
    assert!((found.entropy() - 2.128_085_278_891_395).abs() < 1e-12);
    // Order 2: -ln(9/49 + 4/49) / ln(256).
    assert!((found.renyi_efficiency(2.0).unwrap() - (49f64 / 13.0).ln() / 256f64.ln()).abs() < 1e-12);
    assert_eq!(found.n_tokens_by_length, [(1, 7)].into());
    assert_eq!(found.longest[0], UsedToken { id: 97, bytes: b"a".to_vec(), count: 3 });
}

#[test]
fn an_even_use_of_all_ids_is_fully_efficient_and_has_eight_bits() {
    let all: Vec<u8> = (0..=255).collect();
    let found = measured(&Tokenizer::bytes(), &all);
    assert!((found.entropy() - 8.0).abs() < 1e-9);
    for alpha in [0.5, 2.5] {
        assert!((found.renyi_efficiency(alpha).unwrap() - 1.0).abs() < 1e-9);
    }
    let one = measured(&Tokenizer::bytes(), b"aaaa");
    assert_eq!((one.entropy(), one.renyi_efficiency(2.5)), (0.0, Some(0.0)));
}

#[test]
fn a_text_of_nothing_has_no_ratios() {
    let found = measured(&Tokenizer::bytes(), b"");
    assert_eq!((found.n_tokens, found.bytes_per_token(), found.entropy()), (0, None, 0.0));
    assert_eq!((found.renyi_efficiency(2.5), found.n_unused(), premium(3, 0)), (None, 256, None));
    assert_eq!(premium(3, 2), Some(1.5));
    assert!(!TextSize::default().has_words());
}

#[test]
fn special_tokens_are_no_part_of_the_vocabulary_that_a_text_may_use() {
    let tokenizer = trained(TEXT, &["<|endoftext|>"]);
    let found = measured(&tokenizer, b"<|endoftext|>");
    assert_eq!(found.n_ids, tokenizer.vocab_size() - 1);
    assert!(found.n_tokens > 1, "it is ordinary text");
    assert_eq!(found.first_change, None);
}

#[test]
fn what_a_vocabulary_does_not_have_is_counted_as_its_kind_says() {
    let characters = Tokenizer::characters(["abc "], &[]).unwrap();
    let found = measured(&characters, "abéc 世b".as_bytes());
    assert_eq!((found.n_tokens, found.n_unknown, found.first_change), (5, 2, Some(2)));
    // `世` is not among the characters of these models: one is unknown as a word, one falls back to three bytes.
    let bert = measured(&golden("bert.tokenizer.json"), "\u{10348}".as_bytes());
    assert_eq!((bert.n_tokens, bert.n_unknown, bert.first_change), (1, 1, Some(0)));
    let llama = measured(&golden("llama2.tokenizer.json"), "\u{10348}".as_bytes());
    assert_eq!((llama.n_tokens, llama.n_partial, llama.n_unknown, llama.first_change), (5, 4, 0, None));
}

#[test]
fn sizes_of_hard_texts_are_those_counted_by_hand() {
    let size = |text: &[u8]| {
        let mut size = TextSize::default();
        size.add(text, true);
        (size.n_bytes, size.n_characters, size.n_words, size.has_words())
    };
    assert_eq!(size(" don't  stop\u{3000}nöw\n".as_bytes()), (20, 17, 3, true));
    assert_eq!(size("吾輩は猫である。".as_bytes()), (24, 8, 1, false));
    assert_eq!(size("ภาษาไทย ok".as_bytes()), (24, 10, 2, false));
    assert_eq!(size("한국어 텍스트".as_bytes()), (19, 7, 2, true));
    assert_eq!(size(b"ab\xff\xfe \xe4\xb8"), (7, 6, 2, true));
    assert_eq!(size(b""), (0, 0, 0, false));
}

#[test]
fn bytes_of_a_character_that_tokens_share_know_the_character() {
    let bytes = |bytes: &[u8], of| SpanPart::Bytes { bytes: bytes.to_vec(), of };
    let spans = Tokenizer::bytes().spans(&[97, 0xC3, 0xA9, 0xFF, 98]);
    let parts: Vec<_> = spans.into_iter().map(|span| span.parts).collect();
    assert_eq!(
        parts,
        [
            vec![SpanPart::Text("a".into())],
            vec![bytes(b"\xC3", Some('é'))],
            vec![bytes(b"\xA9", Some('é'))],
            vec![bytes(b"\xFF", None)],
            vec![SpanPart::Text("b".into())],
        ]
    );
    assert_eq!(Tokenizer::bytes().spans(&[9999])[0].parts, []);
}

#[test]
fn text_without_an_end_does_not_pile_up() {
    for name in ["gpt2.tokenizer.json", "t5.tokenizer.json"] {
        let tokenizer = golden(name);
        let mut measure = Measure { piece_bytes: 1000, max_piece_bytes: 2000, ..Measure::new(&tokenizer) };
        for _ in 0..100 {
            measure.add(&[b'a'; 500], false);
            assert!(measure.waiting.len() < 2000);
        }
        assert_eq!(measure.finish().n_bytes, 50_000);
    }
}

/// A text of words, lines, scripts and bytes that are none.
fn any_text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b" ".to_vec()),
        Just(b"\n".to_vec()),
        Just("世".as_bytes().to_vec()),
        Just("ü was".as_bytes().to_vec()),
        Just(b"the age".to_vec()),
        Just(b"\xff".to_vec()),
        Just(b"\xe4\xb8".to_vec()),
        "[a-t ]{0,9}".prop_map(String::into_bytes),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn however_the_text_is_cut_byte_level_bpe_is_counted_as_a_whole(
        text in any_text(), part in 1usize..40, piece_bytes in 1usize..30,
    ) {
        let tokenizer = trained(TEXT, &[]);
        let mut measure = Measure { piece_bytes, ..Measure::new(&tokenizer) };
        let mut size = TextSize::default();
        for part in text.chunks(part) {
            measure.add(part, false);
            size.add(part, false);
        }
        size.add(b"", true);
        let found = measure.finish();

        let ids = tokenizer.encode_ordinary(&text);
        let mut counts: HashMap<TokenId, u64> = HashMap::new();
        ids.iter().for_each(|&id| *counts.entry(id).or_default() += 1);
        let mut frequencies: Vec<u64> = counts.values().copied().collect();
        frequencies.sort_unstable_by_key(|&count| std::cmp::Reverse(count));
        prop_assert_eq!(found.n_tokens, ids.len() as u64);
        prop_assert_eq!(&found.frequencies, &frequencies);
        let is_partial = |id: &&TokenId| String::from_utf8(tokenizer.token_bytes(**id).unwrap().to_vec()).is_err();
        prop_assert_eq!(found.n_partial, ids.iter().filter(is_partial).count() as u64);
        let longest = ids.iter().map(|&id| tokenizer.token_bytes(id).unwrap().len()).max();
        prop_assert_eq!(found.longest.first().map(|token| token.bytes.len()), longest);
        prop_assert_eq!((found.n_bytes, found.first_change), (text.len() as u64, None));

        let lossy = String::from_utf8_lossy(&text);
        prop_assert_eq!(size.n_characters, lossy.chars().count() as u64);
        prop_assert_eq!(size.n_words, lossy.split_whitespace().count() as u64);
    }

    #[test]
    fn parts_of_tokens_are_their_bytes(text in any_text(), name in 0usize..3) {
        let tokenizer = golden(["gpt2.tokenizer.json", "llama2.tokenizer.json", "t5.tokenizer.json"][name]);
        let ids = tokenizer.encode_ordinary(&text);
        let spans = tokenizer.spans(&ids);
        prop_assert_eq!(spans.iter().map(|span| span.id).collect::<Vec<_>>(), ids);
        for span in spans {
            let mut joined: Vec<u8> = Vec::new();
            for part in &span.parts {
                match part {
                    SpanPart::Text(text) => joined.extend(text.as_bytes()),
                    SpanPart::Bytes { bytes, of } => {
                        joined.extend(bytes);
                        let within = |c: char| c.to_string().as_bytes().windows(bytes.len()).any(|part| part == bytes);
                        prop_assert!(of.is_none_or(within));
                    }
                }
            }
            prop_assert_eq!(&joined, &span.bytes);
            prop_assert_eq!(Some(&span.bytes[..]), tokenizer.token_bytes(span.id));
        }
    }
}
