//! The tensor: a shape, shared storage, and, if it is tracked, its place on the tape.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use half::bf16;

use crate::autograd::{Node, Sink};
use crate::memory::Buffer;
use crate::storage::Storage;
use crate::{DType, Device, cuda};

/// Identifies a tracked tensor. Later tensors have larger ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(u64);

impl TensorId {
    pub(crate) fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        TensorId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A contiguous row-major array. Cloning shares the elements.
#[derive(Clone)]
pub struct Tensor {
    shape: Vec<usize>,
    storage: Arc<Storage>,
    track: Option<Track>,
}

/// The place of a tracked tensor on the tape: a leaf has no node.
#[derive(Clone)]
pub(crate) struct Track {
    pub(crate) id: TensorId,
    pub(crate) node: Option<Arc<Node>>,
}

/// Where a gradient is to be delivered: a tensor's shape and place on the tape, without its elements. A backward closure
/// that does not read an input holds this instead of the input, whose memory is then free.
#[derive(Clone)]
pub(crate) struct Place {
    shape: Vec<usize>,
    dtype: DType,
    device: Device,
    track: Option<Track>,
}

/// What a gradient can be delivered to.
pub(crate) trait OnTape {
    fn shape(&self) -> &[usize];
    fn dtype(&self) -> DType;
    fn device(&self) -> Device;
    fn track(&self) -> Option<&Track>;

    /// The dtype of the gradient: f32 for a leaf, where gradients of many tokens are summed, otherwise the tensor's own.
    fn gradient_dtype(&self) -> DType {
        match self.track() {
            Some(Track { node: Some(_), .. }) => self.dtype(),
            _ => DType::F32,
        }
    }

    /// A tensor that the gradient is about to be written into.
    fn new_gradient(&self) -> Tensor {
        Tensor::unspecified_on(self.device(), self.shape(), self.gradient_dtype())
    }
}

impl OnTape for Place {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn device(&self) -> Device {
        self.device
    }

    fn track(&self) -> Option<&Track> {
        self.track.as_ref()
    }
}

impl OnTape for Tensor {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn dtype(&self) -> DType {
        self.storage.dtype()
    }

    fn device(&self) -> Device {
        self.storage.device()
    }

    fn track(&self) -> Option<&Track> {
        self.track.as_ref()
    }
}

impl Tensor {
    /// The tensor's shape and place on the tape, without its elements.
    pub(crate) fn place(&self) -> Place {
        let (dtype, device) = (self.dtype(), self.device());
        Place { shape: self.shape.clone(), dtype, device, track: self.track.clone() }
    }

    /// A tensor over `elements` in row-major order.
    ///
    /// # Panics
    /// If the shape does not have `elements.len()` elements.
    #[track_caller]
    pub fn from_f32(shape: &[usize], elements: Vec<f32>) -> Self {
        Self::from_elements(shape, Storage::F32(Buffer::from_vec(elements)))
    }

    /// A tensor of bf16 over `elements`; see [`Tensor::from_f32`].
    #[track_caller]
    pub fn from_bf16(shape: &[usize], elements: Vec<bf16>) -> Self {
        Self::from_elements(shape, Storage::Bf16(Buffer::from_vec(elements)))
    }

    /// A tensor of integers over `elements`; see [`Tensor::from_f32`].
    #[track_caller]
    pub fn from_u32(shape: &[usize], elements: Vec<u32>) -> Self {
        Self::from_elements(shape, Storage::U32(Buffer::from_vec(elements)))
    }

    /// A tensor of copied `elements`; see [`Tensor::from_f32`]. Memory that waits for reuse is used.
    #[track_caller]
    pub fn copied_from(shape: &[usize], elements: &[f32]) -> Self {
        let mut x = Self::unspecified(shape, DType::F32);
        assert!(
            x.len() == elements.len(),
            "a tensor of shape {shape:?} has {} elements, not {}",
            x.len(),
            elements.len()
        );
        x.f32s_mut().copy_from_slice(elements);
        x
    }

    /// A tensor whose element `i`, in row-major order, is `f(i)`.
    pub fn from_fn(shape: &[usize], f: impl Fn(usize) -> f32) -> Self {
        let mut x = Self::unspecified(shape, DType::F32);
        x.f32s_mut().iter_mut().enumerate().for_each(|(i, x)| *x = f(i));
        x
    }

    /// A tensor of zeros.
    pub fn zeros(shape: &[usize], dtype: DType) -> Self {
        Self::zeros_on(Device::Cpu, shape, dtype)
    }

    /// A tensor of zeros on a device.
    pub fn zeros_on(device: Device, shape: &[usize], dtype: DType) -> Self {
        let mut storage = Storage::unspecified(device, shape.iter().product(), dtype);
        storage.fill_with_zeros();
        Self::from_elements(shape, storage)
    }

    /// A tensor whose every element is `value`.
    pub fn full(shape: &[usize], value: f32) -> Self {
        Self::full_on(Device::Cpu, shape, value)
    }

