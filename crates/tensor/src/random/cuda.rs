//! A thread for each block of four numbers, or for each element.

use super::{ATTEMPT_BITS, ATTEMPTS, Law, Rng};
use crate::Tensor;
use crate::cuda::{Arch, Arg, ELEMENT, Source};

const FILE: (&str, &str) = ("random.cu", include_str!("random.cu"));
const THREADS: usize = 256;

fn source() -> Source {
    let options = vec![format!("-DATTEMPTS={ATTEMPTS}"), format!("-DATTEMPT_BITS={ATTEMPT_BITS}")];
    Source { name: "random", parts: &[ELEMENT, FILE], options }
}

/// Sources for CI, with the architectures they must compile for.
pub(crate) fn sources() -> Vec<(Source, &'static [Arch])> {
    vec![(source(), Arch::PORTABLE)]
}

/// Fills `x` with the numbers of a law, those of block `first` first.
pub(super) fn fill(x: &mut Tensor, rng: &Rng, law: Law, first: u64) {
    let (device, n) = (x.cuda().clone(), x.len());
    let [k0, k1] = rng.key;
    let (name, threads, numbers) = match law {
        Law::Normal { std } => ("normal", n.div_ceil(4), vec![Arg::F32(std)]),
        Law::Truncated { std, cut } => ("truncated_normal", n, vec![Arg::F32(std), Arg::F32(cut)]),
    };
    let of_all = [x.into(), (n as u64).into(), Arg::U32(k0), Arg::U32(k1), rng.stream.into(), first.into()];
    let arguments = [of_all.as_slice(), &numbers].concat();
    // SAFETY: the kernels write to elements below n alone.
    unsafe { device.kernel(&source(), name, 0).run([threads.div_ceil(THREADS), 1, 1], THREADS, &arguments) };
}
