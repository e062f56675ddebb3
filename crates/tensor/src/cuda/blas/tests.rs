use super::*;
use crate::cuda::Graph;
use crate::testing::{Tolerance, assert_close, cases, placed, random, rounded};
use crate::{DType, Device};

/// The GPU's cases; none on a machine without one.
fn gpu_cases() -> Vec<(Device, DType)> {
    let found: Vec<_> = cases().into_iter().filter(|(device, _)| *device != Device::Cpu).collect();
    if found.is_empty() {
        eprintln!("skipped: no GPU here");
    }
    found
}

/// The elements of a product, in f64, of `[m, k]` and `[k, n]` as they are once transposed.
fn by_definition(a: impl Fn(usize, usize) -> f32, b: impl Fn(usize, usize) -> f32, [m, n, k]: [usize; 3]) -> Tensor {
    let element = |row: usize, column: usize| -> f64 {
        (0..k).map(|term| f64::from(a(row, term)) * f64::from(b(term, column))).sum()
    };
    Tensor::from_fn(&[m, n], |at| element(at / n, at % n) as f32)
}

/// A matrix `[rows, columns]` inside a larger tensor, `before` elements from its start, rows `gap` elements apart.
struct Inside {
    tensor: Tensor,
    offset: usize,
    stride: usize,
    transposed: bool,
}

impl Inside {
    /// What is `[rows, columns]` once transposed.
    fn new(
        [rows, columns]: [usize; 2],
        transposed: bool,
        [before, gap]: [usize; 2],
        stream: u64,
        dtype: DType,
    ) -> Self {
        let (rows, columns) = if transposed { (columns, rows) } else { (rows, columns) };
        let stride = columns + gap;
        let tensor = rounded(&random(&[before + rows * stride], stream), dtype);
        Self { tensor, offset: before, stride, transposed }
    }

    fn at(&self, row: usize, column: usize) -> f32 {
        let (row, column) = if self.transposed { (column, row) } else { (row, column) };
        self.tensor.f32s()[self.offset + row * self.stride + column]
    }
}

#[test]
fn products_of_every_shape_order_and_stride_equal_the_definition() {
    for case @ (device, dtype) in gpu_cases() {
        for (size, gaps) in [
            ([1, 1, 1], [0, 0]),
            ([3, 5, 7], [1, 2]),
            ([64, 128, 32], [0, 0]),
            ([64, 128, 32], [8, 8]),
            ([33, 1, 200], [0, 0]),
            ([1, 65, 300], [16, 0]),
            ([130, 24, 17], [3, 1]),
        ] {
            let [m, n, k] = size;
            for order in 0..4 {
                let a = Inside::new([m, k], order & 1 != 0, gaps, 1, dtype);
                let b = Inside::new([k, n], order & 2 != 0, gaps, 2, dtype);
                let (a_, b_) = (placed(&a.tensor, case), placed(&b.tensor, case));
                for output in [DType::F32, dtype] {
                    for beta in [0.0, 1.0] {
                        let old = rounded(&random(&[gaps[0] + m * (n + gaps[1])], 3), output);
                        let mut out = placed(&old, (device, output));
                        matmul(Product {
                            m,
                            n,
                            k,
                            a: Matrix { tensor: &a_, offset: a.offset, stride: a.stride, transposed: a.transposed },
                            b: Matrix { tensor: &b_, offset: b.offset, stride: b.stride, transposed: b.transposed },
                            out: MatrixMut { tensor: &mut out, offset: gaps[0], stride: n + gaps[1] },
                            beta,
                            epilogue: Epilogue::None,
                        });
                        let product = by_definition(|i, j| a.at(i, j), |i, j| b.at(i, j), size);
                        let mut expected = old.f32s().to_vec();
                        for (at, product) in product.f32s().iter().enumerate() {
                            let element = &mut expected[gaps[0] + at / n * (n + gaps[1]) + at % n];
                            *element = beta * *element + product;
                        }
                        let tolerance = match output {
                            DType::Bf16 => Tolerance { absolute: 2e-2, relative: 1e-2 },
                            _ => Tolerance { absolute: 1e-4, relative: 1e-5 },
                        };
                        assert_close(&out, &Tensor::from_f32(&[expected.len()], expected), tolerance);
                    }
                }
            }
        }
    }
}