    /// [`Tensor::full`] on a device.
    pub fn full_on(device: Device, shape: &[usize], value: f32) -> Self {
        let mut x = Self::unspecified_on(device, shape, DType::F32);
        match device {
            Device::Cpu => x.f32s_mut().fill(value),
            Device::Cuda(_) => cuda::or_unwind(x.cuda_f32s_mut().fill_with_bits(value.to_bits())),
        }
        x
    }

    /// A tensor of unspecified elements, for an output that is about to be written in full.
    pub(crate) fn unspecified(shape: &[usize], dtype: DType) -> Self {
        Self::unspecified_on(Device::Cpu, shape, dtype)
    }

    /// [`Tensor::unspecified`] on a device.
    pub(crate) fn unspecified_on(device: Device, shape: &[usize], dtype: DType) -> Self {
        Self::from_elements(shape, Storage::unspecified(device, shape.iter().product(), dtype))
    }

    /// The same elements on `device`, off the tape: shared if they are there already, copied otherwise.
    pub fn to(&self, device: Device) -> Self {
        if self.device() == device {
            return self.detached();
        }
        Self::from_elements(&self.shape, self.storage.copied_to(device))
    }

    /// A copy on `device` that shares nothing with this tensor, off the tape.
    pub fn copied_to(&self, device: Device) -> Self {
        Self::from_elements(&self.shape, self.storage.copied_to(device))
    }

    /// Replaces the elements, on a GPU after all work asked for so far: the next batch.
    ///
    /// # Panics
    /// If the tensor is shared, is not of u32, or has another number of elements.
    #[track_caller]
    pub fn write_u32s(&mut self, elements: &[u32]) {
        match Arc::get_mut(&mut self.storage) {
            Some(Storage::CudaU32(x)) => cuda::or_unwind(x.write(elements)),
            Some(Storage::U32(x)) => x.copy_from_slice(elements),
            _ => panic!("write_u32s: expected an unshared tensor of u32, not {self:?}"),
        }
    }

    /// [`Tensor::write_u32s`] for f32.
    ///
    /// # Panics
    /// As there.
    #[track_caller]
    pub fn write_f32s(&mut self, elements: &[f32]) {
        match Arc::get_mut(&mut self.storage) {
            Some(Storage::CudaF32(x)) => cuda::or_unwind(x.write(elements)),
            Some(Storage::F32(x)) => x.copy_from_slice(elements),
            _ => panic!("write_f32s: expected an unshared tensor of f32, not {self:?}"),
        }
    }

    /// The context of the GPU that the elements are on.
    ///
    /// # Panics
    /// If they are on the CPU.
    #[track_caller]
    pub(crate) fn cuda(&self) -> &Arc<cuda::Context> {
        match &*self.storage {
            Storage::CudaF32(x) => x.context(),
            Storage::CudaBf16(x) => x.context(),
            Storage::CudaU32(x) => x.context(),
            _ => panic!("expected a tensor on a GPU, not on {}", self.device()),
        }
    }

    /// The address of the elements on the GPU.
    ///
    /// # Panics
    /// If they are on the CPU.
    #[track_caller]
    pub fn device_pointer(&self) -> u64 {
        match &*self.storage {
            Storage::CudaF32(x) => x.pointer(),
            Storage::CudaBf16(x) => x.pointer(),
            Storage::CudaU32(x) => x.pointer(),
            _ => panic!("expected a tensor on a GPU, not on {}", self.device()),
        }
    }

    /// The elements on a GPU.
    ///
    /// # Panics
    /// If they are not bf16, or not on a GPU.
    #[track_caller]
    pub(crate) fn cuda_bf16s(&self) -> &cuda::Buffer<bf16> {
        match &*self.storage {
            Storage::CudaBf16(x) => x,
            other => panic!("expected a tensor of bf16 on a GPU, not of {} on {}", other.dtype(), other.device()),
        }
    }

    /// The elements on a GPU, to be changed in place; see [`Tensor::f32s_mut`].
    #[track_caller]
    pub(crate) fn cuda_bf16s_mut(&mut self) -> &mut cuda::Buffer<bf16> {
        match Arc::get_mut(&mut self.storage) {
            Some(Storage::CudaBf16(x)) => x,
            Some(other) => panic!("expected a tensor of bf16 on a GPU, not of {} on {}", other.dtype(), other.device()),
            None => panic!("a tensor of shape {:?} is shared and cannot be changed in place", self.shape),
        }
    }

    /// The elements on a GPU.
    ///
    /// # Panics
    /// If they are not f32, or not on a GPU.
    #[track_caller]
    pub(crate) fn cuda_f32s(&self) -> &cuda::Buffer<f32> {
        match &*self.storage {
            Storage::CudaF32(x) => x,
            other => panic!("expected a tensor of f32 on a GPU, not of {} on {}", other.dtype(), other.device()),
        }
    }

    /// The elements on a GPU, to be changed in place; see [`Tensor::f32s_mut`].
    #[track_caller]
    pub(crate) fn cuda_f32s_mut(&mut self) -> &mut cuda::Buffer<f32> {
        match Arc::get_mut(&mut self.storage) {
            Some(Storage::CudaF32(x)) => x,
            Some(other) => panic!("expected a tensor of f32 on a GPU, not of {} on {}", other.dtype(), other.device()),
            None => panic!("a tensor of shape {:?} is shared and cannot be changed in place", self.shape),
        }
    }

