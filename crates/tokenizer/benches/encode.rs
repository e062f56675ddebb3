//! Encoding speed on a text of one's own, cold and warm:
//! `cargo bench -p tokenizer --bench encode -- TOKENIZER TEXT [THREADS [ROUNDS [WARM]]]`.
//!
//! TOKENIZER is any file that `Tokenizer::from_file` reads; the documents of TEXT are separated by
//! `<|endoftext|>`. Prints a line per round: cold is a tokenizer that has encoded nothing yet, warm the same
//! one again.
#![allow(clippy::print_stdout, missing_docs)]

use std::path::Path;
use std::time::Instant;

use tokenizer::Tokenizer;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |i: usize, default: usize| arguments.get(i).map_or(default, |n| n.parse().expect("a number"));
    let [tokenizer, text, ..] = &arguments[..] else {
        // Also how `cargo test --benches` calls it.
        return println!("encode: give TOKENIZER TEXT [THREADS [ROUNDS [WARM]]]");
    };
    let (threads, n_rounds, n_warm) = (number(2, 0), number(3, 5), number(4, 2));
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().expect("the first pool");
    let text = std::fs::read(text).expect("TEXT can be read");
    let documents = documents(&text);
    let n_bytes: usize = documents.iter().map(|document| document.len()).sum();
    println!("{} documents, {n_bytes} bytes, {} threads", documents.len(), rayon::current_num_threads());
    for _ in 0..n_rounds {
        let tokenizer = match tokenizer.split_once(',') {
            Some((vocab, merges)) => Tokenizer::from_vocab_and_merges(Path::new(vocab), Path::new(merges)),
            None => Tokenizer::from_file(Path::new(tokenizer)),
        }
        .expect("TOKENIZER can be read");
        for i in 0..=n_warm {
            let (start, cpu_start) = (Instant::now(), cpu_seconds());
            let ids = tokenizer.encode_flat(&documents);
            let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu_start);
            let rate = |seconds: f64| n_bytes as f64 / seconds / 1e6;
            let n_tokens = ids.ids().len();
            let name = if i == 0 { "cold" } else { "warm" };
            println!("{name} {:.0} MB/s, by processor time {:.0}; {n_tokens} tokens", rate(seconds), rate(cpu));
        }
    }
}

/// Time that processors have spent on this process, where the system says so: what a busy machine does not
/// change much.
fn cpu_seconds() -> f64 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return f64::NAN };
    let nanoseconds = tasks.flatten().filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<f64>() / 1e9
}

fn documents(text: &[u8]) -> Vec<&[u8]> {
    const SEPARATOR: &[u8] = b"<|endoftext|>";
    let mut documents = Vec::new();
    let mut start = 0;
    let mut at = 0;
    while let Some(skip) = text[at..].iter().position(|&byte| byte == SEPARATOR[0]) {
        at += skip;
        if text[at..].starts_with(SEPARATOR) {
            documents.push(&text[start..at]);
            start = at + SEPARATOR.len();
        }
        at += 1;
    }
    documents.push(&text[start..]);
    documents.retain(|document| !document.is_empty());
    documents
}
