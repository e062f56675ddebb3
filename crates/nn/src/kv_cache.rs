//! Keys and values of earlier positions, so that a new token costs one position's work.

use crate::ModelConfig;

/// The cache of one sequence.
#[derive(Clone, Debug)]
pub struct KvCache {
    pub(crate) layers: Vec<LayerCache>,
    pub(crate) n_positions: usize,
}

/// Rows of `[g·e]`, one per position.
#[derive(Clone, Debug, Default)]
pub(crate) struct LayerCache {
    pub(crate) keys: Vec<f32>,
    pub(crate) values: Vec<f32>,
}

impl KvCache {
    /// An empty cache for one sequence of a model.
    pub fn new(config: &ModelConfig) -> Self {
        KvCache { layers: vec![LayerCache::default(); config.n_layers], n_positions: 0 }
    }

    /// Positions seen so far.
    pub fn n_positions(&self) -> usize {
        self.n_positions
    }

    /// Bytes per position of a model: keys and values of all layers in f32.
    pub fn bytes_per_token(config: &ModelConfig) -> usize {
        2 * config.n_layers * config.heads().kv_width() * size_of::<f32>()
    }
}
