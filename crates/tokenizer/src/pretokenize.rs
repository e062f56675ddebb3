//! Cuts text into pre-tokens, which merges never cross.
//!
//! The patterns of well-known models are written by hand, one file each, and proved equal to their
//! regular expressions by test; any other goes through an engine of regular expressions, which is
//! some ten to fifty times slower. `\s` is Unicode's White_Space, and the first alternative that matches
//! wins. A pre-token depends only on the text from its start on, which is why text can be cut in parallel
//! and streamed.
//!
//! Text may be any bytes. A byte that does not belong to valid UTF-8 counts as a character of its own,
//! U+FFFD: neither letter, number nor space, so it joins a run of punctuation.

mod char_class;
mod gpt2;
mod cl100k;
mod o200k;
mod deepseek;
mod custom;
mod window;
#[cfg(target_arch = "x86_64")]
mod simd;
mod cut;
#[cfg(test)]
mod tests;

pub(crate) use char_class::first_char;
pub use custom::CustomPattern;
pub(crate) use cut::{Ends, MAX_ENDS};

use std::borrow::Cow;

use crate::Error;
use char_class::{BLANK, LETTER, NUMBER, SPACE, class_at};
use cl100k::Variant;

/// How text is cut into pre-tokens.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Pattern {
    /// GPT-2, r50k, p50k and their many descendants (OPT, GPT-J, GPT-NeoX, BLOOM's is another).
    #[default]
    Gpt2,
    /// cl100k as in tiktoken (GPT-3.5, GPT-4). It differs from Llama 3's in white space with lines at the
    /// end of a text alone.
    Cl100k,
    /// o200k (GPT-4o and later).
    O200k,
    /// Llama 3; also cl100k as it is written in `tokenizer.json` files.
    Llama3,
    /// Qwen 2, 2.5 and 3: as Llama 3 with every digit on its own.
    Qwen2,
    /// DeepSeek-V3 and R1: three expressions, one after the other.
    DeepSeekV3,
    /// Any other expressions, one after the other.
    Custom(CustomPattern),
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const CL100K: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK_V3: [&str; 3] = [
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    concat!(
        r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^"##,
        "\r\n",
        r"\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[",
        "\r\n",
        r"]*|\s*[",
        "\r\n",
        r"]+|\s+(?!\S)|\s+"
    ),
];

