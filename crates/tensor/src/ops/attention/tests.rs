use rayon::ThreadPoolBuilder;

use super::*;
use crate::ops::weighted_sum;
use crate::testing::{Golden, Tolerance, assert_close, cases, check_gradients, fetched, placed, random, rounded};

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
    Heads::of_one_size(h, g, e)
}

/// The gradient of `qkv` for a given `dy`.
fn gradient(qkv: &Tensor, heads: &Heads, scale: f32, dy: &Tensor) -> Tensor {
    gradient_with(qkv, heads, &AttentionOptions::new(scale), dy)
}

fn gradient_with(qkv: &Tensor, heads: &Heads, options: &AttentionOptions<'_>, dy: &Tensor) -> Tensor {
    let qkv = qkv.tracked();
    weighted_sum(&attention_with(&qkv, heads, options), dy).backward().remove(&qkv).unwrap()
}

fn rule(options: &AttentionOptions<'_>, heads: &Heads, qkv: &Tensor) -> Rule {
    Rule::new(options, heads, qkv.shape()[0], qkv.shape()[1], qkv.device())
}

/// Documents of several lengths in `b` rows of `t` positions, in other places in each row.
fn documents(b: usize, t: usize) -> Tensor {
    let start = |at: usize| {
        let (row, i) = (at / t, at % t);
        let starts = [0, 1, 7 + row, 30, 64 + 3 * row, 200];
        starts.into_iter().filter(|&start| start <= i).max().unwrap_or(0) as u32
    };
    Tensor::from_u32(&[b, t], (0..b * t).map(start).collect())
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
        let rule = rule(&AttentionOptions::new(scale), &heads, &qkv);
        assert_close(&attention(&qkv, &heads, scale), &reference::forward(&qkv, &heads, &rule), tolerance);
        let expected = reference::backward(&dy, &qkv, &heads, &rule);
        assert_close(&gradient(&qkv, &heads, scale, &dy), &expected, tolerance);
    }
}

/// The largest difference of whole tensors that rounding to `dtype` explains, in the forward and the backward pass.
#[track_caller]
fn assert_near(what: &str, found: &Tensor, expected: &Tensor, dtype: DType) {
    let found = fetched(found);
    let (mut difference, mut norm) = (0.0, 1e-30);
    for (&x, &y) in found.f32s().iter().zip(expected.f32s()) {
        difference += f64::from(x - y).powi(2);
        norm += f64::from(y).powi(2);
    }
    let relative = (difference / norm).sqrt();
    let tolerance = if dtype == DType::F32 { 1e-5 } else { 1e-2 };
    assert!(relative < tolerance, "{what}: relative difference {relative:.1e}, expected below {tolerance:.0e}");
}

/// Compares both passes with the definition.
fn check(
    cases: &[(Device, DType)],
    (b, t, h, g, e): (usize, usize, usize, usize, usize),
    options: &AttentionOptions<'_>,
) {
    check_heads(cases, (b, t), heads(h, g, e), options);
}

/// [`check`] for heads of two sizes.
fn check_heads(cases: &[(Device, DType)], (b, t): (usize, usize), heads: Heads, options: &AttentionOptions<'_>) {
    let mut expected: Vec<(DType, [Tensor; 2])> = Vec::new();
    for &case @ (device, dtype) in cases {
        let qkv = rounded(&random(&[b, t, heads.qkv_width()], 1), dtype);
        let dy = rounded(&random(&[b, t, heads.y_width()], 2), dtype);
        if expected.last().is_none_or(|x| x.0 != dtype) {
            let rule = rule(options, &heads, &qkv);
            let y = reference::forward(&qkv, &heads, &rule);
            expected.push((dtype, [y, reference::backward(&dy, &qkv, &heads, &rule)]));
        }
        let [y, dqkv] = &expected.last().unwrap().1;
        let slopes = options.alibi_slopes.map(|x| x.to(device));
        let starts = options.document_start.map(|x| x.to(device));
        let there = AttentionOptions { alibi_slopes: slopes.as_ref(), document_start: starts.as_ref(), ..*options };
        let (qkv, dy) = (placed(&qkv, case), placed(&dy, case));
        let what = format!("{device} {dtype} {b} × {t} {heads:?} {options:?}");
        assert_near(&format!("y {what}"), &attention_with(&qkv, &heads, &there), y, dtype);
        let found = gradient_with(&qkv, &heads, &there, &dy);
        assert_near(&format!("dqkv {what}"), &found, dqkv, dtype);
        assert_close(&gradient_with(&qkv, &heads, &there, &dy), &found, Tolerance::EXACT);
    }
}

