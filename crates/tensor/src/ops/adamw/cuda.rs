//! One launch for many parameters, whose table of pointers travels with the launch.

use std::ffi::c_void;
use std::ptr::from_ref;

use super::{AdamW, AdamWTensors};
use crate::cuda::{Arch, ELEMENT, Source, or_unwind};
use crate::ops::sum_of_squares::cuda::CHUNKS;
use crate::{DType, Tensor};

/// Elements of a block, as in the kernel.
const CHUNK: usize = 4096;
/// Tensors of a launch: all parameters of a launch have 4 KiB.
const TENSORS: usize = 64;

fn source() -> Source {
    let parts = &[ELEMENT, CHUNKS, ("adamw.cu", include_str!("adamw.cu"))];
    Source { name: "adamw", parts, options: vec![format!("-DTENSORS={TENSORS}")] }
}

/// Sources for CI, with the architectures they must compile for.
pub(in crate::ops) fn sources() -> Vec<(Source, &'static [Arch])> {
    vec![(source(), Arch::PORTABLE)]
}

/// The kernel's table, field by field.
#[repr(C)]
struct Table {
    parameter: [u64; TENSORS],
    gradient: [u64; TENSORS],
    first_moment: [u64; TENSORS],
    second_moment: [u64; TENSORS],
    compute: [u64; TENSORS],
    len: [u64; TENSORS],
    first_block: [u32; TENSORS],
    weight_decay: [f32; TENSORS],
    compute_is_bf16: [u32; TENSORS],
    n: u32,
}

/// The kernel's settings, field by field.
#[repr(C)]
struct Settings {
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    eps: f32,
    clip: f32,
}

const _: () = assert!(size_of::<Table>() + size_of::<Settings>() + 2 * size_of::<u64>() <= 4096);

/// Updates tensors whose shapes, dtypes and devices have been checked.
pub(super) fn update(tensors: &mut [AdamWTensors<'_>], settings: &AdamW, numbers: &Tensor, norm: &Tensor) {
    let kernel = numbers.cuda().kernel(&source(), "adamw", 0);
    let (numbers, norm) = (numbers.device_pointer(), norm.device_pointer());
    let settings = Settings {
        beta1: settings.beta1,
        one_minus_beta1: settings.one_minus_beta1(),
        beta2: settings.beta2,
        one_minus_beta2: settings.one_minus_beta2(),
        eps: settings.eps,
        clip: settings.clip,
    };
    for tensors in tensors.chunks_mut(TENSORS) {
        let none = [0; TENSORS];
        let mut table = Table {
            parameter: none,
            gradient: none,
            first_moment: none,
            second_moment: none,
            compute: none,
            len: none,
            first_block: [0; TENSORS],
            weight_decay: [0.0; TENSORS],
            compute_is_bf16: [0; TENSORS],
            n: 0,
        };
        let mut blocks = 0;
        for (i, x) in tensors.iter_mut().filter(|x| !x.parameter.is_empty()).enumerate() {
            table.parameter[i] = pointer_mut(x.parameter);
            table.gradient[i] = x.gradient.device_pointer();
            table.first_moment[i] = pointer_mut(x.first_moment);
            table.second_moment[i] = pointer_mut(x.second_moment);
            if let Some(compute) = &mut x.compute {
                table.compute[i] = pointer_mut(compute);
                table.compute_is_bf16[i] = u32::from(compute.dtype() == DType::Bf16);
            }
            table.len[i] = x.parameter.len() as u64;
            table.first_block[i] = u32::try_from(blocks).expect("fewer than 2^32 blocks");
            table.weight_decay[i] = x.weight_decay;
            table.n += 1;
            blocks += x.parameter.len().div_ceil(CHUNK);
        }
        if blocks == 0 {
            continue;
        }
        let arguments: [*const c_void; 4] =
            [from_ref(&table).cast(), from_ref(&settings).cast(), from_ref(&numbers).cast(), from_ref(&norm).cast()];
        // SAFETY: the tensors of one entry have one length, which is in the table with as many blocks as there are
        // chunks; those that are written are unshared. `numbers` has the three elements that the kernel reads.
        or_unwind(unsafe { kernel.launch([blocks, 1, 1], 256, &arguments) });
    }
}

#[track_caller]
fn pointer_mut(x: &mut Tensor) -> u64 {
    assert!(x.is_unique(), "adamw: a tensor of shape {:?} is shared and cannot be changed in place", x.shape());
    x.device_pointer()
}
