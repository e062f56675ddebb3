use rayon::ThreadPoolBuilder;

use super::*;
use crate::ops::weighted_sum;
use crate::testing::{Golden, Tolerance, assert_close, check_gradients, random};

/// Sequence length, query heads, key heads, head size: blocks and tiles that are whole, partial, or one row.
const SIZES: [(usize, usize, usize, usize); 9] = [
    (1, 1, 1, 1),
    (2, 4, 2, 8),
    (3, 2, 1, 33),
    (17, 3, 3, 32),
    (64, 2, 2, 64),
    (65, 4, 1, 32),
    (100, 2, 1, 128),
    (257, 2, 1, 8),
    (600, 2, 2, 16),
];

fn heads(h: usize, g: usize, e: usize) -> Heads {
    Heads { n_heads: h, n_kv_heads: g, head_dim: e }
}

/// The gradient of `qkv` for a given `dy`.
fn gradient(qkv: &Tensor, heads: &Heads, scale: f32, dy: &Tensor) -> Tensor {
    let qkv = qkv.tracked();
    weighted_sum(&attention(&qkv, heads, scale), dy).backward().remove(&qkv).unwrap()
}

#[test]
fn it_equals_pytorch() {
    let golden = Golden::load(concat!(env!("CARGO_MANIFEST_DIR"), "/golden"), "attention");
    for case in ["multi", "grouped", "one"] {
        let get = |name: &str| golden.get(&format!("{case}.{name}"));
        let [h, g, e] = [0, 1, 2].map(|i| get("heads").f32s()[i] as usize);
        let heads = heads(h, g, e);
        assert_close(&attention(&get("qkv"), &heads, 0.3), &get("y"), Tolerance::of(DType::F32));
        assert_close(&gradient(&get("qkv"), &heads, 0.3, &get("dy")), &get("dqkv"), Tolerance::of(DType::F32));
    }
}

#[test]
fn forward_and_backward_equal_the_definition() {
    for (t, h, g, e) in SIZES {
        let (heads, scale) = (heads(h, g, e), 1.0 / (e as f32).sqrt());
        let qkv = random(&[2, t, heads.qkv_width()], 1);
        let dy = random(&[2, t, heads.q_width()], 2);
        let tolerance = Tolerance::of(DType::F32);
        assert_close(&attention(&qkv, &heads, scale), &reference::forward(&qkv, &heads, scale), tolerance);
        let expected = reference::backward(&dy, &qkv, &heads, scale);
        assert_close(&gradient(&qkv, &heads, scale, &dy), &expected, tolerance);
    }
}

#[test]
fn gradients_equal_finite_differences() {
    for (h, g, e) in [(2, 2, 3), (2, 1, 4)] {
        let heads = heads(h, g, e);
        check_gradients(|[qkv]| attention(qkv, &heads, 0.5), [random(&[2, 4, heads.qkv_width()], 1)]);
    }
}

#[test]
fn a_position_does_not_see_later_ones() {
    let heads = heads(2, 1, 8);
    let whole = random(&[1, 300, heads.qkv_width()], 1);
    let y = attention(&whole, &heads, 0.3);
    for t in [1, 63, 64, 257] {
        let start = Tensor::from_f32(&[1, t, heads.qkv_width()], whole.f32s()[..t * heads.qkv_width()].to_vec());
        let expected = Tensor::from_f32(&[1, t, heads.q_width()], y.f32s()[..t * heads.q_width()].to_vec());
        assert_close(&attention(&start, &heads, 0.3), &expected, Tolerance { absolute: 1e-6, relative: 1e-6 });
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let heads = heads(1, 1, 8);
    let qkv = random(&[1, 70, heads.qkv_width()], 1);
    let tolerance = Tolerance { absolute: 1e-3, relative: 1e-3 }; // scores of 1e4 are known to about 1e-3
    let y = attention(&qkv, &heads, 1e3);
    assert_close(&y, &reference::forward(&qkv, &heads, 1e3), tolerance);
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let heads = heads(4, 2, 32);
    let (qkv, dy) = (random(&[3, 300, heads.qkv_width()], 1), random(&[3, 300, heads.q_width()], 2));
    let on = |n_threads| {
        let pool = ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| (attention(&qkv, &heads, 0.2), gradient(&qkv, &heads, 0.2, &dy)))
    };
    let (y, dqkv) = on(1);
    for n_threads in [2, 3] {
        let (y_n, dqkv_n) = on(n_threads);
        assert_close(&y_n, &y, Tolerance::EXACT);
        assert_close(&dqkv_n, &dqkv, Tolerance::EXACT);
    }
}

#[test]
fn cached_steps_equal_the_whole_sequence() {
    for (t, h, g, e) in SIZES.into_iter().chain([(330, 4, 2, 32)]) {
        let heads = heads(h, g, e);
        let qkv = random(&[1, t, heads.qkv_width()], 1);
        let expected = attention(&qkv, &heads, 0.2);
        // Prefills of several lengths, then single positions.
        let (mut keys, mut values, mut y) = (Vec::new(), Vec::new(), Vec::new());
        let mut rest = qkv.f32s();
        for n in [t / 2, t / 4, 1, 1, 1, t].map(|n| n * heads.qkv_width()) {
            let (step, later) = rest.split_at(n.min(rest.len()));
            rest = later;
            let step = Tensor::from_f32(&[1, step.len() / heads.qkv_width(), heads.qkv_width()], step.to_vec());
            y.extend_from_slice(cached_attention(&step, &heads, 0.2, &mut keys, &mut values).f32s());
        }
        let y = Tensor::from_f32(expected.shape(), y);
        assert_close(&y, &expected, Tolerance { absolute: 1e-5, relative: 0.0 });
        assert_eq!(keys.len(), t * heads.kv_width());
    }
}

#[test]
fn an_empty_batch_or_sequence_gives_an_empty_result() {
    let heads = heads(2, 1, 4);
    for shape in [[0, 3, 16], [3, 0, 16]] {
        let qkv = Tensor::zeros(&shape, DType::F32);
        assert!(attention(&qkv, &heads, 1.0).is_empty());
        assert!(gradient(&qkv, &heads, 1.0, &Tensor::zeros(&[shape[0], shape[1], 8], DType::F32)).is_empty());
    }
}

#[test]
#[should_panic(expected = "attention: qkv must be [b, t, 16] for 2 query and 1 key heads of 4, not [1, 2, 15]")]
fn a_wrong_width_names_the_expected_one() {
    attention(&random(&[1, 2, 15], 1), &heads(2, 1, 4), 1.0);
}

#[test]
#[should_panic(expected = "attention: 3 query heads of 4 elements cannot share 2 key heads evenly")]
fn heads_that_do_not_divide_are_refused() {
    attention(&random(&[1, 2, 28], 1), &heads(3, 2, 4), 1.0);
}

#[test]
#[should_panic(expected = "cached_attention: no gradient flows through a cache")]
fn a_tracked_tensor_cannot_go_through_a_cache() {
    cached_attention(&random(&[1, 1, 12], 1).tracked(), &heads(1, 1, 4), 1.0, &mut Vec::new(), &mut Vec::new());
}