/// Heads whose queries and keys are wider than their values, as in latent attention, or narrower.
const TWO_SIZES: [(usize, usize, usize, usize, usize); 7] = [
    (1, 1, 1, 3, 2),
    (17, 3, 3, 12, 8),
    (65, 4, 1, 48, 32),
    (130, 2, 1, 33, 17),
    (100, 2, 2, 192, 128),
    (129, 4, 2, 192, 128),
    (70, 2, 1, 16, 24),
];

fn of_two_sizes(n_heads: usize, n_kv_heads: usize, head_dim: usize, v_head_dim: usize) -> Heads {
    Heads { n_heads, n_kv_heads, head_dim, v_head_dim }
}

#[test]
fn heads_of_two_sizes_equal_the_definition_on_every_device() {
    for (t, h, g, e, f) in TWO_SIZES {
        let (heads, slopes, starts) =
            (of_two_sizes(h, g, e, f), Tensor::from_fn(&[h], |head| 0.5f32.powi(head as i32 + 1)), documents(2, t));
        let plain = AttentionOptions::new(1.0 / (e as f32).sqrt());
        check_heads(&cases(), (2, t), heads, &plain);
        let all = AttentionOptions {
            window: Some(50),
            softcap: Some(2.0),
            alibi_slopes: Some(&slopes),
            document_start: Some(&starts),
            ..plain
        };
        check_heads(&cases(), (2, t), heads, &all);
    }
    let full = AttentionOptions { causal: false, ..AttentionOptions::new(0.07) };
    check_heads(&cases(), (2, 129), of_two_sizes(2, 2, 192, 128), &full);
}

#[test]
fn heads_of_two_sizes_equal_pytorch() {
    let golden = Golden::load(concat!(env!("CARGO_MANIFEST_DIR"), "/golden"), "attention_two_sizes");
    for case in ["multi", "grouped", "latent"] {
        let get = |name: &str| golden.get(&format!("{case}.{name}"));
        let [h, g, e, f] = [0, 1, 2, 3].map(|i| get("heads").f32s()[i] as usize);
        let heads = of_two_sizes(h, g, e, f);
        assert_close(&attention(&get("qkv"), &heads, 0.3), &get("y"), Tolerance::of(DType::F32));
        assert_close(&gradient(&get("qkv"), &heads, 0.3, &get("dy")), &get("dqkv"), Tolerance::of(DType::F32));
    }
}

#[test]
fn gradients_of_heads_of_two_sizes_equal_finite_differences() {
    let heads = of_two_sizes(2, 1, 4, 3);
    check_gradients(|[qkv]| attention(qkv, &heads, 0.5), [random(&[2, 4, heads.qkv_width()], 1)]);
}

// A GPU compiles its kernels anew for each head size and set of options.
#[test]
fn every_device_equals_the_definition() {
    for shape @ (.., e) in [
        (2, 1, 2, 1, 64),
        (2, 3, 4, 2, 64),
        (2, 300, 2, 1, 64),
        (1, 1000, 1, 1, 64),
        (2, 100, 3, 1, 80),
        (2, 17, 2, 2, 128),
        (2, 129, 2, 1, 128),
        (2, 129, 2, 1, 256),
        (2, 100, 2, 1, 33),
    ] {
        check(&cases(), shape, &AttentionOptions::new(1.0 / (e as f32).sqrt()));
    }
    let full = AttentionOptions { causal: false, ..AttentionOptions::new(0.125) };
    check(&cases(), (2, 129, 2, 1, 64), &full);
}

