use std::cell::RefCell;
use std::convert::Infallible;

use proptest::prelude::*;

use super::*;
use crate::pretokenize::pretokens;
use crate::reference;

fn train(documents: &[&[u8]], vocab_size: usize, special_tokens: &[&str]) -> Result<Tokenizer, Error> {
    let special_tokens = special_tokens.iter().map(ToString::to_string).collect();
    let documents = documents.iter().map(|document| Ok::<_, Infallible>(document.to_vec()));
    train_bpe(documents, &BpeConfig { vocab_size, special_tokens, ..BpeConfig::default() }, &|_| {})
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
    let config = BpeConfig { vocab_size: 257, special_tokens: Vec::new(), ..BpeConfig::default() };
    let error = train_bpe(documents, &config, &|_| {}).unwrap_err();
    assert_eq!(error.to_string(), "cannot read document 1 of the training text");
}

#[test]
fn progress_ends_with_all_bytes_and_all_merges() {
    let reports = RefCell::new(Vec::new());
    let config = BpeConfig { vocab_size: 259, special_tokens: vec!["<|x|>".to_string()], ..BpeConfig::default() };
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

/// Words that never come again, from a seed.
fn new_words(seed: u64, n_bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut text = Vec::new();
    while text.len() < n_bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push(b' ');
        text.extend((0..9).map(|i| b'a' + (state >> (6 * i + 8) & 15) as u8));
    }
    text
}

/// A text in parts that cut it anywhere.
fn parts(text: &[u8], len: usize) -> Vec<Result<TextPart, Infallible>> {
    text.chunks(len).map(|part| Ok(TextPart { text: part.to_vec(), ends_document: false })).collect()
}

fn work_folder(path: &std::path::Path, n_bytes: u64, n_merges: usize) -> Option<WorkFolder> {
    let checkpoint = Checkpoint { n_bytes, n_merges };
    Some(WorkFolder { path: path.to_owned(), resume_key: Some("this text".to_owned()), checkpoint })
}

/// Words of a few kinds, some of them often, and special tokens.
fn mixed_text() -> Vec<u8> {
    let mut text = new_words(1, 3 << 20);
    for i in 0..60_000 {
        text.extend(format!(" word{}{}<|end of|>", i % 173, "\n".repeat(i % 3)).into_bytes());
    }
    text.extend(new_words(2, 1 << 20));
    text
}

#[test]
fn neither_parts_nor_memory_nor_disk_matter() {
    let text = mixed_text();
    let config = BpeConfig { vocab_size: 400, special_tokens: vec!["<|end of|>".to_owned()], ..BpeConfig::default() };
    let frequent = BpeConfig { min_count: 2, ..config.clone() };
    let expected = train_bpe([Ok::<_, Infallible>(text.clone())], &frequent, &|_| {}).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (len, n_bytes) in [(1 << 20, u64::MAX), (77_777, 1 << 20), (1 << 22, 1)] {
        // With a checkpoint after every batch all counts go through runs on disk.
        let work_folder = work_folder(&folder.path().join("work"), n_bytes, 7);
        let resources = Resources { memory_limit: Some(64 << 20), work_folder };
        // Its 400,000 distinct words need more: what is counted stays, and a minimum count is named.
        let error = train_bpe_within(parts(&text, len), &config, &resources, &|_| {}).unwrap_err();
        assert!(matches!(error, Error::MemoryForMerging { fitting: Some(2), .. }), "{error}");
        let frequent = train_bpe_within(parts(&text, len), &frequent, &resources, &|_| {}).unwrap();
        assert!(frequent == expected, "parts of {len}");
        assert!(!folder.path().join("work").exists(), "a training that is done leaves nothing");
    }
}

#[test]
fn special_tokens_across_parts_are_found() {
    let config = BpeConfig { vocab_size: 262, special_tokens: vec!["<|end of|>".to_owned()], ..BpeConfig::default() };
    // More than a batch, so that text is counted before the document ends.
    let text = b"abc abd<|end of|>abc".repeat(1 << 20);
    let expected = train_bpe([Ok::<_, Infallible>(b"abc abd<|end of|>abc".repeat(9))], &config, &|_| {}).unwrap();
    for len in [999, 1 << 16] {
        let learned = train_bpe_within(parts(&text, len), &config, &Resources::default(), &|_| {}).unwrap();
        assert_eq!(merges(&learned), merges(&expected));
    }
}

