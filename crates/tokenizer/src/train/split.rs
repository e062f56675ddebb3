//! Words of vocabularies over characters: normalised text, cut by the steps of a `tokenizer.json`.

use serde::Deserialize;
use serde_json::{Value, json};

use super::count::Splitter;
use crate::Error;
use crate::normalize::{self, normalize};
use crate::split::{self, split};

/// Normalises, then splits.
pub(super) struct TextSplitter {
    normalizer: Vec<normalize::Step>,
    splits: Vec<split::Step>,
}

impl TextSplitter {
    /// The steps as a `tokenizer.json` has them.
    ///
    /// # Panics
    /// If one of them is unknown: they are constants.
    pub(super) fn new(normalizer: &[Value], pre_tokenizer: &Value) -> Self {
        Self {
            normalizer: normalizer.iter().map(|step| Deserialize::deserialize(step).expect("a known step")).collect(),
            splits: vec![split::Step::deserialize(pre_tokenizer).expect("a known step")],
        }
    }
}

impl Splitter for TextSplitter {
    /// Text is cut before spaces and lines that follow a letter or digit: words end there however they are normalised.
    fn parts<'t>(&self, mut text: &'t [u8], len: usize) -> Vec<&'t [u8]> {
        let mut parts = Vec::new();
        let is_cut = |text: &[u8], i: usize| matches!(text[i], b' ' | b'\n') && ends_with_letter(&text[..i]);
        while let Some(cut) = (len.max(1)..text.len()).find(|&i| is_cut(text, i)) {
            let (part, rest) = text.split_at(cut);
            parts.push(part);
            text = rest;
        }
        if !text.is_empty() {
            parts.push(text);
        }
        parts
    }

    fn words(&self, text: &[u8], each: &mut impl FnMut(&[u8], &[u32]) -> Result<(), Error>) -> Result<(), Error> {
        let mut result = Ok(());
        for chunk in text.utf8_chunks() {
            let normalized = normalize(&self.normalizer, chunk.valid());
            split(&self.splits, &normalized, true, &mut |word| {
                if result.is_ok() && !word.is_empty() {
                    result = each(word.as_bytes(), &[word.len() as u32]);
                }
            });
        }
        result
    }
}

fn ends_with_letter(text: &[u8]) -> bool {
    let last = (1..=text.len().min(4)).find_map(|n| std::str::from_utf8(&text[text.len() - n..]).ok()?.chars().next());
    last.is_some_and(char::is_alphanumeric)
}

/// The list of special tokens in a `tokenizer.json`; their ids are their places.
pub(super) fn added_tokens(special_tokens: &[String]) -> Vec<Value> {
    let one = |(id, content): (usize, &String)| {
        json!({
            "id": id,
            "content": content,
            "single_word": false,
            "lstrip": false,
            "rstrip": false,
            "normalized": false,
            "special": true,
        })
    };
    special_tokens.iter().enumerate().map(one).collect()
}