#[test]
fn every_device_equals_the_definition_with_options() {
    for (t, h, g, e) in [(3, 2, 2, 64), (129, 2, 1, 64), (257, 4, 2, 64), (100, 2, 1, 33)] {
        let slopes = Tensor::from_fn(&[h], |head| 0.5f32.powi(head as i32 + 1));
        let starts = documents(2, t);
        let plain = AttentionOptions::new(1.0 / (e as f32).sqrt());
        let full = AttentionOptions { causal: false, ..plain };
        let all = AttentionOptions {
            window: Some(50),
            softcap: Some(2.0),
            alibi_slopes: Some(&slopes),
            document_start: Some(&starts),
            ..plain
        };
        check(&cases(), (2, t, h, g, e), &all);
        check(&cases(), (2, t, h, g, e), &AttentionOptions { window: Some(37), alibi_slopes: Some(&slopes), ..full });
        for options in [
            AttentionOptions { window: Some(1), ..plain },
            AttentionOptions { window: Some(37), ..plain },
            AttentionOptions { softcap: Some(1.5), ..plain },
            AttentionOptions { alibi_slopes: Some(&slopes), ..plain },
            AttentionOptions { document_start: Some(&starts), ..plain },
        ] {
            check(&[(Device::Cpu, DType::F32)], (2, t, h, g, e), &options);
        }
    }
}

#[test]
fn documents_in_a_row_are_as_if_alone() {
    let (heads, scale, ends) = (heads(2, 1, 8), 0.3, [0, 1, 40, 103, 130]);
    let qkv = random(&[1, 130, heads.qkv_width()], 1);
    let starts = ends.windows(2).flat_map(|x| vec![x[0] as u32; x[1] - x[0]]).collect();
    let starts = Tensor::from_u32(&[1, 130], starts);
    let packed = attention_with(
        &qkv,
        &heads,
        &AttentionOptions { document_start: Some(&starts), ..AttentionOptions::new(scale) },
    );
    for document in ends.windows(2).map(|x| x[0]..x[1]) {
        let rows = |x: &Tensor, width: usize| {
            let rows = x.f32s()[document.start * width..document.end * width].to_vec();
            Tensor::from_f32(&[1, document.len(), width], rows)
        };
        let alone = attention(&rows(&qkv, heads.qkv_width()), &heads, scale);
        assert_close(&rows(&packed, heads.q_width()), &alone, Tolerance::of(DType::F32));
    }
}

#[test]
fn options_without_effect_change_nothing() {
    let heads = heads(2, 1, 8);
    let (qkv, slopes) = (random(&[2, 90, heads.qkv_width()], 1), Tensor::full(&[2], 0.0));
    let starts = Tensor::zeros(&[2, 90], DType::U32);
    let options = AttentionOptions {
        window: Some(90),
        softcap: Some(1e4),
        alibi_slopes: Some(&slopes),
        document_start: Some(&starts),
        ..AttentionOptions::new(0.3)
    };
    assert_close(&attention_with(&qkv, &heads, &options), &attention(&qkv, &heads, 0.3), Tolerance::of(DType::F32));
}

#[test]
fn gradients_with_options_equal_finite_differences() {
    let (heads, slopes, starts) = (heads(2, 1, 4), Tensor::from_f32(&[2], vec![0.5, 0.1]), documents(2, 9));
    let plain = AttentionOptions::new(0.5);
    let all = AttentionOptions {
        window: Some(4),
        softcap: Some(1.0),
        alibi_slopes: Some(&slopes),
        document_start: Some(&starts),
        ..plain
    };
    for options in [AttentionOptions { causal: false, ..plain }, AttentionOptions { document_start: None, ..all }, all]
    {
        check_gradients(|[qkv]| attention_with(qkv, &heads, &options), [random(&[2, 9, heads.qkv_width()], 1)]);
    }
}

#[test]
#[should_panic(expected = "attention: document starts must not decrease along a row")]
fn document_starts_that_decrease_are_refused() {
    let starts = Tensor::from_u32(&[1, 3], vec![0, 1, 0]);
    let options = AttentionOptions { document_start: Some(&starts), ..AttentionOptions::new(1.0) };
    attention_with(&random(&[1, 3, 12], 1), &heads(1, 1, 4), &options);
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
    assert_close(&y, &reference::forward(&qkv, &heads, &rule(&AttentionOptions::new(1e3), &heads, &qkv)), tolerance);
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
        assert_eq!(keys.len(), t * heads.k_width());
    }
}