#[test]
fn a_training_that_stopped_anywhere_goes_on_and_ends_the_same() {
    let text = mixed_text();
    let config = BpeConfig { vocab_size: 600, special_tokens: vec!["<|end of|>".to_owned()], ..BpeConfig::default() };
    let expected = train_bpe([Ok::<_, Infallible>(text.clone())], &config, &|_| {}).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("work");
    let resources = Resources { memory_limit: None, work_folder: work_folder(&path, 1, 40) };
    let long = |text: &[u8]| -> Vec<_> {
        // Batches have 16 MB; with this there are several.
        std::iter::once(Ok::<_, &str>(TextPart { text: vec![b'\n'; 40 << 20], ends_document: true }))
            .chain(text.chunks(1 << 20).map(|part| Ok(TextPart { text: part.to_vec(), ends_document: false })))
            .collect()
    };
    let expected_long = train_bpe_within(long(&text), &config, &Resources::default(), &|_| {}).unwrap();

    // While counting: the text fails after a checkpoint.
    let mut broken = long(&text);
    broken.truncate(3);
    broken.push(Err("the disk is gone"));
    train_bpe_within(broken, &config, &resources, &|_| {}).unwrap_err();
    assert!(path.join("state.json").exists());
    // While merging: the caller's report panics.
    for stop_at in [128, 256] {
        let stop = |progress| match progress {
            Progress::Merging { n_done, .. } if n_done >= stop_at => panic!("stopped"),
            _ => {}
        };
        let run = || train_bpe_within(long(&text), &config, &resources, &stop);
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
        assert!(path.join("merges").exists());
    }
    // Nothing is counted again, so the text may be missing now.
    let nothing: [Result<TextPart, Infallible>; 0] = [];
    let learned = train_bpe_within(nothing, &config, &resources, &|_| {}).unwrap();
    assert!(learned == expected_long);
    assert_eq!(merges(&learned)[1..], merges(&expected_long)[1..]);
    assert_ne!(merges(&expected).len(), 0);
    assert!(!path.exists());
}

#[test]
fn a_work_folder_of_something_else_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("work");
    let run = |key: &str, special: &str| {
        let config = BpeConfig { vocab_size: 258, special_tokens: vec![special.to_owned()], ..BpeConfig::default() };
        let mut work_folder = work_folder(&path, 1, 1);
        work_folder.as_mut().unwrap().resume_key = Some(key.to_owned());
        let parts = [Ok(TextPart { text: b"ab ab\n".repeat(3 << 20), ends_document: true }), Err("the disk is gone")];
        train_bpe_within(parts, &config, &Resources { memory_limit: None, work_folder }, &|_| {}).unwrap_err()
    };
    assert!(matches!(run("one", "<s>"), Error::Document { index: 1, .. }));
    for (key, special) in [("two", "<s>"), ("one", "</s>")] {
        let error = run(key, special);
        assert!(matches!(&error, Error::WorkFolder { reason, .. } if reason.contains("other text")), "{error}");
    }
    assert!(path.join("state.json").exists());
    std::fs::write(path.join("thesis.doc"), "").unwrap();
    assert!(matches!(run("one", "<s>"), Error::WorkFolder { .. }));
    assert!(path.join("thesis.doc").exists());
    std::fs::remove_file(path.join("thesis.doc")).unwrap();
    std::fs::write(path.join("state.json"), r#"{"version":1,"key":"","n_bytes":0,"runs":["../x"],"is_counted":false}"#)
        .unwrap();
    assert!(matches!(run("one", "<s>"), Error::WorkFolder { .. }));
}

#[test]
fn a_limit_too_small_is_refused_and_counts_without_a_folder_too() {
    let config = BpeConfig { vocab_size: 300, ..BpeConfig::default() };
    let run = |limit: u64, n_bytes: usize| {
        let resources = Resources { memory_limit: Some(limit), work_folder: None };
        train_bpe_within(parts(&new_words(3, n_bytes), 1 << 20), &config, &resources, &|_| {}).unwrap_err()
    };
    assert!(matches!(run(1 << 20, 10), Error::MemoryLimit { minimum: 67_108_864, .. }));
    assert!(matches!(run(64 << 20, 40 << 20), Error::NoRoomForCounts { .. }));
}

#[test]
fn rare_words_take_no_part_below_the_minimum_count() {
    let config = BpeConfig { vocab_size: 257, min_count: 3, ..BpeConfig::default() };
    let learned = train_bpe([Ok::<_, Infallible>(b"xyxyxyxyxy ab ab ab".to_vec())], &config, &|_| {}).unwrap();
    assert_eq!(merges(&learned), [(b"a".to_vec(), b"b".to_vec())]);
}

