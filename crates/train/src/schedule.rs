//! Learning rate as a function of the step: warm-up, then cosine, linear, stable-and-decay or constant.
//!
//! Every schedule is a pure function of `(step, total_steps, peak)`, so that a resumed run needs no
//! state of its own to go on.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// How the learning rate moves over a run; chosen by key (`[schedule.cosine]`).
///
/// With `t` the step counted from 0, `W = warmup_steps` and `T` the steps of the run, every variant
/// warms up as `peak · t / W` while `t < W`, so the very first update has a learning rate of zero and
/// step `W` is the first at `peak`. A schedule that decays would reach `min_ratio · peak` exactly at
/// `t = T` and stays there; the last step that is run, `T - 1`, is one notch above.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum ScheduleConfig {
    /// Half a cosine from `peak` at `W` to `min_ratio · peak` at `T`.
    ///
    /// Loshchilov and Hutter, 2017, <https://arxiv.org/abs/1608.03983>, without restarts.
    Cosine {
        /// Steps of linear warm-up.
        warmup_steps: u64,
        /// Final learning rate over peak, in 0..=1.
        min_ratio: f64,
    },
    /// Warm-up, stable, decay: `peak` from `W` to `T - decay_steps`, then down to `min_ratio · peak`.
    ///
    /// Hu et al., 2024, <https://arxiv.org/abs/2404.06395>, section 4.
    Wsd {
        /// Steps of linear warm-up.
        warmup_steps: u64,
        /// Steps of the decay at the end of the run.
        decay_steps: u64,
        /// Final learning rate over peak, in 0..=1.
        min_ratio: f64,
        /// Form of the decay; linear if the key is left out.
        #[serde(default)]
        shape: DecayShape,
    },
    /// A straight line from `peak` at `W` to `min_ratio · peak` at `T`.
    Linear {
        /// Steps of linear warm-up.
        warmup_steps: u64,
        /// Final learning rate over peak, in 0..=1.
        min_ratio: f64,
    },
    /// `peak` from `W` on.
    Constant {
        /// Steps of linear warm-up.
        warmup_steps: u64,
    },
}

/// Form of the decay of [`ScheduleConfig::Wsd`], with `p` the part of the decay that is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecayShape {
    /// `1 - p`.
    #[default]
    Linear,
    /// `1 - √p`: Hägele et al., 2024, <https://arxiv.org/abs/2405.18392>, section 3.
    Sqrt,
}

/// A schedule that does not fit its run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    /// The warm-up would outlast the run.
    #[error(
        "schedule.{variant}.warmup_steps = {warmup_steps} is more than the {total_steps} steps of the run\n\
         hint: lower schedule.{variant}.warmup_steps or train for more steps"
    )]
    WarmupTooLong {
        /// Key of the variant.
        variant: &'static str,
        /// Steps of warm-up asked for.
        warmup_steps: u64,
        /// Steps of the run.
        total_steps: u64,
    },
    /// Warm-up and decay overlap.
    #[error(
        "schedule.wsd needs {warmup_steps} steps of warm-up and {decay_steps} of decay, but the run has {total_steps}\n\
         hint: lower schedule.wsd.warmup_steps or schedule.wsd.decay_steps"
    )]
    PhasesTooLong {
        /// Steps of warm-up asked for.
        warmup_steps: u64,
        /// Steps of decay asked for.
        decay_steps: u64,
        /// Steps of the run.
        total_steps: u64,
    },
    /// `min_ratio` is not a fraction.
    #[error(
        "schedule.{variant}.min_ratio = {min_ratio} is not between 0 and 1\n\
         hint: it is the final learning rate divided by the peak, such as 0.1"
    )]
    BadMinRatio {
        /// Key of the variant.
        variant: &'static str,
        /// The value found.
        min_ratio: f64,
    },
}

impl ScheduleConfig {
    /// The learning rate of the update at `step` (counted from 0) of a run of `total_steps`.
    ///
    /// Steps at or after `total_steps` get the final value. Never divides by zero: a phase of no
    /// steps is skipped.
    pub fn learning_rate(&self, step: u64, total_steps: u64, peak: f64) -> f64 {
        let warmup_steps = self.warmup_steps();
        if step < warmup_steps {
            return peak * (step as f64 / warmup_steps as f64);
        }
        // Part of the way from the end of the warm-up to the end of the run, in 0..=1.
        let progress = fraction(step, warmup_steps, total_steps);
        match *self {
            Self::Cosine { min_ratio, .. } => between(min_ratio * peak, peak, 0.5 * (1.0 + (PI * progress).cos())),
            Self::Linear { min_ratio, .. } => between(min_ratio * peak, peak, 1.0 - progress),
            Self::Wsd { decay_steps, min_ratio, shape, .. } => {
                let decay_start = total_steps.saturating_sub(decay_steps);
                if step < decay_start {
                    return peak;
                }
                let done = fraction(step, decay_start, total_steps);
                let height = match shape {
                    DecayShape::Linear => 1.0 - done,
                    DecayShape::Sqrt => 1.0 - done.sqrt(),
                };
                between(min_ratio * peak, peak, height)
            }
            Self::Constant { .. } => peak,
        }
    }

    /// Checks the schedule against a run of `total_steps`.
    ///
    /// # Errors
    /// If the phases are longer than the run or `min_ratio` is not in 0..=1.
    pub fn validate(&self, total_steps: u64) -> Result<(), ScheduleError> {
        let variant = self.key();
        let warmup_steps = self.warmup_steps();
        if warmup_steps > total_steps {
            return Err(ScheduleError::WarmupTooLong { variant, warmup_steps, total_steps });
        }
        match *self {
            Self::Cosine { warmup_steps: _, min_ratio } | Self::Linear { warmup_steps: _, min_ratio } => {
                check_ratio(variant, min_ratio)
            }
            Self::Wsd { warmup_steps, decay_steps, min_ratio, shape: _ } => {
                if decay_steps > total_steps - warmup_steps {
                    return Err(ScheduleError::PhasesTooLong { warmup_steps, decay_steps, total_steps });
                }
                check_ratio(variant, min_ratio)
            }
            Self::Constant { warmup_steps: _ } => Ok(()),
        }
    }

    /// Steps of linear warm-up.
    pub fn warmup_steps(&self) -> u64 {
        match *self {
            Self::Cosine { warmup_steps, .. }
            | Self::Wsd { warmup_steps, .. }
            | Self::Linear { warmup_steps, .. }
            | Self::Constant { warmup_steps } => warmup_steps,
        }
    }

    fn key(&self) -> &'static str {
        match self {
            Self::Cosine { .. } => "cosine",
            Self::Wsd { .. } => "wsd",
            Self::Linear { .. } => "linear",
            Self::Constant { .. } => "constant",
        }
    }
}

fn check_ratio(variant: &'static str, min_ratio: f64) -> Result<(), ScheduleError> {
    match (0.0..=1.0).contains(&min_ratio) {
        true => Ok(()),
        false => Err(ScheduleError::BadMinRatio { variant, min_ratio }),
    }
}

/// Where `step` lies between `start` and `end`, in 0..=1; an empty interval is already over.
fn fraction(step: u64, start: u64, end: u64) -> f64 {
    if step >= end {
        return 1.0;
    }
    (step - start) as f64 / (end - start) as f64
}

fn between(low: f64, high: f64, height: f64) -> f64 {
    low + height * (high - low)
}
