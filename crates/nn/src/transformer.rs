//! The decoder: embedding, blocks, head.

use serde::{Deserialize, Serialize};
use tensor::ops::{self, RopeTable};
use tensor::{DType, Device, Tensor};

use crate::attention::AttentionContext;
use crate::block::Stream;
use crate::{Block, KvCache, ModelConfig, Norm};

/// What backward computes again instead of keeping it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recompute {
    /// Everything is kept.
    #[default]
    None,
    /// Of each block only the input is kept; see [`tensor::recompute`].
    Blocks,
}

/// A model: a plain struct of tensors.
#[derive(Clone, Debug)]
pub struct Transformer {
    config: ModelConfig,
    /// `[v, d]`
    pub token_embedding: Tensor,
    /// `[context_length, d]`, if positions are learned.
    pub position_embedding: Option<Tensor>,
    /// From the first to the last.
    pub blocks: Vec<Block>,
    /// Before the head, if norms stand before.
    pub final_norm: Norm,
    /// `[v, d]`; none if the head is the embedding table.
    pub head: Option<Tensor>,
    rope: Option<RopeTable>,
    recompute: Recompute,
}

/// The tensors of a model, to be put together by [`Transformer::from_parts`].
pub(crate) struct Parts {
    pub(crate) token_embedding: Tensor,
    pub(crate) position_embedding: Option<Tensor>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) final_norm: Norm,
    pub(crate) head: Option<Tensor>,
}

impl Transformer {
    pub(crate) fn from_parts(config: &ModelConfig, parts: Parts) -> Self {
        let rope = match config.position {
            crate::Position::Rope { theta, layout } => {
                Some(RopeTable::new(config.head_dim(), config.context_length, theta, layout.into()))
            }
            _ => None,
        };
        let Parts { token_embedding, position_embedding, blocks, final_norm, head } = parts;
        let (config, recompute) = (config.clone(), Recompute::None);
        Transformer { config, token_embedding, position_embedding, blocks, final_norm, head, rope, recompute }
    }

    /// The same model with another trade of time for memory in training. Results do not differ.
    #[must_use]
    pub fn with_recompute(self, recompute: Recompute) -> Self {
        Transformer { recompute, ..self }
    }

    /// What the model is made of.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Hidden states before the head. With a cache, `ids_bt` continue the one sequence in it (`b = 1`).
    ///
    /// # Shapes
    /// `ids_bt: [b, t]` of u32 → `[b, t, d]`.
    ///
    /// # Panics
    /// If there are more positions than the context length.
    #[track_caller]
    pub fn forward(&self, ids_bt: &Tensor, mut cache: Option<&mut KvCache>) -> Tensor {
        let &[_, t] = ids_bt.shape() else { panic!("forward: ids must be [b, t], not {:?}", ids_bt.shape()) };
        let start = cache.as_ref().map_or(0, |cache| cache.n_positions);
        let context_length = self.config.context_length;
        assert!(
            start + t <= context_length,
            "forward: {start} + {t} positions, the context length is {context_length}"
        );

        let x = match &self.position_embedding {
            Some(positions) => ops::embedding_with_positions(ids_bt, &self.token_embedding, positions, start),
            None => ops::embedding(ids_bt, &self.token_embedding),
        };
        let mut stream = Stream { x, branch: None };
        for (layer, block) in self.blocks.iter().enumerate() {
            if self.recompute == Recompute::Blocks && cache.is_none() {
                stream.x = block.forward_recomputed(&stream.x, self.config.heads(), self.rope.as_ref());
                continue;
            }
            let context = AttentionContext {
                heads: self.config.heads(),
                rope: self.rope.as_ref(),
                start,
                cache: cache.as_mut().map(|cache| &mut cache.layers[layer]),
            };
            stream = block.forward(stream, context);
        }
        if let Some(cache) = cache {
            cache.n_positions += t;
        }
        let (_, normed) = stream.normed(&self.final_norm);
        normed
    }

    /// The matrix of the output head, `[v, d]`.
    pub fn head_weight(&self) -> &Tensor {
        self.head.as_ref().unwrap_or(&self.token_embedding)
    }

    /// Logits of the next token at every position: `[b, t]` → `[b, t, v]`.
    #[track_caller]
    pub fn logits(&self, ids_bt: &Tensor) -> Tensor {
        ops::linear(&self.forward(ids_bt, None), self.head_weight(), None)
    }

    /// Continues the sequence in `cache` by `ids` and returns the logits of the token after the last, `[v]`.
    ///
    /// # Panics
    /// If `ids` is empty or the context length is exceeded.
    #[track_caller]
    pub fn next_logits(&self, ids: &[u32], cache: &mut KvCache) -> Vec<f32> {
        assert!(!ids.is_empty(), "next_logits: at least one id is needed");
        let device = self.device();
        let ids_bt = Tensor::from_u32(&[1, ids.len()], ids.to_vec()).to(device);
        let x_btd = self.forward(&ids_bt, Some(cache));
        let logits = ops::linear(&last_row(&x_btd), self.head_weight(), None);
        ops::cast(&logits.to(Device::Cpu), DType::F32).f32s().to_vec()
    }