#[test]
fn a_cache_on_every_device_equals_the_whole_sequence() {
    let one = |(t, h, g, e)| (t, heads(h, g, e));
    let two = |(t, h, g, e, f)| (t, of_two_sizes(h, g, e, f));
    let ones = [(1, 2, 1, 64), (3, 2, 2, 33), (40, 4, 1, 64), (600, 4, 2, 64)].map(one);
    let twos = [(40, 2, 1, 33, 17), (300, 2, 2, 192, 128), (70, 2, 1, 16, 24)].map(two);
    for (t, heads) in ones.into_iter().chain(twos) {
        for case @ (_, dtype) in cases() {
            let qkv = rounded(&random(&[1, t, heads.qkv_width()], 1), dtype);
            let expected = reference::forward(&qkv, &heads, &rule(&AttentionOptions::new(0.1), &heads, &qkv));
            let (mut cache, mut y, mut rest) = (KeyValueCache::default(), Vec::new(), qkv.f32s());
            for n in [t / 2, 1, 0, 1, t / 4, 1, 1, t].map(|n| n * heads.qkv_width()) {
                let (step, later) = rest.split_at(n.min(rest.len()));
                rest = later;
                let step = Tensor::from_f32(&[1, step.len() / heads.qkv_width(), heads.qkv_width()], step.to_vec());
                // A clone goes its own way.
                attention_with_cache(&placed(&step, case), &heads, 0.1, &mut cache.clone());
                let found = attention_with_cache(&placed(&step, case), &heads, 0.1, &mut cache);
                y.extend_from_slice(fetched(&found).f32s());
            }
            assert_near(&format!("{case:?} {t} {heads:?}"), &Tensor::from_f32(expected.shape(), y), &expected, dtype);
        }
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

#[test]
fn on_every_device_projected_attention_equals_linear_and_attention() {
    for case in cases() {
        // Whole tiles of 128 and parts of them, one row, shared keys, heads whose kernels make no sums.
        for (b, t, h, g, e) in [
            (2, 1, 2, 2, 64),
            (3, 150, 2, 1, 64),
            (2, 256, 3, 3, 64),
            (1, 1000, 2, 2, 64),
            (1, 64, 1, 1, 33),
            (2, 129, 1, 1, 128),
        ] {
            let (heads, d, scale) = (heads(h, g, e), 40, 1.0 / (e as f32).sqrt());
            let c = heads.qkv_width();
            let inputs = [random(&[b, t, d], 1), random(&[c, d], 2), random(&[c], 3)];
            let inputs = inputs.map(|x| placed(&x, case));
            let dy = placed(&random(&[b, t, heads.q_width()], 4), case);
            let both = [true, false].map(|fused| {
                let [x, weight, bias] = inputs.each_ref().map(Tensor::tracked);
                let y = match fused {
                    true => projected_attention(&x, &weight, Some(&bias), &heads, scale),
                    false => attention(&ops::linear(&x, &weight, Some(&bias)), &heads, scale),
                };
                // Twice, so that gradients are added to.
                let mut gradients = crate::Gradients::new();
                ops::pull_back(&y, &dy).backward_into(1.0, &mut gradients);
                let again = projected_attention(&x, &weight, Some(&bias), &heads, scale);
                ops::pull_back(&again, &dy).backward_into(1.0, &mut gradients);
                [y.detached()]
                    .into_iter()
                    .chain([x, weight, bias].map(|leaf| gradients.remove(&leaf).unwrap()))
                    .collect::<Vec<_>>()
            });
            for (found, expected) in both[0].iter().zip(&both[1]).take(3) {
                assert_close(found, expected, Tolerance::EXACT);
            }
            let what = format!("dbias {case:?} {:?}", (b, t, h, g, e));
            // Before rounding or after it, in another order.
            assert_near(&what, &both[0][3], &fetched(&both[1][3]), case.1);
        }
    }
}
