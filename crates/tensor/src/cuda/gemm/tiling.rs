//! How a product is cut into pieces, and what is compiled for it.

use std::fmt;

use crate::DType;
use crate::cuda::Context;
use crate::cuda::blas::key::{Key, Kind};

/// What a multiprocessor lets a block have, less what barriers and sums of columns take.
const SHARED_BYTES: usize = (227 << 10) - 3072;
/// 64 rows of 128 bytes, as the epilogue writes them.
const EPILOGUE_TILE: usize = 64 * 128;

/// In how many parts sums may be split.
const MAX_SPLITS: usize = 16;

/// What two blocks of a cluster both need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Share {
    /// There are no clusters.
    Nothing,
    /// Rows of the left operand.
    A,
    /// Columns of the right operand.
    B,
}

/// How a product is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tiling {
    /// For lists of choices.
    pub name: &'static str,
    /// Whether the two warpgroups take whole tiles in turns instead of halves of one.
    pub ping_pong: bool,
    /// Rows of a warpgroup: 64 or 128.
    pub wg_rows: usize,
    /// Columns of a tile: 128 or 256.
    pub block_n: usize,
    /// What goes to both blocks of a cluster.
    pub share: Share,
    /// In how many parts the terms of f32 sums are split, each part a plane of a workspace.
    pub splits: usize,
}

const WIDE: Tiling =
    Tiling { name: "128x256", ping_pong: false, wg_rows: 64, block_n: 256, share: Share::B, splits: 1 };
const TALL: Tiling = Tiling { name: "256x128", wg_rows: 128, block_n: 128, share: Share::A, ..WIDE };
const TURNS: Tiling = Tiling { name: "128x128-turns", ping_pong: true, wg_rows: 128, block_n: 128, ..WIDE };

impl Tiling {
    /// All of them.
    pub const ALL: [Self; 3] = [WIDE, TALL, TURNS];
    /// Those that are worth a measurement.
    pub const CANDIDATES: [Self; 1] = [WIDE];

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

    /// Itself, and with sums of f32 also split into as many parts as fill the multiprocessors once, or twice: what is
    /// worth a measurement for an output `[m, n]`.
    pub fn candidates(self, [m, n]: [usize; 2], output: DType, n_multiprocessors: usize) -> Vec<Self> {
        let tiles = m.div_ceil(self.block_m()) * n.div_ceil(self.block_n);
        let mut splits = vec![1];
        if output == DType::F32 {
            splits.extend([1, 2].map(|rounds| (rounds * n_multiprocessors / tiles).clamp(1, MAX_SPLITS)));
            splits.dedup();
        }
        splits.into_iter().map(|splits| self.split(splits)).collect()
    }

    /// Rows of a tile.
    pub fn block_m(&self) -> usize {
        self.wg_rows * if self.ping_pong { 1 } else { 2 }
    }

    /// Blocks that work together.
    pub fn cluster(&self) -> usize {
        if self.share == Share::Nothing { 1 } else { 2 }
    }

    /// Rows and columns of the grid of clusters' tiles.
    pub(super) fn grid(&self, m: usize, out_columns: usize, n: usize, finishing: Finishing) -> [usize; 2] {
        let (columns, width) = match finishing {
            Finishing::SwiGlu => (out_columns, self.block_n / 2),
            _ => (n, self.block_n),
        };
        let (rows, columns) = (m.div_ceil(self.block_m()), columns.div_ceil(width));
        match self.share {
            Share::Nothing => [rows, columns],
            Share::A => [rows, columns.div_ceil(2)],
            Share::B => [rows.div_ceil(2), columns],
        }
    }

    /// Rows of that grid to go through together: as many as a quarter of the L2 holds, but enough for a nearly square
    /// part of the output to be under way.
    pub(super) fn group(&self, context: &Context, k: usize, grid_rows: usize) -> usize {
        let rows = self.block_m() * if self.share == Share::B { 2 } else { 1 };
        let fit = context.l2_bytes() / 4 / (2 * rows * k);
        fit.max(2048 / rows).min(grid_rows)
    }

    fn stage_bytes(&self) -> usize {
        (self.block_m() + self.block_n) * 128
    }

    fn stages(&self, slots: usize, finishing: Finishing) -> usize {
        ((SHARED_BYTES - 2 * slots * finishing.slot_tiles() * EPILOGUE_TILE) / self.stage_bytes()).min(8)
    }

    /// Stages of the ring of operands, and slots of each warpgroup's epilogue.
    fn stages_and_slots(&self, finishing: Finishing) -> (usize, usize) {
        let enough = if self.stage_bytes() > 40 << 10 { 4 } else { 5 };
        let choices: &[usize] = if finishing.reads() { &[4, 2] } else { &[2] };
        let slots = choices.iter().copied().find(|&slots| self.stages(slots, finishing) >= enough).unwrap_or(1);
        (self.stages(slots, finishing), slots)
    }

    pub(super) fn shared_bytes(&self, finishing: Finishing) -> usize {
        let (stages, slots) = self.stages_and_slots(finishing);
        let tiles = 2 * slots * finishing.slot_tiles() * EPILOGUE_TILE;
        let sums = 2 * 64 * 4 * if finishing.sums() { 4 } else { 1 };
        (stages * self.stage_bytes() + tiles + sums + 8 * (2 * stages + 2 * slots)).next_multiple_of(1024)
    }

    pub(super) fn options(&self, orders: Orders, finishing: Finishing) -> Vec<String> {
        let (stages, slots) = self.stages_and_slots(finishing);
        let share = match self.share {
            Share::Nothing => 0,
            Share::A => 1,
            Share::B => 2,
        };
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
            ("WG_ROWS", self.wg_rows),
            ("BLOCK_N", self.block_n),
            ("PING_PONG", usize::from(self.ping_pong)),
            ("SHARE", share),
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
pub(super) fn uses() -> Vec<(Orders, Finishing)> {
    let forward = Orders { a_columns: false, b_columns: false };
    let input_gradient = Orders { a_columns: false, b_columns: true };
    let weight_gradient = Orders { a_columns: true, b_columns: true };
    let mut uses = vec![(weight_gradient, Finishing::F32)];
    uses.extend([Finishing::None, Finishing::Bias, Finishing::Gelu, Finishing::SwiGlu].map(|x| (forward, x)));
    let gradients = [false, true].map(|sums| Finishing::GeluGradient { sums });
    uses.extend([Finishing::None, Finishing::SwiGluGradient].into_iter().chain(gradients).map(|x| (input_gradient, x)));
    uses
}
