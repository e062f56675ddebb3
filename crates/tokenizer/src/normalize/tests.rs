use std::collections::BTreeMap;

use super::*;
use crate::split::{self, Behavior, split};

/// Written by `oracle/tokenizer_unicode.py`.
#[derive(Deserialize)]
struct Golden {
    normalized: BTreeMap<String, Vec<u32>>,
    cut: BTreeMap<String, Vec<u32>>,
    /// A text and its four normal forms.
    forms: Vec<[String; 5]>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../../tests/golden/unicode.json")).unwrap()
}

/// CRC-32 as zlib has it.
fn crc32(text: &str) -> u32 {
    let step = |crc: u32, byte: u8| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    };
    !text.bytes().fold(!0, step)
}

/// Characters in blocks of 4096.
fn check_blocks(name: &str, golden: &[u32], of_char: impl Fn(char) -> String) {
    assert_eq!(golden.len(), 272);
    for (first, crc) in (0..).step_by(4096).zip(golden) {
        let text: String = (first..first + 4096).filter_map(char::from_u32).map(|c| of_char(c) + "\n").collect();
        assert_eq!(crc32(&text), *crc, "{name}: U+{first:04X} ...");
    }
}

fn bert(clean_text: bool, strip_accents: bool, handle_chinese_chars: bool) -> Step {
    let strip_accents = Some(strip_accents);
    Step::BertNormalizer(BertNormalizer { clean_text, handle_chinese_chars, strip_accents, lowercase: false })
}

#[test]
fn every_character_is_normalized_as_by_hugging_face() {
    for (name, blocks) in golden().normalized {
        let step = match &*name {
            "NFC" => Step::Nfc,
            "NFD" => Step::Nfd,
            "NFKC" => Step::Nfkc,
            "NFKD" => Step::Nfkd,
            "Lowercase" => Step::Lowercase,
            "StripAccents" => Step::StripAccents,
            "Nmt" => Step::Nmt,
            "Strip" => Step::Strip { strip_left: true, strip_right: true },
            "BertClean" => bert(true, false, false),
            "BertAccents" => bert(false, true, false),
            "BertIdeographs" => bert(false, false, true),
            name => panic!("{name} is unknown"),
        };
        check_blocks(&name, &blocks, |c| normalize(std::slice::from_ref(&step), &c.to_string()).into_owned());
    }
}

#[test]
fn text_is_cut_at_every_character_as_by_hugging_face() {
    for (name, blocks) in golden().cut {
        let step = match &*name {
            "Punctuation" => split::Step::Punctuation { behavior: Behavior::Isolated },
            "BertPreTokenizer" => split::Step::BertPreTokenizer,
            "Digits" => split::Step::Digits { individual_digits: true },
            "WhitespaceSplit" => split::Step::WhitespaceSplit,
            name => panic!("{name} is unknown"),
        };
        check_blocks(&name, &blocks, |c| {
            let mut n_parts = 0;
            split(std::slice::from_ref(&step), &format!("a{c}b"), true, &mut |_| n_parts += 1);
            n_parts.to_string()
        });
    }
}

#[test]
fn sequences_of_marks_have_the_normal_forms_of_hugging_face() {
    for [text, forms @ ..] in golden().forms {
        for (step, form) in [Step::Nfc, Step::Nfd, Step::Nfkc, Step::Nfkd].into_iter().zip(forms) {
            assert_eq!(normalize(std::slice::from_ref(&step), &text), form, "{step:?} of {text:?}");
        }
    }
}

#[test]
fn a_damaged_charsmap_is_refused_or_harmless() {
    let table = |trie: &[u32], replacements: &[u8]| {
        let mut bytes = (trie.len() as u32 * 4).to_le_bytes().to_vec();
        bytes.extend(trie.iter().flat_map(|unit| unit.to_le_bytes()));
        bytes.extend(replacements);
        Charsmap::from_bytes(&bytes)
    };
    assert!(Charsmap::from_bytes(&[1, 0]).unwrap_err().contains("ends before"));
    assert!(Charsmap::from_bytes(&[200, 0, 0, 0, 1]).unwrap_err().contains("200 bytes"));
    assert!(table(&[], b"").unwrap_err().contains("no whole units"));
    assert!(table(&[0], b"\xFF").unwrap_err().contains("not UTF-8"));
    // Units that lead anywhere, and leaves that name places between characters.
    for seed in 0..2000_u32 {
        let units: Vec<u32> = (0..300).map(|i| (seed + i).wrapping_mul(2_654_435_769).rotate_left(i % 32)).collect();
        let charsmap = table(&units, "é\0x\0".as_bytes()).unwrap();
        charsmap.replace_graphemes("aé\u{301}語 \0");
        charsmap.longest("é語".as_bytes());
    }
}
