//! What a vocabulary is to be.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::pretokenize::Pattern;

/// What a BPE vocabulary is to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BpeConfig {
    /// Number of ids: special tokens, 256 bytes, and the rest learned.
    pub vocab_size: usize,
    /// Strings that are one id each and at which training text is cut, such as `<|endoftext|>`.
    #[serde(default)]
    pub special_tokens: Vec<String>,
    /// How text is cut into pre-tokens: `gpt2`, `cl100k`, `o200k`, `llama3`, `qwen2`, `deepseek-v3`, or a regular
    /// expression, or several of them.
    #[serde(default, with = "pattern")]
    pub pattern: Pattern,
    /// Pre-tokens that occur more rarely than this take no part, which saves memory; 1 takes all.
    #[serde(default = "one")]
    pub min_count: u64,
}

impl Default for BpeConfig {
    /// 32,000 ids with the pattern of GPT-2 and no special tokens.
    fn default() -> Self {
        Self { vocab_size: 32_000, special_tokens: Vec::new(), pattern: Pattern::default(), min_count: 1 }
    }
}

impl BpeConfig {
    /// Equal for configs that count alike.
    pub(super) fn counting_key(&self) -> String {
        serde_json::json!(["bpe", self.special_tokens, self.pattern.regexes()]).to_string()
    }

    /// Equal for configs that learn alike from the same counts.
    pub(super) fn merging_key(&self) -> String {
        serde_json::json!([self.vocab_size, self.min_count]).to_string()
    }
}

fn one() -> u64 {
    1
}

const NAMES: [(&str, Pattern); 6] = [
    ("gpt2", Pattern::Gpt2),
    ("cl100k", Pattern::Cl100k),
    ("o200k", Pattern::O200k),
    ("llama3", Pattern::Llama3),
    ("qwen2", Pattern::Qwen2),
    ("deepseek-v3", Pattern::DeepSeekV3),
];

/// The pattern of a model by its name (`gpt2`, `cl100k`, `o200k`, `llama3`, `qwen2`, `deepseek-v3`), or of a regular
/// expression.
///
/// # Errors
/// [`crate::Error::Pattern`] if the text is neither.
pub fn pattern_of(text: &str) -> Result<Pattern, crate::Error> {
    match NAMES.into_iter().find(|(name, _)| *name == text) {
        Some((_, pattern)) => Ok(pattern),
        None => Pattern::of_regex(text),
    }
}

mod pattern {
    use super::{Deserialize, Deserializer, NAMES, Pattern, Serialize, Serializer, pattern_of};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Text {
        One(String),
        Several(Vec<String>),
    }

    pub(super) fn serialize<S: Serializer>(pattern: &Pattern, serializer: S) -> Result<S::Ok, S::Error> {
        let text = match NAMES.iter().find(|(_, known)| known == pattern) {
            Some((name, _)) => Text::One((*name).to_owned()),
            None => Text::Several(pattern.regexes().into_iter().map(ToOwned::to_owned).collect()),
        };
        text.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Pattern, D::Error> {
        let pattern = match Text::deserialize(deserializer)? {
            Text::One(text) => pattern_of(&text),
            Text::Several(texts) => Pattern::of_regexes(&texts.iter().map(String::as_str).collect::<Vec<_>>()),
        };
        pattern.map_err(serde::de::Error::custom)
    }
}
