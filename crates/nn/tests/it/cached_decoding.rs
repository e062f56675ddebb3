//! Decoding with a cache equals the forward pass over the whole sequence.

use nn::{KvCache, Transformer};
use tensor::Tensor;

use crate::models::{GOLDEN, ablations, golden, random_ids, random_model};

/// Golden models and ablations.
fn models() -> Vec<(&'static str, Transformer)> {
    let golden = GOLDEN.into_iter().map(|name| (name, golden(name).0));
    golden.chain(ablations().into_iter().map(|(name, config)| (name, random_model(&config, 3)))).collect()
}

#[track_caller]
fn assert_equal(name: &str, position: usize, cached: &[f32], whole: &[f32]) {
    assert_eq!(cached.len(), whole.len());
    for (x, y) in cached.iter().zip(whole) {
        assert!((x - y).abs() <= 1e-5, "{name}, position {position}: {x} with a cache, {y} without");
    }
}

#[test]
fn decoding_token_by_token_or_after_a_prefill_equals_the_whole_forward() {
    for (name, model) in models() {
        let (t, v) = (model.config().context_length, model.config().vocab_size);
        let ids = random_ids(model.config(), &[1, t], 1);
        let whole = model.logits(&ids);
        let expected = |position: usize| &whole.f32s()[position * v..(position + 1) * v];
        for prefill in [1, 2, 7, t - 1, t] {
            let mut cache = KvCache::new(model.config());
            let logits = model.next_logits(&ids.u32s()[..prefill], &mut cache);
            assert_equal(name, prefill - 1, &logits, expected(prefill - 1));
            for position in prefill..t {
                let logits = model.next_logits(&ids.u32s()[position..=position], &mut cache);
                assert_equal(name, position, &logits, expected(position));
            }
            assert_eq!(cache.n_positions(), t);
        }
    }
}

#[test]
fn a_prompt_may_come_in_pieces() {
    for (name, model) in models() {
        let v = model.config().vocab_size;
        let ids = random_ids(model.config(), &[1, 15], 2);
        let whole = model.logits(&ids);
        let mut cache = KvCache::new(model.config());
        for piece in [0..4, 4..5, 5..11, 11..15] {
            let logits = model.next_logits(&ids.u32s()[piece.clone()], &mut cache);
            assert_equal(name, piece.end - 1, &logits, &whole.f32s()[(piece.end - 1) * v..piece.end * v]);
        }
    }
}

#[test]
fn a_later_token_changes_no_earlier_logit_and_a_sequence_none_of_another() {
    for (name, model) in models() {
        let (t, v) = (9, model.config().vocab_size);
        let ids = random_ids(model.config(), &[2, t], 3);
        let before = model.logits(&ids);
        let mut changed = ids.u32s().to_vec();
        changed[t - 1] = (changed[t - 1] + 1) % v as u32;
        let after = model.logits(&Tensor::from_u32(&[2, t], changed));
        let last = (t - 1) * v..t * v;
        assert_ne!(before.f32s()[last.clone()], after.f32s()[last.clone()], "{name}");
        assert_eq!(before.f32s()[..last.start], after.f32s()[..last.start], "{name}");
        assert_eq!(before.f32s()[last.end..], after.f32s()[last.end..], "{name}");
    }
}

#[test]
#[should_panic(expected = "forward: 24 + 1 positions, the context length is 24")]
fn a_full_cache_refuses_another_token() {
    let (model, _) = golden("llama");
    let mut cache = KvCache::new(model.config());
    model.next_logits(&[0; 24], &mut cache);
    model.next_logits(&[0], &mut cache);
}
