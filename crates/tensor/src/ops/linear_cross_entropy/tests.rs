use rayon::ThreadPoolBuilder;

use super::*;
use crate::ops::{IGNORED, add, cross_entropy, linear};
use crate::testing::{Golden, Tolerance, assert_close, cases, check_gradients, devices, placed, random, rounded};
use crate::{DType, Gradients};

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
    for device in devices() {
        let [x, weight] = ["x", "weight"].map(|name| golden.get(name).to(device).tracked());
        let loss = linear_cross_entropy(&x, &weight, &targets.to(device), 7.0);
        assert_close(&loss, &golden.get("loss"), Tolerance { absolute: 0.0, relative: 1e-6 });
        let gradients = loss.backward();
        assert_close(gradients.get(&x).unwrap(), &golden.get("dx"), Tolerance::of(DType::F32));
        assert_close(gradients.get(&weight).unwrap(), &golden.get("dweight"), Tolerance::of(DType::F32));
    }
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
fn every_device_and_dtype_equals_f32_on_the_cpu() {
    let shapes = [(1, 1, 1), (3, 17, 5), (100, 3, 1000), (600, 24, 33), (130, 64, 5003)];
    for case @ (device, dtype) in cases().into_iter().filter(|case| *case != (Device::Cpu, DType::F32)) {
        for (n, d, v) in shapes {
            let random_weights = random(&[v, d], 2);
            // Logits of the size of 1: those of bf16 are wrong by up to 0.016 then, and so is a probability's share of itself.
            let weight = Tensor::from_fn(&[v, d], |i| random_weights.f32s()[i] / (d as f32).sqrt());
            let (x, weight) = (rounded(&random(&[n, d], 1), dtype), rounded(&weight, dtype));
            let targets = some_targets(n, v);
            let pass = |x: &Tensor, weight: &Tensor, targets: &Tensor, scale: f32| {
                let (x, weight) = (x.tracked(), weight.tracked());
                let loss = linear_cross_entropy(&x, &weight, targets, n as f32);
                let mut gradients = Gradients::new();
                loss.backward_into(scale, &mut gradients);
                [loss.detached(), gradients.remove(&x).unwrap(), gradients.remove(&weight).unwrap()]
            };
            let (placed_x, placed_weight, placed_targets) =
                (placed(&x, case), placed(&weight, case), targets.to(device));
            let loss_tolerance = match dtype {
                DType::Bf16 => Tolerance { absolute: 2e-3, relative: 2e-3 },
                _ => Tolerance { absolute: 1e-6, relative: 2e-6 },
            };
            for scale in [1.0, 0.5] {
                let expected = pass(&x, &weight, &targets, scale);
                let found = pass(&placed_x, &placed_weight, &placed_targets, scale);
                assert_close(&found[0], &expected[0], loss_tolerance);
                for i in [1, 2] {
                    let largest = expected[i].f32s().iter().fold(0.0f32, |m, x| m.max(x.abs()));
                    let (absolute, relative) = if dtype == DType::Bf16 { (4e-3, 2e-2) } else { (1e-5, 0.0) };
                    assert_close(&found[i], &expected[i], Tolerance { absolute: largest * absolute, relative });
                }
                let again = pass(&placed_x, &placed_weight, &placed_targets, scale);
                for (found, again) in found.iter().zip(&again) {
                    assert_close(again, found, Tolerance::EXACT);
                }
            }
            let untracked = linear_cross_entropy(&placed_x, &placed_weight, &placed_targets, n as f32);
            let expected = linear_cross_entropy(&x, &weight, &targets, n as f32);
            assert_close(&untracked, &expected, loss_tolerance);
        }
    }
}

#[test]
fn the_size_of_chunks_on_a_gpu_changes_results_by_rounding_alone() {
    for case @ (device, dtype) in cases().into_iter().filter(|(device, _)| *device != Device::Cpu) {
        let (n, d, v) = (100, 40, 1003);
        let (x, weight) = (placed(&random(&[n, d], 1), case), placed(&random(&[v, d], 2), case));
        let targets = some_targets(n, v).to(device);
        let pass = |rows_per_chunk| {
            let mut dx = Tensor::unspecified_on(device, &[n, d], dtype);
            let mut dweight = Tensor::unspecified_on(device, &[v, d], DType::F32);
            let gradients = cuda::Gradients { dx: Some(&mut dx), dweight: Some(&mut dweight) };
            let loss = cuda::loss_and_gradients(&x, &weight, &targets, gradients, 2.0, rows_per_chunk);
            [loss, dx, dweight]
        };
        for (found, expected) in pass(33).iter().zip(&pass(n)) {
            let absolute = if dtype == DType::Bf16 { 1e-2 } else { 1e-5 };
            assert_close(found, expected, Tolerance { absolute, relative: absolute });
        }
    }
}

#[test]
fn chunks_of_a_gpu_fit_in_a_gibibyte_of_bf16() {
    let rows = |v| logits_chunk_rows(v, DType::Bf16, Device::Cuda(0));
    assert_eq!((rows(50_304), rows(32_000), rows(151_936)), (8192, 16_384, 2048));
    assert_eq!((rows(1 << 29), rows(1 << 40)), (1, 1));
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
    for case @ (device, dtype) in cases() {
        let x = Tensor::zeros_on(device, &[0, 4], dtype).tracked();
        let weight = placed(&random(&[5, 4], 2), case).tracked();
        let loss = linear_cross_entropy(&x, &weight, &Tensor::from_u32(&[0], vec![]).to(device), 1.0);
        assert_eq!(loss.item(), 0.0);
        assert_close(loss.backward().get(&weight).unwrap(), &Tensor::full(&[5, 4], 0.0), Tolerance::EXACT);
    }
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
