//! What makes text of tokens as they are written, where that is more than bytes in a row.
//!
//! The steps are those of a `tokenizer.json`, one variant each, with its keys as their fields. What
//! SentencePiece itself does is one more.

use serde::{Deserialize, Serialize};

use crate::normalize::{META_SPACE, Needle};
use crate::split::{Metaspace, PrependScheme};

const REPLACEMENT: &str = "\u{FFFD}";

/// One step from tokens to text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub(crate) enum Step {
    /// Puts spaces between words and takes the prefix of pieces within words away.
    WordPiece {
        prefix: String,
        /// Whether spaces before punctuation go.
        cleanup: bool,
    },
    Metaspace(Metaspace),
    Replace {
        pattern: Needle,
        content: String,
    },
    /// Tokens such as `<0x0A>` become the characters of their bytes.
    ByteFallback,
    /// Makes one text of all.
    Fuse,
    /// Takes a character away at the ends of each.
    Strip {
        content: char,
        /// How often at the start.
        start: usize,
        /// How often at the end.
        stop: usize,
    },
    #[serde(rename = "BPEDecoder")]
    Suffix {
        suffix: String,
    },
    /// Puts spaces between all tokens: what `tokenizers` does without a decoder.
    #[serde(skip)]
    Join,
    /// Spaces for `▁`, characters for bytes; no step of a `tokenizer.json`.
    #[serde(skip)]
    SentencePiece {
        /// Whether a space at the start is left out ...
        add_dummy_prefix: bool,
        /// ... or all of them.
        remove_extra_whitespaces: bool,
    },
}

/// The text of tokens as they are written.
pub(super) fn text(steps: &[Step], tokens: Vec<String>) -> String {
    steps.iter().fold(tokens, |tokens, step| step.apply(tokens)).concat()
}

impl Step {
    fn apply(&self, tokens: Vec<String>) -> Vec<String> {
        let n = tokens.len();
        let each = |change: &dyn Fn(usize, &str) -> String| -> Vec<String> {
            tokens.iter().enumerate().map(|(i, token)| change(i, token)).collect()
        };
        match self {
            Self::WordPiece { prefix, cleanup } => each(&|i, token| {
                let text = match token.strip_prefix(&**prefix) {
                    _ if i == 0 => token.to_string(),
                    Some(rest) => rest.to_string(),
                    None => format!(" {token}"),
                };
                if *cleanup { clean_up(&text) } else { text }
            }),
            Self::Metaspace(metaspace) => each(&|i, token| {
                let is_dropped = i == 0 && metaspace.prepend_scheme != PrependScheme::Never;
                token.replace(metaspace.replacement, if is_dropped { "" } else { " " })
            }),
            Self::Replace { pattern, content } => {
                each(&|_, token| pattern.replace(token, content).unwrap_or_else(|| token.to_string()))
            }
            Self::ByteFallback => bytes_to_text(tokens, &|bytes, output| match std::str::from_utf8(bytes) {
                Ok(text) => output.push(text.to_string()),
                // As `tokenizers` has it: one bad byte spoils the run.
                Err(_) => output.extend(bytes.iter().map(|_| REPLACEMENT.to_string())),
            }),
            Self::Fuse => vec![tokens.concat()],
            Self::Strip { content, start, stop } => each(&|_, token| {
                let n_start = token.chars().take(*start).take_while(|c| c == content).count();
                let token = &token[n_start * content.len_utf8()..];
                let n_stop = token.chars().rev().take(*stop).take_while(|c| c == content).count();
                token[..token.len() - n_stop * content.len_utf8()].to_string()
            }),
            Self::Suffix { suffix } => each(&|i, token| token.replace(&**suffix, if i + 1 == n { "" } else { " " })),
            Self::Join => vec![tokens.join(" ")],
            Self::SentencePiece { add_dummy_prefix, remove_extra_whitespaces } => {
                let tokens = bytes_to_text(tokens, &|bytes, output| output.push(replace_bad_bytes(bytes)));
                // Of each piece before the first text, one space.
                let mut strips = *add_dummy_prefix || *remove_extra_whitespaces;
                let mut text = String::new();
                for token in &tokens {
                    let stripped = token.strip_prefix(META_SPACE).filter(|_| strips);
                    text += &stripped.unwrap_or(token).replace(META_SPACE, " ");
                    strips &= text.is_empty() && (*remove_extra_whitespaces || stripped.is_none());
                }
                vec![text]
            }
        }
    }
}

/// The byte that a token such as `<0x0A>` stands for.
pub(crate) fn byte_of_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    // Python and Rust take a sign for a number, too.
    (digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
        .then(|| u8::from_str_radix(digits, 16).ok())
        .flatten()
}

/// Each run of tokens of bytes by `decode`, other tokens as they are.
fn bytes_to_text(tokens: Vec<String>, decode: &dyn Fn(&[u8], &mut Vec<String>)) -> Vec<String> {
    let mut output = Vec::with_capacity(tokens.len());
    let mut bytes = Vec::new();
    for token in tokens {
        match byte_of_token(&token) {
            Some(byte) => bytes.push(byte),
            None => {
                if !bytes.is_empty() {
                    decode(&std::mem::take(&mut bytes), &mut output);
                }
                output.push(token);
            }
        }
    }
    if !bytes.is_empty() {
        decode(&bytes, &mut output);
    }
    output
}

/// UTF-8 in which each byte that belongs to no character is U+FFFD.
fn replace_bad_bytes(bytes: &[u8]) -> String {
    let chunks = bytes.utf8_chunks();
    chunks.map(|chunk| chunk.valid().to_string() + &REPLACEMENT.repeat(chunk.invalid().len())).collect()
}

/// What Hugging Face calls cleaning up: English without the spaces that tokenisation has put in.
fn clean_up(text: &str) -> String {
    const REPLACEMENTS: [(&str, &str); 11] = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" do not", " don't"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    REPLACEMENTS.iter().fold(text.to_string(), |text, (from, to)| text.replace(from, to))
}
