//! Building a model: its parameters one after another, drawn fresh or read from a file.

use std::convert::Infallible;

use tensor::random::Rng;
use tensor::{Device, Tensor};

use crate::transformer::Parts;
use crate::{Attention, Block, Init, Linear, Mlp, ModelConfig, Norm, NormKind, Position, Transformer};

/// What a parameter is for, which decides how it is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A row per token or position.
    Table,
    /// A linear map; some write into the residual stream.
    Matrix { writes_residual: bool },
    /// Starts at 1.
    Gain,
    /// Starts at 0.
    Bias,
}

/// Gives the parameter of a name, for a purpose, of a shape.
type Make<'a, E> = dyn FnMut(&str, Role, &[usize]) -> Result<Tensor, E> + 'a;

impl Transformer {
    /// A model with fresh weights.
    ///
    /// Every tensor draws from a stream of its own under the seed, so its numbers depend on the seed, its place in the
    /// model and its shape, and on nothing else.
    pub fn new(config: &ModelConfig, seed: u64) -> Self {
        Self::new_on(Device::Cpu, config, seed)
    }

    /// [`Transformer::new`], drawn on a device: the same bits on each.
    pub fn new_on(device: Device, config: &ModelConfig, seed: u64) -> Self {
        let mut stream = 0;
        let model = Transformer::build(config, &mut |_, role, shape| {
            stream += 1;
            Ok::<Tensor, Infallible>(fresh(device, config, &Rng::new(seed, stream), role, shape))
        });
        match model {
            // What is computed from the config, and not drawn, is on the CPU so far.
            Ok(model) => model.to(device),
            Err(never) => match never {},
        }
    }

    /// A model whose parameters come from `make(name, role, shape)`, called in the order of
    /// [`Transformer::parameters`].
    pub(crate) fn build<E>(config: &ModelConfig, make: &mut Make<'_, E>) -> Result<Self, E> {
        let (d, v) = (config.d_model, config.vocab_size);
        let token_embedding = make("token_embedding", Role::Table, &[v, d])?;
        let position_embedding = match config.position {
            Position::Learned => Some(make("position_embedding", Role::Table, &[config.context_length, d])?),
            _ => None,
        };
        let mut blocks = Vec::with_capacity(config.n_layers);
        for layer in 0..config.n_layers {
            let heads = config.heads();
            let mut norm = |name: &str| build_norm(config, &format!("blocks.{layer}.{name}"), make);
            let attention_norm = norm("attention_norm")?;
            let mut linear = |name: &str, shape, writes_residual| {
                build_linear(config, &format!("blocks.{layer}.{name}"), shape, writes_residual, make)
            };
            let qkv = linear("attention.qkv", [heads.qkv_width(), d], false)?;
            let output = linear("attention.output", [d, heads.q_width()], true)?;
            let mlp_norm = build_norm(config, &format!("blocks.{layer}.mlp_norm"), make)?;
            let mut linear = |name: &str, shape, writes_residual| {
                build_linear(config, &format!("blocks.{layer}.{name}"), shape, writes_residual, make)
            };
            let up = linear("mlp.up", [config.d_up(), d], false)?;
            let down = linear("mlp.down", [d, config.d_ff], true)?;
            let attention = Attention { qkv, output };
            let mlp = Mlp { kind: config.mlp, up, down };
            blocks.push(Block { placement: config.placement, attention_norm, attention, mlp_norm, mlp });
        }
        let final_norm = match config.has_final_norm() {
            true => build_norm(config, "final_norm", make)?,
            false => Norm::None,
        };
        let head = match config.tie_embeddings {
            true => None,
            false => Some(make("head", Role::Matrix { writes_residual: false }, &[v, d])?),
        };
        let parts = Parts { token_embedding, position_embedding, blocks, final_norm, head };
        Ok(Transformer::from_parts(config, parts))
    }
}

fn build_norm<E>(config: &ModelConfig, name: &str, make: &mut Make<'_, E>) -> Result<Norm, E> {
    let mut gain = || make(&format!("{name}.gain"), Role::Gain, &[config.d_model]);
    Ok(match config.norm {
        NormKind::None => Norm::None,
        NormKind::Rms { eps } => Norm::Rms { gain: gain()?, eps },
        NormKind::Layer { eps, bias } => {
            let gain = gain()?;
            let bias = match bias {
                true => Some(make(&format!("{name}.bias"), Role::Bias, &[config.d_model])?),
                false => None,
            };
            Norm::Layer { gain, bias, eps }
        }
    })
}

