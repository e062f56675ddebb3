//! Measured choices of algorithms, which can be written down and taken again.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use cudarc::cublaslt::sys;

use super::key::Key;
use super::library::{Blas, Library, Way};
use super::{Pointers, plain};
use crate::cuda::gemm::{self, Tiling};
use crate::cuda::{Buffer, Context, Event, catch};
use crate::{DType, Error};

/// Device time of one measurement, in seconds.
const SERIES_SECONDS: f64 = 0.7e-3;
/// Measurements of each algorithm; the middle one counts.
const N_SERIES: usize = 3;
/// How many times the best one's time a first launch may take, and as many seconds more, for an algorithm to be measured
/// at all.
const HOPELESS: (f64, f64) = (1.5, 5e-6);

/// What was chosen for a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// cuBLASLt's own description of an algorithm, which only the same version understands.
    Algorithm { version: usize, data: [u64; 8] },
    /// The product, and the sums of rows or columns by a kernel of their own.
    Separate,
    /// Our own kernel.
    Own(Tiling),
}

impl Context {
    /// Whether each new product, asked for while no graph is recorded, is first measured with several algorithms: about
    /// 20 ms for each, in which the host waits for the device.
    pub fn set_autotune(&self, autotune: bool) {
        self.blas().autotune = autotune;
    }

    /// Whether our own products are measured beside cuBLASLt's, which is so from the start.
    pub fn set_own_products(&self, own: bool) {
        self.blas().without_own = !own;
    }

    /// The measured choices, a line each, in the order of their text: what a resumed run needs to compute the same bits.
    pub fn matmul_choices(&self) -> String {
        let blas = self.blas();
        let lines: BTreeMap<String, String> = blas.choices().map(|(key, choice)| (key, choice.to_string())).collect();
        lines.into_iter().map(|(key, choice)| format!("{key} = {choice}\n")).collect()
    }

    /// The products so far that cuBLASLt has no algorithm for, by the text of their keys, in its order: those that our
    /// own kernel computes, and those whose row sums are a step of their own.
    pub fn matmul_refusals(&self) -> Vec<String> {
        let blas = self.blas();
        let refused = blas.ways.iter().filter(|(_, way)| matches!(way, Way::Unsupported));
        let mut keys: Vec<String> = refused.map(|(key, _)| key.to_string()).collect();
        keys.sort();
        keys
    }

    /// Takes the choices of an earlier run, for products that are asked for from now on. Those of another version of
    /// cuBLASLt are passed over.
    ///
    /// # Errors
    /// If a line is not one that [`Context::matmul_choices`] writes.
    pub fn set_matmul_choices(&self, text: &str) -> Result<(), Error> {
        let choices = parse(text)?;
        let mut blas = self.blas();
        blas.ways.clear();
        blas.chosen = choices;
        Ok(())
    }
}

impl Blas {
    /// The choices that were measured here and those that were handed in, by the text of their keys.
    fn choices(&self) -> impl Iterator<Item = (String, Choice)> {
        let version = self.version();
        let here = self.ways.iter().filter_map(move |(key, way)| {
            let choice = match way {
                Way::Planned(plan) if plan.tuned => Choice::Algorithm { version, data: plan.algorithm.data },
                Way::Separate => Choice::Separate,
                Way::Own { tiling, tuned: true, .. } => Choice::Own(*tiling),
                _ => return None,
            };
            Some((key.to_string(), choice))
        });
        self.chosen.iter().map(|(key, choice)| (key.clone(), *choice)).chain(here)
    }

