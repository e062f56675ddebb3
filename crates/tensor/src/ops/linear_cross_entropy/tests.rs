use rayon::ThreadPoolBuilder;

use super::*;
use crate::Gradients;
use crate::ops::{IGNORED, add, cross_entropy, linear};
use crate::testing::{Golden, Tolerance, assert_close, check_gradients, random};

/// Targets spread over `v` classes, every fifth ignored.
fn some_targets(n: usize, v: usize) -> Tensor {
    let target = |i: usize| if i % 5 == 3 { IGNORED } else { (i * 7919 % v) as u32 };
    Tensor::from_u32(&[n], (0..n).map(target).collect())
}

#[test]
fn it_equals_pytorch() {
    let golden = Golden::load(concat!(env!("CARGO_MANIFEST_DIR"), "/golden"), "cross_entropy");
    let targets = golden.get("targets").f32s().iter().map(|&x| if x < 0.0 { IGNORED } else { x as u32 }).collect();
    let (x, weight) = (golden.get("x").tracked(), golden.get("weight").tracked());
    let loss = linear_cross_entropy(&x, &weight, &Tensor::from_u32(&[11], targets), 7.0);
    assert_close(&loss, &golden.get("loss"), Tolerance { absolute: 0.0, relative: 1e-6 });
    let gradients = loss.backward();
    assert_close(gradients.get(&x).unwrap(), &golden.get("dx"), Tolerance::of(DType::F32));
    assert_close(gradients.get(&weight).unwrap(), &golden.get("dweight"), Tolerance::of(DType::F32));
}

#[test]
fn it_equals_linear_then_cross_entropy() {
    // The last two need several chunks: of 256 rows, of few rows because the vocabulary is large.
    for (n, d, v) in [(1, 1, 1), (3, 17, 5), (100, 3, 1000), (600, 8, 33), (130, 2, 60_000)] {
        let (x, weight) = (random(&[n, d], 1).tracked(), random(&[v, d], 2).tracked());
        let targets = some_targets(n, v);
        let fused = linear_cross_entropy(&x, &weight, &targets, 9.0);
        let apart = cross_entropy(&linear(&x, &weight, None), &targets, 9.0);
        assert_close(&fused, &apart, Tolerance { absolute: 1e-6, relative: 1e-6 });
        let untracked = linear_cross_entropy(&x.detached(), &weight.detached(), &targets, 9.0);
        assert_close(&untracked, &apart, Tolerance { absolute: 1e-6, relative: 1e-6 });
        // Scales other than one, and a second pass that accumulates.
        let gradients_of = |loss: &[&Tensor]| {
            let mut gradients = Gradients::new();
            loss.iter().for_each(|loss| loss.backward_into(0.5, &mut gradients));
            gradients
        };
        let again = linear_cross_entropy(&x, &weight, &targets, 9.0);
        let (fused, apart) = (gradients_of(&[&fused, &again]), gradients_of(&[&add(&apart, &apart)]));
        for input in [&x, &weight] {
            assert_close(fused.get(input).unwrap(), apart.get(input).unwrap(), Tolerance::of(DType::F32));
        }
    }
}

#[test]
fn gradients_equal_finite_differences() {
    let targets = some_targets(6, 5);
    let inputs = [random(&[2, 3, 4], 1), random(&[5, 4], 2)];
    check_gradients(|[x, weight]| linear_cross_entropy(x, weight, &targets, 2.0), inputs);
}

#[test]
fn only_what_is_tracked_gets_a_gradient() {
    let targets = some_targets(6, 5);
    check_gradients(|[x]| linear_cross_entropy(x, &random(&[5, 4], 2), &targets, 2.0), [random(&[6, 4], 1)]);
    check_gradients(|[weight]| linear_cross_entropy(&random(&[6, 4], 1), weight, &targets, 2.0), [random(&[5, 4], 2)]);
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (x, weight) = (random(&[300, 40], 1).tracked(), random(&[1003, 40], 2).tracked());
    let targets = some_targets(300, 1003);
    let on = |n_threads| {
        let pool = ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| {
            let loss = linear_cross_entropy(&x, &weight, &targets, 100.0);
            (loss.item(), loss.backward())
        })
    };
    let (loss, gradients) = on(1);
    for n_threads in [2, 3] {
        let (loss_n, gradients_n) = on(n_threads);
        assert_eq!(loss_n.to_bits(), loss.to_bits());
        for input in [&x, &weight] {
            assert_close(gradients_n.get(input).unwrap(), gradients.get(input).unwrap(), Tolerance::EXACT);
        }
    }
}

#[test]
fn no_rows_give_no_loss_and_zero_gradients() {
    let (x, weight) = (Tensor::zeros(&[0, 4], DType::F32).tracked(), random(&[5, 4], 2).tracked());
    let loss = linear_cross_entropy(&x, &weight, &Tensor::from_u32(&[0], vec![]), 1.0);
    assert_eq!(loss.item(), 0.0);
    assert_eq!(loss.backward().get(&weight).unwrap().f32s(), [0.0; 20]);
}

#[test]
#[should_panic(expected = "linear_cross_entropy: x is [2, 3], so the weight must be [_, 3], not [4, 5]")]
fn a_wrong_weight_names_both_shapes() {
    linear_cross_entropy(&random(&[2, 3], 1), &random(&[4, 5], 2), &Tensor::from_u32(&[2], vec![0, 0]), 1.0);
}

#[test]
#[should_panic(expected = "linear_cross_entropy: target 4 of row 1 is not one of 4 classes")]
fn a_target_that_is_no_class_is_named() {
    linear_cross_entropy(&random(&[2, 3], 1), &random(&[4, 3], 2), &Tensor::from_u32(&[2], vec![0, 4]), 1.0);
}