#[test]
fn patterns_are_learned_with_and_named_in_configs() {
    let parse = |text: &str| serde_json::from_str::<BpeConfig>(text);
    let llama = parse(r#"{"vocab_size": 258, "pattern": "llama3"}"#).unwrap();
    assert_eq!(llama.pattern, crate::Pattern::Llama3);
    assert_eq!(parse(&serde_json::to_string(&llama).unwrap()).unwrap(), llama);
    let own = parse(r#"{"vocab_size": 258, "pattern": "[a-z]+|."}"#).unwrap();
    assert!(own.pattern.is_custom());
    assert_eq!(parse(&serde_json::to_string(&own).unwrap()).unwrap().pattern.regexes(), ["[a-z]+|."]);
    assert!(parse(r#"{"vocab_size": 258, "pattern": "(["}"#).is_err());

    // GPT-2 has all digits in one pre-token, Llama 3 three at a time.
    let text = b"12345 12345".to_vec();
    let longest = |pattern: crate::Pattern| {
        let config = BpeConfig { vocab_size: 258, pattern, ..BpeConfig::default() };
        let n_digits = |learned: Tokenizer| merges(&learned).iter().map(|(l, r)| l.len() + r.len()).max().unwrap();
        n_digits(train_bpe([Ok::<_, Infallible>(text.clone())], &config, &|_| {}).unwrap())
    };
    assert_eq!(longest(crate::Pattern::Gpt2), 3);
    assert_eq!(longest(crate::Pattern::Llama3), 2);
}

fn one_document(text: &str) -> [Result<TextPart, Infallible>; 1] {
    [Ok(TextPart { text: text.as_bytes().to_vec(), ends_document: true })]
}

#[test]
fn wordpieces_are_merged_as_by_hand_and_numbered_as_hugging_face_does() {
    let config = WordPieceConfig { vocab_size: 12, special_tokens: Vec::new(), lowercase: true, min_count: 1 };
    // Words: hug 10, pug 5, hugs 5. Pairs: (##u, ##g) 20, (h, ##u) 15, ...
    let text = "HUG ".repeat(10) + &"pug ".repeat(5) + &"hugs ".repeat(5);
    let learned = train_wordpiece(one_document(&text), &config, &Resources::default(), &|_| {}).unwrap();
    let ids = |word: &str| learned.encode(word.as_bytes());
    // [UNK] 0; g h p s u 1-5; ##g ##s ##u 6-8; then ##ug, hug, pug (5, as hugs, but with lower ids).
    assert_eq!(learned.vocab_size(), 12);
    assert_eq!(ids("hug"), [10]);
    assert_eq!(ids("hugs pug"), [10, 7, 11]);
    assert_eq!(ids("gug x"), [1, 9, 0]);
    let error = train_wordpiece(
        one_document(&text),
        &WordPieceConfig { vocab_size: 8, ..config },
        &Resources::default(),
        &|_| {},
    );
    assert!(matches!(error, Err(Error::VocabTooSmall { minimum: 9, .. })));
}

#[test]
fn a_unigram_vocabulary_has_all_characters_and_does_not_depend_on_threads() {
    let words = ["▁low", "lower", "newest", "widest", "der", "die", "das", "日本", "naïve"];
    let text: String = (0..4000).map(|i| format!("{} ", words[(i * i + i / 7) % words.len()])).collect();
    let config = UnigramConfig { vocab_size: 26, character_coverage: 1.0, ..UnigramConfig::default() };
    let train = || train_unigram(one_document(&text), &config, &Resources::default(), &|_| {}).unwrap();
    let learned = train();
    assert_eq!(learned.vocab_size(), 26);
    assert_eq!(learned.decode(&learned.encode("lower naïve 日本 die".as_bytes())), "lower naïve 日本 die");
    assert!(learned.encode("newest".as_bytes()).len() < 3);
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert!(one_thread.install(train) == learned);
    let too_small = UnigramConfig { vocab_size: 9, ..config };
    let error = train_unigram(one_document(&text), &too_small, &Resources::default(), &|_| {});
    assert!(matches!(error, Err(Error::VocabTooSmall { .. })));
}

/// `tests/golden/sentencepiece_unigram_1000.tsv` was made of `tests/fixtures/corpus.en` by sentencepiece 0.2.3:
/// `SentencePieceTrainer.train(vocab_size=1000, model_type="unigram", bos_id=-1, eos_id=-1)`.
#[test]
fn a_unigram_vocabulary_is_that_of_sentencepiece_but_for_a_few_pieces() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let golden = std::fs::read_to_string(folder.join("golden/sentencepiece_unigram_1000.tsv")).unwrap();
    let golden: std::collections::HashMap<&str, f64> = golden
        .lines()
        .map(|line| {
            let (piece, score) = line.split_once('\t').unwrap();
            (piece, score.parse().unwrap())
        })
        .collect();
    let text = std::fs::read_to_string(folder.join("fixtures/corpus.en")).unwrap();
    let pieces = |sentencepiece_seeds| {
        let config = UnigramConfig { vocab_size: 1000, sentencepiece_seeds, ..UnigramConfig::default() };
        let learned = train_unigram(one_document(&text), &config, &Resources::default(), &|_| {}).unwrap();
        let crate::vocab::Model::Unigram(model) = &learned.model else { panic!("another model") };
        let pieces: Vec<(String, f64)> =
            model.pieces()[1..].iter().map(|piece| (piece.text.to_string(), piece.score)).collect();
        (pieces, learned.encode(text.as_bytes()).len())
    };
    let (theirs, n_tokens_with_theirs) = pieces(true);
    let shared: Vec<f64> =
        theirs.iter().filter_map(|(piece, score)| Some((score - golden.get(piece.as_str())?).abs())).collect();
    let difference = shared.iter().sum::<f64>() / shared.len() as f64;
    eprintln!("{} of 999 pieces are shared, scores differ by {difference:.4} on average", shared.len());
    assert!(shared.len() >= 985, "{}", shared.len());
    assert!(difference < 0.1, "{difference}");
    // More seeds find pieces that are worth more.
    let (_, n_tokens) = pieces(false);
    assert!(n_tokens < n_tokens_with_theirs, "{n_tokens}, {n_tokens_with_theirs}");
}
