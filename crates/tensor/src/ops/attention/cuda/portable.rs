//! The pass of any head size, element type and option, on sm_80 and later: on the matrix units if heads are of bf16 and
//! of a size that these take, with plain multiply-adds otherwise.

use std::sync::Arc;

use super::cached::Rows;
use super::{Problem, Saved, definitions, pointer_to};
use crate::cuda::{Arch, Context, ELEMENT, Source, or_unwind};
use crate::ops::Heads;
use crate::ops::attention::options::Rule;
use crate::ops::row_kernel::cuda_type;
use crate::{DType, Tensor};

const OPTIONS: (&str, &str) = ("attention_options.cuh", include_str!("../attention_options.cuh"));
const FMA: (&str, &str) = ("attention_fma.cuh", include_str!("../attention_fma.cuh"));
const FMA_FORWARD: (&str, &str) = ("attention_fma_forward.cu", include_str!("../attention_fma_forward.cu"));
const FMA_BACKWARD: (&str, &str) = ("attention_fma_backward.cu", include_str!("../attention_fma_backward.cu"));
const MMA: (&str, &str) = ("attention_mma.cuh", include_str!("../attention_mma.cuh"));
const MMA_FORWARD: (&str, &str) = ("attention_mma_forward.cu", include_str!("../attention_mma_forward.cu"));
const MMA_BACKWARD: (&str, &str) = ("attention_mma_backward.cu", include_str!("../attention_mma_backward.cu"));

/// What the kernels know when they are compiled.
#[derive(Clone, Copy, Debug)]
struct Variant {
    dtype: DType,
    head_dim: usize,
    v_head_dim: usize,
    causal: bool,
    window: bool,
    softcap: bool,
    alibi: bool,
    documents: bool,
}

/// How a pass is cut.
struct Pass {
    source: Source,
    /// Rows that a block owns.
    rows: usize,
    threads: usize,
    shared_bytes: usize,
    /// Blocks that share the gradients of a tile of keys.
    parts: usize,
}

impl Variant {
    fn of(dtype: DType, heads: &Heads, rule: &Rule) -> Self {
        let Heads { head_dim, v_head_dim, .. } = *heads;
        let e = head_dim.max(v_head_dim);
        assert!(
            e <= 256 && matches!(dtype, DType::F32 | DType::Bf16),
            "attention: on a GPU, heads must have at most 256 elements of f32 or bf16, not {e} of {dtype}"
        );
        Self {
            dtype,
            head_dim,
            v_head_dim,
            causal: rule.causal,
            window: rule.window.is_some(),
            softcap: rule.softcap.is_some(),
            alibi: rule.alibi_slopes.is_some(),
            documents: rule.document_start.is_some(),
        }
    }

    /// Products take 16 columns at a time; wide heads are computed in two parts.
    fn uses_matrix_units(&self) -> bool {
        let multiple = if self.widest() <= 128 { 16 } else { 32 };
        let fits = |e: usize| e.is_multiple_of(multiple);
        self.dtype == DType::Bf16 && fits(self.head_dim) && fits(self.v_head_dim)
    }

    /// Elements of the largest kind of head.
    fn widest(&self) -> usize {
        self.head_dim.max(self.v_head_dim)
    }

    /// Whether keys are wider than values, as those of latent attention: there is room for a larger cut.
    fn has_narrow_values(&self) -> bool {
        self.head_dim <= 192 && self.v_head_dim <= 128
    }

    fn options(&self, cut: &[(&str, usize)]) -> Vec<String> {
        let flags = [
            ("HEAD_DIM", self.head_dim),
            ("V_HEAD_DIM", self.v_head_dim),
            ("CAUSAL", usize::from(self.causal)),
            ("WINDOW", usize::from(self.window)),
            ("SOFTCAP", usize::from(self.softcap)),
            ("ALIBI", usize::from(self.alibi)),
            ("DOCUMENTS", usize::from(self.documents)),
        ];
        let element = format!("-DELEMENT={}", cuda_type(self.dtype));
        [vec![element], definitions(&flags), definitions(cut)].concat()
    }

    fn forward(&self) -> Pass {
        let e = self.widest();
        if !self.uses_matrix_units() {
            let (depth, breadth) = if e <= 128 { (4, 2) } else { (2, 1) };
            return self.fma("attention_fma_forward", &[ELEMENT, OPTIONS, FMA, FMA_FORWARD], [depth, breadth], 1);
        }
        let (warps, block, stages) = match e {
            ..=96 => (4, 64, 2),
            97..=128 => (8, 32, 2),
            _ if self.has_narrow_values() => (4, 32, 2),
            _ => (4, 32, 1),
        };
        let rows = 16 * warps;
        Pass {
            source: Source {
                name: "attention_mma_forward",
                parts: &[ELEMENT, OPTIONS, MMA, MMA_FORWARD],
                options: self.options(&[("WARPS", warps), ("BLOCK", block), ("STAGES", stages)]),
            },
            rows,
            threads: 32 * warps,
            shared_bytes: 2 * (rows * (self.head_dim + 8) + stages * block * self.row_of_both()),
            parts: 1,
        }
    }