    /// Measures the candidates of a product, unless that was done, and keeps the fastest.
    ///
    /// Outputs are about to be written anyway; what a product adds to is left alone, and a scratch output takes its place.
    pub(super) fn tune(
        &mut self,
        context: &Arc<Context>,
        library: &Library,
        key: &Key,
        pointers: &Pointers,
        beta: f32,
    ) -> Result<(), Error> {
        let candidates = match self.ways.get(key) {
            Some(Way::Planned(plan)) if !plan.tuned => plan.candidates.clone(),
            Some(Way::Own { tuned: false, .. }) => Vec::new(),
            _ => return Ok(()),
        };
        let (start, before) = (Instant::now(), context.spent().algorithms);
        let scratch = if beta == 0.0 {
            None
        } else {
            let numbers = (key.m - 1) * key.out.stride + key.n;
            let halves = numbers * if key.output == DType::Bf16 { 1 } else { 2 };
            // Without memory for it, the first candidate stays.
            let Ok(scratch) = Buffer::<half::bf16>::unspecified(context, halves) else { return Ok(()) };
            Some(scratch)
        };
        let pointers = Pointers { out: scratch.as_ref().map_or(pointers.out, Buffer::pointer), ..*pointers };

        let mut contenders: Vec<Contender> = candidates.into_iter().map(Contender::Algorithm).collect();
        if gemm::fits(context, key, beta) && (!self.without_own || key.epilogue.is_gated()) {
            let of = |tiling: Tiling| tiling.candidates([key.m, key.n], key.output, context.n_multiprocessors());
            contenders.extend(Tiling::ALL.into_iter().flat_map(of).map(Contender::Own));
        }
        // The product alone is measured first: its best algorithm is what the two steps would use.
        if key.epilogue.has_sums() && self.run(context, &key.without_sums(), &pointers, beta)? {
            contenders.push(Contender::Separate);
        }
        let mut attempt = |contender: &Contender| match contender {
            Contender::Separate => {
                self.run(context, &key.without_sums(), &pointers, beta)?;
                plain::sums_of_epilogue(context, key, &pointers);
                Ok(())
            }
            // One that cannot be compiled or launched is out of the race too.
            Contender::Own(tiling) => catch(|| gemm::launch(context, key, &pointers, beta, tiling, false)),
            Contender::Algorithm(algorithm) => match self.ways.get_mut(key) {
                Some(Way::Planned(plan)) => plan.run_with(algorithm, context, library, key, &pointers, beta),
                _ => Ok(()),
            },
        };
        let Some(&best) = contenders.get(fastest(context, &contenders, &mut attempt)?) else { return Ok(()) };
        match best {
            Contender::Own(tiling) => {
                let instead = match self.ways.remove(key) {
                    Some(Way::Planned(plan) | Way::Own { instead: Some(plan), .. }) => Some(plan),
                    _ => None,
                };
                self.ways.insert(key.clone(), Way::Own { tiling, instead, tuned: true });
            }
            Contender::Separate => {
                self.ways.insert(key.clone(), Way::Separate);
            }
            Contender::Algorithm(algorithm) => {
                if let Some(Way::Planned(plan)) = self.ways.get_mut(key) {
                    plan.choose(algorithm);
                }
            }
        }
        // The product without its sums was measured meanwhile, and counted its time itself.
        context.spend(|spent| spent.algorithms = before + start.elapsed());
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Contender {
    Algorithm(sys::cublasLtMatmulAlgo_t),
    Separate,
    Own(Tiling),
}

/// The index of the contender with the least middle time. They take turns, so that all meet the same clock rates.
fn fastest(
    context: &Arc<Context>,
    contenders: &[Contender],
    attempt: &mut impl FnMut(&Contender) -> Result<(), Error>,
) -> Result<usize, Error> {
    let mut series = |contender: &Contender, launches: usize| -> Result<f64, Error> {
        let start = Event::record(context)?;
        for _ in 0..launches {
            // One that is refused when it comes to it is out of the race.
            if attempt(contender).is_err() {
                return Ok(f64::INFINITY);
            }
        }
        Ok(Event::record(context)?.since(&start)?.as_secs_f64() / launches as f64)
    };
    let mut times = vec![Vec::new(); contenders.len()];
    for contender in contenders {
        series(contender, 1)?; // loads its code
    }
    for round in 0..=N_SERIES {
        for (contender, times) in contenders.iter().zip(&mut times) {
            let launches = match times.last() {
                Some(&last) if last == f64::INFINITY => continue,
                Some(&last) => ((SERIES_SECONDS / f64::max(last, 1e-6)) as usize).clamp(1, 50),
                None => 1,
            };
            let seconds = series(contender, launches)?;
            if round == 1 {
                times.clear(); // a single launch says little
            }
            times.push(seconds);
        }
        if round == 0 {
            leave_out_the_hopeless(&mut times);
        }
    }
    let middle = |times: &Vec<f64>| {
        let mut times = times.clone();
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied().unwrap_or(f64::INFINITY)
    };
    let middles: Vec<f64> = times.iter().map(middle).collect();
    Ok((0..middles.len()).min_by(|&a, &b| middles[a].total_cmp(&middles[b])).unwrap_or(0))
}

/// After a first launch of each: those whose time is far from the best are not launched again.
fn leave_out_the_hopeless(times: &mut [Vec<f64>]) {
    let best = times.iter().flatten().copied().fold(f64::INFINITY, f64::min);
    for times in times {
        if times.iter().any(|&time| time > HOPELESS.0 * best + HOPELESS.1) {
            *times = vec![f64::INFINITY];
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Separate => f.write_str(SEPARATE),
            Choice::Own(tiling) => write!(f, "{OWN}{tiling}"),
            Choice::Algorithm { version, data } => {
                write!(f, "{version}")?;
                data.iter().try_for_each(|word| write!(f, " {word:x}"))
            }
        }
    }
}

const SEPARATE: &str = "separate";
const OWN: &str = "own ";

/// Of `name = choice` in every line.
fn parse(text: &str) -> Result<HashMap<String, Choice>, Error> {
    let choice = |text: &str| {
        if text == SEPARATE {
            return Some(Choice::Separate);
        }
        if let Some(name) = text.strip_prefix(OWN) {
            return Tiling::of_name(name).map(Choice::Own);
        }
        let (version, words) = text.split_once(' ')?;
        let words: Option<Vec<u64>> = words.split(' ').map(|word| u64::from_str_radix(word, 16).ok()).collect();
        Some(Choice::Algorithm { version: version.parse().ok()?, data: words?.try_into().ok()? })
    };
    let line = |line: &str| -> Option<(String, Choice)> {
        let (key, text) = line.split_once(" = ")?;
        Some((key.to_owned(), choice(text)?))
    };
    let bad = |text: &str| Error::Cuda {
        action: "take the choices of matrix products",
        reason: format!("this is none: {text}\nhint: remove the line; the product is measured again"),
    };
    text.lines().filter(|x| !x.trim().is_empty()).map(|text| line(text.trim()).ok_or_else(|| bad(text))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_far_from_the_best_first_launch_is_left_out() {
        let mut times = vec![vec![100e-6], vec![154e-6], vec![156e-6], vec![f64::INFINITY]];
        leave_out_the_hopeless(&mut times);
        assert_eq!(times, [vec![100e-6], vec![154e-6], vec![f64::INFINITY], vec![f64::INFINITY]]);
        let mut all_refused = vec![vec![f64::INFINITY]; 2];
        leave_out_the_hopeless(&mut all_refused);
        assert_eq!(all_refused, vec![vec![f64::INFINITY]; 2]);
    }

    #[test]
    fn choices_are_read_as_they_were_written_and_anything_else_is_refused() {
        let algorithm = Choice::Algorithm { version: 130_001, data: [0, 1, u64::MAX, 3, 4, 5, 6, 0xabc] };
        let own = Choice::Own(Tiling::ALL[1].split(5));
        let written = format!(
            "bf16 f32 768x2304x9 a:1N256 = {algorithm}\n\nf32 f32 1x2x3 = {}\nbf16 f32 1x2x3 = {own}\n",
            Choice::Separate
        );
        let read = parse(&written).expect("as written");
        assert_eq!(read.len(), 3);
        assert_eq!(read["bf16 f32 1x2x3"], own);
        assert_eq!(read["bf16 f32 768x2304x9 a:1N256"], algorithm);
        assert_eq!(read["f32 f32 1x2x3"], Choice::Separate);
        for bad in [
            "x",
            "x = own",
            "x = own 1x1",
            "x = own 128x256/0",
            "x = own 128x256/",
            "x = ",
            "x = 1 2",
            "x = 1 0 1 2 3 4 5 6 g",
            "x = 1 0 1 2 3 4 5 6 7 8",
            "x = -1 0 1 2 3 4 5 6 7",
        ] {
            let error = parse(bad).expect_err(bad).to_string();
            assert!(error.contains("hint: "), "{error}");
        }
    }
}
