use half::bf16;
use proptest::prelude::*;

use super::reference::naive;
use super::*;

/// Numbers in [-1, 1) from a small linear congruential generator.
fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// How a matrix lies in memory.
#[derive(Clone, Copy, Debug)]
enum Layout {
    Rows {
        gap: usize,
    },
    Columns {
        gap: usize,
    },
    /// No stride is one.
    Sparse,
}

impl Layout {
    fn strides(self, rows: usize, cols: usize) -> [usize; 2] {
        match self {
            Self::Rows { gap } => [cols + gap, 1],
            Self::Columns { gap } => [1, rows + gap],
            Self::Sparse => [2 * cols + 1, 2],
        }
    }
}

/// Exactly as many elements as the layout needs, so that a read behind the end shows up under a sanitizer.
fn matrix(rows: usize, cols: usize, layout: Layout, seed: u64) -> (Vec<f32>, [usize; 2]) {
    let [row_stride, col_stride] = layout.strides(rows, cols);
    let len = if rows == 0 || cols == 0 { 0 } else { (rows - 1) * row_stride + (cols - 1) * col_stride + 1 };
    (random(len, seed), [row_stride, col_stride])
}

fn view(matrix: &(Vec<f32>, [usize; 2])) -> MatRef<'_> {
    MatRef { data: &matrix.0, row_stride: matrix.1[0], col_stride: matrix.1[1] }
}

#[derive(Clone, Copy, Debug)]
struct Case {
    m: usize,
    n: usize,
    k: usize,
    a: Layout,
    b: Layout,
    c_gap: usize,
    alpha: f32,
    beta: f32,
}

/// A plain product of dense matrices.
fn dense(m: usize, n: usize, k: usize) -> Case {
    let rows = Layout::Rows { gap: 0 };
    Case { m, n, k, a: rows, b: rows, c_gap: 0, alpha: 1.0, beta: 0.0 }
}

/// Compares every kernel of this machine with the definition.
///
/// The bound is the classical one for a sum of `k` products in any order, Higham, *Accuracy and Stability of
/// Numerical Algorithms*, section 3.5, with a few roundings more for `alpha` and `beta`.
fn check(case: Case) {
    let Case { m, n, k, alpha, beta, .. } = case;
    let a = matrix(m, k, case.a, 1);
    let b = matrix(k, n, case.b, 2);
    let magnitude = |matrix: &(Vec<f32>, [usize; 2])| (matrix.0.iter().map(|x| x.abs()).collect::<Vec<_>>(), matrix.1);
    let (abs_a, abs_b) = (magnitude(&a), magnitude(&b));
    let row_stride = n + case.c_gap;
    let before = random(m * row_stride, 3);
    let mut expected = before.clone();
    naive(m, n, k, alpha, view(&a), view(&b), beta, MatMut { data: &mut expected, row_stride });
    let mut bound: Vec<f32> = before.iter().map(|x| x.abs()).collect();
    let bound_c = MatMut { data: &mut bound, row_stride };
    naive(m, n, k, alpha.abs(), view(&abs_a), view(&abs_b), beta.abs(), bound_c);
    for kernel in Kernel::ALL.into_iter().filter(|kernel| kernel.is_available()) {
        for parallel in [Parallel::Serial, Parallel::Rayon] {
            let mut c = before.clone();
            if beta == 0.0 {
                for row in c.chunks_mut(row_stride.max(1)).take(m) {
                    row[..n].fill(f32::NAN); // must not leak
                }
            }
            let out = MatMut { data: &mut c, row_stride };
            let product = Product { m, n, k, alpha, a: view(&a), b: view(&b), beta, c: out };
            gemm_with(kernel, product, parallel);
            for (idx, (&got, &want)) in c.iter().zip(&expected).enumerate() {
                let (i, j) = (idx / row_stride, idx % row_stride);
                let tolerance = if j < n { (k + 4) as f32 * f32::EPSILON * bound[idx] } else { 0.0 };
                assert!(
                    (got - want).abs() <= tolerance,
                    "{} {parallel:?} {case:?}: c[{i}, {j}] is {got}, not {want} ± {tolerance}",
                    kernel.name()
                );
            }
        }
    }
}

const LAYOUTS: [Layout; 5] = [
    Layout::Rows { gap: 0 },
    Layout::Rows { gap: 3 },
    Layout::Columns { gap: 0 },
    Layout::Columns { gap: 5 },
    Layout::Sparse,
];

#[test]
fn products_of_all_small_sizes_equal_the_definition() {
    for m in 0..=17 {
        for n in [0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 49] {
            for k in [0, 1, 2, 3, 8, 17] {
                check(dense(m, n, k));
            }
        }
    }
}

#[test]
fn all_strides_equal_the_definition() {
    for a in LAYOUTS {
        for b in LAYOUTS {
            for (m, n, k) in [(1, 40, 37), (5, 3, 70), (8, 33, 16), (16, 20, 9), (30, 70, 33), (100, 67, 20)] {
                check(Case { a, b, c_gap: 2, ..dense(m, n, k) });
            }
        }
    }
}

