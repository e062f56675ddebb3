//! On a machine with a Hopper GPU: the kernels against the definition on the host, in f64.

use std::sync::Arc;

use half::bf16;

use super::{Backward, BackwardTiling, BackwardWorkspace, Forward, ForwardTiling, Problem, reference};
use crate::cuda::{Arch, Buffer, Context, Toolkit};
use crate::ops::Heads;
use crate::ops::attention::options::{AttentionOptions, Rule};
use crate::ops::attention::reference as definition;
use crate::random::Rng;
use crate::{Device, Tensor};

fn hopper() -> Option<Arc<Context>> {
    let context = match Context::open(0, Toolkit::find(&[]), None) {
        Ok(context) => context,
        Err(error) => {
            eprintln!("skipped: {error}");
            return None;
        }
    };
    if context.arch() != Arch::Sm90a {
        eprintln!("skipped: {} is {}, not sm_90a", context.name(), context.arch());
        return None;
    }
    Some(context)
}

/// b, t, h, g, e; lengths that do not fill their tiles, and shared keys.
const CASES: [(usize, usize, usize, usize, usize); 4] =
    [(2, 150, 2, 2, 64), (1, 300, 4, 2, 64), (2, 150, 2, 1, 128), (1, 300, 4, 4, 128)];

/// Numbers that bf16 holds exactly, so that both sides have the same inputs.
fn rounded(shape: &[usize], stream: u64) -> (Tensor, Vec<bf16>) {
    let values: Vec<bf16> = Rng::new(5, stream).normal(shape, 1.0).f32s().iter().map(|&x| bf16::from_f32(x)).collect();
    (Tensor::from_f32(shape, values.iter().map(|x| x.to_f32()).collect()), values)
}

#[track_caller]
fn assert_near(what: &str, found: impl Iterator<Item = f32>, expected: &[f32], tolerance: f64) {
    let (mut difference, mut norm) = (0.0, 0.0);
    for (x, &y) in found.zip(expected) {
        difference += f64::from(x - y).powi(2);
        norm += f64::from(y).powi(2);
    }
    let relative = (difference / norm).sqrt();
    assert!(relative < tolerance, "{what}: relative difference {relative:.1e}, expected below {tolerance:.0e}");
}

#[test]
fn forward_and_backward_equal_the_definition() {
    let Some(context) = hopper() else { return };
    for case @ (b, t, h, g, e) in CASES {
        let heads = Heads::of_one_size(h, g, e);
        let problem = Problem { b, t, heads, causal: true, scale: 1.0 / (e as f32).sqrt() };
        let (qkv, qkv_bf16) = rounded(&[b, t, heads.qkv_width()], 1);
        let (dy, dy_bf16) = rounded(&[b, t, heads.q_width()], 2);
        let rule = Rule::new(&AttentionOptions::new(problem.scale), &heads, b, t, Device::Cpu);
        let y = definition::forward(&qkv, &heads, &rule);
        let dqkv = definition::backward(&dy, &qkv, &heads, &rule);

        let qkv = Buffer::from_slice(&context, &qkv_bf16).expect("device memory");
        let dy = Buffer::from_slice(&context, &dy_bf16).expect("device memory");
        let simple = reference(&context, &problem, &qkv, &dy).expect("the reference kernel");
        assert_near(&format!("reference y {case:?}"), simple.y.into_iter(), y.f32s(), 1e-5);
        assert_near(&format!("reference dqkv {case:?}"), simple.dqkv.into_iter(), dqkv.f32s(), 1e-4);

        // NaN where nothing is written.
        let mut found_y = Buffer::<bf16>::filled(&context, problem.y_len(), 0xff).expect("device memory");
        let mut log_sum_exp = Buffer::filled(&context, problem.n_rows(), 0xff).expect("device memory");
        let mut found_dqkv = Buffer::<bf16>::filled(&context, problem.qkv_len(), 0xff).expect("device memory");
        let forward = Forward::new(&context, e, true, ForwardTiling::of(e, t)).expect("compiled");
        forward.launch(&problem, &qkv, &mut found_y, &mut log_sum_exp).expect("launched");
        let with_sums = |tiling| [BackwardTiling { sums: e == 64, ..tiling }, tiling];
        for tiling in BackwardTiling::variants(e, t).into_iter().flat_map(with_sums) {
            let backward = Backward::new(&context, e, true, tiling).expect("compiled");
            let mut workspace = BackwardWorkspace::new(&context, &problem, tiling).expect("device memory");
            let mut results = Vec::new();
            for _ in 0..2 {
                found_dqkv.fill(0xff).expect("filled");
                backward
                    .launch(&problem, &mut workspace, &qkv, &found_y, &log_sum_exp, &dy, &mut found_dqkv)
                    .expect("launched");
                results.push(found_dqkv.to_vec().expect("done"));
            }
            let what = format!("dqkv {case:?} {tiling:?}");
            if tiling.sums {
                let width = heads.qkv_width();
                let partial = workspace.sums.as_ref().expect("sums").to_vec().expect("done");
                let sum_of =
                    |values: &[f32], c| values.iter().skip(c).step_by(width).map(|&x| f64::from(x)).sum::<f64>() as f32;
                let expected: Vec<f32> = (0..width).map(|c| sum_of(dqkv.f32s(), c)).collect();
                let found = (0..width).map(|c| sum_of(&partial, c));
                assert_near(&format!("sums of {what}"), found, &expected, 1e-2);
            }
            assert_near(&what, results[0].iter().map(|x| x.to_f32()), dqkv.f32s(), 1e-2);
            assert!(results[0] == results[1], "{what}: two backward passes differ");
        }
        let found_y = found_y.to_vec().expect("done");
        assert_near(&format!("y {case:?}"), found_y.iter().map(|x| x.to_f32()), y.f32s(), 5e-3);
    }
}
