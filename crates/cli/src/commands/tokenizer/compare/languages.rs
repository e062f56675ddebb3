//! The same text in many languages, and the tokens that each of them takes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use data::document::{ReadOptions, expand, read_parts, total_bytes};
use serde::Deserialize;
use tokenizer::Tokenizer;
use tokenizer::measure::TextSize;

use super::names::Named;
use super::{Measures, PART_BYTES};
use crate::ui::Bar;
use crate::ui::progress::Unit;

/// More are no languages, and their counts would fill the memory.
const MAX_LANGUAGES: usize = 20_000;
/// A longer line would have to fit in memory.
const MAX_LINE_BYTES: u64 = 1 << 24;
/// How English is called, the likeliest first.
const ENGLISH: [&str; 4] = ["eng", "en", "english", "eng_latn"];

/// One language.
#[derive(Default)]
pub(super) struct Language {
    pub(super) size: TextSize,
    /// By tokenizer.
    pub(super) n_tokens: Vec<u64>,
}

/// All languages by name.
pub(super) type Languages = BTreeMap<String, Language>;

#[derive(Deserialize)]
struct Row {
    #[serde(alias = "language")]
    lang: String,
    text: String,
}

/// Counts the texts of a folder with a file per language, or of a JSONL file with a line per text.
pub(super) fn count(path: &Path, tokenizers: &[Named], raw_bytes: bool) -> Result<Languages> {
    let languages = match path.is_dir() {
        true => of_folder(path, tokenizers, raw_bytes)?,
        false => of_lines(path, tokenizers)?,
    };
    if languages.is_empty() {
        bail!("{} has no text\nhint: expected lines of {{\"lang\": \"en\", \"text\": \"...\"}}", path.display());
    }
    Ok(languages)
}

/// The name of the language that the others are compared with: the one asked for, or English.
pub(super) fn base(languages: &Languages, asked: Option<&str>, path: &Path) -> Result<Option<String>> {
    let is = |name: &str| languages.keys().find(|language| language.eq_ignore_ascii_case(name)).cloned();
    match asked {
        None => Ok(ENGLISH.into_iter().find_map(is)),
        Some(name) => match is(name) {
            Some(language) => Ok(Some(language)),
            None => {
                let some = languages.keys().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
                bail!(
                    "{} has no language {name:?}\nhint: it has {} languages: {some}, …",
                    path.display(),
                    languages.len()
                )
            }
        },
    }
}

fn of_folder(folder: &Path, tokenizers: &[Named], raw_bytes: bool) -> Result<Languages> {
    let files = expand(&[folder.to_owned()])?;
    let mut bar = Bar::new("Counting languages", total_bytes(&files)?, Unit::Bytes);
    let mut done = 0;
    let mut languages: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for file in files {
        languages.entry(language_of(&file)).or_default().push(file);
    }
    check_number(languages.len(), folder)?;
    let mut counted = Languages::new();
    for (name, files) in languages {
        let options = ReadOptions { raw_bytes, ..ReadOptions::default() };
        let mut measures = Measures::new(tokenizers);
        let mut read = 0;
        for part in read_parts(&files, options, PART_BYTES)? {
            let part = part?;
            measures.add(&part.text, part.ends_document);
            read = part.input_bytes;
            bar.set(done + read);
        }
        done += read;
        let (size, measured) = measures.finish();
        let n_tokens = measured.iter().map(|measurement| measurement.n_tokens).collect();
        counted.insert(name, Language { size, n_tokens });
    }
    Ok(counted)
}

/// `de` of `udhr_de.txt.zst`.
fn language_of(file: &Path) -> String {
    let name = file.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let stem = name.split('.').next().unwrap_or_default();
    stem.strip_prefix("udhr_").unwrap_or(stem).to_owned()
}

fn of_lines(path: &Path, tokenizers: &[Named]) -> Result<Languages> {
    let mut bar = Bar::new("Counting languages", total_bytes(&[path.to_owned()])?, Unit::Bytes);
    let mut reader = open(path)?;
    let mut languages = Languages::new();
    let mut read = 0;
    for number in 1u64.. {
        let mut line = Vec::new();
        let at = || format!("cannot read {}, line {number}", path.display());
        let n = reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line).with_context(at)? as u64;
        if n == 0 {
            break;
        }
        if n == MAX_LINE_BYTES {
            bail!(
                "{}, line {number} has more than {MAX_LINE_BYTES} bytes\nhint: a language may have several lines",
                path.display()
            );
        }
        read += n;
        bar.set(read);
        if line.trim_ascii().is_empty() {
            continue;
        }
        if let Err(error) = std::str::from_utf8(&line) {
            let offset = read - n + error.valid_up_to() as u64;
            bail!(
                "{}, line {number}: invalid UTF-8 at byte offset {offset}\nhint: convert the file to UTF-8",
                path.display()
            );
        }
        let row: Row = serde_json::from_slice(&line).with_context(|| {
            format!(
                "{}, line {number} is not a text of a language\nhint: expected {{\"lang\": \"en\", \"text\": \"...\"}}, or name a \
                 folder with a file per language",
                path.display()
            )
        })?;
        add(&mut languages, row, tokenizers);
        check_number(languages.len(), path)?;
    }
    Ok(languages)
}

fn add(languages: &mut Languages, row: Row, tokenizers: &[Named]) {
    let language = languages
        .entry(row.lang)
        .or_insert_with(|| Language { n_tokens: vec![0; tokenizers.len()], ..Language::default() });
    language.size.add(row.text.as_bytes(), true);
    let n_tokens = |tokenizer: &Tokenizer| tokenizer.encode_ordinary(row.text.as_bytes()).len() as u64;
    for (sum, named) in language.n_tokens.iter_mut().zip(tokenizers) {
        *sum += n_tokens(&named.tokenizer);
    }
}

fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let failed = || format!("cannot read {}", path.display());
    Ok(match path.extension().and_then(|extension| extension.to_str()) {
        Some("zst") => Box::new(BufReader::new(zstd::Decoder::new(file).with_context(failed)?)),
        Some("gz") => Box::new(BufReader::new(flate2::read::MultiGzDecoder::new(file))),
        _ => Box::new(BufReader::new(file)),
    })
}

fn check_number(n: usize, path: &Path) -> Result<()> {
    if n > MAX_LANGUAGES {
        bail!("{} has more than {MAX_LANGUAGES} languages\nhint: is `lang` the language?", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_by_its_language() {
        for (file, language) in
            [("a/udhr_deu_1996.txt", "deu_1996"), ("en.txt.zst", "en"), ("zh-Hans.jsonl", "zh-Hans")]
        {
            assert_eq!(language_of(Path::new(file)), language);
        }
    }

    #[test]
    fn english_is_found_by_its_usual_names() {
        let named =
            |names: &[&str]| names.iter().map(|name| (name.to_string(), Language::default())).collect::<Languages>();
        let base = |names: &[&str], asked| base(&named(names), asked, Path::new("texts"));
        assert_eq!(base(&["de", "en"], None).unwrap().as_deref(), Some("en"));
        assert_eq!(base(&["deu_Latn", "eng_Latn"], None).unwrap().as_deref(), Some("eng_Latn"));
        assert_eq!(base(&["de", "en"], Some("DE")).unwrap().as_deref(), Some("de"));
        assert_eq!(base(&["de"], None).unwrap(), None);
        assert!(base(&["de"], Some("fr")).unwrap_err().to_string().contains("de, …"));
    }
}
