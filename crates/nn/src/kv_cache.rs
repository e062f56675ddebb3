//! Keys and values of earlier positions, so that a new token costs one position's work.

use tensor::ops::KeyValueCache;

use crate::ModelConfig;

/// The cache of one sequence, on the device of the model.
#[derive(Clone, Debug)]
pub struct KvCache {
    pub(crate) layers: Vec<KeyValueCache>,
    pub(crate) n_positions: usize,
}

impl KvCache {
    /// An empty cache for one sequence of a model.
    pub fn new(config: &ModelConfig) -> Self {
        KvCache { layers: vec![KeyValueCache::default(); config.n_layers], n_positions: 0 }
    }

    /// Positions seen so far.
    pub fn n_positions(&self) -> usize {
        self.n_positions
    }

    /// Bytes per position of a model: keys and values of all layers in f32.
    pub fn bytes_per_token(config: &ModelConfig) -> usize {
        config.n_layers * (config.heads().k_width() + config.heads().v_width()) * size_of::<f32>()
    }
}
