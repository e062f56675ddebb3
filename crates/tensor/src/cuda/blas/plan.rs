//! One product as cuBLASLt wants it described, and the algorithms that it proposes.

use std::ffi::c_void;

use cudarc::cublaslt::result::CublasError;
use cudarc::cublaslt::{result, sys};

use super::Pointers;
use super::key::{Fp8, Key, Kind, Operand};
use super::library::{Library, WORKSPACE_BYTES, blas_error};
use crate::cuda::Context;
use crate::fp8::Fp8Format;
use crate::{DType, Error};

/// How many algorithms are asked for.
const N_CANDIDATES: usize = 8;

/// A described product with its algorithm.
pub(super) struct Plan {
    description: Description,
    /// The best first, as cuBLASLt thinks.
    pub(super) candidates: Vec<sys::cublasLtMatmulAlgo_t>,
    pub(super) algorithm: sys::cublasLtMatmulAlgo_t,
    /// Whether the algorithm was measured, here or in an earlier run.
    pub(super) tuned: bool,
}

impl Plan {
    /// `None` if cuBLASLt has no algorithm for it.
    pub(super) fn new(library: &Library, key: &Key, pointers: &Pointers) -> Result<Option<Self>, Error> {
        if key.epilogue.is_gated() {
            return Ok(None);
        }
        // Its rule for the second matrix of an epilogue; f32 is not worth the question.
        if key.epilogue.has_pre_activation() && (!key.n.is_multiple_of(8) || key.output == DType::F32) {
            return Ok(None);
        }
        let mut description = Description::new(key).map_err(blas_error("describe a matrix product"))?;
        description.set_pointers(key, pointers).map_err(blas_error("describe a matrix product"))?;
        let candidates = match description.candidates(library, key) {
            Ok(candidates) => candidates,
            Err(CublasError(
                sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED | sys::cublasStatus_t::CUBLAS_STATUS_INVALID_VALUE,
            )) => Vec::new(),
            Err(error) => return Err(blas_error("choose an algorithm for a matrix product")(error)),
        };
        let first = candidates.first().copied();
        Ok(first.map(|algorithm| Self { description, candidates, algorithm, tuned: false }))
    }

    /// Takes a measured algorithm.
    pub(super) fn choose(&mut self, algorithm: sys::cublasLtMatmulAlgo_t) {
        self.algorithm = algorithm;
        self.tuned = true;
    }

    /// Takes the algorithm of an earlier run, unless cuBLASLt says that it does not fit.
    pub(super) fn choose_checked(&mut self, library: &Library, data: [u64; 8]) {
        let algorithm = sys::cublasLtMatmulAlgo_t { data };
        if self.description.accepts(library, &algorithm) {
            self.choose(algorithm);
        }
    }

    /// Asks for the product.
    pub(super) fn run(
        &mut self,
        context: &Context,
        library: &Library,
        key: &Key,
        pointers: &Pointers,
        beta: f32,
    ) -> Result<(), Error> {
        let algorithm = self.algorithm;
        self.run_with(&algorithm, context, library, key, pointers, beta)
    }

    /// The same with another algorithm.
    pub(super) fn run_with(
        &mut self,
        algorithm: &sys::cublasLtMatmulAlgo_t,
        context: &Context,
        library: &Library,
        key: &Key,
        pointers: &Pointers,
        beta: f32,
    ) -> Result<(), Error> {
        let error = blas_error("multiply matrices");
        let this = &mut self.description;
        this.set_pointers(key, pointers).map_err(&error)?;
        let alpha = 1.0f32;
        let pointer = |x: u64| x as *mut c_void;
        // SAFETY: the matrices were found to lie in their tensors; cuBLASLt reads alpha and beta before it returns, and
        // keeps to the workspace, which only work of this one stream uses.
        unsafe {
            result::matmul(
                library.handle,
                this.product,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                pointer(pointers.b),
                this.b,
                pointer(pointers.a),
                this.a,
                pointer(pointers.out),
                this.out,
                pointer(pointers.out),
                this.out,
                algorithm,
                pointer(library.workspace),
                WORKSPACE_BYTES,
                context.stream.cast(),
            )
        }
        .map_err(error)
    }
}

