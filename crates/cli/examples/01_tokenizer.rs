//! Text to tokens: learn merges from a text, see them, encode, decode.
//!
//! ```sh
//! cargo run --release --example 01_tokenizer
//! ```
#![allow(clippy::print_stdout)]

use std::convert::Infallible;

use tokenizer::train::{BpeConfig, train_bpe};

fn main() -> Result<(), tokenizer::Error> {
    // The course's example: the counts are 5, 2, 3 and 6.
    let text = "low low low low low lower lower widest widest widest newest newest newest newest newest newest";
    let config =
        BpeConfig { vocab_size: 256 + 1 + 9, special_tokens: vec!["<|endoftext|>".to_owned()], ..BpeConfig::default() };
    let documents = [Ok::<Vec<u8>, Infallible>(text.as_bytes().to_vec())];
    let tokenizer = train_bpe(documents, &config, &|_| {})?;

    println!("merges, in the order in which they were learned:");
    for (left, right) in tokenizer.merges() {
        println!("  {:?} + {:?}", String::from_utf8_lossy(left), String::from_utf8_lossy(right));
    }
    let ids = tokenizer.encode(b"the newest, lowest<|endoftext|>");
    println!("ids: {ids:?}");
    let pieces: Vec<String> = ids.iter().map(|&id| tokenizer.decode(&[id])).collect();
    println!("tokens: {pieces:?}");
    assert_eq!(tokenizer.decode(&ids), "the newest, lowest<|endoftext|>");
    Ok(())
}