/// Other ways to write the same, and what they are.
const SPELLINGS: [(&str, Pattern); 4] = [
    (r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", Pattern::Gpt2),
    (r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s", Pattern::Gpt2),
    (r"'s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}]+| ?[\p{N}]+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", Pattern::Gpt2),
    (
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        Pattern::Llama3,
    ),
];

const LLAMA3_VARIANT: Variant = Variant { n_digits: 3, whole_tail: false };
const QWEN2_VARIANT: Variant = Variant { n_digits: 1, whole_tail: false };
const CL100K_VARIANT: Variant = Variant { n_digits: 3, whole_tail: true };

/// The longest that a character and a contraction can be; see [`Pattern::is_decided`].
const LOOKAHEAD: usize = 8;

impl Pattern {
    /// The pattern that a regular expression is, hand-written if it is known.
    ///
    /// # Errors
    /// [`Error::Pattern`] if it is no regular expression.
    pub fn of_regex(regex: &str) -> Result<Self, Error> {
        Self::of_regexes(&[regex])
    }

    /// The pattern of several expressions, each of which cuts the pieces of the one before at its matches
    /// and between them, as a sequence of isolating `Split`s in `tokenizer.json` does.
    ///
    /// # Errors
    /// [`Error::Pattern`] if one of them is no regular expression.
    pub fn of_regexes(regexes: &[&str]) -> Result<Self, Error> {
        let known = [Self::Gpt2, Self::Cl100k, Self::O200k, Self::Llama3, Self::Qwen2, Self::DeepSeekV3];
        let is_same = |pattern: &Self| {
            let texts = pattern.regexes();
            texts.len() == regexes.len() && texts.iter().zip(regexes).all(|(a, b)| readable(a) == readable(b))
        };
        if let Some(pattern) = known.into_iter().find(is_same) {
            return Ok(pattern);
        }
        if let Some((_, pattern)) = SPELLINGS.into_iter().find(|(text, _)| *regexes == [*text]) {
            return Ok(pattern);
        }
        Ok(Self::Custom(CustomPattern::new(regexes)?))
    }

    /// The expressions as they are published; one but for sequences.
    pub fn regexes(&self) -> Vec<&str> {
        match self {
            Self::Gpt2 => vec![GPT2],
            Self::Cl100k => vec![CL100K],
            Self::O200k => vec![O200K],
            Self::Llama3 => vec![LLAMA3],
            Self::Qwen2 => vec![QWEN2],
            Self::DeepSeekV3 => DEEPSEEK_V3.to_vec(),
            Self::Custom(custom) => custom.texts().collect(),
        }
    }

    /// Whether the pattern goes through the engine of regular expressions, which is much slower.
    pub fn is_custom(&self) -> bool {
        matches!(self, Self::Custom(_))
    }

    /// Bytes of the pre-token at the start of `text`; 0 only for empty text.
    ///
    /// # Panics
    /// If the pattern is custom: what comes before may matter to it.
    #[inline]
    pub(crate) fn pretoken_len(&self, text: &[u8]) -> usize {
        if text.is_empty() {
            return 0;
        }
        match self {
            Self::Gpt2 => gpt2::pretoken_len(text),
            Self::Cl100k => cl100k::pretoken_len(text, CL100K_VARIANT),
            Self::Llama3 => cl100k::pretoken_len(text, LLAMA3_VARIANT),
            Self::Qwen2 => cl100k::pretoken_len(text, QWEN2_VARIANT),
            Self::O200k => o200k::pretoken_len(text),
            Self::DeepSeekV3 => deepseek::pretoken_len(text),
            Self::Custom(_) => panic!("a custom pattern cuts whole texts"),
        }
    }

    /// Whether the pre-token of `len` bytes at the start of `text` stays the same whatever is appended.
    ///
    /// What decides is the character behind it, or behind the white space that follows it.
    pub(crate) fn is_decided(&self, text: &[u8], len: usize) -> bool {
        !self.is_custom() && char_class::run_end(text, len, SPACE) + LOOKAHEAD <= text.len()
    }

    /// Calls `f` with each pre-token of `text`; one after the other they are `text`.
    ///
    /// # Errors
    /// [`Error::PatternGaveUp`], by a custom pattern only, before the first call.
    #[inline]
    pub(crate) fn for_each<'a>(&self, mut text: &'a [u8], mut f: impl FnMut(&'a [u8])) -> Result<(), Error> {
        if let Self::Custom(custom) = self {
            let mut start = 0;
            for end in custom.ends(text)? {
                f(&text[start..end]);
                start = end;
            }
            return Ok(());
        }
        let mut ends = Ends::new();
        while !text.is_empty() {
            self.cut(text, &mut ends);
            let mut start = 0;
            for &end in ends.as_slice() {
                f(&text[start..end as usize]);
                start = end as usize;
            }
            text = &text[start..];
        }
        Ok(())
    }

    /// All pre-tokens of `text`; one after the other they are `text`.
    ///
    /// # Errors
    /// As [`Pattern::for_each`].
    pub(crate) fn pretokens<'a>(&self, text: &'a [u8]) -> Result<Vec<&'a [u8]>, Error> {
        let mut pretokens = Vec::new();
        self.for_each(text, |pretoken| pretokens.push(pretoken))?;
        Ok(pretokens)
    }

    /// Cuts `text` into parts of about `len` bytes whose pre-tokens, one part after the other, are those of
    /// the whole. Text without white space stays whole, and so does any text for a custom pattern.
    pub(crate) fn parts<'a>(&self, mut text: &'a [u8], len: usize) -> Vec<&'a [u8]> {
        let mut parts = Vec::new();
        while let Some(end) = self.safe_cut(text, len) {
            let (part, rest) = text.split_at(end);
            parts.push(part);
            text = rest;
        }
        if !text.is_empty() {
            parts.push(text);
        }
        parts
    }

    /// The first place from `at` on where the text may be cut.
    fn safe_cut(&self, text: &[u8], at: usize) -> Option<usize> {
        (at.max(1)..text.len()).find(|&i| self.is_safe_cut(text, i))
    }

    /// The last place where the text may be cut, whatever is appended to it.
    pub(crate) fn last_safe_cut(&self, text: &[u8]) -> Option<usize> {
        (1..text.len()).rev().find(|&i| self.is_safe_cut(text, i))
    }

    /// Whether a pre-token ends before the byte `i`, from 1 on, that cannot see what follows.
    ///
    /// No pattern has a blank behind anything else in one pre-token. A line may stand behind punctuation,
    /// but not behind letters and numbers. All but GPT-2 take lines together with the white space before
    /// them, and no pre-token begins in a line and goes on behind it.
    #[inline]
    fn is_safe_cut(&self, text: &[u8], i: usize) -> bool {
        if self.is_custom() || text[i] >= 128 {
            return false;
        }
        let (class, _) = class_at(text, i);
        if class & SPACE == 0 {
            return matches!(text[i - 1], b'\r' | b'\n') && *self != Self::Gpt2 && text[i] != b'/';
        }
        let before = class_before(text, i);
        before & SPACE == 0 && (class == BLANK || *self == Self::Gpt2 || before & !(LETTER | NUMBER) == 0)
    }
}

/// The classes that the character before `at` may have; more than one only if the text is not UTF-8 there.
fn class_before(text: &[u8], at: usize) -> u16 {
    let ends_here = |i: &usize| {
        let (_, n) = class_at(text, *i);
        i + n == at
    };
    (at.saturating_sub(4)..at).filter(ends_here).fold(0, |classes, i| classes | class_at(text, i).0)
}

/// An expression in which line ends are written as escapes.
fn readable(regex: &str) -> Cow<'_, str> {
    match regex.contains(['\r', '\n']) {
        true => regex.replace('\r', r"\r").replace('\n', r"\n").into(),
        false => regex.into(),
    }
}

/// All pre-tokens of `text` by the pattern of GPT-2.
#[cfg(test)]
pub(crate) fn pretokens(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    Pattern::Gpt2.pretokens(text).expect("no custom pattern").into_iter()
}
