//! Products whose sums are not complete at once, of which only the whole may be rounded: `f32` sums lie beside `C`.

use rayon::prelude::*;

use super::kernel::Loops;
use super::scratch::{Scratch, Slot};
use super::{MatMut, Parallel, Product};
use crate::cpu::element::{Element, convert};
use crate::cpu::threads::rows_per_task;

/// Computes a product of checked operands, none of them empty.
#[track_caller]
pub(super) fn run<T: Element, C: Element>(product: Product<T, C>, loops: &'static Loops, parallel: Parallel) {
    let Product { m, n, k, alpha, a, b, beta, c } = product;
    let stride = c.row_stride.max(n);
    let mut scratch = Scratch::take(Slot::Sums, m * n);
    let sums = &mut scratch.as_mut_slice()[..m * n];
    if beta != 0.0 {
        for (sums, c) in sums.chunks_exact_mut(n).zip(c.data.chunks(stride)) {
            convert(sums, &c[..n]);
        }
    }
    let c_f32 = MatMut::row_major(&mut *sums, n);
    Product { m, n, k, alpha, a, b, beta, c: c_f32 }.run(loops, parallel);

    let rows = if parallel == Parallel::Rayon { rows_per_task(n) } else { m };
    let round = |(c, sums): (&mut [C], &[f32])| {
        for (c, sums) in c.chunks_mut(stride).zip(sums.chunks_exact(n)) {
            convert(&mut c[..n], sums);
        }
    };
    if rows >= m {
        round((c.data, sums));
    } else {
        c.data.par_chunks_mut(rows * stride).zip(sums.par_chunks(rows * n)).for_each(round);
    }
}
