use super::*;
use crate::cuda::{Graph, context};
use crate::fp8::scales;
use crate::ops::weighted_sum;
use crate::testing::{self, Tolerance, assert_close, fetched, placed, random, rounded};

/// The first GPU, if it has such products.
fn gpu() -> Option<Device> {
    let gpu = testing::gpu()?;
    let context = context(0).expect("it is open");
    if !context.has_fp8() {
        eprintln!("skipped: {} has no products in fp8", context.name());
        return None;
    }
    Some(gpu)
}

const FORMATS: [Fp8Format; 2] = [Fp8Format::E4m3, Fp8Format::E5m2];
const BOTH: Fp8Orders = Fp8Orders::BOTH;

/// `scale` times normal numbers that bf16 holds, with sizes that differ as those of gradients do.
fn numbers(shape: &[usize], stream: u64, scale: f32) -> Tensor {
    let (x, spread) = (random(shape, stream), random(shape, stream + 100));
    rounded(&Tensor::from_fn(shape, |i| scale * x.f32s()[i] * spread.f32s()[i].exp()), DType::Bf16)
}

/// A matrix of 8-bit numbers by the reference: codes, and what they stand for.
fn by_definition(x: &Tensor, format: Fp8Format) -> (Vec<u8>, Tensor) {
    let largest = x.f32s().iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    let [there, back] = scales(format, largest);
    let codes: Vec<u8> = x.f32s().iter().map(|x| format.encode(x * there)).collect();
    let numbers = Tensor::from_fn(x.shape(), |i| format.decode(codes[i]) * back);
    (codes, numbers)
}

fn transposed<T: Copy>(x: &[T], columns: usize) -> Vec<T> {
    let rows = x.len() / columns.max(1);
    (0..x.len()).map(|at| x[at % rows * columns + at / rows]).collect()
}

fn codes(matrix: &Option<Fp8Matrix>) -> Vec<u8> {
    matrix.as_ref().expect("asked for").codes.to_vec().expect("fetched")
}

#[test]
fn codes_and_factors_are_those_of_the_reference_in_both_orders() {
    let Some(gpu) = gpu() else { return };
    for [rows, columns] in [[16, 16], [128, 128], [16, 400], [400, 16], [144, 272], [1040, 48], [32, 4096], [640, 1536]]
    {
        for (stream, scale) in [(1, 1.0), (2, 3e-7), (3, 2e20)] {
            let x = numbers(&[rows, columns], stream, scale);
            for format in FORMATS {
                let found = fp8_quantise(&placed(&x, (gpu, DType::Bf16)), format, BOTH);
                let (expected, _) = by_definition(&x, format);
                let largest = x.f32s().iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
                let Fp8Quantised { plain, transposed: across } = &found;
                assert_eq!(plain.as_ref().unwrap().scale.item(), scales(format, largest)[1]);
                assert!(codes(plain) == expected, "{format} [{rows}, {columns}]");
                assert!(codes(across) == transposed(&expected, columns), "{format} [{rows}, {columns}], transposed");
            }
        }
    }
}

#[test]
fn one_order_alone_is_that_of_both() {
    let Some(gpu) = gpu() else { return };
    let x = placed(&numbers(&[80, 176], 1, 1.0), (gpu, DType::Bf16));
    let both = fp8_quantise(&x, Fp8Format::E4m3, BOTH);
    let plain = fp8_quantise(&x, Fp8Format::E4m3, Fp8Orders { transposed: false, ..BOTH });
    let across = fp8_quantise(&x, Fp8Format::E4m3, Fp8Orders { plain: false, ..BOTH });
    assert!(plain.transposed.is_none() && across.plain.is_none());
    assert_eq!(codes(&plain.plain), codes(&both.plain));
    assert_eq!(codes(&across.transposed), codes(&both.transposed));
}

#[test]
fn zeros_stay_zeros_and_what_is_not_finite_is_not_hidden() {
    let Some(gpu) = gpu() else { return };
    for format in FORMATS {
        let zeros = fp8_quantise(&Tensor::zeros_on(gpu, &[32, 48], DType::Bf16), format, BOTH);
        assert_eq!(codes(&zeros.plain), [0; 32 * 48]);
        assert!(zeros.plain.unwrap().scale.item().is_finite());
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let x = Tensor::from_fn(&[32, 48], |i| if i == 700 { bad } else { 1.0 });
            let x = fp8_quantise(&placed(&x, (gpu, DType::Bf16)), format, BOTH);
            assert!(!x.plain.as_ref().unwrap().scale.item().is_finite(), "{format} of {bad}");
        }
    }
}

