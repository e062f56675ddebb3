use rayon::ThreadPoolBuilder;
use rayon::prelude::*;

use super::*;
use crate::testing::{
    Golden, Tolerance, assert_close, cases, check_gradients, devices, fetched, placed, random, rounded,
};

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
    let losses: Vec<f64> = logits.f32s().par_chunks_exact(v).zip(targets).map(row).collect();
    losses.iter().sum::<f64>() / f64::from(divisor)
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
    for device in devices() {
        let logits = golden.get("logits").to(device).tracked();
        let loss = cross_entropy(&logits, &targets.to(device), 7.0);
        assert_close(&loss, &golden.get("loss"), Tolerance { absolute: 0.0, relative: 1e-6 });
        let dlogits = loss.backward().remove(&logits).unwrap();
        assert_close(&dlogits, &golden.get("dlogits"), Tolerance { absolute: 1e-7, relative: 1e-5 });
    }
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

/// The gradient by definition, in f64.
fn gradient_by_definition(logits: &Tensor, targets: &[u32], scale: f64) -> Tensor {
    let (_, v) = logits.rows();
    let mut dlogits = vec![0.0; logits.len()];
    let rows = dlogits.par_chunks_exact_mut(v).zip(logits.f32s().par_chunks_exact(v)).zip(targets);
    rows.filter(|(_, target)| **target != IGNORED).for_each(|((dlogits, logits), &target)| {
        let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum: f64 = logits.iter().map(|&x| (f64::from(x) - max).exp()).sum();
        for ((dlogits, &x), class) in dlogits.iter_mut().zip(logits).zip(0..) {
            let one = f64::from(u8::from(class == target));
            *dlogits = (scale * ((f64::from(x) - max).exp() / sum - one)) as f32;
        }
    });
    Tensor::from_f32(logits.shape(), dlogits)
}

/// Rows shorter than a warp, of every alignment, of several blocks per multiprocessor, more of them than all blocks take at
/// a time; rows that are longer than shared memory. Each width is a kernel that takes half a second to compile.
const SHAPES: [(usize, usize); 9] =
    [(1, 1), (3, 17), (0, 40), (20_000, 40), (700, 1004), (300, 2050), (7, 20_000), (300, 50_304), (2, 152_063)];

#[test]
fn every_device_equals_the_definition() {
    for case @ (device, dtype) in cases() {
        for (n, v) in SHAPES.into_iter().filter(|(n, v)| device != Device::Cpu || n * v < 1 << 20) {
            let few = random(&[n, v.min(2003)], 1); // repeated: 20 million random numbers take long
            let logits = Tensor::from_fn(&[n, v], |i| few.f32s()[i % few.len()] * (1.0 + (i % v) as f32 / v as f32));
            let (logits, targets) = (rounded(&logits, dtype), some_targets(n, v));
            let expected = by_definition(&logits, targets.u32s(), 3.0);
            let placed_targets = targets.to(device);
            let tracked = placed(&logits, case).tracked();
            let loss = cross_entropy(&tracked, &placed_targets, 3.0);
            let found = f64::from(loss.item());
            assert!((found - expected).abs() <= 2e-6 * (1.0 + expected), "[{n}, {v}]: {found}, expected {expected}");

            let mut gradients = crate::Gradients::new();
            loss.backward_into(-0.5, &mut gradients);
            let expected_dlogits = gradient_by_definition(&logits, targets.u32s(), -0.5 / 3.0);
            let tolerance = Tolerance { absolute: 1e-7, relative: 1e-5 };
            assert_close(gradients.get(&tracked).unwrap(), &expected_dlogits, tolerance);

            let mut in_place = Tensor::copied_from(&[n, v], logits.f32s());
            if device != Device::Cpu {
                in_place = placed(&in_place, case);
            }
            let losses = cross_entropy_in_place(&mut in_place, &placed_targets, 3.0);
            let found = fetched(&losses).f32s().iter().map(|&x| f64::from(x)).sum::<f64>() / 3.0;
            assert!((found - expected).abs() <= 2e-6 * (1.0 + expected), "[{n}, {v}]: {found}, expected {expected}");
            let expected_dlogits = gradient_by_definition(&logits, targets.u32s(), 1.0 / 3.0);
            let relative = if dtype == DType::Bf16 { 4e-3 } else { 1e-5 };
            assert_close(&in_place, &expected_dlogits, Tolerance { absolute: 1e-7, relative });
        }
    }
}