#[test]
fn alpha_and_beta_scale_as_defined() {
    for alpha in [0.0, 1.0, -1.0, 0.37] {
        for beta in [0.0, 1.0, -1.0, 0.81] {
            for (m, n, k) in [(3, 50, 20), (50, 3, 20), (20, 40, 60), (20, 40, 0), (3, 5, 1100)] {
                let b = Layout::Columns { gap: 1 };
                check(Case { alpha, beta, c_gap: 1, ..dense(m, n, k) });
                check(Case { alpha, beta, b, ..dense(m, n, k) });
            }
        }
    }
}

#[test]
fn products_of_several_blocks_equal_the_definition() {
    for (m, n, k) in [(200, 150, 1100), (401, 70, 600), (3, 5000, 40), (70, 4200, 30), (9, 9000, 7)] {
        for b in [Layout::Rows { gap: 0 }, Layout::Columns { gap: 0 }] {
            check(Case { b, alpha: 0.5, beta: 2.0, ..dense(m, n, k) });
        }
    }
}

fn layouts() -> impl Strategy<Value = Layout> {
    prop::sample::select(&LAYOUTS[..])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_products_equal_the_definition(
        (m, n, k) in (0usize..90, 0usize..140, 0usize..90),
        (a, b, c_gap) in (layouts(), layouts(), 0usize..4),
        (alpha, beta) in (-2f32..2.0, -2f32..2.0),
    ) {
        check(Case { m, n, k, a, b, c_gap, alpha, beta });
    }
}

/// The oracle: one thread.
#[test]
fn results_are_the_same_bits_on_any_number_of_threads() {
    let rows = Layout::Rows { gap: 0 };
    let columns = Layout::Columns { gap: 0 };
    for (m, n, k) in [(300, 260, 700), (1000, 40, 100), (2, 3000, 500), (130, 4500, 64), (3000, 4, 333)] {
        for (a, b) in [(rows, rows), (rows, columns), (columns, rows), (columns, columns)] {
            let (a, b) = (matrix(m, k, a, 4), matrix(k, n, b, 5));
            for kernel in Kernel::ALL.into_iter().filter(|kernel| kernel.is_available()) {
                let product = |parallel| {
                    let mut c = random(m * n, 6);
                    let out = MatMut::row_major(&mut c, n);
                    let product = Product { m, n, k, alpha: 0.7, a: view(&a), b: view(&b), beta: 0.3, c: out };
                    gemm_with(kernel, product, parallel);
                    c.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
                };
                let serial = product(Parallel::Serial);
                for n_threads in 1..=3 {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().expect("threads");
                    let parallel = pool.install(|| product(Parallel::Rayon));
                    assert!(parallel == serial, "{} [{m}, {n}, {k}] on {n_threads} threads", kernel.name());
                }
            }
        }
    }
}

#[test]
fn products_inside_parallel_tasks_equal_those_outside() {
    let (m, n, k) = (150, 130, 120);
    let (a, b) = (random(m * k, 7), random(k * n, 8));
    let product = || {
        let mut c = vec![0.0; m * n];
        let (a, b) = (MatRef::row_major(&a, k), MatRef::row_major(&b, n));
        gemm(m, n, k, 1.0, a, b, 0.0, MatMut::row_major(&mut c, n), Parallel::Rayon);
        c
    };
    let expected = product();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("threads");
    let inside: Vec<_> = pool.install(|| {
        use rayon::prelude::*;
        (0..40).into_par_iter().map(|_| product()).collect()
    });
    assert!(inside.iter().all(|c| *c == expected));
}

#[test]
fn a_view_larger_than_its_slice_is_refused() {
    let short = vec![0.0; 11];
    let whole = vec![0.0; 12];
    let run = |a: MatRef, b: MatRef, c_len: usize, c_stride: usize| {
        let mut c = vec![0.0; c_len];
        std::panic::catch_unwind(move || {
            gemm(3, 3, 4, 1.0, a, b, 0.0, MatMut { data: &mut c, row_stride: c_stride }, Parallel::Serial);
        })
        .is_err()
    };
    let (a, b) = (MatRef::row_major(&whole, 4), MatRef::row_major(&whole, 3));
    assert!(!run(a, b, 9, 3));
    assert!(run(MatRef::row_major(&short, 4), b, 9, 3));
    assert!(run(a, MatRef::row_major(&short, 3), 9, 3));
    assert!(run(a, b, 8, 3));
    assert!(run(a, b, 9, 2), "rows of c would overlap");
    let huge = MatRef { data: &whole, row_stride: usize::MAX, col_stride: 1 };
    assert!(run(huge, b, 9, 3), "an index that overflows");
}

