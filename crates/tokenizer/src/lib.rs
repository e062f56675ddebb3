//! Text to tokens and back: train, encode and decode byte-level BPE.
//!
//! A token travels through the modules in the order in which they are listed below: documents are
//! cut into pre-tokens, a vocabulary is learned from their counts, text becomes ids, ids become
//! text, and a vocabulary is a Hugging Face `tokenizer.json` on disk.
//!
//! Byte-level BPE: Sennrich et al., 2016, <https://arxiv.org/abs/1508.07909>, over bytes as in
//! Radford et al., 2019 (GPT-2). Two smaller vocabularies serve small runs: one id per distinct
//! character, and one id per byte.
//!
//! ```no_run
//! use tokenizer::{Tokenizer, train::{BpeConfig, train_bpe}};
//!
//! let config = BpeConfig { vocab_size: 300, special_tokens: vec!["<|endoftext|>".into()] };
//! let documents = [std::fs::read("book.txt")];
//! let tokenizer = train_bpe(documents, &config, &|_| {})?;
//! assert_eq!(tokenizer.decode(&tokenizer.encode("Güte".as_bytes())), "Güte");
//! tokenizer.save("tokenizer.json".as_ref())?;
//! # Ok::<(), tokenizer::Error>(())
//! ```

mod error;
mod alphabet;
mod special;
mod vocab;
mod pretokenize;
pub mod train;
mod encode;
mod decode;
mod files;
#[cfg(test)]
mod reference;

pub use decode::DecodeStream;
pub use encode::TokenStream;
pub use error::Error;
pub use vocab::{Kind, TokenId, Tokenizer};

/// A hash map with a fast, seeded hash; nothing may depend on its order.
pub(crate) type HashMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;
