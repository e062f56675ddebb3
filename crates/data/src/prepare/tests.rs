use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::document::{END_OF_TEXT, Source};
use crate::shard::Dataset;

fn options(output: &Path) -> PrepareOptions {
    PrepareOptions {
        output: output.to_owned(),
        overwrite: false,
        append_end_of_text: true,
        tokenizer_xxh3: "0000000000000000".to_owned(),
        max_tokens_per_shard: 1000,
        resume_key: None,
    }
}

fn documents(texts: &[String]) -> impl Iterator<Item = Result<Document, Error>> {
    let path = Arc::new(PathBuf::from("made/here.jsonl"));
    texts.iter().zip(1..).map(move |(text, line)| {
        let source = Source { path: Arc::clone(&path), line };
        Ok(Document { text: text.clone().into_bytes(), source, input_bytes: 10 * line })
    })
}

fn some_texts() -> Vec<String> {
    (0..10_000).map(|i| format!("document {i}{}", " \u{e9}".repeat(i % 7))).collect()
}

fn byte_tokenizer() -> Tokenizer {
    Tokenizer::bytes_with_specials(&[END_OF_TEXT.to_owned()]).unwrap()
}

fn tokens(dataset: &Dataset) -> Vec<u32> {
    let mut tokens = vec![0; dataset.n_tokens() as usize];
    dataset.copy_tokens(0, &mut tokens);
    tokens
}

#[test]
fn the_tokens_are_those_of_each_document_and_its_end() {
    let folder = TempDir::new().unwrap();
    let output = folder.path().join("d");
    let texts = some_texts();
    let reports = RefCell::new(Vec::new());
    let report = |progress| reports.borrow_mut().push(progress);
    let summary = prepare(documents(&texts), &byte_tokenizer(), options(&output), &report).unwrap();

    // Oracle: with a byte vocabulary the tokens are the bytes, and the end of text is id 256.
    let expected: Vec<u32> = texts.iter().flat_map(|text| text.bytes().map(u32::from).chain([256])).collect();
    let dataset = Dataset::open(&output).unwrap();
    assert_eq!(tokens(&dataset), expected);
    let n_text_bytes: usize = texts.iter().map(String::len).sum();
    let n_tokens = expected.len() as u64;
    assert_eq!((dataset.n_documents(), dataset.n_text_bytes()), (10_000, n_text_bytes as u64));
    assert_eq!(summary.n_shards as u64, n_tokens.div_ceil(1000));
    assert_eq!(summary.totals.n_tokens, n_tokens);
    assert_eq!(summary.totals.input_bytes, 100_000);
    let reports = reports.into_inner();
    assert_eq!((reports.len(), reports.last()), (3, Some(&summary.totals)));
    for (text, range) in texts.iter().zip(dataset.documents()) {
        assert_eq!(range.end - range.start, text.len() as u64 + 1);
    }
}

#[test]
fn the_files_do_not_depend_on_the_number_of_threads() {
    let folder = TempDir::new().unwrap();
    let texts = some_texts();
    let checksums = [1, 2, 5].map(|n_threads| {
        let output = folder.path().join(n_threads.to_string());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        let tokenizer = byte_tokenizer();
        pool.install(|| prepare(documents(&texts), &tokenizer, options(&output), &|_| {}).map(|_| ())).unwrap();
        Dataset::open(&output).unwrap().checksum().to_owned()
    });
    assert_eq!(checksums[0], checksums[1]);
    assert_eq!(checksums[0], checksums[2]);
}

#[test]
fn the_end_of_text_is_left_out_when_not_asked_for_or_not_there() {
    let folder = TempDir::new().unwrap();
    let texts = ["ab".to_owned(), "c".to_owned()];
    let without = PrepareOptions { append_end_of_text: false, ..options(&folder.path().join("a")) };
    let check = |tokenizer: &Tokenizer, options: PrepareOptions| {
        let output = options.output.clone();
        prepare(documents(&texts), tokenizer, options, &|_| {}).unwrap();
        tokens(&Dataset::open(&output).unwrap())
    };
    assert_eq!(check(&byte_tokenizer(), without), [97, 98, 99]);
    assert_eq!(check(&Tokenizer::bytes(), options(&folder.path().join("b"))), [97, 98, 99]);
}

#[test]
fn a_document_cannot_forge_an_end_of_text() {
    let folder = TempDir::new().unwrap();
    let output = folder.path().join("d");
    prepare(documents(&[format!("a{END_OF_TEXT}b")]), &byte_tokenizer(), options(&output), &|_| {}).unwrap();
    let tokens = tokens(&Dataset::open(&output).unwrap());
    assert_eq!(tokens.iter().filter(|&&token| token == 256).count(), 1);
    assert_eq!(tokens.len(), END_OF_TEXT.len() + 3);
}

