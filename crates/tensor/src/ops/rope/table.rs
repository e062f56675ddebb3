//! Cosines and sines of all positions.

use crate::{Device, Tensor};

/// Which elements of a head form a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeLayout {
    /// Element `i` with element `i + e/2`: GPT-NeoX, Llama in Hugging Face's format, Qwen.
    HalfSplit,
    /// Element `2i` with element `2i + 1`: the paper, GPT-J, Llama in Meta's format.
    Interleaved,
}

/// Cosine and sine of the angle of every position and pair, `[context_length, e/2]`, on one device. Cloning shares them.
#[derive(Clone, Debug)]
pub struct RopeTable {
    cos: Tensor,
    sin: Tensor,
    n_pairs: usize,
    context_length: usize,
    layout: RopeLayout,
}

impl RopeTable {
    /// The table of the paper: pair `i` turns by `theta^(−2i/head_dim)` radians per position. With `head_dim` smaller
    /// than the heads', only their first `head_dim` elements are turned.
    ///
    /// # Panics
    /// If `head_dim` is odd.
    #[track_caller]
    pub fn new(head_dim: usize, context_length: usize, theta: f64, layout: RopeLayout) -> Self {
        assert!(head_dim.is_multiple_of(2), "rope: elements turn in pairs, so head_dim must be even, not {head_dim}");
        let frequencies: Vec<f64> =
            (0..head_dim / 2).map(|pair| theta.powf(-2.0 * pair as f64 / head_dim as f64)).collect();
        Self::from_inverse_frequencies(&frequencies, context_length, layout)
    }

    /// A table of given angles per position (radians), one for each pair: for scaled frequencies.
    pub fn from_inverse_frequencies(frequencies: &[f64], context_length: usize, layout: RopeLayout) -> Self {
        // In f64: at position 100 000 an f32 angle would be off by several milliradians.
        let n_pairs = frequencies.len();
        let angle = |i: usize| (i / n_pairs) as f64 * frequencies[i % n_pairs];
        let shape = [context_length, n_pairs];
        RopeTable {
            cos: Tensor::from_fn(&shape, |i| angle(i).cos() as f32),
            sin: Tensor::from_fn(&shape, |i| angle(i).sin() as f32),
            n_pairs,
            context_length,
            layout,
        }
    }

    /// The same table on `device`.
    pub fn to(&self, device: Device) -> Self {
        RopeTable { cos: self.cos.to(device), sin: self.sin.to(device), ..*self }
    }

    /// Where the table is.
    pub fn device(&self) -> Device {
        self.cos.device()
    }

    /// Elements of a head that are turned.
    pub fn rotated_dims(&self) -> usize {
        2 * self.n_pairs
    }

    /// Positions in the table.
    pub fn context_length(&self) -> usize {
        self.context_length
    }

    /// Which elements form a pair.
    pub fn layout(&self) -> RopeLayout {
        self.layout
    }

    /// Cosines and sines of the pairs at a position.
    pub(super) fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let pairs = position * self.n_pairs..(position + 1) * self.n_pairs;
        (&self.cos.f32s()[pairs.clone()], &self.sin.f32s()[pairs])
    }

    /// All cosines and sines.
    pub(super) fn elements(&self) -> (&Tensor, &Tensor) {
        (&self.cos, &self.sin)
    }
}
