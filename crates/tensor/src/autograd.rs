//! The tape: reverse-mode differentiation over operations that bring their own backward.
//!
//! There is no list of operations and no central rule table. An operation's result holds a [`Node`] with a closure over
//! what its backward needs; the closure holds the inputs, and they hold their nodes. A node's id is larger than those of
//! all nodes that it was computed from, so visiting nodes from the largest id down is a topological order, the same in
//! every run.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use crate::tensor::{OnTape, Track};
use crate::{Tensor, TensorId, ops};

type Backward = Box<dyn FnOnce(Tensor, &mut Sink<'_>) + Send>;

/// How the gradient of one operation's output flows to its inputs. Taken out when it runs, so that saved activations
/// are freed as the walk proceeds.
pub(crate) struct Node {
    backward: Mutex<Option<Backward>>,
}

impl Node {
    pub(crate) fn new(backward: impl FnOnce(Tensor, &mut Sink<'_>) + Send + 'static) -> Self {
        Node { backward: Mutex::new(Some(Box::new(backward))) }
    }

    fn take(&self) -> Option<Backward> {
        self.backward.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take()
    }
}

/// Gradients of leaves, by leaf. Kept over several backward passes, it sums them: that is gradient accumulation.
#[derive(Default)]
pub struct Gradients {
    by_leaf: HashMap<TensorId, Tensor>,
}

impl Gradients {
    /// No gradients yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The gradient of `leaf`, of its shape, if any backward pass has reached it.
    pub fn get(&self, leaf: &Tensor) -> Option<&Tensor> {
        self.by_leaf.get(&leaf.track()?.id)
    }

    /// The gradient of `leaf`, to be changed in place.
    pub fn get_mut(&mut self, leaf: &Tensor) -> Option<&mut Tensor> {
        self.by_leaf.get_mut(&leaf.track()?.id)
    }

    /// Takes the gradient of `leaf` out.
    pub fn remove(&mut self, leaf: &Tensor) -> Option<Tensor> {
        self.by_leaf.remove(&leaf.track()?.id)
    }
}

/// Where a backward closure delivers the gradients of its operation's inputs.
pub(crate) struct Sink<'a> {
    gradients: &'a mut Gradients,
    pending: &'a mut BTreeMap<TensorId, Pending>,
}

struct Pending {
    node: Arc<Node>,
    gradient: Option<Tensor>,
}

impl Sink<'_> {
    /// Whether the gradient of `x` is asked for; if not, its computation can be skipped.
    pub(crate) fn wants(&self, x: &impl OnTape) -> bool {
        x.track().is_some()
    }

    /// Adds `dx` to the gradient of `x`.
    ///
    /// # Panics
    /// If `dx` does not have the shape of `x`.
    #[track_caller]
    pub(crate) fn add(&mut self, x: &impl OnTape, dx: Tensor) {
        assert!(
            dx.shape() == x.shape(),
            "the gradient of a tensor of shape {:?} has shape {:?}",
            x.shape(),
            dx.shape()
        );
        let Some(track) = x.track() else { return };
        let sum = match self.take(track) {
            None => dx,
            Some(sum) => ops::add_into(sum, &dx),
        };
        self.put(track, sum);
    }

    /// Adds to the gradient of `x` in place: `accumulate(dx, beta)` must set `dx ← beta·dx + the new part`, where with
    /// `beta = 0` the old elements are unspecified. Matrix products do this at no extra cost.
    pub(crate) fn accumulate(&mut self, x: &impl OnTape, accumulate: impl FnOnce(&mut Tensor, f32)) {
        let Some(track) = x.track() else { return };
        let sum = match self.take(track) {
            None => {
                let mut dx = x.new_gradient();
                accumulate(&mut dx, 0.0);
                dx
            }
            Some(mut sum) => {
                if sum.is_unique() {
                    accumulate(&mut sum, 1.0);
                    sum
                } else {
                    // Not the new part apart: whoever sees `dx` sees all of it.
                    let mut dx = sum.copied_to(sum.device());
                    accumulate(&mut dx, 1.0);
                    dx
                }
            }
        };
        self.put(track, sum);
    }

    fn take(&mut self, track: &Track) -> Option<Tensor> {
        match &track.node {
            None => self.gradients.by_leaf.remove(&track.id),
            Some(_) => self.pending.get_mut(&track.id)?.gradient.take(),
        }
    }

    fn put(&mut self, track: &Track, sum: Tensor) {
        match &track.node {
            None => {
                self.gradients.by_leaf.insert(track.id, sum);
            }
            Some(node) => {
                self.pending.insert(track.id, Pending { node: node.clone(), gradient: Some(sum) });
            }
        }
    }
}

impl Tensor {
    /// Gradients of this scalar with respect to every leaf it was computed from.
    ///
    /// # Panics
    /// See [`Tensor::backward_into`].
    #[track_caller]
    pub fn backward(&self) -> Gradients {
        let mut gradients = Gradients::new();
        self.backward_into(1.0, &mut gradients);
        gradients
    }

    /// Adds `scale` times the gradients of this scalar to `gradients`. Saved activations are freed on the way, so a
    /// tape can be walked once.
    ///
    /// # Panics
    /// If the tensor is not a tracked scalar, or its tape has been walked before.
    #[track_caller]
    pub fn backward_into(&self, scale: f32, gradients: &mut Gradients) {
        assert!(self.len() == 1, "backward: expected a scalar, not a tensor of shape {:?}", self.shape());
        let track = self.track().expect("backward: a tensor computed from at least one tracked tensor");
        // On the CPU whatever the device: operations that end in a scalar read it without waiting for a GPU.
        let mut pending = BTreeMap::new();
        Sink { gradients, pending: &mut pending }.put(track, Tensor::full(self.shape(), scale));
        while let Some((_, Pending { node, gradient })) = pending.pop_last() {
            let gradient = gradient.expect("every pending node has a gradient between closures");
            let backward = node.take().expect("backward: this tape has been walked before");
            backward(gradient, &mut Sink { gradients, pending: &mut pending });
        }
    }
}