fn build_linear<E>(
    config: &ModelConfig,
    name: &str,
    shape: [usize; 2],
    writes_residual: bool,
    make: &mut Make<'_, E>,
) -> Result<Linear, E> {
    let weight = make(&format!("{name}.weight"), Role::Matrix { writes_residual }, &shape)?;
    let bias = match config.bias {
        true => Some(make(&format!("{name}.bias"), Role::Bias, &shape[..1])?),
        false => None,
    };
    Ok(Linear::new(weight, bias))
}

/// Draws one tensor.
fn fresh(device: Device, config: &ModelConfig, rng: &Rng, role: Role, shape: &[usize]) -> Tensor {
    match (role, &config.init) {
        (Role::Gain, _) => Tensor::full_on(device, shape, 1.0),
        (Role::Bias, _) => Tensor::full_on(device, shape, 0.0),
        (Role::Matrix { writes_residual: true }, Init::Normal { std, scale_residual: true }) => {
            // Two writes per block: the variance of the stream stays that of one.
            rng.normal_on(device, shape, std / ((2 * config.n_layers) as f32).sqrt())
        }
        (Role::Table | Role::Matrix { .. }, Init::Normal { std, .. }) => rng.normal_on(device, shape, *std),
        (Role::Table, Init::Glorot) => rng.truncated_normal_on(device, shape, 1.0, 3.0),
        (Role::Matrix { .. }, Init::Glorot) => {
            let fan_in_and_out: usize = shape.iter().sum();
            rng.truncated_normal_on(device, shape, (2.0 / fan_in_and_out as f32).sqrt(), 3.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MlpKind, Placement};

    fn variants() -> Vec<ModelConfig> {
        let llama = ModelConfig::llama(50, 16, 24, 2, 4, 40);
        vec![
            ModelConfig::gpt2(50, 16, 24, 2, 4),
            ModelConfig { n_kv_heads: 2, ..llama.clone() },
            ModelConfig { placement: Placement::Post, position: Position::None, ..llama.clone() },
            ModelConfig { norm: NormKind::None, mlp: MlpKind::Silu, tie_embeddings: true, ..llama.clone() },
            ModelConfig { norm: NormKind::Layer { eps: 1e-5, bias: false }, bias: true, ..llama },
        ]
    }

    #[test]
    fn a_model_is_built_in_the_order_and_with_the_names_of_its_parameters() {
        for config in variants() {
            let mut made = Vec::new();
            let model = Transformer::build(&config, &mut |name, _, shape| {
                made.push((name.to_owned(), shape.to_vec()));
                Ok::<_, ()>(Tensor::full(shape, 0.0))
            });
            let mut model = model.unwrap();
            let listed: Vec<_> = model.parameters().iter().map(|(n, x)| (n.clone(), x.shape().to_vec())).collect();
            assert_eq!(made, listed);
            let mutable: Vec<_> = model.parameters_mut().iter().map(|x| x.shape().to_vec()).collect();
            assert_eq!(mutable, made.iter().map(|(_, shape)| shape.clone()).collect::<Vec<_>>());
            assert_eq!(model.n_parameters(), config.n_parameters(), "the closed form of {config:?}");
        }
    }

    #[test]
    fn fresh_weights_have_the_same_bits_on_every_device() {
        for device in tensor::testing::devices() {
            for config in variants() {
                let (found, expected) = (Transformer::new_on(device, &config, 3), Transformer::new(&config, 3));
                assert_eq!(found.device(), device);
                for ((name, found), (_, expected)) in found.parameters().into_iter().zip(expected.parameters()) {
                    assert_eq!(found.to(Device::Cpu).f32s(), expected.f32s(), "{name} on {device}");
                }
            }
        }
    }

    #[test]
    fn fresh_weights_depend_on_the_seed_alone_and_have_the_spread_asked_for() {
        let config = ModelConfig::gpt2(1000, 16, 64, 8, 4);
        let (a, b, c) = (Transformer::new(&config, 1), Transformer::new(&config, 1), Transformer::new(&config, 2));
        assert_eq!(a.token_embedding.f32s(), b.token_embedding.f32s());
        assert_ne!(a.token_embedding.f32s(), c.token_embedding.f32s());
        let std = |x: &Tensor| (x.f32s().iter().map(|x| x * x).sum::<f32>() / x.len() as f32).sqrt();
        let block = &a.blocks[3];
        assert!((std(&a.token_embedding) - 0.02).abs() < 0.001);
        assert!((std(&block.mlp.up.weight) - 0.02).abs() < 0.001);
        assert!((std(&block.mlp.down.weight) - 0.02 / 4.0).abs() < 0.0003);
        assert!(a.is_finite());
    }
}
