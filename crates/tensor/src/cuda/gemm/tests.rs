use super::*;
use crate::cuda::blas::{Epilogue, Matrix, MatrixMut, Product, matmul_tiled};
use crate::testing::{Tolerance, assert_close, cases, fetched, placed, random, rounded};

/// The GPU, if it is a Hopper.
fn hopper() -> Option<Device> {
    let found = cases().into_iter().map(|(device, _)| device).find(|device| *device != Device::Cpu);
    let found = found.filter(|device| placed(&random(&[1], 1), (*device, DType::F32)).cuda().arch() == Arch::Sm90a);
    if found.is_none() {
        eprintln!("skipped: no Hopper GPU here");
    }
    found
}

/// Every tiling, and one whose sums are split.
fn tilings() -> Vec<Tiling> {
    Tiling::ALL.into_iter().chain([Tiling::ALL[0].split(3)]).collect()
}

/// Small, one tile with edges, several tiles with a ring of operands that is gone round twice.
const SIZES: [[usize; 3]; 4] = [[1, 16, 8], [72, 144, 200], [200, 272, 136], [520, 784, 1096]];

fn transposed(x: &Tensor) -> Tensor {
    let (n, d) = x.rows();
    Tensor::from_fn(&[d, n], |at| x.f32s()[at % n * d + at / n])
}

/// Operands of one product `[m, k]·[n, k]ᵀ`, and its sums in f64.
struct Operands {
    x: Tensor,
    w: Tensor,
    sums: Vec<f64>,
}

impl Operands {
    fn new([m, n, k]: [usize; 3]) -> Self {
        let scale = 1.0 / (k as f32).sqrt();
        let w = random(&[n, k], 2);
        let x = rounded(&random(&[m, k], 1), DType::Bf16);
        let w = rounded(&Tensor::from_fn(&[n, k], |i| scale * w.f32s()[i]), DType::Bf16);
        let mut sums = Vec::with_capacity(m * n);
        for x in x.f32s().chunks_exact(k) {
            for w in w.f32s().chunks_exact(k) {
                sums.push(x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum());
            }
        }
        Self { x, w, sums }
    }

    fn expected(&self, shape: &[usize], f: impl Fn(usize) -> f64) -> Tensor {
        Tensor::from_fn(shape, |i| f(i) as f32)
    }
}

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + (0.797_884_560_8 * (x + 0.044_715 * x.powi(3))).tanh())
}