/// Every epilogue, by cuBLASLt or whatever `matmul` falls back to, against our own kernel.
#[test]
fn epilogues_equal_those_of_the_plain_kernel() {
    for case @ (device, dtype) in gpu_cases() {
        for [m, n, k] in [[64, 128, 32], [33, 17, 5], [256, 8, 72], [1, 1000, 16]] {
            let [a, b] =
                [(m, k, 1), (k, n, 2)].map(|(rows, columns, stream)| placed(&random(&[rows, columns], stream), case));
            let bias = placed(&random(&[n], 3), case);
            let given = placed(&random(&[m, n], 4), case);
            for kind in 0..6 {
                let run = |plain: bool| {
                    let mut out = Tensor::unspecified_on(device, &[m, n], dtype);
                    let mut kept = Tensor::zeros_on(device, &[m, n], dtype);
                    let mut sums = Tensor::zeros_on(device, &[n], dtype);
                    let epilogue = match kind {
                        0 => Epilogue::Bias(&bias),
                        1 => Epilogue::Gelu { bias: Some(&bias), pre_activation: Some(&mut kept) },
                        2 => Epilogue::Gelu { bias: None, pre_activation: Some(&mut kept) },
                        3 => Epilogue::Gelu { bias: Some(&bias), pre_activation: None },
                        4 => Epilogue::GeluGradient { pre_activation: &given, column_sums: None },
                        _ => Epilogue::GeluGradient { pre_activation: &given, column_sums: Some(&mut sums) },
                    };
                    let out_ = MatrixMut::of(&mut out);
                    let mut product =
                        Product { m, n, k, a: Matrix::of(&a), b: Matrix::of(&b), out: out_, beta: 0.0, epilogue };
                    if plain {
                        let (key, pointers) = (Key::of(&product), check(&mut product));
                        super::plain::matmul(a.cuda(), &key, &pointers, 0.0);
                        if kind == 5 {
                            super::plain::sums_of_epilogue(a.cuda(), &key, &pointers);
                        }
                    } else {
                        matmul(product);
                    }
                    [out, kept, sums]
                };
                for (found, expected) in run(false).iter().zip(&run(true)) {
                    let tolerance = match dtype {
                        // Sums of columns are of up to 256 numbers, rounded before or after.
                        DType::Bf16 if kind == 5 => Tolerance { absolute: 0.5, relative: 2e-2 },
                        DType::Bf16 => Tolerance { absolute: 2e-2, relative: 1e-2 },
                        // cuBLASLt's hyperbolic tangent is an approximation.
                        _ => Tolerance { absolute: 1e-3, relative: 1e-3 },
                    };
                    assert_close(found, expected, tolerance);
                }
            }
        }
    }
}

#[test]
fn column_sums_equal_the_definition_and_accumulate() {
    for case @ (device, dtype) in gpu_cases() {
        for (n, d) in [(1, 1), (3, 17), (1000, 3), (0, 9), (5000, 768), (130, 2304), (7, 1000), (40_000, 8)] {
            let x = rounded(&random(&[n, d], 1), dtype);
            let mut sums = Tensor::full(&[d], 1.0).to(device);
            column_sums(&mut sums, 2.0, &placed(&x, case));
            let sum = |column: usize| (0..n).map(|row| f64::from(x.f32s()[row * d + column])).sum::<f64>();
            let expected = Tensor::from_fn(&[d], |column| (2.0 + sum(column)) as f32);
            assert_close(&sums, &expected, Tolerance { absolute: 1e-3, relative: 1e-5 });
        }
    }
}

/// `out += aᵀ·b` with the sums of the rows of `aᵀ`: the gradients of a linear map.
fn weight_gradient(out: &mut Tensor, sums: &mut Tensor, a: &Tensor, b: &Tensor) {
    let ((k, m), (_, n)) = (a.rows(), b.rows());
    let out = MatrixMut::of(out);
    let (a, b) = (Matrix::of(a).transposed(), Matrix::of(b));
    matmul(Product { m, n, k, a, b, out, beta: 1.0, epilogue: Epilogue::RowSums(sums) });
}

#[test]
fn measuring_changes_no_result_and_its_choices_give_the_same_bits_again() {
    for case @ (device, dtype) in gpu_cases() {
        let (k, m, n) = (520, 72, 136);
        let [a, b] =
            [(k, m, 1), (k, n, 2)].map(|(rows, columns, stream)| placed(&random(&[rows, columns], stream), case));
        let context = a.cuda().clone();
        let run = || {
            let mut out = Tensor::full(&[m, n], 1.0).to(device);
            let mut sums = Tensor::zeros_on(device, &[m], DType::F32);
            weight_gradient(&mut out, &mut sums, &a, &b);
            [out, sums]
        };
        let unmeasured = run();
        context.set_autotune(true);
        let measured = run();
        context.set_autotune(false);
        for (found, expected) in measured.iter().zip(&unmeasured) {
            assert_close(found, expected, Tolerance { absolute: 1e-3, relative: 1e-4 });
        }
        let choices = context.matmul_choices();
        assert!(choices.contains(&format!("{dtype} f32 {m}x{n}x{k} ")), "{choices}");
        context.set_matmul_choices(&choices).expect("its own choices");
        for (found, expected) in run().iter().zip(&measured) {
            assert_close(found, expected, Tolerance::EXACT);
        }
        assert_eq!(context.matmul_choices(), choices);
    }
}

#[test]
fn a_recorded_product_is_repeated_with_the_same_bits() {
    for case @ (device, _) in gpu_cases() {
        let (k, m, n) = (264, 80, 48);
        let [a, b] =
            [(k, m, 1), (k, n, 2)].map(|(rows, columns, stream)| placed(&random(&[rows, columns], stream), case));
        let zeros = || [Tensor::zeros_on(device, &[m, n], DType::F32), Tensor::zeros_on(device, &[m], DType::F32)];
        let [mut out, mut sums] = zeros();
        for _ in 0..2 {
            weight_gradient(&mut out, &mut sums, &a, &b);
        }
        let [mut recorded_out, mut recorded_sums] = zeros();
        let (graph, ()) = Graph::record(a.cuda(), || {
            weight_gradient(&mut recorded_out, &mut recorded_sums, &a, &b);
        })
        .expect("recorded");
        for _ in 0..2 {
            graph.replay().expect("replayed");
        }
        assert_close(&recorded_out, &out, Tolerance::EXACT);
        assert_close(&recorded_sums, &sums, Tolerance::EXACT);
    }
}
