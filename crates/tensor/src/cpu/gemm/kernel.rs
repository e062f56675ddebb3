//! Which instructions a product uses, and what a kernel offers to the loops around it.

use std::sync::OnceLock;

use super::kernel_portable;
#[cfg(target_arch = "x86_64")]
use super::{kernel_avx2, kernel_avx512, kernel_avx512_bf16};
use crate::DType;

/// Decided once in a process, by [`Kernel::select`] or by the first product.
static CURRENT: OnceLock<Kernel> = OnceLock::new();

/// Why a kernel cannot be selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// The instructions are missing.
    #[error(
        "this processor cannot run the {kernel} kernel\nhint: set training.kernel = \"auto\" in a new run; results then differ in rounding"
    )]
    Missing {
        /// The kernel asked for.
        kernel: &'static str,
    },
    /// It is too late.
    #[error("the {kernel} kernel cannot be selected: this process computes with {current} already")]
    Decided {
        /// The kernel asked for.
        kernel: &'static str,
        /// The one in use.
        current: &'static str,
    },
}

/// A set of inner loops written for one instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// 512-bit vectors: x86-64 with AVX-512F.
    Avx512,
    /// 256-bit vectors: x86-64 with AVX2 and FMA.
    Avx2,
    /// Plain Rust that the compiler vectorises: every machine.
    Portable,
}

impl Kernel {
    /// From the fastest to the one that always works.
    pub const ALL: [Self; 3] = [Self::Avx512, Self::Avx2, Self::Portable];

    /// The fastest kernel of this machine.
    pub fn fastest() -> Self {
        Self::ALL.into_iter().find(|kernel| kernel.is_available()).unwrap_or(Self::Portable)
    }

    /// The kernel of all products of this process: the selected one, or the fastest.
    pub fn current() -> Self {
        *CURRENT.get_or_init(Self::fastest)
    }

    /// Makes this the kernel of all products of this process, so that a run can be repeated bit for bit on a machine
    /// with a faster one.
    ///
    /// # Errors
    /// If the machine lacks the instructions, or a product was computed, or another kernel selected, before.
    pub fn select(self) -> Result<(), SelectError> {
        if !self.is_available() {
            return Err(SelectError::Missing { kernel: self.name() });
        }
        match *CURRENT.get_or_init(|| self) {
            current if current == self => Ok(()),
            current => Err(SelectError::Decided { kernel: self.name(), current: current.name() }),
        }
    }

    /// Whether this machine has the instructions.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => is_x86_feature_detected!("avx512f"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512 | Self::Avx2 => false,
            Self::Portable => true,
        }
    }

    /// The name in logs and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
        }
    }

    /// Whether it multiplies bf16 as they are, which is faster than `f32`; otherwise they are widened on the way.
    pub fn has_bf16(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self == Self::Avx512 && kernel_avx512_bf16::is_available();
        #[cfg(not(target_arch = "x86_64"))]
        return false;
    }

    /// What computes products of operands of `dtype`, for reports.
    pub fn name_for(self, dtype: DType) -> &'static str {
        match (dtype, self) {
            (DType::Bf16, Self::Avx512) if self.has_bf16() => "avx512-bf16",
            (DType::Bf16, Self::Avx512) => "avx512, bf16 widened",
            (DType::Bf16, Self::Avx2) => "avx2, bf16 widened",
            (DType::Bf16, Self::Portable) => "portable, bf16 widened",
            _ => self.name(),
        }
    }

    /// The inner loops for operands of `dtype`. Callers have made sure that the kernel is available.
    pub(super) fn loops(self, dtype: DType) -> &'static Loops {
        let is_bf16 = dtype == DType::Bf16;
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 if is_bf16 && self.has_bf16() => &kernel_avx512_bf16::LOOPS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 if is_bf16 => &kernel_avx512::WIDENING_LOOPS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => &kernel_avx512::LOOPS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 if is_bf16 => &kernel_avx2::WIDENING_LOOPS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => &kernel_avx2::LOOPS,
            _ if is_bf16 => &kernel_portable::WIDENING_LOOPS,
            _ => &kernel_portable::LOOPS,
        }
    }
}

