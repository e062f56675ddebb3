use std::cell::RefCell;
use std::convert::Infallible;

use proptest::prelude::*;

use super::*;
use crate::pretokenize::pretokens;
use crate::reference;

fn train(documents: &[&[u8]], vocab_size: usize, special_tokens: &[&str]) -> Result<Tokenizer, Error> {
    let special_tokens = special_tokens.iter().map(ToString::to_string).collect();
    let documents = documents.iter().map(|document| Ok::<_, Infallible>(document.to_vec()));
    train_bpe(documents, &BpeConfig { vocab_size, special_tokens }, &|_| {})
}

fn merges(tokenizer: &Tokenizer) -> Vec<(Vec<u8>, Vec<u8>)> {
    tokenizer.merges().map(|(left, right)| (left.to_vec(), right.to_vec())).collect()
}

/// The worked example of Stanford's CS336, assignment 1, section 2.4 (words cut at spaces).
#[test]
fn the_handout_example_gives_its_merges() {
    let words = [("low", 5), ("lower", 2), ("widest", 3), ("newest", 6)];
    // Line feeds stand where the handout has spaces: a pre-token of GPT-2 would take a space along.
    let text = words.map(|(word, n)| format!("{word}\n").repeat(n)).concat();
    let learned = train(&[text.as_bytes()], 256 + 6, &[]).unwrap();
    let expected = [("s", "t"), ("e", "st"), ("o", "w"), ("l", "ow"), ("w", "est"), ("n", "e")];
    let expected = expected.map(|(l, r)| (l.as_bytes().to_vec(), r.as_bytes().to_vec()));
    assert_eq!(merges(&learned), expected);
}

#[test]
fn of_equally_frequent_pairs_the_greatest_bytes_win() {
    // Once each: (A, B), (A, C), (B, Z) and (B, A).
    let learned = train(&[b"AB\nAC\nBZ\nBA"], 257, &[]).unwrap();
    assert_eq!(merges(&learned), [(b"B".to_vec(), b"Z".to_vec())]);
    // Bytes are compared, not ids: 0xC3 is greater than `z`, though its id may be lower.
    let learned = train(&[b"\xC3\xA9\n\xC3\xA9\n\xC3\xA9x\nzx"], 258, &[]).unwrap();
    assert_eq!(merges(&learned)[1], (b"\xC3\xA9".to_vec(), b"x".to_vec()));
}

#[test]
fn special_tokens_come_first_then_bytes_in_alphabet_order_then_merges() {
    let learned = train(&[b"aa aa"], 259, &["<|endoftext|>", "<|pad|>"]).unwrap();
    assert_eq!(learned.special_token_id("<|pad|>"), Some(1));
    assert_eq!(learned.end_of_text(), Some(0));
    assert_eq!(learned.token_bytes(2), Some(&b"!"[..]));
    assert_eq!(learned.token_bytes(258), Some(&b"aa"[..]));
    assert_eq!(learned.vocab_size(), 259);
}

#[test]
fn special_tokens_bound_pretokens_and_are_not_counted() {
    let with = train(&[b"ab<|end|>cd<|end|>ab", b"ab"], 257 + 2, &["<|end|>"]).unwrap();
    let without = train(&[b"ab", b"cd", b"ab", b"ab"], 256 + 2, &[]).unwrap();
    assert_eq!(merges(&with), merges(&without));
}

#[test]
fn a_vocabulary_too_small_says_the_minimum() {
    let error = train(&[b"abc"], 256, &["<|end|>"]).unwrap_err();
    assert!(error.to_string().contains("the minimum is 257"), "{error}");
}

