//! How a product is cut into pieces, and what is compiled for it.

use std::fmt;

use crate::DType;
use crate::cuda::Context;
use crate::cuda::blas::key::{Key, Kind};

/// What barriers, sums of columns and a bias take at most.
const FEW_BYTES: usize = 3072;
/// What a multiprocessor lets a block have, less that.
const SHARED_BYTES: usize = (227 << 10) - FEW_BYTES;
/// 64 rows of 128 bytes, as the epilogue writes them.
const EPILOGUE_TILE: usize = 64 * 128;

/// In how many parts sums may be split.
const MAX_SPLITS: usize = 16;

/// Blocks that work together.
pub(super) const CLUSTER: usize = 2;
/// Rows and columns of a tile; a cluster has two, one below the other.
pub(super) const BLOCK: [usize; 2] = [128, 256];
/// Terms that are copied at a time.
pub(super) const BLOCK_K: usize = 64;

/// How a product is cut and finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tiling {
    /// For lists of choices.
    pub name: &'static str,
    /// Whether a warpgroup of its own finishes bf16 results while the others multiply the next tile.
    pub overlapped: bool,
    /// In how many parts the terms of f32 sums are split, each part a plane of a workspace.
    pub splits: usize,
}

const PLAIN: Tiling = Tiling { name: "128x256", overlapped: false, splits: 1 };
const OVERLAPPED: Tiling = Tiling { name: "128x256-overlapped", overlapped: true, ..PLAIN };

impl Tiling {
    /// All of them, each worth a measurement.
    pub const ALL: [Self; 2] = [PLAIN, OVERLAPPED];

    /// The same with the terms of sums in so many parts.
    pub fn split(self, splits: usize) -> Self {
        Self { splits, ..self }
    }

    /// The one that is written so.
    pub fn of_name(text: &str) -> Option<Self> {
        let (name, splits) = text.split_once('/').unwrap_or((text, "1"));
        let splits = splits.parse().ok().filter(|splits| (1..=MAX_SPLITS).contains(splits))?;
        Self::ALL.into_iter().find(|tiling| tiling.name == name).map(|tiling| tiling.split(splits))
    }

    /// What is worth a measurement for an output `[m, n]`: itself, and sums of f32, for which there is one way to finish,
    /// also split into as many parts as fill the multiprocessors once, or twice.
    pub fn candidates(self, [m, n]: [usize; 2], output: DType, n_multiprocessors: usize) -> Vec<Self> {
        let tiles = m.div_ceil(BLOCK[0]) * n.div_ceil(BLOCK[1]);
        let splits = match (output, self.overlapped) {
            (DType::F32, true) => Vec::new(),
            (DType::F32, false) => {
                let mut splits = vec![1];
                splits.extend([1, 2].map(|rounds| (rounds * n_multiprocessors / tiles).clamp(1, MAX_SPLITS)));
                splits.dedup();
                splits
            }
            _ => vec![1],
        };
        splits.into_iter().map(|splits| self.split(splits)).collect()
    }

    /// Rows and columns of the grid of clusters' tiles.
    pub(super) fn grid(m: usize, out_columns: usize, n: usize, finishing: Finishing) -> [usize; 2] {
        let (columns, width) = match finishing {
            Finishing::SwiGlu => (out_columns, BLOCK[1] / 2),
            _ => (n, BLOCK[1]),
        };
        [m.div_ceil(CLUSTER * BLOCK[0]), columns.div_ceil(width)]
    }

    /// Rows of that grid to go through together: as many as a quarter of the L2 holds, but enough for a nearly square
    /// part of the output to be under way.
    pub(super) fn group(context: &Context, k: usize, grid_rows: usize) -> usize {
        let rows = CLUSTER * BLOCK[0];
        let fit = context.l2_bytes() / 4 / (2 * rows * k);
        fit.max(2048 / rows).min(grid_rows)
    }

    /// Whether warps of its own finish results of this kind.
    pub(super) fn overlaps(&self, finishing: Finishing) -> bool {
        self.overlapped && finishing != Finishing::F32
    }

    fn stage_bytes() -> usize {
        (BLOCK[0] + BLOCK[1]) * BLOCK_K * 2
    }

    /// Shared memory for results.
    fn epilogue_bytes(&self, slots: usize, finishing: Finishing) -> usize {
        match self.overlaps(finishing) {
            true => 2 * BLOCK[0] * BLOCK[1],
            false => 2 * slots * finishing.slot_tiles() * EPILOGUE_TILE,
        }
    }

