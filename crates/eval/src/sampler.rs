//! From logits to a token.

use serde::{Deserialize, Serialize};
use tensor::random::Rng;

use crate::Error;

/// How the next token is drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// Divides the logits; 0 always takes the likeliest token.
    pub temperature: f32,
    /// Keep this many of the likeliest tokens.
    pub top_k: Option<usize>,
    /// Keep the fewest likeliest tokens whose probabilities sum to this (Holtzman et al., 2020,
    /// <https://arxiv.org/abs/1904.09751>).
    pub top_p: Option<f32>,
    /// Keep tokens at least this share as likely as the likeliest (Nguyen et al., 2024,
    /// <https://arxiv.org/abs/2407.01082>).
    pub min_p: Option<f32>,
    /// Of the random numbers.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling { temperature: 0.8, top_k: None, top_p: Some(0.95), min_p: None, seed: 1 }
    }
}

impl Sampling {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first setting out of range.
    pub fn validate(&self) -> Result<(), Error> {
        let require = |holds: bool, key, value: &dyn ToString, expected| {
            if holds { Ok(()) } else { Err(Error::Sampling { key, value: value.to_string(), expected }) }
        };
        let Sampling { temperature, top_k, top_p, min_p, seed: _ } = self;
        let good = temperature.is_finite() && *temperature >= 0.0;
        require(good, "temperature", temperature, "a number from 0 up")?;
        if let Some(top_k) = top_k {
            require(*top_k >= 1, "top_k", top_k, "at least 1")?;
        }
        if let Some(top_p) = top_p {
            require(*top_p > 0.0 && *top_p <= 1.0, "top_p", top_p, "a probability above 0 and at most 1")?;
        }
        if let Some(min_p) = min_p {
            require((0.0..=1.0).contains(min_p), "min_p", min_p, "a share from 0 to 1")?;
        }
        Ok(())
    }
}

/// Draws tokens under one [`Sampling`].
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    rng: Rng,
}

impl Sampler {
    /// A sampler at the start of its random numbers.
    ///
    /// # Errors
    /// If a setting is out of range.
    pub fn new(sampling: &Sampling) -> Result<Self, Error> {
        sampling.validate()?;
        Ok(Sampler { sampling: sampling.clone(), rng: Rng::new(sampling.seed, 0x5a3b1e) })
    }

    /// Draws the next token from `logits: [v]`.
    ///
    /// # Errors
    /// If no logit is a number.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32, Error> {
        // A draw is used up whatever the settings, so that they can be compared on the same random numbers.
        let draw = self.rng.uniform();
        let kept = candidates(logits, &self.sampling)?;
        let total: f64 = kept.iter().map(|(_, p)| p).sum();
        let mut left = f64::from(draw) * total;
        for &(id, p) in &kept {
            left -= p;
            if left < 0.0 {
                return Ok(id);
            }
        }
        // Rounding can leave a sliver at the end.
        Ok(kept.last().expect("at least one candidate").0)
    }
}

/// The tokens that may be drawn with their probabilities (not renormalised after cutting), likeliest first; of equally
/// likely ones, the lower id first. Cuts are applied in the order top-k, top-p, min-p, as `transformers` does.
fn candidates(logits: &[f32], sampling: &Sampling) -> Result<Vec<(u32, f64)>, Error> {
    let mut order: Vec<u32> = (0..logits.len() as u32).filter(|&id| !logits[id as usize].is_nan()).collect();
    order.sort_unstable_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
    let &first = order.first().ok_or(Error::NotFinite)?;
    let largest = f64::from(logits[first as usize]);
    if !largest.is_finite() {
        return Err(Error::NotFinite);
    }
    if sampling.temperature == 0.0 {
        return Ok(vec![(first, 1.0)]);
    }
    let weight = |id: u32| ((f64::from(logits[id as usize]) - largest) / f64::from(sampling.temperature)).exp();
    let mut kept: Vec<(u32, f64)> = order.into_iter().map(|id| (id, weight(id))).collect();
    kept.truncate(sampling.top_k.unwrap_or(usize::MAX));
    normalise(&mut kept);
    if let Some(top_p) = sampling.top_p {
        let mut sum = 0.0;
        let n_below = kept.iter().take_while(|(_, p)| {
            sum += p;
            sum < f64::from(top_p)
        });
        // The token that crosses the threshold is kept.
        let n_kept = n_below.count() + 1;
        kept.truncate(n_kept);
    }
    if let Some(min_p) = sampling.min_p {
        let least = f64::from(min_p) * kept[0].1;
        kept.retain(|&(_, p)| p >= least);
    }
    Ok(kept)
}

