//! Axes: a range of values, where ticks go, and what they say.

use super::text::{grouped, trimmed, with_prefix};

/// How values become lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Equal steps of equal length.
    Linear,
    /// Decades of equal length; values must be positive.
    Log,
}

/// A range of values and its ticks.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) scale: Scale,
    /// Value and label.
    pub(super) ticks: Vec<(f64, String)>,
}

impl Axis {
    /// Exactly the range of `values`, with about `n_ticks` ticks inside.
    pub(super) fn tight(values: impl Iterator<Item = f64>, n_ticks: usize) -> Self {
        let (low, high) = range(values);
        let step = nice_step((high - low) / n_ticks as f64);
        // Between whole numbers, such as steps, there is nothing to mark.
        let is_whole = low.fract() == 0.0 && high.fract() == 0.0;
        let step = if is_whole { step.max(1.0) } else { step };
        Self { low, high, scale: Scale::Linear, ticks: linear_ticks(low, high, step) }
    }

    /// The range of `values` widened to ticks at both ends.
    pub(super) fn rounded(values: impl Iterator<Item = f64>, n_ticks: usize) -> Self {
        let (low, high) = range(values);
        let step = nice_step((high - low) / n_ticks as f64);
        let low = (low / step + 1e-9).floor() * step;
        let high = (high / step - 1e-9).ceil() * step;
        Self { low, high, scale: Scale::Linear, ticks: linear_ticks(low, high, step) }
    }

    /// Decades; values that are not positive are ignored.
    pub(super) fn log(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = range(values.filter(|&value| value > 0.0).map(f64::log10));
        // Exponents that close are one value, whatever their size.
        let margin = if high - low < 1e-6 { 0.1 } else { 0.0 };
        let (low, high) = ((low - margin).max(-300.0), (high + margin).min(300.0));
        // Few decades show 1, 2 and 5, more only powers of ten, very many every n-th of them.
        let per_decade: &[f64] = if high - low < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let stride = ((high - low) / 6.0).ceil().max(1.0) as i32;
        let candidates: Vec<f64> = (low.floor() as i32..=high.ceil() as i32)
            .filter(|exponent| exponent.rem_euclid(stride) == 0 || per_decade.len() > 1)
            .flat_map(|exponent| per_decade.iter().map(move |m| m * 10f64.powi(exponent)))
            .collect();
        let below = candidates.iter().rev().find(|&&tick| tick.log10() <= low + 1e-9);
        let above = candidates.iter().find(|&&tick| tick.log10() >= high - 1e-9);
        let low = below.copied().unwrap_or(10f64.powf(low));
        let high = above.copied().unwrap_or(10f64.powf(high));
        let ticks = candidates
            .into_iter()
            .filter(|tick| (low..=high).contains(tick))
            .map(|tick| (tick, label(tick, tick)))
            .collect();
        Self { low, high, scale: Scale::Log, ticks }
    }

    /// Where `value` lies: 0 at the low end, 1 at the high end; at most 100 lengths of the axis away.
    pub(super) fn position(&self, value: f64) -> f64 {
        let along = |value: f64| match self.scale {
            Scale::Linear => value,
            Scale::Log => value.max(f64::MIN_POSITIVE).log10(),
        };
        let (low, high) = (along(self.low), along(self.high));
        ((along(value) - low) / (high - low)).clamp(-100.0, 100.0)
    }
}

/// Smallest and largest value, forced apart so that `high > low` by a length that can be divided.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    // Beyond this size differences would overflow; no metric has such values.
    const LIMIT: f64 = 1e100;

    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values.filter(|value| value.is_finite()) {
        low = low.min(value.clamp(-LIMIT, LIMIT));
        high = high.max(value.clamp(-LIMIT, LIMIT));
    }
    if low > high {
        return (0.0, 1.0);
    }
    let size = low.abs().max(high.abs());
    if high - low > 1e-9 * size && high - low > 1e-100 {
        return (low, high);
    }
    match size > 1e-90 {
        true => (low - 0.1 * size, high + 0.1 * size),
        false => (0.0, 1.0),
    }
}

/// The smallest of 1, 2, 2.5 or 5 times a power of ten that is at least `step`.
fn nice_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|multiple| multiple * power)
        .find(|&nice| nice >= step * (1.0 - 1e-9))
        .unwrap_or(10.0 * power)
}

fn linear_ticks(low: f64, high: f64, step: f64) -> Vec<(f64, String)> {
    // Counted, never accumulated: rounding can neither drop the last tick nor loop for ever.
    let first = (low / step - 1e-9).ceil();
    let last = (high / step + 1e-9).floor();
    let n_ticks = (last - first).clamp(0.0, 50.0) as usize + 1;
    let largest = low.abs().max(high.abs());
    (0..n_ticks)
        .map(|i| (first + i as f64) * step)
        .map(|tick| (tick, if tick == 0.0 { "0".into() } else { axis_label(tick, step, largest) }))
        .collect()
}

