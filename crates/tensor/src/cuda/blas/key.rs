//! What the choice of an algorithm depends on.

use std::fmt;

use super::{Epilogue, Product};
use crate::fp8::Fp8Format;
use crate::{DType, Tensor};

/// All that distinguishes one product from another, but for addresses and `beta`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    /// Of both operands, unless they are `fp8`.
    pub(super) input: DType,
    pub(super) fp8: Option<Fp8>,
    pub(super) output: DType,
    pub(super) a: Operand,
    pub(super) b: Operand,
    pub(super) out: Operand,
    pub(super) epilogue: Kind,
}

/// What distinguishes products of 8-bit numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Fp8 {
    pub(super) a: Fp8Format,
    pub(super) b: Fp8Format,
    /// Whether sums may have fewer bits than f32.
    pub(super) fast_sums: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Operand {
    pub(super) stride: usize,
    pub(super) transposed: bool,
    /// Bytes: a power of two that divides the address.
    pub(super) alignment: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    None,
    Bias,
    Gelu { bias: bool, kept: bool },
    GeluGradient { sums: bool },
    RowSums,
}

impl Kind {
    /// Whether it reads or writes a second matrix of the size of the output.
    pub(super) fn has_pre_activation(self) -> bool {
        matches!(self, Kind::Gelu { kept: true, .. } | Kind::GeluGradient { .. })
    }

    /// Whether it sums rows or columns, which can be a step of its own.
    pub(super) fn has_sums(self) -> bool {
        matches!(self, Kind::RowSums | Kind::GeluGradient { sums: true })
    }

    /// Whether it reads or writes a vector.
    pub(super) fn has_vector(self) -> bool {
        matches!(self, Kind::Bias | Kind::Gelu { bias: true, .. }) || self.has_sums()
    }
}

impl Key {
    #[track_caller]
    pub(super) fn of(product: &Product<'_>) -> Self {
        let Product { m, n, k, a, b, out, epilogue, .. } = product;
        let (input, output) = (a.tensor.dtype(), out.tensor.dtype());
        let operand = |tensor: &Tensor, offset: usize, stride, transposed| {
            let pointer = tensor.device_pointer() + (offset * tensor.dtype().bytes()) as u64;
            Operand { stride, transposed, alignment: alignment(pointer) }
        };
        Self {
            m: *m,
            n: *n,
            k: *k,
            input,
            fp8: None,
            output,
            a: operand(a.tensor, a.offset, a.stride, a.transposed),
            b: operand(b.tensor, b.offset, b.stride, b.transposed),
            out: operand(out.tensor, out.offset, out.stride, false),
            epilogue: match epilogue {
                Epilogue::None => Kind::None,
                Epilogue::Bias(_) => Kind::Bias,
                Epilogue::Gelu { bias, pre_activation } => {
                    Kind::Gelu { bias: bias.is_some(), kept: pre_activation.is_some() }
                }
                Epilogue::GeluGradient { column_sums, .. } => Kind::GeluGradient { sums: column_sums.is_some() },
                Epilogue::RowSums(_) => Kind::RowSums,
            },
        }
    }

    /// Whether there is no sum of any term.
    pub(super) fn is_empty(&self) -> bool {
        [self.m, self.n, self.k].contains(&0)
    }

    pub(super) fn without_sums(&self) -> Self {
        let epilogue = match self.epilogue {
            Kind::RowSums => Kind::None,
            Kind::GeluGradient { .. } => Kind::GeluGradient { sums: false },
            other => other,
        };
        Self { epilogue, ..self.clone() }
    }
}

/// As much as cuBLASLt cares for.
pub(super) fn alignment(pointer: u64) -> u32 {
    1 << pointer.trailing_zeros().min(8)
}

impl fmt::Display for Key {
    /// One line without `=`, the name of the product in a list of choices.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { m, n, k, input, output, epilogue, .. } = self;
        match self.fp8 {
            None => write!(f, "{input} {output} {m}x{n}x{k}")?,
            Some(Fp8 { a, b, fast_sums }) => {
                let sums = if fast_sums { " fast" } else { "" };
                write!(f, "{a}*{b}{sums} {output} {m}x{n}x{k}")?;
            }
        }
        for (name, operand) in [("a", &self.a), ("b", &self.b), ("out", &self.out)] {
            let order = if operand.transposed { "T" } else { "N" };
            write!(f, " {name}:{}{order}{}", operand.stride, operand.alignment)?;
        }
        let epilogue = match epilogue {
            Kind::None => return Ok(()),
            Kind::Bias => "bias",
            Kind::Gelu { bias: false, kept: false } => "gelu",
            Kind::Gelu { bias: true, kept: false } => "gelu_bias",
            Kind::Gelu { bias: false, kept: true } => "gelu_kept",
            Kind::Gelu { bias: true, kept: true } => "gelu_bias_kept",
            Kind::GeluGradient { sums: false } => "gelu_gradient",
            Kind::GeluGradient { sums: true } => "gelu_gradient_sums",
            Kind::RowSums => "row_sums",
        };
        write!(f, " {epilogue}")
    }
}