#[test]
fn text_without_enough_pairs_says_how_many_there_are() {
    let error = train(&[b"abc abc"], 1000, &[]).unwrap_err();
    let Error::TooFewPairs { n_wanted, n_possible, .. } = error else { panic!("{error}") };
    // ab and abc (or bc), then the space before them.
    assert_eq!((n_wanted, n_possible), (744, 3));
    assert!(error.to_string().contains("lower vocab_size to 259"), "{error}");
    assert!(matches!(train(&[], 257, &[]), Err(Error::TooFewPairs { n_possible: 0, .. })));
}

#[test]
fn special_tokens_that_cannot_be_told_apart_are_refused() {
    for specials in [&["a"][..], &[""], &["<|x|>", "<|x|>"], &["Ġ"], &["Ġthe"]] {
        let result = train(&[b"the the the the"], 256 + specials.len() + 3, specials);
        assert!(matches!(result, Err(Error::SpecialToken { .. })), "{specials:?}: {result:?}");
    }
}

#[test]
fn a_failing_document_is_named() {
    let documents = [Ok(b"abc".to_vec()), Err("the disk is gone")];
    let config = BpeConfig { vocab_size: 257, special_tokens: Vec::new() };
    let error = train_bpe(documents, &config, &|_| {}).unwrap_err();
    assert_eq!(error.to_string(), "cannot read document 1 of the training text");
}

#[test]
fn progress_ends_with_all_bytes_and_all_merges() {
    let reports = RefCell::new(Vec::new());
    let config = BpeConfig { vocab_size: 259, special_tokens: vec!["<|x|>".to_string()] };
    let documents = [Ok::<_, Infallible>(b"abab ab<|x|>".to_vec())];
    train_bpe(documents, &config, &|progress| reports.borrow_mut().push(progress)).unwrap();
    let reports = reports.into_inner();
    assert!(reports.contains(&Progress::Counting { n_bytes: 12 }));
    assert_eq!(reports.last(), Some(&Progress::Merging { n_done: 2, n_total: 2 }));
}

#[test]
fn unknown_keys_of_the_config_are_errors() {
    let parse = serde_json::from_str::<BpeConfig>;
    assert!(parse(r#"{"vocab_size": 300}"#).is_ok());
    assert!(parse(r#"{"vocab_size": 300, "min_frequency": 2}"#).is_err());
}

#[test]
fn a_million_random_letters_without_a_space_do_not_take_long() {
    let mut state = 1_u64;
    let text: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        b"acgt"[(state >> 62) as usize]
    })
    .take(1 << 20)
    .collect();
    let learned = train(&[&text], 1000, &[]).unwrap();
    assert_eq!(learned.decode_bytes(&learned.encode(&text)), text);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_fast_trainer_learns_what_the_naive_one_learns(
        text in "([abc]{1,9}|[ab]{1,4}é|[ \n]|'s|a{1,8}){0,40}",
        n_tokens in 0_usize..30,
    ) {
        let words: Vec<(Vec<u8>, u64)> =
            pretokens(text.as_bytes()).map(|pretoken| (pretoken.to_vec(), 1)).collect();
        let expected = reference::train(&words, n_tokens);
        match train(&[text.as_bytes()], 256 + n_tokens, &[]) {
            Ok(learned) => prop_assert_eq!(merges(&learned), expected),
            Err(Error::TooFewPairs { n_possible, .. }) => {
                prop_assert!(n_possible <= expected.len() && n_possible < n_tokens);
                prop_assert_eq!(reference::train(&words, n_possible + 1), expected);
            }
            Err(error) => prop_assert!(false, "{error}"),
        }
    }

    #[test]
    fn neither_threads_nor_the_order_of_documents_matter(
        documents in prop::collection::vec("[abc \n]{0,30}", 1..6),
    ) {
        let forth: Vec<&[u8]> = documents.iter().map(String::as_bytes).collect();
        let back: Vec<&[u8]> = forth.iter().rev().copied().collect();
        let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let first = train(&forth, 260, &[]).ok();
        let second = one_thread.install(|| train(&back, 260, &[]).ok());
        prop_assert!(first == second);
    }
}
