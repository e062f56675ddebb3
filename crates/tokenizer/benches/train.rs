//! Time and memory of training, by its two phases.
//!
//! ```sh
//! cargo bench -p tokenizer --bench train -- books.txt 32000
//! ```
//!
//! Without a text it makes one of its own. `benches/tokenizer_train_peers.py` runs other trainers beside `cupola`.
#![allow(clippy::print_stdout)]

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use tokenizer::train::{BpeConfig, Progress, Resources, TextPart, train_bpe_within};

const PART_BYTES: u64 = 1 << 20;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let path = arguments.next();
    let vocab_size = arguments.next().map_or(32_000, |size| size.parse().expect("a vocabulary size"));
    let config = BpeConfig { vocab_size, special_tokens: vec!["<|endoftext|>".to_owned()], ..BpeConfig::default() };
    let mut totals = Vec::new();
    for _ in 0..5 {
        let times = match &path {
            Some(path) => measure(file_parts(Path::new(path)), &config),
            None => measure(made_up_parts(), &config),
        };
        println!("counting {:.3} s, merging {:.3} s", times[0].as_secs_f64(), times[1].as_secs_f64());
        totals.push((times[0] + times[1]).as_secs_f64());
    }
    totals.sort_by(f64::total_cmp);
    println!("median of {}: {:.3} s", totals.len(), totals[totals.len() / 2]);
}

fn measure(parts: impl Iterator<Item = io::Result<TextPart>>, config: &BpeConfig) -> [Duration; 2] {
    let start = Instant::now();
    let counted = Cell::new(Duration::ZERO);
    let note = |progress| {
        if let Progress::Counted(_) = progress {
            counted.set(start.elapsed());
        }
    };
    train_bpe_within(parts, config, &Resources::default(), &note).expect("training");
    [counted.get(), start.elapsed() - counted.get()]
}

fn file_parts(path: &Path) -> impl Iterator<Item = io::Result<TextPart>> {
    let mut file = File::open(path).expect("the text");
    std::iter::from_fn(move || {
        let mut text = Vec::with_capacity(PART_BYTES as usize);
        match (&mut file).take(PART_BYTES).read_to_end(&mut text) {
            Ok(0) => None,
            Ok(_) => Some(Ok(TextPart { text, ends_document: false })),
            Err(error) => Some(Err(error)),
        }
    })
}

/// 32 MB of words whose frequencies fall as those of a language do.
fn made_up_parts() -> impl Iterator<Item = io::Result<TextPart>> {
    let mut state = 1_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / f64::from(u32::MAX >> 1)
    };
    (0..32).map(move |_| {
        let mut text = Vec::new();
        while text.len() < 1_000_000 {
            let mut word = 1_f64.mul_add(1.0, 400_000_f64.powf(random())) as u64 * 0x9E37_79B9;
            text.push(b' ');
            while word > 0 {
                text.push(b'a' + (word % 19) as u8);
                word /= 19;
            }
        }
        Ok(TextPart { text, ends_document: true })
    })
}