    fn stages(&self, slots: usize, finishing: Finishing) -> usize {
        (SHARED_BYTES - self.epilogue_bytes(slots, finishing)) / Self::stage_bytes()
    }

    /// Stages of the ring of operands, and slots of each warpgroup's epilogue.
    fn stages_and_slots(&self, finishing: Finishing) -> (usize, usize) {
        let choices: &[usize] = if finishing.reads() { &[4, 2] } else { &[2] };
        let slots = choices.iter().copied().find(|&slots| self.stages(slots, finishing) >= 4).unwrap_or(1);
        (self.stages(slots, finishing), slots)
    }

    pub(super) fn shared_bytes(&self, finishing: Finishing) -> usize {
        let (stages, slots) = self.stages_and_slots(finishing);
        stages * Self::stage_bytes() + self.epilogue_bytes(slots, finishing) + FEW_BYTES
    }

    pub(super) fn options(&self, orders: Orders, finishing: Finishing) -> Vec<String> {
        let (stages, slots) = self.stages_and_slots(finishing);
        let epilogue = match finishing {
            Finishing::None | Finishing::F32 => 0,
            Finishing::Bias => 1,
            Finishing::Gelu => 2,
            Finishing::SwiGlu => 3,
            Finishing::GeluGradient { .. } => 4,
            Finishing::SwiGluGradient => 5,
        };
        [
            ("A_COLUMNS", usize::from(orders.a_columns)),
            ("B_COLUMNS", usize::from(orders.b_columns)),
            ("BLOCK_K", BLOCK_K),
            ("N_STAGES", stages),
            ("N_SLOTS", slots),
            ("EPILOGUE", epilogue),
            ("F32_OUT", usize::from(finishing == Finishing::F32)),
            ("SUMS", usize::from(finishing.sums())),
        ]
        .iter()
        .map(|(name, value)| format!("-D{name}={value}"))
        .collect()
    }
}

impl fmt::Display for Tiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.splits {
            1 => f.write_str(self.name),
            splits => write!(f, "{}/{splits}", self.name),
        }
    }
}

/// How operands lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Orders {
    /// `[k, m]` instead of `[m, k]`.
    pub(super) a_columns: bool,
    /// `[k, n]` instead of `[n, k]`.
    pub(super) b_columns: bool,
}

/// What is compiled of an epilogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finishing {
    None,
    F32,
    Bias,
    Gelu,
    SwiGlu,
    GeluGradient { sums: bool },
    SwiGluGradient,
}

impl Finishing {
    pub(super) fn of(key: &Key) -> Self {
        match key.epilogue {
            Kind::None | Kind::RowSums if key.output == DType::F32 => Self::F32,
            Kind::None | Kind::RowSums => Self::None,
            Kind::Bias => Self::Bias,
            Kind::Gelu { .. } => Self::Gelu,
            Kind::SwiGlu { .. } => Self::SwiGlu,
            Kind::GeluGradient { sums } => Self::GeluGradient { sums },
            Kind::SwiGluGradient => Self::SwiGluGradient,
        }
    }

    /// Tiles that lie in shared memory for 64 rows and 64 columns.
    fn slot_tiles(self) -> usize {
        match self {
            Self::SwiGlu => 3,
            Self::Gelu | Self::SwiGluGradient => 2,
            _ => 1,
        }
    }

    /// Whether it reads a matrix.
    fn reads(self) -> bool {
        matches!(self, Self::GeluGradient { .. } | Self::SwiGluGradient)
    }

    pub(super) fn sums(self) -> bool {
        self == Self::GeluGradient { sums: true }
    }
}

/// The products of training: forward, gradients of inputs, gradients of weights.
pub(super) fn uses(tiling: &Tiling) -> Vec<(Orders, Finishing)> {
    let forward = Orders { a_columns: false, b_columns: false };
    let input_gradient = Orders { a_columns: false, b_columns: true };
    let weight_gradient = Orders { a_columns: true, b_columns: true };
    let mut uses = Vec::new();
    if !tiling.overlapped {
        uses.push((weight_gradient, Finishing::F32));
    }
    uses.extend([Finishing::None, Finishing::Bias, Finishing::Gelu, Finishing::SwiGlu].map(|x| (forward, x)));
    let gradients = [false, true].map(|sums| Finishing::GeluGradient { sums });
    uses.extend([Finishing::None, Finishing::SwiGluGradient].into_iter().chain(gradients).map(|x| (input_gradient, x)));
    uses
}