/// The inner loops of one kernel and the sizes they work in.
///
/// All are `unsafe`: the machine must have the instructions, and the pointers must reach what the argument says.
#[derive(Clone, Copy)]
pub(super) struct Loops {
    /// Most rows of a tile.
    pub(super) max_rows: usize,
    /// Columns of a whole tile.
    pub(super) max_cols: usize,
    /// Floats in a vector; divides `max_cols`.
    pub(super) lanes: usize,
    /// Elements of each operand that a lane takes per step: as many as fit 32 bits.
    pub(super) k_per_step: usize,
    /// Most steps in a block. They set the order of summation, so no number of threads enters.
    pub(super) k_block: usize,
    /// Most rows of `A` in a block.
    pub(super) m_block: usize,
    /// The micro-kernel.
    pub(super) tile: unsafe fn(&Tile),
    /// Copies a few lanes into a strip.
    pub(super) pack: unsafe fn(&Lanes),
    /// Whether the micro-kernel can round what it stores to bf16.
    pub(super) rounds: bool,
    /// Dot products of few rows with many.
    pub(super) dots: unsafe fn(&Dots),
}

impl Loops {
    /// Bytes of an operand's element that `dots` and, unpacked, `tile` take. `pack` may take others.
    pub(super) fn element_size(&self) -> usize {
        size_of::<f32>() / self.k_per_step
    }
}

/// One tile of `C`: `c[i, j] ← beta·c[i, j] + alpha·Σ_p a[i, p]·b[p, j]` over `steps` `p`, summed in their order.
///
/// `a` is read at `i·a_row_stride + p·a_step_stride`. `b` is read in whole vectors at `p·b_step_stride`, so behind the last
/// column it must be readable up to a multiple of `lanes`. `c` is touched inside `rows × cols` only, and not read if
/// `beta` is zero.
pub(super) struct Tile {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) steps: usize,
    pub(super) alpha: f32,
    pub(super) a: *const f32,
    pub(super) a_row_stride: usize,
    pub(super) a_step_stride: usize,
    pub(super) b: *const f32,
    pub(super) b_step_stride: usize,
    pub(super) beta: f32,
    pub(super) c: *mut f32,
    pub(super) c_row_stride: usize,
    /// `c` is the address of bf16; only with loops that round.
    pub(super) rounded: bool,
}

/// A packing job: `n_lanes <= lanes` neighbours over `n_k` elements, `dst[p·dst_stride + lane] ← source(lane, p)`.
///
/// Element `p` of a lane is `src[lane·lane_stride + p·k_stride]`. With two elements per step, each 32 bits of `dst`
/// take a pair, the last one completed by zero. Each step writes `lanes` floats, zeros behind `n_lanes`; steps go in
/// ascending order, so with `dst_stride < lanes` the zeros of one step are overwritten by the next.
#[derive(Clone, Copy)]
pub(super) struct Lanes {
    pub(super) src: *const u8,
    pub(super) lane_stride: usize,
    pub(super) k_stride: usize,
    pub(super) n_lanes: usize,
    pub(super) n_k: usize,
    pub(super) dst: *mut f32,
    pub(super) dst_stride: usize,
}

/// Dot products `c[i, j] ← beta·c[i, j] + alpha·Σ_p x[i, p]·w[j, p]` for `m <= MAX_DOT_ROWS` rows of `x`.
///
/// `x` is read at `i·x_stride + p`, `w` at `j·w_stride + p`; `c` is at `i·c_i_stride + j·c_j_stride`.
pub(super) struct Dots {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) alpha: f32,
    pub(super) x: *const u8,
    pub(super) x_stride: usize,
    pub(super) w: *const u8,
    pub(super) w_stride: usize,
    pub(super) beta: f32,
    pub(super) c: *mut f32,
    pub(super) c_i_stride: usize,
    pub(super) c_j_stride: usize,
}

/// Most rows that [`Dots`] takes.
pub(super) const MAX_DOT_ROWS: usize = 8;