/// cuBLASLt's descriptors, which live on the host. Its first operand is our `b`, its second our `a`.
struct Description {
    product: sys::cublasLtMatmulDesc_t,
    a: sys::cublasLtMatrixLayout_t,
    b: sys::cublasLtMatrixLayout_t,
    out: sys::cublasLtMatrixLayout_t,
}

impl Description {
    fn new(key: &Key) -> Result<Self, CublasError> {
        use std::ptr::null_mut;
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        let mut this = Self { product: null_mut(), a: null_mut(), b: null_mut(), out: null_mut() };
        let single = sys::cudaDataType_t::CUDA_R_32F;
        this.product = result::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, single)?;
        let (type_a, type_b) = match key.fp8 {
            None => (data_type(key.input), data_type(key.input)),
            Some(Fp8 { a, b, .. }) => (fp8_type(a), fp8_type(b)),
        };
        this.a = layout(type_a, &key.a, key.m, key.k)?;
        this.b = layout(type_b, &key.b, key.k, key.n)?;
        this.out = layout(data_type(key.output), &key.out, key.m, key.n)?;
        if let Some(Fp8 { fast_sums, .. }) = key.fp8 {
            this.set(Attribute::CUBLASLT_MATMUL_DESC_FAST_ACCUM, i8::from(fast_sums))?;
        }
        // cublasOperation_t: 0 as it is stored, 1 transposed.
        this.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, u32::from(key.b.transposed))?;
        this.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, u32::from(key.a.transposed))?;
        let epilogue = match key.epilogue {
            Kind::None => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_DEFAULT,
            Kind::Bias => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS,
            Kind::Gelu { bias: false, kept: false } => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_GELU,
            Kind::Gelu { bias: true, kept: false } => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_GELU_BIAS,
            Kind::Gelu { bias: false, kept: true } => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_GELU_AUX,
            Kind::Gelu { bias: true, kept: true } => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_GELU_AUX_BIAS,
            Kind::GeluGradient { sums: false } => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_DGELU,
            Kind::GeluGradient { sums: true } => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_DGELU_BGRAD,
            Kind::RowSums => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BGRADB,
            Kind::SwiGlu { .. } | Kind::SwiGluGradient => unreachable!("cuBLASLt is not asked for SwiGLU"),
        };
        this.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue)?;
        if key.epilogue.has_pre_activation() {
            this.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, key.n as i64)?;
        }
        Ok(this)
    }

    fn set_pointers(&mut self, key: &Key, pointers: &Pointers) -> Result<(), CublasError> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        if key.epilogue.has_vector() {
            self.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, pointers.vector)?;
        }
        if key.epilogue.has_pre_activation() {
            self.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, pointers.pre_activation)?;
        }
        if key.fp8.is_some() {
            self.set(Attribute::CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, pointers.scale_b)?;
            self.set(Attribute::CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, pointers.scale_a)?;
        }
        Ok(())
    }

    fn set<T: Copy>(&mut self, attribute: sys::cublasLtMatmulDescAttributes_t, value: T) -> Result<(), CublasError> {
        // SAFETY: the descriptor is alive, and copies the value.
        unsafe { result::set_matmul_desc_attribute(self.product, attribute, (&raw const value).cast(), size_of::<T>()) }
    }

    fn candidates(&self, library: &Library, key: &Key) -> Result<Vec<sys::cublasLtMatmulAlgo_t>, CublasError> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let preference = Preference(result::create_matmul_pref()?);
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, WORKSPACE_BYTES as u64)?;
        // Split sums are joined in f32 in a step of their own, in a fixed order; never in place.
        let reduction = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reduction)?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key.b.alignment)?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key.a.alignment)?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key.out.alignment)?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key.out.alignment)?;
        let mut found = [UNKNOWN; N_CANDIDATES];
        let mut n_found = 0;
        // SAFETY: every descriptor is alive, and there is room for as many results as are asked for.
        unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                library.handle,
                self.product,
                self.b,
                self.a,
                self.out,
                self.out,
                preference.0,
                N_CANDIDATES as i32,
                found.as_mut_ptr(),
                &mut n_found,
            )
            .result()?;
        }
        let n_found = usize::try_from(n_found).unwrap_or(0).min(N_CANDIDATES);
        let usable = |x: &&sys::cublasLtMatmulHeuristicResult_t| {
            x.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS && x.workspaceSize <= WORKSPACE_BYTES
        };
        Ok(found[..n_found].iter().filter(usable).map(|x| x.algo).collect())
    }

    fn accepts(&self, library: &Library, algorithm: &sys::cublasLtMatmulAlgo_t) -> bool {
        let mut found = UNKNOWN;
        // SAFETY: every descriptor is alive; the algorithm is checked, not used.
        let checked = unsafe {
            sys::cublasLtMatmulAlgoCheck(
                library.handle,
                self.product,
                self.b,
                self.a,
                self.out,
                self.out,
                algorithm,
                &mut found,
            )
        };
        checked.result().is_ok() && found.workspaceSize <= WORKSPACE_BYTES
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: made by `new`, or null where that ended early.
        unsafe {
            for layout in [self.a, self.b, self.out].into_iter().filter(|x| !x.is_null()) {
                let _ = result::destroy_matrix_layout(layout);
            }
            if !self.product.is_null() {
                let _ = result::destroy_matmul_desc(self.product);
            }
        }
    }
}

