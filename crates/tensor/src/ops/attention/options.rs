//! What attention may do beside a plain causal softmax.

use std::ops::Range;

use super::Heads;
use super::cuda::Problem;
use crate::{DType, Device, Tensor};

/// Which keys a query sees, and what becomes of its scores before the softmax:
/// `softcap · tanh(scale · q_i·k_j / softcap) − slope · |i − j|`.
#[derive(Clone, Copy, Debug)]
pub struct AttentionOptions<'a> {
    /// What products of queries and keys are multiplied by; positive.
    pub scale: f32,
    /// Whether a position sees itself and what is before it only.
    pub causal: bool,
    /// How many keys a query sees on each side, its own counted (Beltagy et al., 2020,
    /// <https://arxiv.org/abs/2004.05150>).
    pub window: Option<usize>,
    /// A bound that scores approach smoothly (Gemma 2, 2024, <https://arxiv.org/abs/2408.00118>).
    pub softcap: Option<f32>,
    /// `[h]`, f32: how fast scores of each query head fall with the distance (ALiBi; Press et al., 2021,
    /// <https://arxiv.org/abs/2108.12409>).
    pub alibi_slopes: Option<&'a Tensor>,
    /// `[b, t]`, u32: the first position that each one may see, of documents that follow one another in a row. Never
    /// decreases along a row; one that is behind its own position counts as that position. Causal attention only.
    pub document_start: Option<&'a Tensor>,
}

impl AttentionOptions<'_> {
    /// Causal, with nothing beside.
    pub fn new(scale: f32) -> Self {
        Self { scale, causal: true, window: None, softcap: None, alibi_slopes: None, document_start: None }
    }
}

/// The same, for as long as the tape lives.
#[derive(Clone)]
pub(super) struct Rule {
    pub(super) scale: f32,
    pub(super) causal: bool,
    pub(super) window: Option<usize>,
    pub(super) softcap: Option<f32>,
    pub(super) alibi_slopes: Option<Tensor>,
    pub(super) document_start: Option<Tensor>,
}

impl Rule {
    /// # Panics
    /// If the options do not fit `[b, t]` positions of `heads` on `device`.
    #[track_caller]
    pub(super) fn new(options: &AttentionOptions<'_>, heads: &Heads, b: usize, t: usize, device: Device) -> Self {
        let AttentionOptions { scale, causal, window, softcap, alibi_slopes, document_start } = *options;
        assert!(scale > 0.0, "attention: the scale must be positive, not {scale}");
        assert!(window != Some(0), "attention: a window of 0 keys leaves out the query's own");
        assert!(softcap.is_none_or(|x| x > 0.0), "attention: the softcap must be positive, not {softcap:?}");
        if let Some(slopes) = alibi_slopes {
            let fits = slopes.shape() == [heads.n_heads] && slopes.dtype() == DType::F32 && slopes.device() == device;
            assert!(fits, "attention: slopes must be [{}] of f32 on {device}, not {slopes:?}", heads.n_heads);
        }
        if let Some(starts) = document_start {
            let fits = starts.shape() == [b, t] && starts.dtype() == DType::U32 && starts.device() == device;
            assert!(fits, "attention: document starts must be [{b}, {t}] of u32 on {device}, not {starts:?}");
            assert!(causal, "attention: only causal attention can be kept inside documents");
            if device == Device::Cpu && t > 0 {
                let sorted = starts.u32s().chunks_exact(t).all(<[u32]>::is_sorted);
                assert!(sorted, "attention: document starts must not decrease along a row");
            }
        }
        let (alibi_slopes, document_start) = (alibi_slopes.map(Tensor::detached), document_start.map(Tensor::detached));
        Self { scale, causal, window, softcap, alibi_slopes, document_start }
    }

    /// Nothing beside the mask.
    pub(super) fn of(problem: &Problem) -> Self {
        let Problem { scale, causal, .. } = *problem;
        Self { scale, causal, window: None, softcap: None, alibi_slopes: None, document_start: None }
    }

    /// Whether nothing but the causal mask, if any, lies between scores and softmax.
    pub(super) fn is_plain(&self) -> bool {
        let Self { window, softcap, alibi_slopes, document_start, .. } = self;
        window.is_none() && softcap.is_none() && alibi_slopes.is_none() && document_start.is_none()
    }

    /// The keys that query `i` of a sequence of `t` sees; on the CPU.
    pub(super) fn visible(&self, sequence: usize, i: usize, t: usize) -> Range<usize> {
        let end = match self.window {
            _ if self.causal => i + 1,
            Some(window) => i.saturating_add(window).min(t),
            None => t,
        };
        let mut first = self.window.map_or(0, |window| (i + 1).saturating_sub(window));
        if let Some(starts) = &self.document_start {
            first = first.max((starts.u32s()[sequence * t + i] as usize).min(i));
        }
        first..end
    }

    /// The score of key `j` for query `i` of a query head from `product = scale · q_i·k_j`, and its derivative; on the CPU.
    pub(super) fn score(&self, head: usize, i: usize, j: usize, product: f64) -> (f64, f64) {
        let (mut score, mut slope) = (product, 1.0);
        if let Some(softcap) = self.softcap.map(f64::from) {
            let y = (product / softcap).tanh();
            (score, slope) = (softcap * y, 1.0 - y * y);
        }
        if let Some(slopes) = &self.alibi_slopes {
            score -= f64::from(slopes.f32s()[head]) * i.abs_diff(j) as f64;
        }
        (score, slope)
    }
}
