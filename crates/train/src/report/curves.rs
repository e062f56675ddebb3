//! Curves: from records to the few points that a chart draws.

use crate::metrics::Record;

/// Points of a curve as `(x, y)`, all finite.
pub type Points = Vec<(f64, f64)>;

/// Most points that one curve draws: about one per pixel of a wide chart.
pub(super) const MAX_POINTS: usize = 1000;

/// The points of all records; those without a finite value are left out.
pub(super) fn points(records: &[Record], x: impl Fn(&Record) -> f64, y: impl Fn(&Record) -> Option<f64>) -> Points {
    records
        .iter()
        .filter_map(|record| Some((x(record), y(record)?)))
        .filter(|(x, y)| x.is_finite() && y.is_finite())
        .collect()
}

/// Over how many records [`smoothed`] takes the mean: 2% of the run, an odd number.
pub(super) fn window(n_records: usize) -> usize {
    n_records / 100 * 2 + 1
}

/// The mean of `y` over a window centred at each point, so that the curve does not lag behind.
///
/// Towards the start the window shrinks on both sides, for a loss falls so fast there that a one-sided
/// mean would hide it. At the end, where curves are flat, it is cut off, so that noise stays hidden.
pub(super) fn smoothed(points: &Points) -> Points {
    let half = window(points.len()) / 2;
    let mut sums = Vec::with_capacity(points.len() + 1);
    sums.push(0.0);
    for (i, (_, y)) in points.iter().enumerate() {
        sums.push(sums[i] + y);
    }
    let mean = |i: usize| {
        let half = half.min(i);
        let (start, end) = (i - half, (i + half + 1).min(points.len()));
        (sums[end] - sums[start]) / (end - start) as f64
    };
    points.iter().enumerate().map(|(i, &(x, _))| (x, mean(i))).collect()
}

/// At most 1,000 points that keep every visible peak: the extremes of equal stretches.
pub fn thinned(points: Points) -> Points {
    if points.len() <= MAX_POINTS {
        return points;
    }
    // Two points per stretch, beside the first and the last of the curve.
    let n_stretches = (MAX_POINTS - 2) / 2;
    let last = points.len() - 1;
    let inner = &points[1..last];
    let mut kept = vec![points[0]];
    for stretch in 0..n_stretches {
        let start = stretch * inner.len() / n_stretches;
        let end = (stretch + 1) * inner.len() / n_stretches;
        let by_y = |&i: &usize, &j: &usize| inner[i].1.total_cmp(&inner[j].1);
        let (Some(low), Some(high)) = ((start..end).min_by(by_y), (start..end).max_by(by_y)) else {
            continue;
        };
        kept.push(inner[low.min(high)]);
        if low != high {
            kept.push(inner[low.max(high)]);
        }
    }
    kept.push(points[last]);
    kept
}

/// The value to cut the y axis at, and after how many points the curve stays below.
///
/// A loss falls from its first value so fast that an axis with room for it would press the rest of the
/// run flat. Never cuts off anything after the first 5% of the run. `None` if those take less than half of the
/// height.
pub(super) fn start_to_cut(points: &Points) -> Option<(f64, usize)> {
    let skipped = points.len() / 20;
    let rest = &points[skipped..];
    let low = rest.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
    let cut = rest.iter().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
    let first = points.first()?.1;
    let n_above = points.iter().rposition(|p| p.1 > cut).map_or(0, |last| last + 1);
    (n_above > 0 && first - low > 2.0 * (cut - low)).then_some((cut, n_above))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_keeps_straight_lines_and_removes_alternation() {
        let line: Points = (0..500).map(|i| (i as f64, 3.0 * i as f64)).collect();
        for (got, want) in smoothed(&line)[..490].iter().zip(&line) {
            assert!((got.1 - want.1).abs() < 1e-6);
        }
        assert_eq!(smoothed(&line)[0], line[0]);
        let alternating: Points = (0..500).map(|i| (i as f64, (i % 2) as f64)).collect();
        assert!(smoothed(&alternating)[20..].iter().all(|p| (p.1 - 0.5).abs() < 0.1));
        assert_eq!(smoothed(&vec![]), []);
        assert_eq!(smoothed(&vec![(0.0, 7.0)]), [(0.0, 7.0)]);
    }

    #[test]
    fn thinning_keeps_ends_peaks_and_order() {
        for n in [1000, 1001, 1999, 2000, 123_457] {
            let mut points: Points = (0..n).map(|i| (i as f64, (i as f64 * 0.7).sin())).collect();
            points[n / 3].1 = 50.0;
            points[n / 2].1 = -50.0;
            let thin = thinned(points.clone());
            assert!(thin.len() <= MAX_POINTS && thin.len() > MAX_POINTS / 2, "{n}: {}", thin.len());
            assert!(thin.contains(&points[n / 3]) && thin.contains(&points[n / 2]));
            assert_eq!((thin[0], thin[thin.len() - 1]), (points[0], points[n - 1]));
            assert!(thin.is_sorted_by(|a, b| a.0 < b.0));
        }
    }

    #[test]
    fn only_a_steep_start_is_cut() {
        let falling: Points = (0..200).map(|i| (i as f64, 2.0 + 8.0 * 0.8f64.powi(i))).collect();
        assert_eq!(start_to_cut(&falling), Some((falling[10].1, 10)));
        let straight: Points = (0..200).map(|i| (i as f64, -i as f64)).collect();
        assert_eq!(start_to_cut(&straight), None);
        let mut spiked = falling.clone();
        spiked[100].1 = 10.0;
        assert_eq!(start_to_cut(&spiked), None);
        assert_eq!(start_to_cut(&vec![]), None);
        assert_eq!(start_to_cut(&vec![(0.0, 1.0)]), None);
    }
}
