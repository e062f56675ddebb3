//! SentencePiece's table of replacements: a trie of the texts replaced, and what replaces them.
//!
//! The trie is a double array as Darts-clone lays it out
//! (<https://github.com/s-yata/darts-clone/blob/master/include/darts.h>), the replacements end with
//! a zero byte each: `u32 bytes of the trie, the trie, the replacements`. A damaged table replaces
//! too little or too much, but reading it stays within its bounds.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;

/// `tokenizers` looks up whole graphemes of fewer bytes than this.
const GRAPHEME_BYTES: usize = 6;

/// A table of replacements.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Charsmap {
    units: Box<[u32]>,
    replacements: Box<str>,
}

impl Charsmap {
    /// # Errors
    /// What is wrong with the table.
    pub(crate) fn from_bytes(table: &[u8]) -> Result<Self, String> {
        let Some((n_bytes, rest)) = table.split_first_chunk() else {
            return Err("the charsmap ends before the size of its trie".to_string());
        };
        let n_bytes = u32::from_le_bytes(*n_bytes) as usize;
        let Some((trie, replacements)) = rest.split_at_checked(n_bytes) else {
            return Err(format!("the charsmap's trie has {n_bytes} bytes, but the table only {}", rest.len()));
        };
        let (units, odd) = trie.as_chunks();
        if !odd.is_empty() || units.is_empty() {
            return Err(format!("the charsmap's trie has {n_bytes} bytes, which are no whole units"));
        }
        let units = units.iter().map(|&unit| u32::from_le_bytes(unit)).collect();
        match std::str::from_utf8(replacements) {
            Ok(replacements) => Ok(Self { units, replacements: replacements.into() }),
            Err(_) => Err("the charsmap's replacements are not UTF-8".to_string()),
        }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut table = (self.units.len() as u32 * 4).to_le_bytes().to_vec();
        table.extend(self.units.iter().flat_map(|unit| unit.to_le_bytes()));
        table.extend(self.replacements.as_bytes());
        table
    }

    /// The replacement of the longest text in the table that `text` starts with, and its bytes.
    pub(crate) fn longest(&self, text: &[u8]) -> Option<(usize, &str)> {
        let (len, at) = self.prefixes(text).last()?;
        Some((len, self.replacement(at)?))
    }

    /// Bytes of the longest replacement, at least 1.
    pub(super) fn longest_replacement(&self) -> usize {
        self.replacements.split('\0').map(str::len).max().unwrap_or(0).max(1)
    }

    /// Replaces grapheme by grapheme or, where the table has no prefix of a grapheme, character by
    /// character: `tokenizers`' way, which replaces a grapheme by what the shortest of its prefixes
    /// becomes. `None` if nothing is replaced.
    pub(super) fn replace_graphemes(&self, text: &str) -> Option<String> {
        let shortest = |text: &str| {
            let (_, at) = self.prefixes(text.as_bytes()).next()?;
            self.replacement(at)
        };
        let mut output = String::with_capacity(text.len());
        let mut is_changed = false;
        for grapheme in text.graphemes(true) {
            if grapheme.len() < GRAPHEME_BYTES
                && let Some(replacement) = shortest(grapheme)
            {
                output.push_str(replacement);
                is_changed = true;
                continue;
            }
            for c in grapheme.chars() {
                match shortest(c.encode_utf8(&mut [0; 4])) {
                    Some(replacement) => {
                        output.push_str(replacement);
                        is_changed = true;
                    }
                    None => output.push(c),
                }
            }
        }
        is_changed.then_some(output)
    }

    /// The texts in the table that `text` starts with, shortest first: their bytes, and where the
    /// replacement is.
    fn prefixes(&self, text: &[u8]) -> impl Iterator<Item = (usize, usize)> {
        let mut node = offset(self.units[0]);
        let mut bytes = text.iter().take_while(|&&byte| byte != 0).enumerate();
        std::iter::from_fn(move || {
            loop {
                let (i, &byte) = bytes.next()?;
                node ^= usize::from(byte);
                let unit = *self.units.get(node)?;
                if unit & 0x8000_00FF != u32::from(byte) {
                    return None;
                }
                node ^= offset(unit);
                let has_leaf = unit >> 8 & 1 == 1;
                if has_leaf {
                    let leaf = *self.units.get(node)?;
                    return Some((i + 1, (leaf & 0x7FFF_FFFF) as usize));
                }
            }
        })
    }

    fn replacement(&self, at: usize) -> Option<&str> {
        let text = self.replacements.get(at..)?;
        Some(text.split_once('\0').map_or(text, |(replacement, _)| replacement))
    }
}

/// Where the children of a node are, relative to it.
fn offset(unit: u32) -> usize {
    ((unit >> 10) << ((unit & 1 << 9) >> 6)) as usize
}

impl TryFrom<String> for Charsmap {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let table = BASE64_STANDARD.decode(text).map_err(|error| format!("the charsmap is not Base64: {error}"))?;
        Self::from_bytes(&table)
    }
}

impl From<Charsmap> for String {
    fn from(charsmap: Charsmap) -> Self {
        BASE64_STANDARD.encode(charsmap.to_bytes())
    }
}

impl std::fmt::Debug for Charsmap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Charsmap({} units, {} bytes)", self.units.len(), self.replacements.len())
    }
}
