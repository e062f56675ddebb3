use rayon::ThreadPoolBuilder;

use super::*;
use crate::testing::random;

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
