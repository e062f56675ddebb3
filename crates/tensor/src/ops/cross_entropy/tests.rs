use rayon::ThreadPoolBuilder;

use super::*;
use crate::testing::{Golden, Tolerance, assert_close, check_gradients, random};

/// The definition, in f64.
fn by_definition(logits: &Tensor, targets: &[u32], divisor: f32) -> f64 {
    let (_, v) = logits.rows();
    let row = |(logits, &target): (&[f32], &u32)| {
        if target == IGNORED {
            return 0.0;
        }
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|&x| (f64::from(x) - f64::from(max)).exp()).sum();
        sum.ln() + f64::from(max) - f64::from(logits[target as usize])
    };
    logits.f32s().chunks_exact(v).zip(targets).map(row).sum::<f64>() / f64::from(divisor)
}

/// Targets spread over `v` classes, every fifth ignored.
fn some_targets(n: usize, v: usize) -> Tensor {
    let target = |i: usize| if i % 5 == 3 { IGNORED } else { (i * 7919 % v) as u32 };
    Tensor::from_u32(&[n], (0..n).map(target).collect())
}

#[test]
fn it_equals_pytorch() {
    let golden = Golden::load(concat!(env!("CARGO_MANIFEST_DIR"), "/golden"), "cross_entropy");
    let targets = golden.get("targets").f32s().iter().map(|&x| if x < 0.0 { IGNORED } else { x as u32 }).collect();
    let targets = Tensor::from_u32(&[11], targets);
    let logits = golden.get("logits").tracked();
    let loss = cross_entropy(&logits, &targets, 7.0);
    assert_close(&loss, &golden.get("loss"), Tolerance { absolute: 0.0, relative: 1e-6 });
    let dlogits = loss.backward().remove(&logits).unwrap();
    assert_close(&dlogits, &golden.get("dlogits"), Tolerance { absolute: 1e-7, relative: 1e-5 });
}

#[test]
fn the_loss_equals_the_definition() {
    for (n, v) in [(1, 1), (3, 17), (100, 1000), (7, 50_257)] {
        let (logits, targets) = (random(&[n, v], 1), some_targets(n, v));
        let expected = by_definition(&logits, targets.u32s(), 3.0);
        let found = f64::from(cross_entropy(&logits, &targets, 3.0).item());
        assert!((found - expected).abs() <= 1e-6 * (1.0 + expected), "[{n}, {v}]: {found}, expected {expected}");
    }
}

#[test]
fn the_gradient_equals_finite_differences() {
    let targets = some_targets(6, 5);
    check_gradients(|[logits]| cross_entropy(logits, &targets, 2.0), [random(&[2, 3, 5], 1)]);
}

#[test]
fn large_logits_do_not_overflow() {
    let logits = Tensor::from_f32(&[2, 3], vec![1e4, 0.0, -1e4, 3e38, -3e38, 0.0]).tracked();
    let loss = cross_entropy(&logits, &Tensor::from_u32(&[2], vec![1, 0]), 1.0);
    assert_eq!(loss.item(), 1e4);
    assert_eq!(loss.backward().get(&logits).unwrap().f32s(), [1.0, -1.0, 0.0, 0.0, 0.0, 0.0]);
}

#[test]
fn if_all_targets_are_ignored_loss_and_gradient_are_zero() {
    let logits = random(&[3, 4], 1).tracked();
    let loss = cross_entropy(&logits, &Tensor::from_u32(&[3], vec![IGNORED; 3]), 1.0);
    assert_eq!(loss.item(), 0.0);
    assert_eq!(loss.backward().get(&logits).unwrap().f32s(), [0.0; 12]);
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (logits, targets) = (random(&[101, 1003], 1).tracked(), some_targets(101, 1003));
    let on = |n_threads| {
        let pool = ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| {
            let loss = cross_entropy(&logits, &targets, 100.0);
            (loss.item(), loss.backward().remove(&logits).unwrap())
        })
    };
    let (loss, dlogits) = on(1);
    for n_threads in [2, 3] {
        let (loss_n, dlogits_n) = on(n_threads);
        assert_eq!(loss_n.to_bits(), loss.to_bits());
        assert_close(&dlogits_n, &dlogits, Tolerance::EXACT);
    }
}

#[test]
#[should_panic(expected = "cross_entropy: target 4 of row 1 is not one of 4 classes")]
fn a_target_that_is_no_class_is_named() {
    cross_entropy(&random(&[2, 4], 1), &Tensor::from_u32(&[2], vec![3, 4]), 1.0);
}

#[test]
#[should_panic(expected = "cross_entropy: 2 rows ([2, 4]) need as many targets, not [3]")]
fn a_wrong_number_of_targets_names_both_shapes() {
    cross_entropy(&random(&[2, 4], 1), &Tensor::from_u32(&[3], vec![0; 3]), 1.0);
}