fn normalise(kept: &mut [(u32, f64)]) {
    let total: f64 = kept.iter().map(|(_, p)| p).sum();
    kept.iter_mut().for_each(|(_, p)| *p /= total);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [0.0, 2.0, 1.0, -1.0, 2.0];
    const PLAIN: Sampling = Sampling { temperature: 1.0, top_k: None, top_p: None, min_p: None, seed: 3 };

    fn kept(sampling: Sampling) -> Vec<u32> {
        candidates(&LOGITS, &sampling).unwrap().into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn each_cut_keeps_what_it_says() {
        // Probabilities of LOGITS: 0.0527, 0.3894, 0.1433, 0.0194, 0.3894 (sum to 1 after rounding).
        assert_eq!(kept(PLAIN), [1, 4, 2, 0, 3]);
        assert_eq!(kept(Sampling { temperature: 0.0, ..PLAIN }), [1], "of equals the lower id");
        assert_eq!(kept(Sampling { top_k: Some(3), ..PLAIN }), [1, 4, 2]);
        assert_eq!(kept(Sampling { top_p: Some(0.5), ..PLAIN }), [1, 4], "the crossing token is kept");
        assert_eq!(kept(Sampling { top_p: Some(0.01), ..PLAIN }), [1], "never none");
        assert_eq!(kept(Sampling { min_p: Some(0.3), ..PLAIN }), [1, 4, 2]);
    }

    #[test]
    fn draws_follow_the_softmax() {
        let mut sampler = Sampler::new(&PLAIN).unwrap();
        let n = 100_000;
        let mut counts = [0u32; 5];
        for _ in 0..n {
            counts[sampler.sample(&LOGITS).unwrap() as usize] += 1;
        }
        let total: f64 = LOGITS.iter().map(|&x| f64::from(x).exp()).sum();
        for (count, logit) in counts.into_iter().zip(LOGITS) {
            let p = f64::from(logit).exp() / total;
            let deviation = (f64::from(count) / f64::from(n) - p) / (p * (1.0 - p) / f64::from(n)).sqrt();
            assert!(deviation.abs() < 5.0, "logit {logit}: {deviation} standard deviations off");
        }
    }

    #[test]
    fn logits_that_are_not_numbers_are_an_error_unless_others_are() {
        let mut sampler = Sampler::new(&PLAIN).unwrap();
        assert!(sampler.sample(&[f32::NAN, f32::NAN]).is_err());
        assert!(sampler.sample(&[f32::INFINITY, 0.0]).is_err());
        assert_eq!(sampler.sample(&[f32::NAN, 0.0]).unwrap(), 1);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let refused = |sampling: Sampling| Sampler::new(&sampling).unwrap_err().to_string();
        assert!(refused(Sampling { temperature: -1.0, ..PLAIN }).contains("temperature = -1"));
        assert!(refused(Sampling { top_p: Some(0.0), ..PLAIN }).contains("top_p"));
        assert!(refused(Sampling { top_k: Some(0), ..PLAIN }).contains("top_k"));
        assert!(refused(Sampling { min_p: Some(2.0), ..PLAIN }).contains("min_p"));
    }
}
