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
    let unknown = folder.path().join("a.parquet.gz");
    fs::write(&unknown, "x").unwrap();
    assert!(matches!(fails(&unknown), Error::UnknownFormat { .. }));
    let readme = folder.path().join("README.md");
    fs::write(&readme, "text").unwrap();
    let texts: Vec<_> = read_documents(&[readme], defaults()).unwrap().map(|document| document.unwrap().text).collect();
    assert_eq!(texts, [b"text"]);
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
        assert!(matches!(error, Error::Truncated { .. }), "{n_bytes}: {error}");
    }
    let second_cut = [&whole[..], &whole[..whole.len() / 2]].concat();
    assert!(matches!(read("a.jsonl.zst", &second_cut, defaults()), Err(Error::Truncated { .. })));
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

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The bytes of a Parquet file with the columns `id` and `text`, two rows a group.
fn parquet(texts: &[Option<&str>], compression: ::parquet::basic::Compression) -> Vec<u8> {
    use ::parquet::data_type::{ByteArrayType, Int32Type};
    let schema = "message rows { required int32 id; optional binary text (utf8); }";
    let schema = Arc::new(::parquet::schema::parser::parse_message_type(schema).unwrap());
    let properties = ::parquet::file::properties::WriterProperties::builder().set_compression(compression).build();
    let mut file = Vec::new();
    let mut writer =
        ::parquet::file::writer::SerializedFileWriter::new(&mut file, schema, Arc::new(properties)).unwrap();
    for rows in texts.chunks(2) {
        let mut group = writer.next_row_group().unwrap();
        let mut ids = group.next_column().unwrap().unwrap();
        let numbers: Vec<i32> = (0..rows.len() as i32).collect();
        ids.typed::<Int32Type>().write_batch(&numbers, None, None).unwrap();
        ids.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let values: Vec<_> = rows.iter().flatten().map(|text| text.as_bytes().to_vec().into()).collect();
        let levels: Vec<i16> = rows.iter().map(|text| i16::from(text.is_some())).collect();
        column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
    file
}

#[test]
fn gzip_is_read_over_all_its_members_and_a_cut_is_an_error() {
    let bytes = [gzip(b"{\"text\":\"a\"}\n"), gzip(b"{\"text\":\"b\"}\n")].concat();
    assert_eq!(texts(&read("a.jsonl.gz", &bytes, defaults()).unwrap()), ["a", "b"]);
    assert_eq!(texts(&read("a.txt.gz", &gzip("\u{e9}".as_bytes()), defaults()).unwrap()), ["\u{e9}"]);
    let error = read("a.jsonl.gz", &bytes[..bytes.len() - 9], defaults()).unwrap_err();
    assert!(matches!(error, Error::Truncated { .. }), "{error}");
    let error = read("a.txt.gz", b"no gzip at all", defaults()).unwrap_err();
    assert!(matches!(error, Error::Decompress { .. }), "{error}");
}

#[test]
fn parquet_rows_are_documents_and_missing_texts_are_skipped() {
    use ::parquet::basic::{Compression, ZstdLevel};
    let rows = [Some("first"), None, Some(""), Some("zw\u{f6}lf"), Some("last")];
    for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY, Compression::ZSTD(ZstdLevel::default())] {
        let bytes = parquet(&rows, compression);
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a.parquet");
        fs::write(&path, &bytes).unwrap();
        let mut documents = read_documents(std::slice::from_ref(&path), defaults()).unwrap();
        let all: Vec<Document> = documents.by_ref().map(Result::unwrap).collect();
        assert_eq!(texts(&all), ["first", "zw\u{f6}lf", "last"]);
        assert_eq!(all.iter().map(|document| document.source.line).collect::<Vec<_>>(), [1, 4, 5]);
        assert_eq!((documents.n_empty(), documents.bytes_read()), (2, bytes.len() as u64));
    }
    for bytes in [b"PAR1 is not all PAR1".to_vec(), b"x".to_vec()] {
        let error = read("a.parquet", &bytes, defaults()).unwrap_err();
        assert!(matches!(error, Error::MalformedParquet { .. }), "{error}");
    }
}

