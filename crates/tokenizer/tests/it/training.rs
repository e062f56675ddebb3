//! Training against the course's reference result (`fixtures/README.md`).

use std::fs;
use std::path::Path;

use crate::fixtures::{END_OF_TEXT, path, train_on_corpus, vocabularies};
use tokenizer::Tokenizer;

/// Merges and vocabulary of Stanford's CS336, assignment 1, `test_train_bpe`.
#[test]
fn the_reference_vocabulary_of_the_course_is_reproduced_exactly() {
    let learned = train_on_corpus(500);
    let reference = Tokenizer::from_vocab_and_merges(
        &path("fixtures/train-bpe-reference-vocab.json"),
        &path("fixtures/train-bpe-reference-merges.txt"),
    )
    .unwrap();
    let merges: Vec<_> = learned.merges().collect();
    let expected: Vec<_> = reference.merges().collect();
    assert_eq!(merges.len(), 243);
    assert_eq!(merges, expected);
    assert_eq!(reference.end_of_text(), Some(0));
    assert!(learned == reference, "the ids differ");
}

/// A special token must leave no trace in what is learned.
#[test]
fn no_learned_token_holds_a_part_of_a_special_token() {
    let learned = train_on_corpus(1000);
    for id in 1..1000 {
        let bytes = learned.token_bytes(id).unwrap();
        assert!(!bytes.windows(2).any(|pair| pair == b"<|"), "{id}");
    }
    assert_eq!(learned.special_tokens().collect::<Vec<_>>(), [(END_OF_TEXT, 0)]);
}

/// `UPDATE_FIXTURES=1` writes the files instead.
#[test]
fn saved_files_are_the_committed_ones() {
    let folder = tempfile::tempdir().unwrap();
    for (name, tokenizer) in vocabularies() {
        let committed = path(&format!("fixtures/{name}.tokenizer.json"));
        let saved = folder.path().join("tokenizer.json");
        if std::env::var_os("UPDATE_FIXTURES").is_some() {
            tokenizer.save(&committed).unwrap();
        }
        tokenizer.save(&saved).unwrap();
        let text = |path: &Path| fs::read_to_string(path).unwrap();
        assert!(text(&saved) == text(&committed), "{name}");
        assert!(Tokenizer::from_file(&committed).unwrap() == tokenizer, "{name}");
    }
}
