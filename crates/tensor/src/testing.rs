//! Helpers of tests, here and in the crates above: closeness, golden files, finite differences.

use std::cell::RefCell;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::io::SafetensorsFile;
use crate::random::Rng;
use crate::{DType, Device, Tensor, ops};

/// How far a result may be from its oracle: `|x − y| ≤ absolute + relative · |y|`.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Allowed difference whatever the size of the value.
    pub absolute: f32,
    /// Allowed difference as a share of the value.
    pub relative: f32,
}

impl Tolerance {
    /// No difference at all: for copies, gathers and integer work, where no rounding happens.
    pub const EXACT: Self = Tolerance { absolute: 0.0, relative: 0.0 };

    /// What rounding in sums of a few thousand terms explains, by dtype.
    pub fn of(dtype: DType) -> Self {
        match dtype {
            DType::F32 => Tolerance { absolute: 2e-5, relative: 2e-5 },
            DType::Bf16 => Tolerance { absolute: 1e-2, relative: 1e-2 },
            DType::U32 => Self::EXACT,
        }
    }
}

/// Every device of this machine that operations are to be tested on, with the dtype of activations.
pub fn cases() -> Vec<(Device, DType)> {
    let mut cases = vec![(Device::Cpu, DType::F32), (Device::Cpu, DType::Bf16)];
    if let Some(gpu) = gpu() {
        cases.extend([(gpu, DType::F32), (gpu, DType::Bf16)]);
    }
    cases
}

/// The first GPU, if there is one: for the calling thread alone, until it ends.
///
/// All threads share a device's stream, so one that records a graph would record the kernels of others. Tests run on
/// threads of their own; the first to ask has the GPU for its whole length. Says so where there is none.
pub fn gpu() -> Option<Device> {
    static TURN: Mutex<()> = Mutex::new(());
    thread_local! {
        static HELD: RefCell<Option<MutexGuard<'static, ()>>> = const { RefCell::new(None) };
    }
    let gpu = Device::from_name("cuda:0").inspect_err(|error| eprintln!("skipped on GPUs: {error}")).ok()?;
    HELD.with_borrow_mut(|held| {
        held.get_or_insert_with(|| TURN.lock().unwrap_or_else(PoisonError::into_inner));
    });
    Some(gpu)
}

/// Every device of this machine that operations are to be tested on.
pub fn devices() -> Vec<Device> {
    let mut devices: Vec<Device> = cases().into_iter().map(|(device, _)| device).collect();
    devices.dedup();
    devices
}

/// `x` rounded to `dtype`: what the reference is to be computed from.
pub fn rounded(x: &Tensor, dtype: DType) -> Tensor {
    ops::cast(&ops::cast(x, dtype), DType::F32)
}

/// `x` as `dtype` on `device`.
pub fn placed(x: &Tensor, (device, dtype): (Device, DType)) -> Tensor {
    ops::cast(&x.detached(), dtype).to(device)
}

/// `x` as f32 on the CPU.
pub fn fetched(x: &Tensor) -> Tensor {
    ops::cast(&x.to(Device::Cpu), DType::F32)
}

/// Random numbers from N(0, 1); the same for the same shape and stream.
pub fn random(shape: &[usize], stream: u64) -> Tensor {
    Rng::new(0x7e57, stream).normal(shape, 1.0)
}

/// Fails with the worst element if `x` is not close to `expected`, whatever their devices and dtypes.
///
/// # Panics
/// If shapes differ or an element is out of tolerance.
#[track_caller]
pub fn assert_close(x: &Tensor, expected: &Tensor, tolerance: Tolerance) {
    assert_eq!(x.shape(), expected.shape(), "shapes differ");
    let (x, expected) = (fetched(x), fetched(expected));
    let excess = |x: f32, y: f32| {
        let excess = (x - y).abs() - (tolerance.absolute + tolerance.relative * y.abs());
        if excess.is_nan() { f32::INFINITY } else { excess }
    };
    let pairs = x.f32s().iter().zip(expected.f32s()).enumerate();
    let worst = pairs.max_by(|(_, (a, b)), (_, (c, d))| excess(**a, **b).total_cmp(&excess(**c, **d)));
    if let Some((i, (&x, &y))) = worst {
        assert!(excess(x, y) <= 0.0, "element {i} is {x}, expected {y} ({tolerance:?})");
    }
}

/// Golden numbers that a script in `oracle/` wrote: a safetensors file in the `golden` folder of a crate.
pub struct Golden {
    file: SafetensorsFile,
}

impl Golden {
    /// Opens `folder/name.safetensors`; pass `concat!(env!("CARGO_MANIFEST_DIR"), "/golden")` as folder.
    ///
    /// # Panics
    /// If it is not there: goldens are committed.
    #[track_caller]
    pub fn load(folder: &str, name: &str) -> Self {
        let path = Path::new(folder).join(name).with_extension("safetensors");
        let file = SafetensorsFile::open(&path).unwrap_or_else(|e| panic!("{e}: {}", path.display()));
        Golden { file }
    }

    /// A tensor of the file.
    ///
    /// # Panics
    /// If it is not there.
    #[track_caller]
    pub fn get(&self, name: &str) -> Tensor {
        self.file.tensor(name).unwrap_or_else(|e| panic!("{e}"))
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> Vec<String> {
        self.file.names()
    }

    /// The metadata of the file.
    pub fn metadata(&self) -> std::collections::HashMap<String, String> {
        self.file.metadata()
    }
}

/// Compares the gradients of `f` with central finite differences.
///
/// `f` may return any shape: it is contracted with fixed random weights to a scalar. All inputs are f32 and tracked.
///
/// # Panics
/// If a gradient is missing or differs by more than the error of the difference quotient explains.
#[track_caller]
pub fn check_gradients<const N: usize>(f: impl Fn([&Tensor; N]) -> Tensor, inputs: [Tensor; N]) {
    const STEP: f32 = 1e-2;
    let scalar = |y: &Tensor| -> f64 {
        let weights = random(y.shape(), 99);
        y.f32s().iter().zip(weights.f32s()).map(|(&y, &w)| f64::from(y) * f64::from(w)).sum()
    };
    let tracked = inputs.each_ref().map(Tensor::tracked);
    let y = f(tracked.each_ref());
    let weights = random(y.shape(), 99);
    let gradients = crate::ops::weighted_sum(&y, &weights).backward();

    for (which, input) in inputs.iter().enumerate() {
        let gradient = gradients.get(&tracked[which]).unwrap_or_else(|| panic!("input {which} got no gradient"));
        let largest = gradient.f32s().iter().fold(1.0f32, |m, g| m.max(g.abs()));
        for i in 0..input.len() {
            let moved = |by: f32| {
                let mut elements = input.f32s().to_vec();
                elements[i] += by;
                let mut all = inputs.clone();
                all[which] = Tensor::from_f32(input.shape(), elements);
                scalar(&f(all.each_ref()))
            };
            // Richardson: the error of the central quotient is of order h²; two step sizes cancel it.
            let quotient = |h: f32| (moved(h) - moved(-h)) / f64::from(2.0 * h);
            let expected = (4.0 * quotient(STEP / 2.0) - quotient(STEP)) / 3.0;
            let found = f64::from(gradient.f32s()[i]);
            assert!(
                (found - expected).abs() <= 2e-3 * f64::from(largest),
                "input {which}, element {i}: gradient {found}, finite difference {expected}"
            );
        }
    }
}
