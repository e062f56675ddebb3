use super::normal::{cos_sin_of_turn, ln};
use super::*;
use crate::testing::devices;

/// The known-answer vectors of the authors' distribution (Random123, kat_vectors).
#[test]
fn philox_gives_the_published_answers() {
    assert_eq!(philox([0; 2], [0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    assert_eq!(philox([u32::MAX; 2], [u32::MAX; 4]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
}

/// The distance in units in the last place of the exact value.
fn ulps(found: f32, exact: f64) -> f64 {
    let exponent = exact.abs().log2().floor().max(-126.0);
    (f64::from(found) - exact).abs() / (exponent - 23.0).exp2()
}

#[test]
fn the_logarithm_of_every_number_that_is_drawn_is_within_one_and_a_half_ulps() {
    assert_eq!(ln(1.0), 0.0);
    let worst = (1..1u32 << 24).map(|i| {
        let x = i as f32 / (1 << 24) as f32;
        ulps(ln(x), f64::from(x).ln())
    });
    let worst = worst.fold(0.0, f64::max);
    assert!(worst <= 1.5, "{worst}");
}

#[test]
fn cosine_and_sine_of_every_turn_that_is_drawn_are_within_two_ulps() {
    let eighth = 1 << 21;
    let mut worst = 0.0f64;
    for turn in 0..1u32 << 24 {
        let [cos, sin] = cos_sin_of_turn(turn);
        // Turned in integers, so that the exact values near a zero are exact too.
        let quarters = (turn + eighth) >> 22;
        let rest = f64::from(turn as i32 - (quarters << 22) as i32) / f64::from(1 << 24) * std::f64::consts::TAU;
        let (s, c) = rest.sin_cos();
        let [exact_cos, exact_sin] = [[c, s], [-s, c], [-c, -s], [s, -c]][quarters as usize % 4];
        if turn % (1 << 22) != 0 {
            worst = worst.max(ulps(cos, exact_cos)).max(ulps(sin, exact_sin));
        } else {
            assert_eq!((f64::from(cos), f64::from(sin)), (exact_cos, exact_sin), "{quarters} quarter turns");
        }
    }
    assert!(worst <= 2.0, "{worst}");
}

#[test]
fn normal_numbers_have_the_moments_and_tails_asked_for() {
    let x = Rng::new(1, 2).normal(&[1 << 22], 0.5);
    let n = x.len() as f64;
    let moment = |power: i32| x.f32s().iter().map(|&x| f64::from(2.0 * x).powi(power)).sum::<f64>() / n;
    // Of N(0, 1): the variance of the k-th sample moment is (E x^2k − (E x^k)²)/n.
    for (power, exact, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
        let (found, allowed) = (moment(power), 5.0 * f64::sqrt(variance / n));
        assert!((found - exact).abs() < allowed, "moment {power}: {found}");
    }
    // P(|z| > t) = erfc(t/√2).
    for (t, p) in [(1.0, 0.317_310_5), (2.0, 0.045_500_26), (3.0, 0.002_699_796), (4.0, 6.334_25e-5)] {
        let beyond = x.f32s().iter().filter(|x| (2.0 * x.abs()) > t).count() as f64 / n;
        assert!((beyond - p).abs() < 5.0 * f64::sqrt(p / n), "beyond {t}: {beyond}");
    }
    let largest = x.f32s().iter().fold(0.0f32, |m, x| m.max(2.0 * x.abs()));
    assert!(largest < 5.77, "√(48 ln 2) is the end: {largest}");
}

#[test]
fn truncated_numbers_stay_inside_the_cut_and_keep_their_spread() {
    let x = Rng::new(7, 0).truncated_normal(&[1 << 16], 2.0, 3.0);
    assert!(x.f32s().iter().all(|x| x.abs() <= 6.0));
    let variance = x.f32s().iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / x.len() as f64;
    // Var of N(0,1) cut at ±3: 1 − 2·3·φ(3)/(2Φ(3) − 1) = 0.97334.
    assert!((variance / 4.0 - 0.97334).abs() < 0.02, "{variance}");
}

#[test]
fn streams_and_seeds_differ_and_repeat() {
    let draw = |seed, stream| Rng::new(seed, stream).normal(&[64], 1.0).f32s().to_vec();
    assert_eq!(draw(1, 1), draw(1, 1));
    assert_ne!(draw(1, 1), draw(1, 2));
    assert_ne!(draw(1, 1), draw(2, 1));
}

/// Keys and streams of all bits, and counters that carry into their upper word and around.
fn corners() -> impl Iterator<Item = (Rng, u64)> {
    let rngs = [Rng::new(0, 0), Rng::new(1337, 3), Rng::new(u64::MAX - 5, (7 << 40) + 9)];
    let firsts = [0, (1 << 32) - 7, (1 << 40) - 1, u64::MAX - 11];
    rngs.into_iter().flat_map(move |rng| firsts.map(|first| (rng.clone(), first)))
}

const LAWS: [Law; 4] = [
    Law::Normal { std: 1.0 },
    Law::Normal { std: 0.02 },
    Law::Truncated { std: 0.3, cut: 3.0 },
    // Most attempts fail.
    Law::Truncated { std: 1.0, cut: 0.1 },
];

/// One number after another, as the definitions say.
fn reference(rng: &Rng, law: Law, first: u64, n: usize) -> Vec<f32> {
    let normal = |i: usize, std: f32| {
        let [a, b, c, d] = rng.block(first.wrapping_add(i as u64 / 4));
        let [z0, z1, z2, z3] = [box_muller(a, b), box_muller(c, d)].concat().try_into().expect("four numbers");
        [z0, z1, z2, z3][i % 4] * std
    };
    (0..n)
        .map(|i| match law {
            Law::Normal { std } => normal(i, std),
            Law::Truncated { std, cut } => std * rng.truncated(cut, first.wrapping_add(i as u64)),
        })
        .collect()
}

#[test]
fn every_device_draws_the_same_bits() {
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    for device in devices() {
        for (rng, first) in corners() {
            for law in LAWS {
                for n in [0, 1, 3, 4, 5, 17, 255, 256, 257, 1023, 20_001] {
                    let found = rng.drawn(device, &[n], law, first).to(Device::Cpu);
                    let expected = reference(&rng, law, first, n);
                    assert!(bits(found.f32s()) == bits(&expected), "{law:?} × {n} from {first} on {device}");
                }
            }
        }
        // Every value of both words of a pair, nearly.
        let [large, expected] = [device, Device::Cpu].map(|device| Rng::new(5, 5).normal_on(device, &[1 << 24], 1.0));
        assert!(bits(large.to(Device::Cpu).f32s()) == bits(expected.f32s()), "16 million on {device}");
    }
}

#[test]
fn the_numbers_of_a_seed_never_change() {
    let hash = |x: Tensor| {
        let bytes = x.f32s().iter().flat_map(|x| x.to_bits().to_le_bytes());
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
    };
    let rng = Rng::new(1337, 42);
    assert_eq!(hash(rng.normal(&[5000], 0.02)), 0x9f6f_3606_9866_ef34);
    assert_eq!(hash(rng.truncated_normal(&[5000], 1.0, 3.0)), 0x24ce_7227_f49e_6035);
    assert_eq!(hash(rng.uniform_tensor(&[5000], -1.0, 1.0)), 0xd26f_5862_429a_b36c);
}