    #[track_caller]
    pub(crate) fn from_elements(shape: &[usize], storage: Storage) -> Self {
        assert!(
            shape.iter().product::<usize>() == storage.len(),
            "a tensor of shape {shape:?} has {} elements, not {}",
            shape.iter().product::<usize>(),
            storage.len()
        );
        Tensor { shape: shape.to_vec(), storage: Arc::new(storage), track: None }
    }

    /// Puts the result `y` of an operation on the tape, if any of its inputs is tracked.
    ///
    /// `backward` receives the gradient of `y` and adds the gradients of the inputs to the sink. It runs at most once,
    /// and what it captured is freed right after.
    pub(crate) fn from_op(
        y: Tensor,
        inputs: &[&Tensor],
        backward: impl FnOnce(Tensor, &mut Sink<'_>) + Send + 'static,
    ) -> Self {
        if !inputs.iter().any(|x| x.is_tracked()) {
            return y;
        }
        let track = Track { id: TensorId::fresh(), node: Some(Arc::new(Node::new(backward))) };
        Tensor { track: Some(track), ..y }
    }

    /// The same elements as a new leaf of the tape: gradients with respect to it will be computed.
    pub fn tracked(&self) -> Self {
        Tensor { track: Some(Track { id: TensorId::fresh(), node: None }), ..self.clone() }
    }

    /// The same elements, off the tape: a constant.
    pub fn detached(&self) -> Self {
        Tensor { track: None, ..self.clone() }
    }

    /// Whether gradients flow to this tensor.
    pub fn is_tracked(&self) -> bool {
        self.track.is_some()
    }

    pub(crate) fn track(&self) -> Option<&Track> {
        self.track.as_ref()
    }

    /// The size of each dimension, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.storage.len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        self.storage.dtype()
    }

    /// Where the elements are.
    pub fn device(&self) -> Device {
        self.storage.device()
    }

    /// The tensor seen as a matrix: all leading dimensions as rows, and the last one.
    ///
    /// # Panics
    /// If the tensor has no dimension.
    #[track_caller]
    pub fn rows(&self) -> (usize, usize) {
        let (&d, leading) = self.shape.split_last().expect("a tensor with at least one dimension");
        (leading.iter().product(), d)
    }

    /// The elements.
    ///
    /// # Panics
    /// If they are not f32, or not on the CPU.
    #[track_caller]
    pub fn f32s(&self) -> &[f32] {
        match &*self.storage {
            Storage::F32(x) => x,
            other => panic!("expected a tensor of f32, not of {} on {}", other.dtype(), other.device()),
        }
    }

    /// The elements.
    ///
    /// # Panics
    /// If they are not bf16.
    #[track_caller]
    pub fn bf16s(&self) -> &[bf16] {
        match &*self.storage {
            Storage::Bf16(x) => x,
            other => panic!("expected a tensor of bf16, not of {} on {}", other.dtype(), other.device()),
        }
    }

    /// The elements.
    ///
    /// # Panics
    /// If they are not u32.
    #[track_caller]
    pub fn u32s(&self) -> &[u32] {
        match &*self.storage {
            Storage::U32(x) => x,
            other => panic!("expected a tensor of u32, not of {} on {}", other.dtype(), other.device()),
        }
    }

    /// The elements, to be changed in place. Nothing else may share them: a change under the feet of the tape would
    /// falsify gradients.
    ///
    /// # Panics
    /// If the elements are shared or not f32.
    #[track_caller]
    pub fn f32s_mut(&mut self) -> &mut [f32] {
        match Arc::get_mut(&mut self.storage) {
            Some(Storage::F32(x)) => x,
            Some(other) => panic!("expected a tensor of f32, not of {}", other.dtype()),
            None => panic!("a tensor of shape {:?} is shared and cannot be changed in place", self.shape),
        }
    }

    /// The elements, to be changed in place; see [`Tensor::f32s_mut`].
    #[track_caller]
    pub fn bf16s_mut(&mut self) -> &mut [bf16] {
        match Arc::get_mut(&mut self.storage) {
            Some(Storage::Bf16(x)) => x,
            Some(other) => panic!("expected a tensor of bf16, not of {}", other.dtype()),
            None => panic!("a tensor of shape {:?} is shared and cannot be changed in place", self.shape),
        }
    }

    /// Whether no other tensor shares the elements.
    pub(crate) fn is_unique(&mut self) -> bool {
        Arc::get_mut(&mut self.storage).is_some()
    }

    /// The only element. On a GPU, this waits for all work asked for.
    ///
    /// # Panics
    /// If there is not exactly one, or it is not f32.
    #[track_caller]
    pub fn item(&self) -> f32 {
        assert!(self.len() == 1, "item: a tensor of shape {:?} has more than one element", self.shape);
        self.to(Device::Cpu).f32s()[0]
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tracked = if self.is_tracked() { ", tracked" } else { "" };
        write!(f, "Tensor({:?}, {} on {}{tracked})", self.shape, self.dtype(), self.device())
    }
}
