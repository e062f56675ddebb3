//! Text to tokens and back: train, encode and decode, and every common file.
//!
//! A text travels through the modules in the order in which they are listed below: it is normalised,
//! added tokens are cut out of it, it is cut into pre-tokens, a model makes ids of them, tokens are put
//! around the ids, ids become text. A vocabulary is learned from counts of pre-tokens, and is a file of
//! Hugging Face, SentencePiece or tiktoken on disk.
//!
//! Byte-level BPE: Sennrich et al., 2016, <https://arxiv.org/abs/1508.07909>, over bytes as in
//! Radford et al., 2019 (GPT-2). Most vocabularies are nothing else, and that is the fast path. BPE
//! over characters, unigram models and WordPiece are there for the models that use them (Llama 2,
//! T5, BERT). Two smaller vocabularies serve small runs: one id per distinct character, and one id per
//! byte.
//!
//! ```no_run
//! use tokenizer::{Tokenizer, train::{BpeConfig, train_bpe}};
//!
//! let config = BpeConfig { vocab_size: 300, special_tokens: vec!["<|endoftext|>".into()], ..BpeConfig::default() };
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
mod normalize;
mod split;
mod pretokenize;
mod pipeline;
pub mod train;
pub mod explain;
pub mod measure;
mod encode;
mod trie;
mod char_bpe;
mod unigram;
mod wordpiece;
mod postprocess;
mod decode;
mod files;
#[cfg(test)]
mod reference;

pub use decode::DecodeStream;
pub use encode::{FlatIds, SpecialSet, Specials, TokenStream};
pub use error::Error;
pub use files::TiktokenEncoding;
pub use pretokenize::{CustomPattern, Pattern};
pub use vocab::{Kind, TokenId, Tokenizer};

/// A hash map with a fast, seeded hash; nothing may depend on its order.
pub(crate) type HashMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;
