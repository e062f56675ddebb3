use rayon::ThreadPoolBuilder;

use super::*;
use crate::testing::{Tolerance, assert_close, cases, devices, fetched, placed, random, rounded};

#[test]
fn it_equals_the_sum_in_order() {
    for n in [0, 1, 3, 17, 1000, 100_003] {
        let x = random(&[n], 1);
        let expected: f64 = x.f32s().iter().map(|&x| f64::from(x).powi(2)).sum();
        let found = sum_of_squares(&x);
        assert!((found - expected).abs() <= 1e-12 * expected, "{n}: {found}, expected {expected}");
    }
}

#[test]
fn squares_beyond_f32_do_not_overflow() {
    assert_eq!(sum_of_squares(&Tensor::full(&[20], 1e30)) as f32, (20.0 * f64::from(1e30f32).powi(2)) as f32);
    assert!(sum_of_squares(&Tensor::full(&[20], 1e30)).is_finite());
}

#[test]
fn what_is_not_finite_shows() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut x = random(&[40_000], 1);
        x.f32s_mut()[33_333] = bad;
        assert!(!sum_of_squares(&x).is_finite());
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let x = random(&[100_003], 1);
    let on = |n_threads| {
        let pool = ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| sum_of_squares(&x))
    };
    assert_eq!(on(2).to_bits(), on(1).to_bits());
    assert_eq!(on(3).to_bits(), on(1).to_bits());
}

#[test]
fn scaling_multiplies_every_element() {
    for n in [0, 1, 17, 40_000] {
        let x = random(&[n], 1);
        let mut scaled = Tensor::from_f32(&[n], x.f32s().to_vec());
        scale_in_place(&mut scaled, -0.3);
        assert!(scaled.f32s().iter().zip(x.f32s()).all(|(scaled, x)| *scaled == -0.3 * x));
    }
}

#[test]
fn the_norm_over_many_tensors_equals_the_definition_on_every_device() {
    // More tensors than one launch takes, empty ones, whole and broken chunks.
    let mut lengths = vec![8192, 0, 1, 3, 8191, 8193, 100_003, 16_384];
    lengths.extend((0..330).map(|i| i % 7 * 13));
    let tensors: Vec<Tensor> = lengths.iter().zip(0..).map(|(&n, stream)| random(&[n], stream)).collect();
    let squares = tensors.iter().flat_map(|x| x.f32s()).map(|&x| f64::from(x).powi(2));
    let expected = Tensor::from_f32(&[], vec![squares.sum::<f64>().sqrt() as f32]);
    for device in devices() {
        let placed: Vec<Tensor> = tensors.iter().map(|x| x.to(device)).collect();
        let found = global_norm(&placed.iter().collect::<Vec<_>>());
        assert_eq!(found.device(), device);
        assert_close(&found, &expected, Tolerance { absolute: 0.0, relative: 1e-6 });
        let again = global_norm(&placed.iter().collect::<Vec<_>>());
        assert_close(&again, &found, Tolerance::EXACT);
    }
}

#[test]
fn one_element_that_is_not_finite_shows_in_the_norm_on_every_device() {
    for device in devices() {
        for (bad, at) in [(f32::NAN, 0), (f32::INFINITY, 20_000), (f32::NEG_INFINITY, 9000)] {
            let mut x = random(&[20_001], 1);
            x.f32s_mut()[at] = bad;
            let [good, x] = [random(&[40], 2), x].map(|x| x.to(device));
            assert!(!global_norm(&[&good, &x]).item().is_finite(), "{bad} at {at} on {device}");
            assert!(global_norm(&[&good]).item().is_finite());
        }
    }
}

#[test]
fn the_norm_of_nothing_is_zero() {
    assert_eq!(global_norm(&[]).item(), 0.0);
    for device in devices() {
        let empty = random(&[0, 4], 1).to(device);
        assert_eq!(global_norm(&[&empty, &empty]).item(), 0.0);
    }
}

#[test]
fn scaling_rounds_once_on_every_device() {
    for case @ (_, dtype) in cases() {
        for n in [0, 1, 7, 8, 17, 1000, 100_003] {
            let x = rounded(&random(&[n], 1), dtype);
            let expected = Tensor::from_f32(&[n], x.f32s().iter().map(|x| -0.3 * x).collect());
            let mut scaled = placed(&Tensor::copied_from(&[n], x.f32s()), case);
            drop(x);
            scale_in_place(&mut scaled, -0.3);
            assert_close(&fetched(&scaled), &rounded(&expected, dtype), Tolerance::EXACT);
        }
    }
}