#[test]
fn two_passes_on_a_device_give_the_same_bits() {
    for case @ (device, _) in cases() {
        let (logits, targets) = (placed(&random(&[300, 2050], 1), case).tracked(), some_targets(300, 2050).to(device));
        let pass = || {
            let loss = cross_entropy(&logits, &targets, 100.0);
            (loss.item().to_bits(), loss.backward().remove(&logits).unwrap())
        };
        let (first, second) = (pass(), pass());
        assert_eq!(first.0, second.0);
        assert_close(&first.1, &second.1, Tolerance::EXACT);
    }
}

#[test]
fn what_is_not_finite_shows_in_loss_and_gradient_on_every_device() {
    for case @ (device, _) in cases() {
        for (bad, at) in [(f32::NAN, 2000), (f32::INFINITY, 0), (f32::NEG_INFINITY, 7)] {
            let mut logits = random(&[2, 2050], 1);
            logits.f32s_mut()[at] = bad;
            let logits = placed(&logits, case).tracked();
            let loss = cross_entropy(&logits, &Tensor::from_u32(&[2], vec![7, 5]).to(device), 1.0);
            assert!(!loss.item().is_finite(), "{bad} at {at} on {device}");
            let dlogits = fetched(loss.backward().get(&logits).unwrap());
            assert!(!dlogits.f32s()[..2050].iter().all(|x| x.is_finite()), "{bad} at {at} on {device}");
            assert!(dlogits.f32s()[2050..].iter().all(|x| x.is_finite()), "the other row has nothing to do with it");
        }
    }
}

#[test]
fn on_a_gpu_a_target_that_is_no_class_makes_loss_and_row_nan() {
    for case @ (device, _) in cases().into_iter().filter(|(device, _)| *device != Device::Cpu) {
        let logits = placed(&random(&[2, 33], 1), case).tracked();
        let loss = cross_entropy(&logits, &Tensor::from_u32(&[2], vec![33, 5]).to(device), 1.0);
        assert!(loss.item().is_nan());
        let dlogits = fetched(loss.backward().get(&logits).unwrap());
        assert!(dlogits.f32s()[..33].iter().all(|x| x.is_nan()) && dlogits.f32s()[33..].iter().all(|x| x.is_finite()));
    }
}

#[test]
fn the_gradient_equals_finite_differences() {
    let targets = some_targets(6, 5);
    check_gradients(|[logits]| cross_entropy(logits, &targets, 2.0), [random(&[2, 3, 5], 1)]);
}

#[test]
fn large_logits_do_not_overflow() {
    for device in devices() {
        let logits = Tensor::from_f32(&[2, 3], vec![1e4, 0.0, -1e4, 3e38, -3e38, 0.0]).to(device).tracked();
        let loss = cross_entropy(&logits, &Tensor::from_u32(&[2], vec![1, 0]).to(device), 1.0);
        assert_eq!(loss.item(), 1e4);
        let dlogits = fetched(loss.backward().get(&logits).unwrap());
        assert_eq!(dlogits.f32s(), [1.0, -1.0, 0.0, 0.0, 0.0, 0.0]);
    }
}

#[test]
fn if_all_targets_are_ignored_loss_and_gradient_are_zero() {
    for case @ (device, _) in cases() {
        let logits = placed(&Tensor::full(&[3, 4], f32::NAN), case).tracked();
        let loss = cross_entropy(&logits, &Tensor::from_u32(&[3], vec![IGNORED; 3]).to(device), 1.0);
        assert_eq!(loss.item(), 0.0);
        assert_eq!(fetched(loss.backward().get(&logits).unwrap()).f32s(), [0.0; 12]);
    }
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