#[test]
fn a_character_that_the_vocabulary_lacks_is_an_error() {
    let folder = TempDir::new().unwrap();
    let tokenizer = Tokenizer::characters(["ab\u{e9}"], &[]).unwrap();
    let run = |texts: &[String]| {
        let options = PrepareOptions { overwrite: true, ..options(&folder.path().join("d")) };
        prepare(documents(texts), &tokenizer, options, &|_| {})
    };
    assert_eq!(run(&["ab\u{e9}".to_owned()]).unwrap().totals.n_tokens, 3);
    // é and è share their first byte.
    for (text, offset, found) in
        [("abz", 2, 'z'), ("\u{e9}\u{e8}a", 2, '\u{e8}'), ("zab", 0, 'z'), ("a\u{1f600}", 1, '\u{1f600}')]
    {
        let error = run(&["a".to_owned(), text.to_owned()]).unwrap_err();
        let Error::UnknownCharacter { line: 2, offset: at, found: character, .. } = &error else { panic!("{error}") };
        assert_eq!((*at, *character), (offset, found), "{error}");
    }
}

#[test]
fn an_error_among_the_documents_ends_it_and_leaves_nothing() {
    let folder = TempDir::new().unwrap();
    let texts = some_texts();
    let failing = documents(&texts).chain([Err(Error::NoInput)]);
    let error = prepare(failing, &byte_tokenizer(), options(&folder.path().join("d")), &|_| {}).unwrap_err();
    assert!(matches!(error, Error::NoInput));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn whatever_it_died_of_the_shards_are_those_of_an_unbroken_run() {
    let folder = TempDir::new().unwrap();
    let texts = some_texts();
    let whole = PrepareOptions { max_tokens_per_shard: 777, ..options(&folder.path().join("whole")) };
    prepare(documents(&texts), &byte_tokenizer(), whole, &|_| {}).unwrap();
    let whole = Dataset::open(&folder.path().join("whole")).unwrap();

    let output = folder.path().join("broken");
    let resumable =
        || PrepareOptions { max_tokens_per_shard: 777, resume_key: Some("these".to_owned()), ..options(&output) };
    let mut n_kept = Vec::new();
    for n_documents in [5000, 100, 9000, 9500] {
        // An error takes the way of a kill here, as far as finished shards go.
        let broken = documents(&texts).take(n_documents).chain([Err(Error::NoInput)]);
        prepare(broken, &byte_tokenizer(), resumable(), &|_| {}).unwrap_err();
        n_kept.push(fs::read_dir(folder.path().join(".broken.tmp")).unwrap().count());
    }
    // A shard in the making may go, finished ones stay.
    assert!(n_kept[1] + 2 >= n_kept[0] && n_kept[2] > n_kept[0] && n_kept[3] + 2 >= n_kept[2], "{n_kept:?}");
    let summary = prepare(documents(&texts), &byte_tokenizer(), resumable(), &|_| {}).unwrap();
    let broken = Dataset::open(&output).unwrap();
    assert_eq!(broken.checksum(), whole.checksum());
    assert_eq!(tokens(&broken), tokens(&whole));
    assert_eq!((summary.totals.n_documents, summary.totals.n_tokens), (10_000, whole.n_tokens()));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn shards_of_other_documents_or_with_a_changed_byte_are_not_taken_up() {
    let folder = TempDir::new().unwrap();
    let texts = some_texts();
    let output = folder.path().join("d");
    let run = |key: &str, n_documents: usize| {
        let options = PrepareOptions { resume_key: Some(key.to_owned()), overwrite: true, ..options(&output) };
        let broken = documents(&texts).take(n_documents).chain([Err(Error::NoInput)]);
        let documents: Box<dyn Iterator<Item = _>> =
            if n_documents < texts.len() { Box::new(broken) } else { Box::new(documents(&texts)) };
        prepare(documents, &byte_tokenizer(), options, &|_| {})
    };
    let whole = {
        run("a", texts.len()).unwrap();
        Dataset::open(&output).unwrap().checksum().to_owned()
    };
    run("a", 9000).unwrap_err();
    let shard = folder.path().join(".d.tmp/shard_00003.bin");
    let mut bytes = fs::read(&shard).unwrap();
    bytes[5] ^= 1;
    fs::write(&shard, bytes).unwrap();
    run("a", texts.len()).unwrap();
    assert_eq!(Dataset::open(&output).unwrap().checksum(), whole);
    run("a", 9000).unwrap_err();
    run("b", texts.len()).unwrap();
    assert_eq!(Dataset::open(&output).unwrap().checksum(), whole);
}
