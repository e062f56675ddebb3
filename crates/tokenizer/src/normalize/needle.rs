//! What is looked for in a text: a string or a regular expression.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// A string or a pattern, as files write it: `{"String": " "}`, `{"Regex": "\\s+"}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Needle {
    String(String),
    Regex(Regex),
}

/// A compiled pattern, equal to another one if they are written alike.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Regex {
    pattern: String,
    compiled: fancy_regex::Regex,
}

impl Needle {
    /// All matches from left to right, those of a string included where it is empty.
    ///
    /// A pattern that takes too many steps (its engine backtracks) has no further matches.
    pub(crate) fn find_all(&self, text: &str) -> Vec<Range<usize>> {
        match self {
            Self::String(needle) => text.match_indices(&**needle).map(|(at, found)| at..at + found.len()).collect(),
            Self::Regex(regex) => {
                let matches = regex.compiled.find_iter(text).map_while(Result::ok);
                matches.map(|found| found.start()..found.end()).collect()
            }
        }
    }

    /// The text with every match replaced; `None` if there is none.
    pub(crate) fn replace(&self, text: &str, content: &str) -> Option<String> {
        let matches = self.find_all(text);
        if matches.is_empty() {
            return None;
        }
        let mut output = String::with_capacity(text.len());
        let mut position = 0;
        for found in matches {
            output.push_str(&text[position..found.start]);
            output.push_str(content);
            position = found.end;
        }
        output.push_str(&text[position..]);
        Some(output)
    }
}

impl Regex {
    /// As it is written.
    pub(crate) fn pattern(&self) -> &str {
        &self.pattern
    }
}

impl TryFrom<String> for Regex {
    type Error = String;

    fn try_from(pattern: String) -> Result<Self, String> {
        match fancy_regex::Regex::new(&pattern) {
            Ok(compiled) => Ok(Self { pattern, compiled }),
            Err(error) => Err(format!("the pattern {pattern:?} cannot be used: {error}")),
        }
    }
}

impl From<Regex> for String {
    fn from(regex: Regex) -> Self {
        regex.pattern
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

impl std::fmt::Debug for Regex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Regex({:?})", self.pattern)
    }
}
