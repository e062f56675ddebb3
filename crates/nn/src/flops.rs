//! Floating-point operations, counted from the shapes of matrix products: 2·m·n·k each. Elementwise work is left out,
//! as everyone does.

use crate::ModelConfig;

/// Operations of one forward pass over one sequence, by component.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ForwardFlops {
    /// Projections to queries, keys and values, and back.
    pub projections: f64,
    /// Scores and weighted sums, over all pairs of positions as if there were no causal mask.
    pub attention: f64,
    /// Feed-forward layers.
    pub mlp: f64,
    /// The output head.
    pub head: f64,
}

impl ForwardFlops {
    /// Counts a forward pass over `n_tokens` positions.
    pub fn of(config: &ModelConfig, n_tokens: usize) -> Self {
        let (t, d, layers) = (n_tokens as f64, config.d_model as f64, config.n_layers as f64);
        let heads = config.heads();
        let (q, qkv) = (heads.q_width() as f64, heads.qkv_width() as f64);
        ForwardFlops {
            projections: layers * 2.0 * t * d * (qkv + q),
            attention: layers * 4.0 * t * t * q,
            mlp: layers * 2.0 * t * d * (config.d_up() + config.d_ff) as f64,
            head: 2.0 * t * d * config.vocab_size as f64,
        }
    }

    /// The whole pass.
    pub fn total(&self) -> f64 {
        self.projections + self.attention + self.mlp + self.head
    }
}

/// Operations per trained token that the mathematics asks for: three times the forward (backward costs two), with only
/// the lower triangle of attention. Recomputation is not counted.
///
/// Model FLOPs utilisation is this times tokens per second, over the device's peak.
pub fn training_flops_per_token(config: &ModelConfig) -> f64 {
    let t = config.context_length;
    let forward = ForwardFlops::of(config, t);
    3.0 * (forward.total() - forward.attention / 2.0) / t as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MlpKind;

    /// Figures of the course's accounting exercise: SwiGLU with the d_ff of GPT-2, untied, T = 1024 and 16384.
    #[test]
    fn the_accounting_of_the_course_is_reproduced() {
        let cases = [
            (768, 12, 12, 3072, 1024, 3.496e11, [16.6, 11.1, 49.8, 22.6]),
            (1024, 24, 16, 4096, 1024, 1.033e12, [20.0, 10.0, 59.9, 10.2]),
            (1280, 36, 20, 5120, 1024, 2.258e12, [21.4, 8.6, 64.2, 5.8]),
            (1600, 48, 25, 6400, 1024, 4.513e12, [22.3, 7.1, 66.9, 3.6]),
            (1600, 48, 25, 6400, 16384, 1.495e14, [10.8, 55.2, 32.3, 1.8]),
            (1600, 48, 25, 4288, 1024, 3.517e12, [28.6, 9.2, 57.5, 4.7]),
        ];
        for (d, layers, heads, d_ff, t, total, shares) in cases {
            let flops = ForwardFlops::of(&ModelConfig::llama(50257, t, d, layers, heads, d_ff), t);
            assert!((flops.total() / total - 1.0).abs() < 5e-4, "{d}: {}", flops.total());
            let parts = [flops.projections, flops.attention, flops.mlp, flops.head];
            for (part, share) in parts.into_iter().zip(shares) {
                assert!((100.0 * part / flops.total() - share).abs() < 0.06, "{d} at {t}: {part} is not {share} %");
            }
        }
    }

    #[test]
    fn training_costs_about_six_operations_per_parameter_and_token() {
        let config = ModelConfig { mlp: MlpKind::Gelu, ..ModelConfig::llama(1000, 8, 2048, 4, 16, 8192) };
        let matrices = (config.n_parameters() - config.vocab_size * config.d_model) as f64;
        assert!((training_flops_per_token(&config) / (6.0 * matrices) - 1.0).abs() < 0.01);
    }
}