    fn backward(&self) -> Pass {
        let e = self.widest();
        if !self.uses_matrix_units() {
            let (depth, breadth) = if e <= 128 { (2, 2) } else { (1, 1) };
            return self.fma("attention_fma_backward", &[ELEMENT, OPTIONS, FMA, FMA_BACKWARD], [depth, breadth], 2);
        }
        let (warps, block, stages, parts) = match e {
            ..=64 => (4, 64, 2, 1),
            65..=128 => (4, 32, 2, 1),
            _ if self.has_narrow_values() => (4, 32, 1, 2),
            _ => (2, 32, 1, 2),
        };
        let cut = [("WARPS", warps), ("BLOCK", block), ("STAGES", stages), ("PARTS", parts)];
        let rows = 16 * warps;
        let statistics = stages * (3 * block * 4);
        Pass {
            source: Source {
                name: "attention_mma_backward",
                parts: &[ELEMENT, OPTIONS, MMA, MMA_BACKWARD],
                options: self.options(&cut),
            },
            rows,
            threads: 32 * warps,
            shared_bytes: 2 * (rows + stages * block) * self.row_of_both() + statistics,
            parts,
        }
    }

    /// Elements from one row to the next in a tile of keys and in one of values, on the matrix units.
    fn row_of_both(&self) -> usize {
        self.head_dim + 8 + self.v_head_dim + 8
    }

    /// With multiply-adds; `own` tiles of the block's own rows are in shared memory, those of keys' width first.
    fn fma(
        &self,
        name: &'static str,
        parts: &'static [(&'static str, &'static str)],
        [depth, breadth]: [usize; 2],
        own: usize,
    ) -> Pass {
        let (rows, block) = (16 * depth, 16 * breadth);
        // An odd number of vectors of four.
        let [of_keys, of_values] = [self.head_dim, self.v_head_dim].map(|e| 4 * (e.div_ceil(4) | 1));
        let both = of_keys + of_values;
        let own = rows * if own == 1 { of_keys } else { both };
        Pass {
            source: Source { name, parts, options: self.options(&[("DEPTH", depth), ("BREADTH", breadth)]) },
            rows,
            threads: 256,
            shared_bytes: 4 * (own + block * both + rows * (block + 1)),
            parts: 1,
        }
    }

    /// The names of its kernels, without what they do.
    fn family(&self) -> &'static str {
        if self.uses_matrix_units() { "attention_mma" } else { "attention_fma" }
    }
}

/// Sources for CI, with the architectures they must compile for.
pub(super) fn sources() -> Vec<(Source, &'static [Arch])> {
    let plain = |dtype, head_dim| Variant {
        dtype,
        head_dim,
        v_head_dim: head_dim,
        causal: true,
        window: false,
        softcap: false,
        alibi: false,
        documents: false,
    };
    let all = |of: Variant| Variant { window: true, softcap: true, alibi: true, documents: true, ..of };
    let mut variants = [32, 64, 96, 128, 256].map(|e| plain(DType::Bf16, e)).to_vec();
    let latent = |dtype| Variant { v_head_dim: 128, ..plain(dtype, 192) };
    variants.extend([latent(DType::Bf16), latent(DType::F32), all(latent(DType::Bf16))]);
    variants.extend([all(plain(DType::Bf16, 128)), all(plain(DType::Bf16, 72)), plain(DType::F32, 64)]);
    let passes = variants.iter().flat_map(|variant| [variant.forward(), variant.backward()]);
    passes.map(|pass| (pass.source, Arch::PORTABLE)).collect()
}

/// `Parameters` of attention_options.cuh.
#[repr(C)]
#[derive(Clone, Copy)]
struct Parameters {
    q: u64,
    k: u64,
    v: u64,
    y: u64,
    log_sum_exp: u64,
    dy: u64,
    delta: u64,
    dq: u64,
    dk: u64,
    dv: u64,
    slopes: u64,
    document_start: u64,
    b: i32,
    t: i32,
    n_keys: i32,
    h: i32,
    g: i32,
    past: i32,
    window: i32,
    q_stride: i32,
    k_stride: i32,
    v_stride: i32,
    scale: f32,
    softcap: f32,
}

impl Parameters {
    fn of_fused(problem: &Problem, rule: &Rule, qkv: &Tensor) -> Self {
        let Problem { b, t, heads, scale, .. } = *problem;
        let [q, k, v] = fused_pointers(problem, qkv);
        let pointer = |x: &Option<Tensor>| x.as_ref().map_or(0, Tensor::device_pointer);
        Self {
            q,
            k,
            v,
            y: 0,
            log_sum_exp: 0,
            dy: 0,
            delta: 0,
            dq: 0,
            dk: 0,
            dv: 0,
            slopes: pointer(&rule.alibi_slopes),
            document_start: pointer(&rule.document_start),
            b: b as i32,
            t: t as i32,
            n_keys: t as i32,
            h: heads.n_heads as i32,
            g: heads.n_kv_heads as i32,
            past: 0,
            // A wider window hides nothing.
            window: rule.window.map_or(0, |window| window.min(t) as i32),
            q_stride: heads.qkv_width() as i32,
            k_stride: heads.qkv_width() as i32,
            v_stride: heads.qkv_width() as i32,
            scale,
            softcap: rule.softcap.unwrap_or(1.0),
        }
    }
}

