//! The memory behind a tensor.

use half::bf16;

use crate::memory::Buffer;
use crate::{DType, Device};

/// Elements of one dtype on one device.
pub(crate) enum Storage {
    F32(Buffer<f32>),
    Bf16(Buffer<bf16>),
    U32(Buffer<u32>),
}

impl Storage {
    pub(crate) fn unspecified(len: usize, dtype: DType) -> Self {
        match dtype {
            DType::F32 => Storage::F32(Buffer::unspecified(len)),
            DType::Bf16 => Storage::Bf16(Buffer::unspecified(len)),
            DType::U32 => Storage::U32(Buffer::unspecified(len)),
        }
    }

    pub(crate) fn zeroed(len: usize, dtype: DType) -> Self {
        match dtype {
            DType::F32 => Storage::F32(Buffer::zeroed(len)),
            DType::Bf16 => Storage::Bf16(Buffer::zeroed(len)),
            DType::U32 => Storage::U32(Buffer::zeroed(len)),
        }
    }

    pub(crate) fn dtype(&self) -> DType {
        match self {
            Storage::F32(_) => DType::F32,
            Storage::Bf16(_) => DType::Bf16,
            Storage::U32(_) => DType::U32,
        }
    }

    pub(crate) fn device(&self) -> Device {
        Device::Cpu
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Storage::F32(x) => x.len(),
            Storage::Bf16(x) => x.len(),
            Storage::U32(x) => x.len(),
        }
    }
}
