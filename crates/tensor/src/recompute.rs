//! Computing again instead of keeping: of a part of a model only the inputs are kept, and backward runs the part a second
//! time to find the rest.
//!
//! Chen et al., 2016, <https://arxiv.org/abs/1604.06174>: memory of one part at a time, for the time of one more
//! forward pass.

use crate::Tensor;

/// `f(inputs)`, of which nothing but `inputs` is kept for backward; and what `f` itself holds, such as weights.
///
/// Backward runs `f` again. It must give what it gave: the same operations on the same tensors. Then losses and gradients
/// have the bits that they have without.
#[track_caller]
pub fn recompute(f: impl Fn(&[Tensor]) -> Tensor + Send + 'static, inputs: &[Tensor]) -> Tensor {
    let first = f(inputs);
    let inputs = inputs.to_vec();
    // The tape of the first time goes with `first`, and all that it keeps.
    Tensor::from_op(first.detached(), &[&first], move |dy, sink| {
        let again = f(&inputs);
        // Its tape continues this one: it ends in the nodes of the inputs and in leaves, and being younger than all that
        // waits, its nodes are next.
        sink.add(&again, dy);
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::Gradients;
    use crate::ops::{add, linear, rms_norm, swiglu, weighted_sum};
    use crate::testing::{Tolerance, assert_close, cases, placed, random};

    /// A residual block: norm, gated layer, and the way around them.
    fn block(x: &Tensor, [gain, up, down]: &[Tensor; 3]) -> Tensor {
        add(x, &linear(&swiglu(&linear(&rms_norm(x, gain, 1e-5), up, None)), down, None))
    }

    fn weights(case: (crate::Device, crate::DType), stream: u64) -> [Tensor; 3] {
        let gain = random(&[24], stream).to(case.0).tracked();
        let matrix = |shape: &[usize], stream| placed(&random(shape, stream), case).tracked();
        [gain, matrix(&[80, 24], stream + 1), matrix(&[24, 40], stream + 2)]
    }

    #[test]
    fn values_and_gradients_have_the_bits_that_they_have_without() {
        for case in cases() {
            let blocks = [weights(case, 1), weights(case, 4)];
            let x = placed(&random(&[3, 5, 24], 9), case).tracked();
            let dy = random(&[3, 5, 24], 10);
            // Twice, so that gradients of leaves are added to.
            let run = |recomputes: bool| {
                let mut gradients = Gradients::new();
                let mut y = x.clone();
                for _ in 0..2 {
                    y = x.clone();
                    for weights in &blocks {
                        let weights = weights.clone();
                        let f = move |inputs: &[Tensor]| block(&inputs[0], &weights);
                        // The input is used once more outside, after and before the part.
                        let z = if recomputes {
                            recompute(f, std::slice::from_ref(&y))
                        } else {
                            f(std::slice::from_ref(&y))
                        };
                        y = add(&z, &y);
                    }
                    weighted_sum(&y, &dy).backward_into(0.5, &mut gradients);
                }
                let leaves = blocks.iter().flatten().chain([&x]);
                (y, leaves.map(|leaf| gradients.get(leaf).expect("a gradient").clone()).collect::<Vec<_>>())
            };
            let ((y, found), (y_plain, expected)) = (run(true), run(false));
            assert_close(&y, &y_plain, Tolerance::EXACT);
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(found.dtype(), expected.dtype());
                assert_close(found, expected, Tolerance::EXACT);
            }
        }
    }

    #[test]
    fn the_part_runs_once_forward_and_once_backward_and_constants_once() {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = |inputs: &[Tensor]| {
            let count = count.clone();
            let f = move |inputs: &[Tensor]| {
                count.fetch_add(1, Ordering::Relaxed);
                add(&inputs[0], &inputs[1])
            };
            recompute(f, inputs)
        };
        let [x, y] = [random(&[7], 1), random(&[7], 2).tracked()];
        let sum = counted(&[x.clone(), y.clone()]);
        assert_eq!(count.load(Ordering::Relaxed), 1);
        let gradients = weighted_sum(&sum, &x).backward();
        assert_eq!(count.load(Ordering::Relaxed), 2);
        assert_close(gradients.get(&y).unwrap(), &x, Tolerance::EXACT);
        assert!(!counted(&[x.clone(), x]).is_tracked());
    }

    #[test]
    fn recomputed_parts_may_be_nested_and_may_return_what_they_got() {
        let x = random(&[5], 1).tracked();
        let outer = |inputs: &[Tensor]| recompute(|inputs| add(&inputs[0], &inputs[0]), inputs);
        let y = recompute(|inputs| inputs[0].clone(), &[recompute(outer, std::slice::from_ref(&x))]);
        let dy = random(&[5], 2);
        let gradients = weighted_sum(&y, &dy).backward();
        assert_close(gradients.get(&x).unwrap(), &add(&dy, &dy), Tolerance::EXACT);
    }
}
