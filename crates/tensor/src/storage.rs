//! The memory behind a tensor.

use half::bf16;

use crate::memory::Buffer;
use crate::{DType, Device, cuda};

/// Elements of one dtype on one device.
pub(crate) enum Storage {
    F32(Buffer<f32>),
    Bf16(Buffer<bf16>),
    U32(Buffer<u32>),
    CudaF32(cuda::Buffer<f32>),
    CudaBf16(cuda::Buffer<bf16>),
    CudaU32(cuda::Buffer<u32>),
}

impl Storage {
    pub(crate) fn unspecified(device: Device, len: usize, dtype: DType) -> Self {
        let context = match device {
            Device::Cpu => {
                return match dtype {
                    DType::F32 => Storage::F32(Buffer::unspecified(len)),
                    DType::Bf16 => Storage::Bf16(Buffer::unspecified(len)),
                    DType::U32 => Storage::U32(Buffer::unspecified(len)),
                };
            }
            Device::Cuda(ordinal) => cuda::or_unwind(cuda::context(ordinal)),
        };
        cuda::or_unwind(match dtype {
            DType::F32 => cuda::Buffer::unspecified(&context, len).map(Storage::CudaF32),
            DType::Bf16 => cuda::Buffer::unspecified(&context, len).map(Storage::CudaBf16),
            DType::U32 => cuda::Buffer::unspecified(&context, len).map(Storage::CudaU32),
        })
    }

    /// Sets every byte to 0, which is 0 in every dtype.
    pub(crate) fn fill_with_zeros(&mut self) {
        match self {
            Storage::F32(x) => x.fill(0.0),
            Storage::Bf16(x) => x.fill(bf16::ZERO),
            Storage::U32(x) => x.fill(0),
            Storage::CudaF32(x) => cuda::or_unwind(x.fill(0)),
            Storage::CudaBf16(x) => cuda::or_unwind(x.fill(0)),
            Storage::CudaU32(x) => cuda::or_unwind(x.fill(0)),
        }
    }

    /// A copy on another device.
    pub(crate) fn copied_to(&self, device: Device) -> Self {
        use cuda::{context, or_unwind};
        match device {
            Device::Cpu => match self {
                Storage::F32(x) => Storage::F32(Buffer::copied_from(x)),
                Storage::Bf16(x) => Storage::Bf16(Buffer::copied_from(x)),
                Storage::U32(x) => Storage::U32(Buffer::copied_from(x)),
                Storage::CudaF32(x) => Storage::F32(Buffer::from_vec(or_unwind(x.to_vec()))),
                Storage::CudaBf16(x) => Storage::Bf16(Buffer::from_vec(or_unwind(x.to_vec()))),
                Storage::CudaU32(x) => Storage::U32(Buffer::from_vec(or_unwind(x.to_vec()))),
            },
            Device::Cuda(ordinal) => {
                let context = or_unwind(context(ordinal));
                let here = self.device() == device;
                match self {
                    Storage::CudaF32(x) if here => Storage::CudaF32(or_unwind(x.duplicate())),
                    Storage::CudaBf16(x) if here => Storage::CudaBf16(or_unwind(x.duplicate())),
                    Storage::CudaU32(x) if here => Storage::CudaU32(or_unwind(x.duplicate())),
                    Storage::F32(x) => Storage::CudaF32(or_unwind(cuda::Buffer::from_slice(&context, x))),
                    Storage::Bf16(x) => Storage::CudaBf16(or_unwind(cuda::Buffer::from_slice(&context, x))),
                    Storage::U32(x) => Storage::CudaU32(or_unwind(cuda::Buffer::from_slice(&context, x))),
                    // Through the host: rare, and right between any two devices.
                    other => other.copied_to(Device::Cpu).copied_to(device),
                }
            }
        }
    }

    pub(crate) fn dtype(&self) -> DType {
        match self {
            Storage::F32(_) | Storage::CudaF32(_) => DType::F32,
            Storage::Bf16(_) | Storage::CudaBf16(_) => DType::Bf16,
            Storage::U32(_) | Storage::CudaU32(_) => DType::U32,
        }
    }

    pub(crate) fn device(&self) -> Device {
        match self {
            Storage::F32(_) | Storage::Bf16(_) | Storage::U32(_) => Device::Cpu,
            Storage::CudaF32(x) => Device::Cuda(x.context().ordinal()),
            Storage::CudaBf16(x) => Device::Cuda(x.context().ordinal()),
            Storage::CudaU32(x) => Device::Cuda(x.context().ordinal()),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Storage::F32(x) => x.len(),
            Storage::Bf16(x) => x.len(),
            Storage::U32(x) => x.len(),
            Storage::CudaF32(x) => x.len(),
            Storage::CudaBf16(x) => x.len(),
            Storage::CudaU32(x) => x.len(),
        }
    }
}