#[test]
fn parts_are_the_documents_however_small_they_are() {
    let folder = TempDir::new().unwrap();
    let text = "a\u{1f600}b\u{e9}\n".repeat(30) + "<|endoftext|>c";
    let paths = [folder.path().join("a.txt.gz"), folder.path().join("b.jsonl"), folder.path().join("c.txt")];
    fs::write(&paths[0], gzip(text.as_bytes())).unwrap();
    fs::write(&paths[1], "{\"text\":\"x\"}\n\n{\"text\":\"\"}\n{\"text\":\"y z\"}\n").unwrap();
    fs::write(&paths[2], "end").unwrap();
    for part_bytes in [1, 4, 5, 7, 1 << 20] {
        let parts: Vec<Part> = read_parts(&paths, defaults(), part_bytes).unwrap().map(Result::unwrap).collect();
        assert!(parts.iter().all(|part| std::str::from_utf8(&part.text).is_ok()));
        let mut whole = vec![Vec::new()];
        for part in &parts {
            whole.last_mut().unwrap().extend_from_slice(&part.text);
            if part.ends_document {
                whole.push(Vec::new());
            }
        }
        assert_eq!(whole, [text.as_bytes(), b"x", b"y z", b"end", b""]);
        assert_eq!(parts.last().unwrap().input_bytes, total_bytes(&paths).unwrap());
    }
    fs::write(&paths[2], b"first\nsec\xFFond").unwrap();
    let error = read_parts(&paths[2..], defaults(), 4).unwrap().find_map(Result::err).unwrap();
    assert!(matches!(error, Error::InvalidUtf8 { line: 2, offset: 9, .. }), "{error}");
    fs::write(&paths[2], b"cut \xC3").unwrap();
    assert!(read_parts(&paths[2..], defaults(), 4).unwrap().any(|part| part.is_err()));
    let raw = ReadOptions { raw_bytes: true, ..defaults() };
    assert!(read_parts(&paths[2..], raw, 4).unwrap().all(|part| part.is_ok()));
}

#[test]
fn folders_and_patterns_become_files_in_the_order_of_their_names() {
    let folder = TempDir::new().unwrap();
    fs::create_dir_all(folder.path().join("deep/er")).unwrap();
    let names = ["b.txt", "a.jsonl.gz", "notes.md", "deep/c.parquet", "deep/er/d.txt.zst"];
    names.iter().for_each(|name| fs::write(folder.path().join(name), "x").unwrap());
    let expanded = |pattern: &str| {
        let files = expand(&[folder.path().join(pattern)])?;
        let name = |file: &PathBuf| file.strip_prefix(folder.path()).unwrap().to_str().unwrap().to_owned();
        Ok::<_, Error>(files.iter().map(name).collect::<Vec<_>>())
    };
    assert_eq!(expanded("").unwrap(), ["a.jsonl.gz", "b.txt", "deep/c.parquet", "deep/er/d.txt.zst"]);
    assert_eq!(expanded("*.txt").unwrap(), ["b.txt"]);
    assert_eq!(expanded("**/*.t*").unwrap(), ["b.txt", "deep/er/d.txt.zst"]);
    assert_eq!(expanded("missing.txt").unwrap(), ["missing.txt"]);
    assert!(matches!(expanded("*.jsonl"), Err(Error::NoMatch { .. })));
    assert!(matches!(expanded("a**[.txt"), Err(Error::BadPattern { .. })));
    let [a, b] = ["a", "b"].map(|text| {
        fs::write(folder.path().join("b.txt"), text.repeat(text.len() + usize::from(text == "b"))).unwrap();
        inputs_key(&[folder.path().join("b.txt")]).unwrap()
    });
    assert_ne!(a, b);
    assert_eq!(inputs_key(&["-".into()]).unwrap(), None);
}