/// `a·bᵀ` in f64.
fn product(a: &Tensor, b: &Tensor) -> Tensor {
    let ((_, k), (n, _)) = (a.rows(), b.rows());
    let (a_, b_) = (a.f32s(), b.f32s());
    Tensor::from_fn(&[a.rows().0, n], |at| {
        let (a, b) = (&a_[at / n * k..][..k], &b_[at % n * k..][..k]);
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>() as f32
    })
}

fn across(x: &Tensor) -> Tensor {
    let (rows, columns) = x.rows();
    Tensor::from_f32(&[columns, rows], transposed(x.f32s(), columns))
}

fn norm(x: impl Iterator<Item = f32>) -> f64 {
    x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

/// ‖x − y‖ / ‖y‖
fn distance(x: &Tensor, y: &Tensor) -> f64 {
    let (x, y) = (fetched(x), fetched(y));
    let pairs = x.f32s().iter().zip(y.f32s());
    norm(pairs.map(|(x, y)| x - y)) / norm(y.f32s().iter().copied())
}

/// x, weight, bias, dy of a layer.
fn inputs([n, i, o]: [usize; 3]) -> [Tensor; 4] {
    [
        numbers(&[n, i], 1, 0.5),
        numbers(&[o, i], 2, 0.5 / (i as f32).sqrt()),
        numbers(&[o], 3, 1.0),
        numbers(&[n, o], 4, 1.0 / (n.max(o) as f32).sqrt()),
    ]
}

/// y and the gradients of x, weight and bias.
fn run(host: &[Tensor; 4], bias: bool, gpu: Device) -> Vec<Tensor> {
    let [x, weight, bias_o] = [0, 1, 2].map(|at| placed(&host[at], (gpu, DType::Bf16)).tracked());
    let bias_o = bias.then_some(&bias_o);
    let quantised = Fp8Weight::new(&weight).expect("multiples of 16");
    let y = fp8_linear(&x, &weight, &quantised, bias_o);
    let gradients = weighted_sum(&y, &host[3]).backward();
    let of = |x: &Tensor| gradients.get(x).expect("a gradient").clone();
    [y.detached(), of(&x), of(&weight)].into_iter().chain(bias_o.map(of)).collect()
}

/// Half a step of bf16, relative.
const BF16_STEP: f32 = 1.0 / 256.0;

/// Tensor cores cut the terms of a sum of 8-bit numbers to 14 bits of the largest before they add 32 of them: the error of
/// a sum is a share of the sum of the terms' magnitudes, up to 1.3e-3 where this is computed bit by bit.
#[track_caller]
fn assert_sums_close(found: &Tensor, expected: &Tensor, magnitudes: &Tensor, relative: f32) {
    let found = fetched(found);
    for (at, (&found, &expected)) in found.f32s().iter().zip(expected.f32s()).enumerate() {
        let limit = magnitudes.f32s()[at] / 512.0 + relative * expected.abs() + 1e-6;
        assert!((found - expected).abs() <= limit, "element {at} is {found}, expected {expected} up to {limit}");
    }
}

#[test]
fn results_and_gradients_equal_those_of_the_rounded_numbers_and_are_near_those_in_f32() {
    let Some(gpu) = gpu() else { return };
    for shape in [[16, 16, 16], [128, 256, 64], [48, 144, 272], [512, 768, 320]] {
        let host = inputs(shape);
        let [x, weight, bias, dy] = &host;
        let [x8, weight8] = [x, weight].map(|x| by_definition(x, Fp8Format::E4m3).1);
        let dy8 = by_definition(dy, Fp8Format::E5m2).1;
        let exact = [product(x, weight), product(dy, &across(weight)), product(&across(dy), &across(x))];
        let expected = [product(&x8, &weight8), product(&dy8, &across(&weight8)), product(&across(&dy8), &across(&x8))];
        let [x8, weight8, dy8] = [x8, weight8, dy8].map(|x| Tensor::from_fn(x.shape(), |at| x.f32s()[at].abs()));
        let magnitudes =
            [product(&x8, &weight8), product(&dy8, &across(&weight8)), product(&across(&dy8), &across(&x8))];
        for with_bias in [false, true] {
            let found = run(&host, with_bias, gpu);
            let biased = |y: &Tensor| {
                let o = shape[2];
                let bias = |at| if with_bias { bias.f32s()[at % o] } else { 0.0 };
                Tensor::from_fn(y.shape(), |at| y.f32s()[at] + bias(at))
            };
            for at in 0..3 {
                let [expected, exact] =
                    [&expected[at], &exact[at]].map(|x| if at == 0 { biased(x) } else { x.clone() });
                assert_sums_close(&found[at], &expected, &magnitudes[at], if at == 0 { BF16_STEP } else { 0.0 });
                let distance = distance(&found[at], &exact);
                assert!(distance < [0.06, 0.1, 0.1][at], "{shape:?}, result {at}: {distance}");
            }
            if with_bias {
                let sums = Tensor::from_fn(&[shape[2]], |column| {
                    dy.f32s().iter().skip(column).step_by(shape[2]).map(|&x| f64::from(x)).sum::<f64>() as f32
                });
                assert_close(&found[3], &sums, Tolerance { absolute: 1e-4, relative: 1e-4 });
            }
        }
    }
}

#[test]
fn two_runs_have_the_same_bits() {
    let Some(gpu) = gpu() else { return };
    let host = inputs([272, 512, 1040]);
    for (a, b) in run(&host, true, gpu).iter().zip(&run(&host, true, gpu)) {
        assert_close(a, b, Tolerance::EXACT);
    }
}

#[test]
fn gradients_add_up_and_a_recorded_graph_repeats_them_bit_for_bit() {
    let Some(gpu) = gpu() else { return };
    let host = inputs([64, 96, 128]);
    let [x, weight, bias, dy] = host.each_ref().map(|x| placed(x, (gpu, DType::Bf16)));
    let (weight, bias) = (weight.tracked(), bias.tracked());
    let work = || {
        let mut gradients = crate::Gradients::new();
        let quantised = Fp8Weight::new(&weight).expect("multiples of 16");
        for _ in 0..2 {
            let y = fp8_linear(&x, &weight, &quantised, Some(&bias));
            crate::ops::pull_back(&y, &dy).backward_into(1.0, &mut gradients);
        }
        [&weight, &bias].map(|x| gradients.remove(x).expect("a gradient"))
    };
    let expected = work();
    let once = run(&host, true, gpu);
    let twice = |x: &Tensor| {
        let x = fetched(x);
        Tensor::from_fn(x.shape(), |at| 2.0 * x.f32s()[at])
    };
    for (twice_, once) in expected.iter().zip(&once[2..]) {
        assert_close(twice_, &twice(once), Tolerance { absolute: 1e-4, relative: 1e-4 });
    }
    let (graph, recorded) = Graph::record(&context(0).unwrap(), work).expect("recorded");
    for _ in 0..2 {
        graph.replay().expect("replayed");
        for (found, expected) in recorded.iter().zip(&expected) {
            assert_close(found, expected, Tolerance::EXACT);
        }
    }
}

#[test]
fn rows_that_are_no_multiple_of_16_are_computed_in_bf16() {
    let Some(gpu) = gpu() else { return };
    let [x, weight, bias, dy] = inputs([33, 64, 48]);
    let [x, weight, bias] = [x, weight, bias].map(|x| placed(&x, (gpu, DType::Bf16)).tracked());
    let quantised = Fp8Weight::new(&weight).expect("multiples of 16");
    let [found, expected] = [fp8_linear(&x, &weight, &quantised, Some(&bias)), linear(&x, &weight, Some(&bias))];
    assert_close(&found, &expected, Tolerance::EXACT);
    let [found, expected] = [found, expected].map(|y| weighted_sum(&y, &dy).backward());
    for x in [&x, &weight, &bias] {
        assert_close(found.get(x).unwrap(), expected.get(x).unwrap(), Tolerance::EXACT);
    }
}

#[test]
fn a_constant_weight_or_input_gets_no_gradient() {
    let Some(gpu) = gpu() else { return };
    let host = inputs([32, 64, 48]);
    let expected = run(&host, false, gpu);
    let [x, weight] = [0, 1].map(|at| placed(&host[at], (gpu, DType::Bf16)));
    let quantised = Fp8Weight::new(&weight).expect("multiples of 16");
    for tracked in 0..2 {
        let mut all = [&x, &weight].map(Tensor::detached);
        all[tracked] = all[tracked].tracked();
        let y = fp8_linear(&all[0], &all[1], &quantised, None);
        let gradients = weighted_sum(&y, &host[3]).backward();
        assert_close(gradients.get(&all[tracked]).unwrap(), &expected[1 + tracked], Tolerance::EXACT);
        assert!(gradients.get(&all[1 - tracked]).is_none());
    }
}

#[test]
fn weights_of_other_sizes_types_and_places_are_left_in_bf16() {
    assert!(Fp8Weight::new(&random(&[32, 32], 1)).is_none(), "on the CPU");
    let Some(gpu) = gpu() else { return };
    for (shape, dtype) in [([32, 24], DType::Bf16), ([8, 32], DType::Bf16), ([32, 32], DType::F32)] {
        assert!(Fp8Weight::new(&placed(&random(&shape, 1), (gpu, dtype))).is_none(), "{shape:?} of {dtype}");
    }
}