/// A label with as many digits as ticks `step` apart need.
fn axis_label(tick: f64, step: f64, largest: f64) -> String {
    if largest >= 1e4 {
        return match step < 1.0 {
            true => label(tick, step),
            false => with_prefix(tick, 3),
        };
    }
    if largest < 1e-2 {
        let exponent = tick.abs().log10().floor();
        let digits = (exponent - step.log10().floor() + 1.0).clamp(0.0, 4.0) as usize;
        let (mantissa, exponent) = split_exponent(format!("{tick:.digits$e}"));
        return format!("{}e{exponent}", trimmed(mantissa));
    }
    label(tick, step)
}

/// A plain number; a large or very small one in the form `1e-7`.
fn label(tick: f64, step: f64) -> String {
    if tick.abs() >= 1e6 || tick.abs() < 1e-4 {
        let (mantissa, exponent) = split_exponent(format!("{tick:.2e}"));
        return format!("{}e{exponent}", trimmed(mantissa));
    }
    if step >= 1.0 && tick.fract() == 0.0 {
        return grouped(tick as i64);
    }
    // One more place than the step's first digit: steps of 0.25.
    let decimals = (1.0 - step.log10().floor()).clamp(0.0, 12.0) as usize;
    trimmed(format!("{tick:.decimals$}"))
}

fn split_exponent(text: String) -> (String, String) {
    let (mantissa, exponent) = text.split_once('e').expect("written with an exponent");
    (mantissa.into(), exponent.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        let rounded = |values: &[f64]| Axis::rounded(values.iter().copied(), 5);
        assert_eq!(labels(&rounded(&[1.93, 8.4])), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(labels(&rounded(&[0.0, 3e-4])), ["0", "1e-4", "2e-4", "3e-4"]);
        assert_eq!(labels(&rounded(&[0.0, 6e-3])), ["0", "2e-3", "4e-3", "6e-3"]);
        assert_eq!(labels(&rounded(&[15_200.0, 16_900.0])), ["15k", "15.5k", "16k", "16.5k", "17k"]);
        assert_eq!(labels(&rounded(&[1.6, 2.4])), ["1.6", "1.8", "2", "2.2", "2.4"]);
        assert_eq!(labels(&rounded(&[-1.0, 1.0])), ["-1", "-0.5", "0", "0.5", "1"]);
        let steps = Axis::tight([0.0, 1999.0].into_iter(), 6);
        assert_eq!(labels(&steps), ["0", "500", "1,000", "1,500"]);
        assert_eq!((steps.low, steps.high), (0.0, 1999.0));
    }

    #[test]
    fn log_ticks_follow_the_number_of_decades() {
        let log = |values: &[f64]| Axis::log(values.iter().copied());
        assert_eq!(labels(&log(&[0.3, 7.0])), ["0.2", "0.5", "1", "2", "5", "10"]);
        assert_eq!(labels(&log(&[0.02, 700.0])), ["0.01", "0.1", "1", "10", "100", "1,000"]);
        assert!(log(&[1e-80, 1e80]).ticks.len() < 15);
    }

    #[test]
    fn positions_run_from_zero_to_one() {
        let linear = Axis::rounded([0.0, 10.0].into_iter(), 5);
        assert_eq!(linear.position(2.5), 0.25);
        assert_eq!((linear.position(-5.0), linear.position(1e9)), (-0.5, 100.0));
        let log = Axis::log([0.01, 100.0].into_iter());
        assert!((log.position(1.0) - 0.5).abs() < 1e-12);
        assert!(log.position(-1.0).is_finite());
    }

    #[test]
    fn odd_values_give_a_usable_axis() {
        let odd: [&[f64]; 9] = [
            &[],
            &[0.0],
            &[f64::NAN, f64::INFINITY],
            &[-3.0],
            &[5.0, 5.0],
            &[1.0, 1.0 + f64::EPSILON],
            &[f64::MIN, f64::MAX],
            &[f64::MIN_POSITIVE],
            &[0.0, 1e-300],
        ];
        for values in odd {
            for axis in [
                Axis::tight(values.iter().copied(), 5),
                Axis::rounded(values.iter().copied(), 5),
                Axis::log(values.iter().copied()),
            ] {
                assert!(axis.low < axis.high, "{values:?}: {axis:?}");
                assert!((1..=60).contains(&axis.ticks.len()), "{values:?}: {axis:?}");
                for value in values {
                    let position = axis.position(*value);
                    assert!(value.is_nan() || (-100.0..=100.0).contains(&position), "{values:?}");
                }
            }
        }
    }
}
