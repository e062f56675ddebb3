//! What is alive, and the most that ever was.

use std::collections::BTreeMap;

use tensor::{Device, cuda};

/// What memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Category {
    Weights,
    Gradients,
    Optimizer,
    Activations,
    Workspace,
}

/// Bytes by category.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Alive([u128; 5]);

impl Alive {
    pub(super) fn of(&self, category: Category) -> u128 {
        self.0[category as usize]
    }

    fn total(&self) -> u128 {
        self.0.iter().sum()
    }
}

/// Memory in use, to be handed to [`Ledger::free`].
#[derive(Debug)]
#[must_use]
pub(super) struct Piece {
    category: Category,
    bytes: u128,
}

/// Counts what is taken and freed on one device.
#[derive(Debug)]
pub(super) struct Ledger {
    device: Device,
    alive: Alive,
    most: Alive,
    /// On a GPU, how many pieces of each size are alive, and the most that ever were.
    by_size: BTreeMap<u128, [u128; 2]>,
}

impl Ledger {
    pub(super) fn new(device: Device) -> Self {
        Ledger { device, alive: Alive::default(), most: Alive::default(), by_size: BTreeMap::new() }
    }

    /// What waits for reuse in other sizes while the most is alive, if nothing is ever given back: the memory of a recorded
    /// step is not.
    pub(super) fn waiting(&self) -> u128 {
        let held: u128 = self.by_size.iter().map(|(bytes, [_, most])| bytes * most).sum();
        held.saturating_sub(self.most.total())
    }

    /// What is alive.
    #[cfg(test)]
    pub(super) fn alive(&self) -> Alive {
        self.alive
    }

    /// What was alive when the most was.
    pub(super) fn most(&self) -> Alive {
        self.most
    }

    pub(super) fn take(&mut self, category: Category, bytes: u128) -> Piece {
        let bytes = match self.device {
            Device::Cpu => bytes,
            // What does not fit into half of the numbers fits nowhere, rounded or not.
            Device::Cuda(_) => match usize::try_from(bytes) {
                Ok(bytes) if bytes <= usize::MAX / 2 => cuda::size_class(bytes) as u128,
                _ => bytes,
            },
        };
        self.alive.0[category as usize] += bytes;
        if self.alive.total() > self.most.total() {
            self.most = self.alive;
        }
        if self.device != Device::Cpu {
            let [alive, most] = self.by_size.entry(bytes).or_default();
            *alive += 1;
            *most = (*most).max(*alive);
        }
        Piece { category, bytes }
    }

    pub(super) fn free(&mut self, pieces: impl IntoIterator<Item = Piece>) {
        for Piece { category, bytes } in pieces {
            self.alive.0[category as usize] -= bytes;
            if let Some([alive, _]) = self.by_size.get_mut(&bytes) {
                *alive -= 1;
            }
        }
    }

    /// Takes what is not freed before the step ends.
    pub(super) fn keep(&mut self, category: Category, bytes: u128) {
        let _: Piece = self.take(category, bytes);
    }
}
