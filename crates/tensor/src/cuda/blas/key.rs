//! What the choice of an algorithm depends on.

use std::fmt;

use super::{Epilogue, Product};
use crate::fp8::Fp8Format;
use crate::{DType, Tensor};

/// All that distinguishes one product from another, but for addresses and `beta`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::cuda) struct Key {
    pub(in crate::cuda) m: usize,
    pub(in crate::cuda) n: usize,
    pub(in crate::cuda) k: usize,
    /// Of both operands, unless they are `fp8`.
    pub(in crate::cuda) input: DType,
    pub(in crate::cuda) fp8: Option<Fp8>,
    pub(in crate::cuda) output: DType,
    pub(in crate::cuda) a: Operand,
    pub(in crate::cuda) b: Operand,
    pub(in crate::cuda) out: Operand,
    pub(in crate::cuda) epilogue: Kind,
}

/// What distinguishes products of 8-bit numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::cuda) struct Fp8 {
    pub(in crate::cuda) a: Fp8Format,
    pub(in crate::cuda) b: Fp8Format,
    /// Whether sums may have fewer bits than f32.
    pub(in crate::cuda) fast_sums: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::cuda) struct Operand {
    pub(in crate::cuda) stride: usize,
    pub(in crate::cuda) transposed: bool,
    /// Bytes: a power of two that divides the address.
    pub(in crate::cuda) alignment: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::cuda) enum Kind {
    None,
    Bias,
    Gelu { bias: bool, kept: bool },
    GeluGradient { sums: bool },
    RowSums,
    SwiGlu { kept: bool },
    SwiGluGradient,
}

impl Kind {
    /// Whether it reads or writes a second matrix of the size of the output.
    pub(in crate::cuda) fn has_pre_activation(self) -> bool {
        matches!(
            self,
            Kind::Gelu { kept: true, .. }
                | Kind::GeluGradient { .. }
                | Kind::SwiGlu { kept: true }
                | Kind::SwiGluGradient
        )
    }

    /// Whether only our own kernels have it.
    pub(in crate::cuda) fn is_gated(self) -> bool {
        matches!(self, Kind::SwiGlu { .. } | Kind::SwiGluGradient)
    }

    /// Whether it sums rows or columns, which can be a step of its own.
    pub(in crate::cuda) fn has_sums(self) -> bool {
        matches!(self, Kind::RowSums | Kind::GeluGradient { sums: true })
    }

    /// Whether it reads or writes a vector.
    pub(in crate::cuda) fn has_vector(self) -> bool {
        matches!(self, Kind::Bias | Kind::Gelu { bias: true, .. }) || self.has_sums()
    }
}

impl Key {
    #[track_caller]
    pub(in crate::cuda) fn of(product: &Product<'_>) -> Self {
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
                Epilogue::SwiGlu { gate_up } => Kind::SwiGlu { kept: gate_up.is_some() },
                Epilogue::SwiGluGradient { .. } => Kind::SwiGluGradient,
            },
        }
    }

    /// Whether there is no sum of any term.
    pub(in crate::cuda) fn is_empty(&self) -> bool {
        [self.m, self.n, self.k].contains(&0)
    }

    /// Columns of the output.
    pub(in crate::cuda) fn out_columns(&self) -> usize {
        match self.epilogue {
            Kind::SwiGlu { .. } => self.n / 2,
            Kind::SwiGluGradient => 2 * self.n,
            _ => self.n,
        }
    }

    pub(in crate::cuda) fn without_sums(&self) -> Self {
        let epilogue = match self.epilogue {
            Kind::RowSums => Kind::None,
            Kind::GeluGradient { .. } => Kind::GeluGradient { sums: false },
            other => other,
        };
        Self { epilogue, ..self.clone() }
    }
}

/// As much as cuBLASLt cares for.
pub(in crate::cuda) fn alignment(pointer: u64) -> u32 {
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
            Kind::SwiGlu { kept: false } => "swiglu",
            Kind::SwiGlu { kept: true } => "swiglu_kept",
            Kind::SwiGluGradient => "swiglu_gradient",
        };
        write!(f, " {epilogue}")
    }
}