#[test]
fn a_split_covers_its_range_once_in_nearly_equal_parts() {
    for len in 1..70 {
        for max in 1..20 {
            for unit in [1, 4, 16] {
                let split = split::Split::at_most(len, max, unit);
                let parts: Vec<_> = split.parts().collect();
                assert_eq!(parts.iter().cloned().flatten().collect::<Vec<_>>(), (0..len).collect::<Vec<_>>());
                assert!(parts.iter().all(|part| !part.is_empty() && part.len() <= max.max(unit)));
                assert!(parts.iter().all(|part| part.start % unit == 0));
                let units = parts.iter().map(|part| part.len().div_ceil(unit));
                assert!(units.clone().max().unwrap() - units.min().unwrap() <= 1);
            }
        }
    }
}

/// The oracle: the definition on the same numbers as `f32`, which holds every bf16.
#[test]
fn bf16_products_equal_the_definition() {
    let sizes = [
        (1, 40, 37),
        (5, 3, 71),
        (2, 9, 64),
        (8, 33, 16),
        (9, 20, 1),
        (31, 70, 33),
        (100, 67, 2051),
        (0, 3, 4),
        (3, 4, 0),
    ];
    for (m, n, k) in sizes {
        for a in LAYOUTS {
            for b in LAYOUTS {
                let (a, b) = (matrix(m, k, a, 1), matrix(k, n, b, 2));
                check_bf16(m, n, k, a, b);
            }
        }
    }
}

fn check_bf16(m: usize, n: usize, k: usize, a: (Vec<f32>, [usize; 2]), b: (Vec<f32>, [usize; 2])) {
    let narrow = |matrix: &(Vec<f32>, [usize; 2])| matrix.0.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>();
    let widen = |data: &[bf16], strides| (data.iter().map(|x| x.to_f32()).collect::<Vec<_>>(), strides);
    let (a_data, b_data) = (narrow(&a), narrow(&b));
    let (a, b) = (widen(&a_data, a.1), widen(&b_data, b.1));
    let before = random(m * n, 3);
    let mut expected = before.clone();
    naive(m, n, k, 0.5, view(&a), view(&b), 0.3, MatMut::row_major(&mut expected, n));
    let product = |kernel: Kernel, parallel: Parallel| {
        let mut c = before.clone();
        let a = MatRef { data: &a_data[..], row_stride: a.1[0], col_stride: a.1[1] };
        let b = MatRef { data: &b_data[..], row_stride: b.1[0], col_stride: b.1[1] };
        let out = MatMut::row_major(&mut c, n);
        gemm_with(kernel, Product { m, n, k, alpha: 0.5, a, b, beta: 0.3, c: out }, parallel);
        c
    };
    for kernel in Kernel::ALL.into_iter().filter(|kernel| kernel.is_available()) {
        let c = product(kernel, Parallel::Serial);
        assert!(c == product(kernel, Parallel::Rayon), "[{m}, {n}, {k}] in parallel, {}", kernel.name());
        for (got, want) in c.iter().zip(&expected) {
            // Operands are below 1 in size, so `k` bounds the sum of products.
            let tolerance = (k + 4) as f32 * f32::EPSILON * (k as f32 + 1.0);
            assert!((got - want).abs() <= tolerance, "[{m}, {n}, {k}]: {got}, not {want} ± {tolerance}");
        }
    }
}

#[test]
fn a_product_in_bf16_is_the_rounded_product_in_f32() {
    for (m, n, k) in [(1, 40, 37), (40, 1, 12), (31, 70, 33), (100, 67, 5001), (300, 200, 40), (3, 4, 0)] {
        let [a, b] = [(m * k, 1), (k * n, 2)]
            .map(|(len, seed)| random(len, seed).into_iter().map(bf16::from_f32).collect::<Vec<_>>());
        let (a, b) = (MatRef::row_major(&a, k), MatRef::row_major(&b, n));
        for kernel in Kernel::ALL.into_iter().filter(|kernel| kernel.is_available()) {
            for beta in [0.0, 1.0] {
                let before: Vec<bf16> = random(m * n, 3).into_iter().map(bf16::from_f32).collect();
                let mut exact: Vec<f32> = before.iter().map(|x| x.to_f32()).collect();
                let out = MatMut::row_major(&mut exact, n);
                gemm_with(kernel, Product { m, n, k, alpha: 0.5, a, b, beta, c: out }, Parallel::Rayon);
                for parallel in [Parallel::Serial, Parallel::Rayon] {
                    let mut c = before.clone();
                    let out = MatMut::row_major(&mut c, n);
                    gemm_with(kernel, Product { m, n, k, alpha: 0.5, a, b, beta, c: out }, parallel);
                    let expected: Vec<bf16> = exact.iter().map(|&x| bf16::from_f32(x)).collect();
                    assert!(c == expected, "[{m}, {n}, {k}], beta {beta}, {}", kernel.name());
                }
            }
        }
    }
}
