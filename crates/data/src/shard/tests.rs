use std::fs;
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::Error;

fn options(output: &Path) -> WriterOptions {
    WriterOptions {
        output: output.to_owned(),
        overwrite: false,
        vocab_size: 1000,
        tokenizer_xxh3: "0123456789abcdef".to_owned(),
        max_tokens_per_shard: 10,
        resume_key: None,
    }
}

fn write(options: WriterOptions, documents: &[Vec<u32>]) -> Result<Dataset, Error> {
    let output = options.output.clone();
    let mut writer = ShardWriter::create(options)?;
    for document in documents {
        writer.push_document(document, 3 * document.len() as u64)?;
    }
    writer.finish()?;
    Dataset::open(&output)
}

/// A dataset of one document in shards of `max_tokens_per_shard`.
pub(crate) fn dataset_of(output: &Path, tokens: &[u32], max_tokens_per_shard: u64) -> Dataset {
    let options = WriterOptions { max_tokens_per_shard, vocab_size: 1 << 20, ..options(output) };
    write(options, &[tokens.to_vec()]).unwrap()
}

/// Three shards (10, 10 and 5 tokens), four documents.
fn small(folder: &TempDir) -> Dataset {
    let documents = [(0..7).collect(), (7..7).collect(), (7..21).collect(), (21..25).collect::<Vec<u32>>()];
    write(options(&folder.path().join("small")), &documents).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_files_are_what_the_module_says() {
    let folder = TempDir::new().unwrap();
    let dataset = small(&folder);
    let path = dataset.path();
    let mut expected = vec!["index.json".to_owned()];
    expected.extend((0..3).flat_map(|i| [format!("shard_0000{i}.bin"), format!("shard_0000{i}.documents")]));
    assert_eq!(names(path), expected);
    assert_eq!(names(folder.path()), ["small"]);
    // As numpy.memmap(…, dtype="<u2") and "<u8" would see them.
    assert_eq!(fs::read(path.join("shard_00002.bin")).unwrap(), [20, 0, 21, 0, 22, 0, 23, 0, 24, 0]);
    let ends = |i: usize| fs::read(path.join(documents_file(i))).unwrap();
    assert_eq!(ends(0), [7, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
    assert!(ends(1).is_empty());
    assert_eq!(ends(2), [1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(checksum(b""), "2d06800538d394c2"); // the test vector of the xxHash specification
}

#[test]
fn a_dataset_says_what_was_written() {
    let folder = TempDir::new().unwrap();
    let dataset = small(&folder);
    assert_eq!((dataset.n_tokens(), dataset.n_documents(), dataset.n_text_bytes()), (25, 4, 75));
    assert_eq!(
        (dataset.vocab_size(), dataset.tokenizer_xxh3(), dataset.dtype()),
        (1000, "0123456789abcdef", Dtype::U16)
    );
    assert_eq!(dataset.documents().collect::<Vec<_>>(), [0..7, 7..7, 7..21, 21..25]);
    dataset.verify().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn what_is_written_is_read_across_shard_borders(
        documents in prop::collection::vec(prop::collection::vec(0_u32..70_000, 0..30), 1..20),
        max_tokens_per_shard in 20_u64..300,
        vocab_size in prop::sample::select(vec![70_000_usize, 1 << 16]),
        cut in 0.0_f64..1.0,
    ) {
        let documents: Vec<Vec<u32>> = documents
            .into_iter()
            .map(|tokens| tokens.into_iter().map(|token| token % vocab_size as u32).collect())
            .collect();
        let all = documents.concat();
        prop_assume!(!all.is_empty());
        let folder = TempDir::new().unwrap();
        let options = WriterOptions { max_tokens_per_shard, vocab_size, ..options(&folder.path().join("d")) };
        let dataset = write(options, &documents).unwrap();
        prop_assert_eq!(dataset.dtype(), if vocab_size > 1 << 16 { Dtype::U32 } else { Dtype::U16 });
        prop_assert_eq!(dataset.documents().map(|range| (range.end - range.start) as usize).collect::<Vec<_>>(),
            documents.iter().map(Vec::len).collect::<Vec<_>>());
        let start = (cut * all.len() as f64) as usize;
        for end in start..=all.len() {
            let mut out = vec![0; end - start];
            dataset.copy_tokens(start as u64, &mut out);
            prop_assert_eq!(&out[..], &all[start..end]);
        }
    }
}

#[test]
#[should_panic(expected = "copy_tokens: 6 tokens from 20 on, of 25")]
fn reading_past_the_end_is_a_bug_that_names_the_range() {
    small(&TempDir::new().unwrap()).copy_tokens(20, &mut [0; 6]);
}

/// Changes a file of a dataset and opens it again.
fn damage(file: &str, change: impl Fn(Vec<u8>) -> Vec<u8>) -> Error {
    let folder = TempDir::new().unwrap();
    let path = small(&folder).path().to_owned();
    let bytes = fs::read(path.join(file)).unwrap();
    fs::write(path.join(file), change(bytes)).unwrap();
    Dataset::open(&path).unwrap_err()
}

fn edit_index(from: &str, to: &str) -> Error {
    damage("index.json", |json| {
        let json = String::from_utf8(json).unwrap();
        assert!(json.contains(from), "{json}");
        json.replacen(from, to, 1).into_bytes()
    })
}

#[test]
fn a_shard_cut_short_is_named_with_both_sizes() {
    let error = damage("shard_00001.bin", |bytes| bytes[..13].to_vec());
    assert!(matches!(&error, Error::WrongSize { expected: 20, found: 13, .. }), "{error}");
    assert!(error.to_string().contains("shard_00001.bin has 13 bytes, index.json says 20\nhint: "));
    let error = damage("shard_00000.documents", |bytes| [&bytes[..], &[0]].concat());
    assert!(matches!(&error, Error::WrongSize { expected: 16, found: 17, .. }), "{error}");
}

#[test]
fn a_changed_byte_is_a_wrong_checksum() {
    for file in ["shard_00001.bin", "shard_00002.documents"] {
        let error = damage(file, |mut bytes| {
            bytes[3] ^= 1;
            bytes
        });
        assert!(matches!(&error, Error::WrongChecksum { path, .. } if path.ends_with(file)), "{error}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let folder = TempDir::new().unwrap();
    let path = small(&folder).path().to_owned();
    fs::remove_file(path.join("shard_00002.bin")).unwrap();
    let error = Dataset::open(&path).unwrap_err();
    assert!(matches!(&error, Error::MissingShard { path } if path.ends_with("shard_00002.bin")), "{error}");
    for path in [folder.path().to_owned(), folder.path().join("nowhere"), path.join("index.json")] {
        assert!(matches!(Dataset::open(&path), Err(Error::NotADataset { .. })));
    }
}

#[test]
fn an_index_that_is_not_one_is_refused_with_line_and_column_or_reason() {
    let error = damage("index.json", |json| json[..json.len() / 2].to_vec());
    assert!(matches!(&error, Error::MalformedIndex { line, column, .. } if *line > 1 && *column > 0), "{error}");
    let error = edit_index("\"vocab_size\"", "\"vocab\"");
    assert!(matches!(&error, Error::MalformedIndex { line: 4, reason, .. } if reason.contains("`vocab`")), "{error}");

    let error = edit_index("\"format_version\": 1", "\"format_version\": 2, \"more\": 0");
    assert!(matches!(&error, Error::UnsupportedVersion { found: 2, expected: 1, .. }), "{error}");

    let contradictions = [
        ("shard_00000.bin", "../../etc/passwd", "`../../etc/passwd`, expected `shard_00000.bin`"),
        ("\"n_tokens\": 25", "\"n_tokens\": 26", "add up to 25 and 4"),
        ("\"vocab_size\": 1000", "\"vocab_size\": 70000", "u16 cannot hold"),
        ("\"vocab_size\": 1000", "\"vocab_size\": 0", "vocab_size is 0"),
        ("\"n_tokens\": 10", "\"n_tokens\": 18446744073709551615", "add up to"),
        ("\"n_tokens\": 10", "\"n_tokens\": 0", "shards[0] has no tokens"),
    ];
    for (from, to, reason) in contradictions {
        let error = edit_index(from, to);
        assert!(matches!(error, Error::MalformedIndex { line: 0, .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn content_that_no_writer_makes_is_refused_even_with_a_right_checksum() {
    let error = edit_index("\"vocab_size\": 1000", "\"vocab_size\": 24");
    assert!(matches!(&error, Error::InconsistentShard { reason, .. } if reason.contains("token id 24")), "{error}");

    let folder = TempDir::new().unwrap();
    let path = small(&folder).path().to_owned();
    let ends = [8_u64, 7].map(u64::to_le_bytes).concat();
    let old = checksum(&fs::read(path.join("shard_00000.documents")).unwrap());
    fs::write(path.join("shard_00000.documents"), &ends).unwrap();
    let json = fs::read_to_string(path.join("index.json")).unwrap();
    fs::write(path.join("index.json"), json.replace(&old, &checksum(&ends))).unwrap();
    let error = Dataset::open(&path).unwrap_err();
    assert!(matches!(&error, Error::InconsistentShard { reason, .. } if reason.contains("ends at 7")), "{error}");
}

#[test]
fn equal_datasets_have_equal_checksums_and_different_ones_do_not() {
    let folder = TempDir::new().unwrap();
    let [a, b, c] = [("a", vec![1, 2]), ("b", vec![1, 2]), ("c", vec![1, 3])]
        .map(|(name, tokens)| dataset_of(&folder.path().join(name), &tokens, 9).checksum().to_owned());
    assert_eq!(a, b);
    assert_ne!(a, c);
}

#[test]
fn an_id_beyond_the_vocabulary_is_not_written_and_leaves_nothing() {
    let folder = TempDir::new().unwrap();
    let error = write(options(&folder.path().join("d")), &[vec![1], vec![2, 1000]]).unwrap_err();
    let Error::TokenOutOfVocabulary { document_idx: 1, token: 1000, vocab_size: 1000 } = error else {
        panic!("{error}")
    };
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn a_dataset_is_not_seen_before_it_is_finished_and_a_dropped_writer_leaves_nothing() {
    let folder = TempDir::new().unwrap();
    let mut writer = ShardWriter::create(options(&folder.path().join("d"))).unwrap();
    writer.push_document(&[1; 25], 25).unwrap();
    assert_eq!(names(folder.path()), [".d.tmp"]);
    drop(writer);
    assert_eq!(names(folder.path()), [""; 0]);
    let error = write(options(&folder.path().join("d")), &[vec![], vec![]]).unwrap_err();
    assert!(matches!(error, Error::NoTokens { .. }));
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn what_a_killed_writer_left_is_taken_over_and_a_living_one_is_respected() {
    let folder = TempDir::new().unwrap();
    let (output, temporary) = (folder.path().join("d"), folder.path().join(".d.tmp"));
    fs::create_dir(&temporary).unwrap();
    for name in ["writer.lock", "shard_00000.bin", "shard_00007.bin"] {
        fs::write(temporary.join(name), "left behind").unwrap();
    }
    let writer = ShardWriter::create(options(&output)).unwrap();
    assert_eq!(names(&temporary), ["writer.lock"]);
    assert!(matches!(ShardWriter::create(options(&output)), Err(Error::WriterBusy { .. })));
    drop(writer);

    fs::create_dir(&temporary).unwrap();
    fs::write(temporary.join("thesis.doc"), "").unwrap();
    assert!(matches!(ShardWriter::create(options(&output)), Err(Error::OutputInUse { .. })));
    assert!(temporary.join("thesis.doc").exists());
}

#[test]
fn a_dataset_is_replaced_only_when_asked_and_anything_else_never() {
    let folder = TempDir::new().unwrap();
    let old = small(&folder);
    let again = |overwrite| write(WriterOptions { overwrite, ..options(old.path()) }, &[vec![9, 8]]);
    assert!(matches!(again(false), Err(Error::DatasetExists { .. })));
    assert_eq!(Dataset::open(old.path()).unwrap().n_tokens(), 25);
    assert_eq!(again(true).unwrap().n_tokens(), 2);
    assert_eq!(names(folder.path()), ["small"]);
    assert_eq!(names(old.path()), ["index.json", "shard_00000.bin", "shard_00000.documents"]);

    let home = folder.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("thesis.doc"), "").unwrap();
    for output in [home.clone(), home.join("thesis.doc"), Path::new("/").to_owned()] {
        let error = write(WriterOptions { overwrite: true, ..options(&output) }, &[vec![1]]).unwrap_err();
        assert!(matches!(error, Error::OutputInUse { .. }), "{error}");
    }
    assert!(home.join("thesis.doc").exists());

    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert_eq!(write(options(&empty), &[vec![1]]).unwrap().n_tokens(), 1);
}

#[test]
fn a_failed_overwrite_leaves_the_old_dataset() {
    let folder = TempDir::new().unwrap();
    let old = small(&folder);
    let overwrite = WriterOptions { overwrite: true, ..options(old.path()) };
    write(overwrite, &[vec![1, 5000]]).unwrap_err();
    assert_eq!(names(folder.path()), ["small"]);
    assert_eq!(Dataset::open(old.path()).unwrap().n_tokens(), 25);
}

#[test]
fn a_folder_that_cannot_be_written_to_is_named_with_a_hint() {
    let folder = TempDir::new().unwrap();
    let error = ShardWriter::create(options(&folder.path().join("no/such/d"))).err().unwrap();
    assert!(error.to_string().contains("cannot write the dataset "), "{error}");
    assert!(error.to_string().contains("no/such/d\nhint: check that the parent folder exists"), "{error}");

    // The kinds of failure that a test cannot bring about everywhere.
    let hint = |kind: std::io::ErrorKind| Error::write("the index", Path::new("d"), kind.into()).to_string();
    assert!(hint(std::io::ErrorKind::StorageFull).starts_with("cannot write the index d\nhint: the disk is full"));
    assert!(hint(std::io::ErrorKind::PermissionDenied).contains("hint: no write permission there"));
}

#[test]
fn a_vocabulary_or_a_shard_size_of_zero_is_refused() {
    let folder = TempDir::new().unwrap();
    let good = options(&folder.path().join("d"));
    for bad in [
        WriterOptions { vocab_size: 0, ..good.clone() },
        WriterOptions { vocab_size: 1 << 32, ..good.clone() },
        WriterOptions { max_tokens_per_shard: 0, ..good },
    ] {
        assert!(matches!(ShardWriter::create(bad), Err(Error::InvalidOption { .. })));
    }
}