/// Where the first query, key and value head start.
fn fused_pointers(problem: &Problem, qkv: &Tensor) -> [u64; 3] {
    let heads = problem.heads;
    [0, heads.q_width(), heads.q_width() + heads.k_width()]
        .map(|column| qkv.device_pointer() + (column * qkv.dtype().bytes()) as u64)
}

/// # Safety
/// The pointers that the kernel uses are those of tensors of the shapes that the numbers say.
unsafe fn run(device: &Arc<Context>, pass: &Pass, name: &str, blocks: usize, parameters: &Parameters) {
    let kernel = device.kernel(&pass.source, name, pass.shared_bytes);
    // SAFETY: the parameter is the kernel's; that its pointers fit is promised.
    or_unwind(unsafe { kernel.launch([blocks, 1, 1], pass.threads, &[pointer_to(parameters)]) });
}

/// Writes `y: [b, t, h·f]` and `log_sum_exp: [b, h, t]`.
pub(super) fn forward(problem: &Problem, rule: &Rule, qkv: &Tensor, y: &mut Tensor, log_sum_exp: &mut Tensor) {
    let variant = Variant::of(qkv.dtype(), &problem.heads, rule);
    let pass = variant.forward();
    let parameters = Parameters {
        y: y.device_pointer(),
        log_sum_exp: log_sum_exp.device_pointer(),
        ..Parameters::of_fused(problem, rule, qkv)
    };
    let blocks = problem.t.div_ceil(pass.rows) * problem.heads.n_heads * problem.b;
    // SAFETY: qkv, y and log_sum_exp have the shapes of the problem; rows from t on are neither read nor written.
    unsafe { run(qkv.cuda(), &pass, &format!("{}_forward", variant.family()), blocks, &parameters) };
}

/// Writes `y: [1, t, h·f]`: attention of the queries of `qkv`, the last of the cached positions, to those.
pub(super) fn forward_cached(heads: &Heads, scale: f32, qkv: &Tensor, rows: &Rows<'_>, y: &mut Tensor) {
    let problem = Problem { b: 1, t: qkv.rows().0, heads: *heads, causal: true, scale };
    let rule = Rule::of(&problem);
    let log_sum_exp = Tensor::unspecified_on(qkv.device(), &[heads.n_heads, problem.t], DType::F32);
    let parameters = Parameters {
        k: rows.keys.device_pointer(),
        v: rows.values.device_pointer(),
        k_stride: heads.k_width() as i32,
        v_stride: heads.v_width() as i32,
        n_keys: rows.n as i32,
        past: (rows.n - problem.t) as i32,
        y: y.device_pointer(),
        log_sum_exp: log_sum_exp.device_pointer(),
        ..Parameters::of_fused(&problem, &rule, qkv)
    };
    let variant = Variant::of(qkv.dtype(), heads, &rule);
    let pass = variant.forward();
    let blocks = problem.t.div_ceil(pass.rows) * heads.n_heads;
    // SAFETY: qkv and y have t rows, keys and values n; rows behind those are neither read nor written.
    unsafe { run(qkv.cuda(), &pass, &format!("{}_forward", variant.family()), blocks, &parameters) };
}

/// Writes `dqkv: [b, t, (h + g)·e + g·f]`.
pub(super) fn backward(problem: &Problem, rule: &Rule, saved: &Saved<'_>, dy: &Tensor, dqkv: &mut Tensor) {
    let (Problem { b, t, heads, .. }, Saved { qkv, y, log_sum_exp }) = (*problem, *saved);
    let variant = Variant::of(qkv.dtype(), &heads, rule);
    let pass = variant.backward();
    let delta = Tensor::unspecified_on(qkv.device(), &[b, heads.n_heads, t], DType::F32);
    let [dq, dk, dv] = fused_pointers(problem, dqkv);
    let parameters = Parameters {
        y: y.device_pointer(),
        log_sum_exp: log_sum_exp.device_pointer(),
        dy: dy.device_pointer(),
        delta: delta.device_pointer(),
        dq,
        dk,
        dv,
        ..Parameters::of_fused(problem, rule, qkv)
    };
    let (device, family, tiles) = (qkv.cuda(), variant.family(), t.div_ceil(pass.rows));
    let (queries, keys) = (format!("{family}_backward_queries"), format!("{family}_backward_keys"));
    // SAFETY: all tensors have the shapes of the problem; rows from t on are neither read nor written.
    unsafe {
        run(device, &pass, &queries, tiles * heads.n_heads * b, &parameters);
        run(device, &pass, &keys, tiles * heads.n_kv_heads * b * pass.parts, &parameters);
    }
}