    /// Cross-entropy in nats summed over all counted targets, divided by `divisor`. The logits are never held whole.
    ///
    /// # Shapes
    /// `inputs_bt, targets_bt: [b, t]` of u32 (targets may be [`ops::IGNORED`]) → `[]`.
    #[track_caller]
    pub fn loss(&self, inputs_bt: &Tensor, targets_bt: &Tensor, divisor: f32) -> Tensor {
        ops::linear_cross_entropy(&self.forward(inputs_bt, None), self.head_weight(), targets_bt, divisor)
    }

    /// The parameters with their names, in the fixed order that optimizer and checkpoints use.
    pub fn parameters(&self) -> Vec<(String, &Tensor)> {
        let mut list = vec![("token_embedding".to_owned(), &self.token_embedding)];
        list.extend(self.position_embedding.iter().map(|table| ("position_embedding".to_owned(), table)));
        for (layer, block) in self.blocks.iter().enumerate() {
            block.parameters(&format!("blocks.{layer}"), &mut list);
        }
        self.final_norm.parameters("final_norm", &mut list);
        list.extend(self.head.iter().map(|head| ("head".to_owned(), head)));
        list
    }

    /// The parameters in the order of [`Transformer::parameters`], to be changed.
    pub fn parameters_mut(&mut self) -> Vec<&mut Tensor> {
        let mut list = vec![&mut self.token_embedding];
        list.extend(&mut self.position_embedding);
        for block in &mut self.blocks {
            block.parameters_mut(&mut list);
        }
        self.final_norm.parameters_mut(&mut list);
        list.extend(&mut self.head);
        list
    }

    /// The same weights, with gradients asked for.
    pub fn tracked(&self) -> Self {
        self.map(Tensor::tracked)
    }

    /// The same weights as constants: nothing is put on the tape.
    pub fn detached(&self) -> Self {
        self.map(Tensor::detached)
    }

    /// The same weights on `device`, off the tape: shared if they are there already.
    pub fn to(&self, device: Device) -> Self {
        let rope = self.rope.as_ref().map(|table| table.to(device));
        Transformer { rope, ..self.map(|x| x.to(device)) }
    }

    /// A copy to compute with, in `dtype`, that shares nothing with this model: the weights that are trained stay in f32,
    /// and so do the parameters of norms, whose few numbers matter more than their speed.
    pub fn compute_copy(&self, dtype: DType) -> Self {
        let mut copy = self.detached();
        for x in copy.tables_and_linears_mut() {
            *x = ops::cast(x, dtype);
        }
        for x in copy.parameters_mut().into_iter().filter(|x| x.dtype() == DType::F32) {
            *x = x.copied_to(x.device());
        }
        copy
    }

    /// The same model, in the same place on the tape, with the products of its blocks' linear maps in fp8: those whose
    /// sizes allow it, on a GPU in bf16. To be made anew whenever the weights have changed.
    pub fn with_fp8(&self) -> Self {
        let mut copy = self.clone();
        for block in &mut copy.blocks {
            let Block { attention, mlp, .. } = block;
            for linear in [&mut attention.qkv, &mut attention.output, &mut mlp.up, &mut mlp.down] {
                *linear = linear.with_fp8();
            }
        }
        copy
    }

    fn tables_and_linears_mut(&mut self) -> Vec<&mut Tensor> {
        let mut list = vec![&mut self.token_embedding];
        list.extend(&mut self.position_embedding);
        for block in &mut self.blocks {
            let Block { attention, mlp, .. } = block;
            for linear in [&mut attention.qkv, &mut attention.output, &mut mlp.up, &mut mlp.down] {
                linear.parameters_mut(&mut list);
            }
        }
        list.extend(&mut self.head);
        list
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.token_embedding.device()
    }

    fn map(&self, f: impl Fn(&Tensor) -> Tensor) -> Self {
        let mut mapped = self.clone();
        for parameter in mapped.parameters_mut() {
            *parameter = f(parameter);
        }
        mapped
    }

    /// Trained numbers.
    pub fn n_parameters(&self) -> usize {
        self.parameters().iter().map(|(_, x)| x.len()).sum()
    }

    /// Whether every parameter is a finite f32.
    pub fn is_finite(&self) -> bool {
        self.parameters()
            .iter()
            .all(|(_, x)| x.dtype() == DType::F32 && x.to(Device::Cpu).f32s().iter().all(|x| x.is_finite()))
    }
}

/// The last row of `[1, t, d]`, as `[1, d]`. Through the host, which of several rows is the cheapest way that there is.
fn last_row(x_btd: &Tensor) -> Tensor {
    let (t, d) = x_btd.rows();
    let host = ops::cast(&x_btd.detached().to(Device::Cpu), DType::F32);
    let last = Tensor::from_f32(&[1, d], host.f32s()[(t - 1) * d..].to_vec());
    ops::cast(&last, x_btd.dtype()).to(x_btd.device())
}
