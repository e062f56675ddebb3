use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;

/// Writes `bytes` to a file of this name and reads it.
fn read(name: &str, bytes: &[u8], options: ReadOptions) -> Result<Vec<Document>, Error> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    read_documents(&[path], options)?.collect()
}

fn texts(documents: &[Document]) -> Vec<&str> {
    documents.iter().map(|document| std::str::from_utf8(&document.text).unwrap()).collect()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

fn defaults() -> ReadOptions {
    ReadOptions::default()
}

fn separated() -> ReadOptions {
    ReadOptions { separator: Some(END_OF_TEXT.to_owned()), ..defaults() }
}

#[test]
fn a_text_file_is_one_document_byte_for_byte_compressed_or_not() {
    let text = "one\r\ntwo <|endoftext|> \u{e9}\n";
    for (name, bytes) in [("a.txt", text.as_bytes().to_vec()), ("a.TXT.zst", zstd(text.as_bytes()))] {
        let documents = read(name, &bytes, defaults()).unwrap();
        assert_eq!(texts(&documents), [text]);
        assert_eq!((documents[0].source.line, documents[0].input_bytes), (1, bytes.len() as u64));
    }
}

#[test]
fn a_separator_cuts_a_text_file_like_split_does() {
    let text = "a\nb<|endoftext|>\nc > d <|endoftext|><|endoftext|>e<|endoftext|>";
    let documents = read("a.txt", text.as_bytes(), separated()).unwrap();
    let expected: Vec<&str> = text.split(END_OF_TEXT).filter(|piece| !piece.is_empty()).collect();
    assert_eq!(texts(&documents), expected);
    assert_eq!(documents.iter().map(|document| document.source.line).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn json_lines_give_their_text_and_their_line() {
    let json = "{\"text\": \"a\\n\\u00e9\", \"id\": {\"x\": [1]}}\n\n{\"text\":\"\"}\r\n{\"n\":1,\"text\":\"b\"}";
    for (name, bytes) in [("a.jsonl", json.as_bytes().to_vec()), ("a.jsonl.zst", zstd(json.as_bytes()))] {
        let documents = read(name, &bytes, defaults()).unwrap();
        assert_eq!(texts(&documents), ["a\n\u{e9}", "b"]);
        assert_eq!(documents.iter().map(|document| document.source.line).collect::<Vec<_>>(), [1, 4]);
    }
}

#[test]
fn several_files_follow_each_other_and_the_bytes_read_reach_the_total() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        fs::write(folder.path().join(name), bytes).unwrap();
        folder.path().join(name)
    };
    let paths = [
        write("a.txt", b"first"),
        write("b.jsonl.zst", &zstd(b"{\"text\":\"second\"}\n{\"text\":\"\"}\n{\"text\":\"third\"}\n")),
        write("c.txt.zst", &[zstd(b"fou"), zstd(b"rth")].concat()),
    ];
    let mut documents = read_documents(&paths, defaults()).unwrap();
    let all: Vec<Document> = documents.by_ref().map(Result::unwrap).collect();
    assert_eq!(texts(&all), ["first", "second", "third", "fourth"]);
    assert_eq!((documents.n_documents(), documents.n_empty()), (4, 1));
    assert_eq!(documents.bytes_read(), total_bytes(&paths).unwrap());
    assert_eq!(all[3].source.path.as_path(), paths[2]);
}

#[test]
fn paths_are_checked_before_any_is_read() {
    let folder = TempDir::new().unwrap();
    let good = folder.path().join("good.txt");
    fs::write(&good, "x").unwrap();
    let fails = |path: &Path| read_documents(&[good.clone(), path.to_owned()], defaults()).err().unwrap();

    let missing = folder.path().join("missing.txt");
    assert!(matches!(fails(&missing), Error::MissingFile { path } if path == missing));
    let empty = folder.path().join("empty.jsonl");
    fs::write(&empty, "").unwrap();
    assert!(matches!(fails(&empty), Error::EmptyFile { path } if path == empty));
    assert!(matches!(fails(folder.path()), Error::NotAFile { .. }));
    let parquet = folder.path().join("a.parquet");
    fs::write(&parquet, "x").unwrap();
    assert!(matches!(fails(&parquet), Error::UnknownFormat { .. }));
    assert!(matches!(read_documents(&[], defaults()), Err(Error::NoInput)));
}

#[test]
fn a_file_without_documents_is_an_error() {
    for (name, bytes) in [("a.jsonl", &b"\n \n{\"text\":\"\"}\n"[..]), ("a.jsonl.zst", &zstd(b"\n{\"text\":\"\"}"))] {
        let error = read(name, bytes, defaults()).unwrap_err();
        assert!(matches!(error, Error::NoDocuments { n_empty: 1, .. }), "{error}");
    }
    assert!(matches!(read("a.txt.zst", &zstd(b""), defaults()), Err(Error::NoDocuments { n_empty: 0, .. })));
}

#[test]
fn a_bad_json_line_is_named() {
    let error = read("a.jsonl", b"{\"text\":\"a\"}\n{\"text\": oops}\n", defaults()).unwrap_err();
    assert!(matches!(error, Error::MalformedJson { line: 2, column: 10, .. }), "{error}");
    assert!(error.to_string().contains("a.jsonl, line 2, column 10: not valid JSON: expected value\nhint: "));
    for json in
        ["{\"txt\":\"a\"}", "{\"text\":3}", "{\"text\":null}", "[1]", "\"a\"", "{\"text\":\"a\",\"text\":\"b\"}"]
    {
        let error = read("a.jsonl", format!("\n{json}\n").as_bytes(), defaults()).unwrap_err();
        assert!(matches!(error, Error::MissingText { line: 2, .. }), "{json}: {error}");
    }
    let nested = format!("{{\"x\":{}", "[".repeat(1 << 20));
    assert!(matches!(read("a.jsonl", nested.as_bytes(), defaults()), Err(Error::MalformedJson { .. })));
}

#[test]
fn nothing_follows_an_error() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.jsonl");
    fs::write(&path, "{\"text\":\"a\"}\nbad\n{\"text\":\"b\"}\n").unwrap();
    let results: Vec<_> = read_documents(&[path.clone(), path], defaults()).unwrap().collect();
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn invalid_utf8_is_found_at_its_offset_in_the_file() {
    let bytes = b"abc\n\xc3\xa9\xff\n";
    for (name, bytes) in [("a.txt", bytes.to_vec()), ("a.txt.zst", zstd(bytes))] {
        let error = read(name, &bytes, defaults()).unwrap_err();
        assert!(matches!(error, Error::InvalidUtf8 { line: 2, offset: 6, .. }), "{error}");
    }
    let error = read("a.txt", b"a<|endoftext|>b\n<|endoftext|>\n\x80", separated()).unwrap_err();
    assert!(matches!(error, Error::InvalidUtf8 { line: 3, offset: 30, .. }), "{error}");
    let error = read("a.jsonl", b"{\"text\":\"a\"}\n{\"text\":\"\xff\"}\n", defaults()).unwrap_err();
    assert!(matches!(error, Error::InvalidUtf8 { line: 2, offset: 22, .. }), "{error}");
}

#[test]
fn raw_bytes_pass_unchanged_when_asked_for() {
    let raw = ReadOptions { raw_bytes: true, ..defaults() };
    assert_eq!(read("a.txt", b"\xff\x00\xc3", raw.clone()).unwrap()[0].text, b"\xff\x00\xc3");
    let documents = read("a.jsonl", b"{\"text\":\"\xff\\u00e9\"}\n{\"text\":\"plain\"}", raw.clone()).unwrap();
    assert_eq!(documents[0].text, b"\xff\xc3\xa9");
    assert_eq!(documents[1].text, b"plain");
    assert!(matches!(read("a.jsonl", b"{\"text\":3}", raw), Err(Error::MissingText { line: 1, .. })));
}

#[test]
fn a_truncated_zst_is_an_error_wherever_it_is_cut() {
    let json: String = (0..5000).map(|i| format!("{{\"text\":\"document {i} {}\"}}\n", i * i % 977)).collect();
    let whole = zstd(json.as_bytes());
    for n_bytes in [1, 3, 5, 17, whole.len() / 2, whole.len() - 1] {
        let error = read("a.jsonl.zst", &whole[..n_bytes], defaults()).unwrap_err();
        assert!(matches!(error, Error::TruncatedZstd { .. }), "{n_bytes}: {error}");
    }
    let second_cut = [&whole[..], &whole[..whole.len() / 2]].concat();
    assert!(matches!(read("a.jsonl.zst", &second_cut, defaults()), Err(Error::TruncatedZstd { .. })));
}

#[test]
fn a_damaged_zst_or_one_of_too_large_a_window_is_an_error() {
    assert!(matches!(read("a.txt.zst", b"plain text", defaults()), Err(Error::Decompress { .. })));
    // Frame header: magic, no single segment, window descriptor of exponent 18 (2^28 bytes).
    let window_of_256_mib = b"\x28\xb5\x2f\xfd\x00\x90\x01\x00\x00";
    assert!(matches!(read("a.txt.zst", window_of_256_mib, defaults()), Err(Error::Decompress { .. })));
}

#[test]
fn a_longer_document_than_the_limit_is_refused_and_one_at_the_limit_is_not() {
    let limited = ReadOptions { max_document_bytes: 20, ..separated() };
    let check = |name: &str, bytes: &[u8]| read(name, bytes, limited.clone()).map(|documents| documents.len());
    assert_eq!(check("a.txt", &[b'x'; 20]).unwrap(), 1);
    assert!(matches!(check("a.txt", &[b'x'; 21]), Err(Error::TooLong { line: 1, max_bytes: 20, .. })));
    assert_eq!(check("a.jsonl", b"{\"text\":\"1234567\"}\n\n").unwrap(), 1);
    let error = check("a.jsonl", b"{\"text\":\"a\"}\n{\"text\":\"12345678901\"}").unwrap_err();
    assert!(matches!(error, Error::TooLong { line: 2, max_bytes: 20, .. }), "{error}");
    // A bomb: 64 MiB of the letter x in a few kilobytes, of which little more than the limit is
    // ever decompressed.
    let bomb = zstd(&vec![b'x'; 64 << 20]);
    assert!(matches!(check("a.txt.zst", &bomb), Err(Error::TooLong { .. })));
}

#[test]
fn the_books_that_ship_can_be_read() {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets");
    let paths: Vec<PathBuf> =
        ["books.jsonl.zst", "held_out_book.txt.zst", "tinyshakespeare.txt.zst"].map(|name| assets.join(name)).into();
    let documents: Vec<Document> = read_documents(&paths, defaults()).unwrap().map(Result::unwrap).collect();
    assert_eq!(documents.last().unwrap().text.len(), 1_115_394);
    assert!(documents.len() > 40);
    // The pack is small: README.md promises what the repository may hold.
    assert!(total_bytes(&paths).unwrap() <= 6_000_000);
}
