//! A transformer by hand: what it is made of, what it costs, what it computes.
//!
//! ```sh
//! cargo run --release --example 03_transformer
//! ```
#![allow(clippy::print_stdout)]

use nn::flops::ForwardFlops;
use nn::{KvCache, ModelConfig, Transformer};
use tensor::Tensor;

fn main() {
    let config = ModelConfig { n_kv_heads: 2, ..ModelConfig::llama(1000, 64, 128, 3, 4, 352) };
    let model = Transformer::new(&config, 42);
    for (name, parameter) in model.parameters() {
        println!("{name:40} {:?}", parameter.shape());
    }
    println!("{} parameters", model.n_parameters());
    assert_eq!(model.n_parameters(), config.n_parameters(), "the closed form agrees");

    let flops = ForwardFlops::of(&config, 64);
    println!(
        "forward over 64 tokens: {:.3e} FLOPs, {:.0} % in the head",
        flops.total(),
        100.0 * flops.head / flops.total()
    );

    // The full forward, and the same with a cache, one token at a time.
    let ids = [3, 1, 4, 1, 5, 9];
    let logits_btv = model.logits(&Tensor::from_u32(&[1, ids.len()], ids.to_vec()));
    let mut cache = KvCache::new(&config);
    for (position, &id) in ids.iter().enumerate() {
        let logits_v = model.next_logits(&[id], &mut cache);
        let full = &logits_btv.f32s()[position * 1000..(position + 1) * 1000];
        let difference = logits_v.iter().zip(full).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("position {position}: the cached logits differ by at most {difference:.1e}");
        assert!(difference < 1e-5);
    }
}
