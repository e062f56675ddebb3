//! Even splits of a range.

use std::ops::Range;

/// A range `0..len` cut into the fewest parts of at most `max` units, all of nearly the same size.
///
/// Even parts keep the last one from being a sliver that runs a kernel at a fraction of its speed. All borders but
/// the last are multiples of `unit`.
#[derive(Clone, Copy)]
pub(super) struct Split {
    len: usize,
    unit: usize,
    n_units: usize,
    n_parts: usize,
}

impl Split {
    /// Parts of at most `max` elements (rounded up to one `unit`).
    pub(super) fn at_most(len: usize, max: usize, unit: usize) -> Self {
        let n_units = len.div_ceil(unit);
        Self { len, unit, n_units, n_parts: n_units.div_ceil((max / unit).max(1)) }
    }

    /// As many as `n_parts` parts.
    pub(super) fn into_parts(len: usize, n_parts: usize, unit: usize) -> Self {
        let n_units = len.div_ceil(unit);
        Self { len, unit, n_units, n_parts: n_parts.min(n_units) }
    }

    /// The number of parts.
    pub(super) fn n_parts(self) -> usize {
        self.n_parts
    }

    /// Part `idx` of `n_parts`.
    pub(super) fn part(self, idx: usize) -> Range<usize> {
        let border = |i: usize| (self.scaled(i) * self.unit).min(self.len);
        border(idx)..border(idx + 1)
    }

    fn scaled(self, idx: usize) -> usize {
        let (quotient, remainder) = (self.n_units / self.n_parts, self.n_units % self.n_parts);
        idx * quotient + idx.min(remainder)
    }

    /// All parts in order.
    pub(super) fn parts(self) -> impl Iterator<Item = Range<usize>> {
        (0..self.n_parts).map(move |idx| self.part(idx))
    }
}