struct Preference(sys::cublasLtMatmulPreference_t);

impl Preference {
    fn set<T: Copy>(&self, what: sys::cublasLtMatmulPreferenceAttributes_t, value: T) -> Result<(), CublasError> {
        // SAFETY: the descriptor is alive, and copies the value.
        unsafe { result::set_matmul_pref_attribute(self.0, what, (&raw const value).cast(), size_of::<T>()) }
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: made before, destroyed once.
        unsafe {
            let _ = result::destroy_matmul_pref(self.0);
        }
    }
}

const UNKNOWN: sys::cublasLtMatmulHeuristicResult_t = sys::cublasLtMatmulHeuristicResult_t {
    algo: sys::cublasLtMatmulAlgo_t { data: [0; 8] },
    workspaceSize: 0,
    state: sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED,
    wavesCount: 0.0,
    reserved: [0; 4],
};

fn data_type(dtype: DType) -> sys::cudaDataType_t {
    match dtype {
        DType::Bf16 => sys::cudaDataType_t::CUDA_R_16BF,
        _ => sys::cudaDataType_t::CUDA_R_32F,
    }
}

fn fp8_type(format: Fp8Format) -> sys::cudaDataType_t {
    match format {
        Fp8Format::E4m3 => sys::cudaDataType_t::CUDA_R_8F_E4M3,
        Fp8Format::E5m2 => sys::cudaDataType_t::CUDA_R_8F_E5M2,
    }
}

/// The layout of a row-major `[rows, columns]` matrix, which may be stored transposed, as columns.
fn layout(
    kind: sys::cudaDataType_t,
    operand: &Operand,
    rows: usize,
    columns: usize,
) -> Result<sys::cublasLtMatrixLayout_t, CublasError> {
    let (rows, columns) = if operand.transposed { (columns, rows) } else { (rows, columns) };
    // A single row may have any stride; cuBLASLt wants one that holds it.
    result::create_matrix_layout(kind, columns as u64, rows as u64, operand.stride.max(columns) as i64)
}
