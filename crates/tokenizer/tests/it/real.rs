//! The tokenizers of real models on much text; their files are too large to commit.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokenizer::Tokenizer;

#[derive(Deserialize)]
struct Line {
    text: String,
}

/// CRC-32 as zlib has it.
pub(crate) fn crc32(bytes: impl IntoIterator<Item = u8>) -> u32 {
    let step = |crc: u32, byte: u8| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    };
    !bytes.into_iter().fold(!0, step)
}

/// The file of a tokenizer beside its `gold.txt`.
fn file(folder: &Path) -> PathBuf {
    let mut files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| path.file_name().is_some_and(|name| name != "gold.txt")).unwrap()
}

/// `TOKENIZER_GOLD` is a folder that `oracle/tokenizer_real.py` has written. What is saved there can be checked by it.
#[test]
fn ids_of_real_tokenizers_are_those_of_the_programs_they_come_from() {
    let Some(folder) = std::env::var_os("TOKENIZER_GOLD").map(PathBuf::from) else {
        eprintln!("skipped: TOKENIZER_GOLD names no folder with the files of real tokenizers");
        return;
    };
    let lines = BufReader::new(File::open(folder.join("texts.jsonl")).unwrap()).lines();
    let texts: Vec<String> = lines.map(|line| serde_json::from_str::<Line>(&line.unwrap()).unwrap().text).collect();
    let mut n_wrong = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let golden = entry.unwrap().path().join("gold.txt");
        let Ok(golden) = fs::read_to_string(&golden).map(|text| (text, golden)) else { continue };
        let path = file(golden.1.parent().unwrap());
        let tokenizer = Tokenizer::from_file(&path).unwrap();
        let name = path.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
        tokenizer.save(&folder.join(format!("saved-{name}.json"))).unwrap();
        let is_sentencepiece = path.extension().is_some_and(|extension| extension == "model");
        let start = std::time::Instant::now();
        let mut wrong = Vec::new();
        for (text, line) in texts.iter().zip(golden.0.lines()) {
            let ids = match is_sentencepiece {
                true => tokenizer.encode_ordinary(text.as_bytes()),
                false => tokenizer.encode(text.as_bytes()),
            };
            let crc = crc32(ids.iter().flat_map(|id| id.to_le_bytes()));
            if format!("{} {crc}", ids.len()) != line {
                wrong.push(text);
            }
        }
        eprintln!(
            "{}: {} texts, {} bytes, {} wrong, {:.1?}",
            path.display(),
            texts.len(),
            texts.iter().map(String::len).sum::<usize>(),
            wrong.len(),
            start.elapsed(),
        );
        wrong.sort_by_key(|text| text.len());
        for text in wrong.iter().take(3) {
            eprintln!("  {:?}", text.chars().take(300).collect::<String>());
        }
        n_wrong += wrong.len();
    }
    assert_eq!(n_wrong, 0);
}