fn gelu_derivative(x: f64) -> f64 {
    (gelu(x + 1e-5) - gelu(x - 1e-5)) / 2e-5
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

fn silu_derivative(x: f64) -> f64 {
    let s = 1.0 / (1.0 + (-x).exp());
    s * (1.0 + x * (1.0 - s))
}

const BF16: Tolerance = Tolerance { absolute: 1.5e-2, relative: 1e-2 };

#[test]
fn products_in_every_order_equal_the_definition_and_are_the_same_twice() {
    let Some(device) = hopper() else { return };
    for size @ [m, n, k] in SIZES {
        let operands = Operands::new(size);
        let place = |x: &Tensor| placed(x, (device, DType::Bf16));
        let [x, w] = [&operands.x, &operands.w].map(place);
        let [x_t, w_t] = [&operands.x, &operands.w].map(|x| place(&transposed(x)));
        let old = random(&[m, n], 3);
        for tiling in tilings() {
            for (a_columns, b_columns, output, beta) in [
                (false, false, DType::Bf16, 0.0),
                (false, true, DType::Bf16, 0.0),
                (true, true, DType::F32, 0.0),
                (true, true, DType::F32, 1.0),
            ] {
                // Rows of an operand may begin at any multiple of 8.
                if a_columns && !m.is_multiple_of(8) {
                    continue;
                }
                let run = || {
                    let mut out = match beta {
                        0.0 => placed(&Tensor::full(&[m, n], f32::NAN), (device, output)),
                        _ => placed(&old, (device, output)),
                    };
                    let a = if a_columns { Matrix::of(&x_t).transposed() } else { Matrix::of(&x) };
                    let b = if b_columns { Matrix::of(&w_t) } else { Matrix::of(&w).transposed() };
                    let product =
                        Product { m, n, k, a, b, out: MatrixMut::of(&mut out), beta, epilogue: Epilogue::None };
                    assert!(matmul_tiled(product, &tiling, true));
                    out
                };
                let (found, again) = (run(), run());
                let expected =
                    operands.expected(&[m, n], |i| operands.sums[i] + f64::from(beta) * f64::from(old.f32s()[i]));
                let tolerance = match output {
                    DType::Bf16 => BF16,
                    _ => Tolerance { absolute: 1e-4, relative: 1e-5 },
                };
                assert_close(&found, &expected, tolerance);
                assert_close(&found, &again, Tolerance::EXACT);
            }
        }
    }
}

#[test]
fn epilogues_equal_their_definitions() {
    let Some(device) = hopper() else { return };
    for size @ [m, n, k] in SIZES {
        let operands = Operands::new(size);
        let sums = &operands.sums;
        let place = |x: &Tensor| placed(x, (device, DType::Bf16));
        let [x, w, w_t] = [&operands.x, &operands.w, &transposed(&operands.w)].map(place);
        let bias = rounded(&random(&[n], 4), DType::Bf16);
        let given = rounded(&random(&[m, n], 5), DType::Bf16);
        let given_pair = rounded(&random(&[m, 2 * n], 6), DType::Bf16);
        let [bias_, given_, given_pair_] = [&bias, &given, &given_pair].map(place);
        let with_bias = |i: usize| sums[i] + f64::from(bias.f32s()[i % n]);
        let empty = |columns: usize| placed(&Tensor::full(&[m, columns], f32::NAN), (device, DType::Bf16));
        for tiling in tilings() {
            let run = |out: &mut Tensor, by_columns: bool, epilogue: Epilogue<'_>| {
                let b = if by_columns { Matrix::of(&w_t) } else { Matrix::of(&w).transposed() };
                let out = MatrixMut::of(out);
                assert!(matmul_tiled(
                    Product { m, n, k, a: Matrix::of(&x), b, out, beta: 0.0, epilogue },
                    &tiling,
                    true
                ));
            };
            let mut out = empty(n);
            run(&mut out, false, Epilogue::Bias(&bias_));
            assert_close(&out, &operands.expected(&[m, n], with_bias), BF16);

            let (mut out, mut kept) = (empty(n), empty(n));
            run(&mut out, false, Epilogue::Gelu { bias: Some(&bias_), pre_activation: Some(&mut kept) });
            assert_close(&kept, &operands.expected(&[m, n], with_bias), BF16);
            assert_close(&out, &operands.expected(&[m, n], |i| gelu(with_bias(i))), BF16);

            let f = n / 2;
            let (mut out, mut kept) = (empty(f), empty(n));
            run(&mut out, false, Epilogue::SwiGlu { gate_up: Some(&mut kept) });
            assert_close(&kept, &operands.expected(&[m, n], |i| sums[i]), BF16);
            let gated = |i: usize| silu(sums[i / f * n + i % f]) * sums[i / f * n + f + i % f];
            assert_close(&out, &operands.expected(&[m, f], gated), Tolerance { absolute: 2e-2, relative: 2e-2 });
            let mut without_kept = empty(f);
            run(&mut without_kept, false, Epilogue::SwiGlu { gate_up: None });
            assert_close(&without_kept, &out, Tolerance::EXACT);

            let mut out = empty(n);
            let mut column_sums = placed(&Tensor::full(&[n], f32::NAN), (device, DType::Bf16));
            let epilogue = Epilogue::GeluGradient { pre_activation: &given_, column_sums: Some(&mut column_sums) };
            run(&mut out, true, epilogue);
            let expected = operands.expected(&[m, n], |i| sums[i] * gelu_derivative(f64::from(given.f32s()[i])));
            assert_close(&out, &expected, BF16);
            let out = fetched(&out);
            let sum = |column: usize| (0..m).map(|row| f64::from(out.f32s()[row * n + column])).sum::<f64>();
            assert_close(&column_sums, &operands.expected(&[n], sum), Tolerance { absolute: 1e-2, relative: 1e-2 });

            let mut out = empty(2 * n);
            run(&mut out, true, Epilogue::SwiGluGradient { gate_up: &given_pair_ });
            let pair = |i: usize| {
                let (row, column) = (i / (2 * n), i % (2 * n) % n);
                let given = |half: usize| f64::from(given_pair.f32s()[row * 2 * n + half * n + column]);
                let dy = sums[row * n + column];
                if i % (2 * n) < n { dy * given(1) * silu_derivative(given(0)) } else { dy * silu(given(0)) }
            };
            assert_close(&out, &operands.expected(&[m, 2 * n], pair), BF16);
        }
    }
}
