// Products of a warp on the matrix units of sm_80 and later, with operands in shared memory as rows of a head.
//
// D[16, 8] += A[16, 16] · B[16, 8], bf16 in, f32 out (PTX ISA, mma.m16n8k16). Lane l holds of D the rows l/4 (d[0], d[1])
// and l/4 + 8 (d[2], d[3]), columns 2·(l%4) and one more. Two such results next to each other, rounded, are the A of
// another product.

// Compile-time, beside those of attention_options.cuh: WARPS, each of 16 rows · BLOCK columns per tile · STAGES of the ring

constexpr int THREADS = 32 * WARPS;
constexpr int ROWS = 16 * WARPS; // of a block
// Rows start 16 bytes further apart than a power of two: eight rows at one column lie in different banks.
__device__ constexpr int stride(int head_dim) {
    return head_dim + 8;
}
// Of the tiles in a slot of the ring: the first is as wide as keys, the second as wide as values.
constexpr int K_STRIDE = stride(HEAD_DIM), V_STRIDE = stride(V_HEAD_DIM);
constexpr int K_TILE = BLOCK * K_STRIDE, SLOT = BLOCK * (K_STRIDE + V_STRIDE);
static_assert(HEAD_DIM % 16 == 0 && V_HEAD_DIM % 16 == 0 && BLOCK % 16 == 0,
              "the matrix units take 16 columns at a time");

__device__ __forceinline__ u32 shared_address(const void* pointer) {
    return u32(__cvta_generic_to_shared(pointer));
}

// Copies 16 bytes to shared memory, or zeros, without waiting.
__device__ __forceinline__ void copy_async(void* to, const void* from, bool exists) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
                 "r"(exists ? 16 : 0)
                 : "memory");
}

// The same for 4 bytes.
__device__ __forceinline__ void copy_async_word(void* to, const void* from, bool exists) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)), "l"(from),
                 "r"(exists ? 4 : 0)
                 : "memory");
}

__device__ __forceinline__ void copy_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Until at most PENDING committed groups of this thread are under way.
template <int PENDING>
__device__ __forceinline__ void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Four matrices of 8 by 8: lanes 8i..8i+7 say where the rows of matrix i are.
__device__ __forceinline__ void load_matrices(u32 (&x)[4], const bf16* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ __forceinline__ void load_matrices_transposed(u32 (&x)[4], const bf16* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ __forceinline__ void multiply_add(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Two floats rounded to bf16, the first in the lower half.
__device__ __forceinline__ u32 pack_bf16(float low, float high) {
    u32 packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

// ---- tiles: rows of DIM elements, stride(DIM) apart ----

// Asks for ROWS rows of a head from row `first` on; rows from `n_rows` on become zeros.
template <int ROWS, int DIM>
__device__ __forceinline__ void copy_tile(bf16* to, const bf16* from, int row_stride, int first, int n_rows) {
    constexpr int CHUNKS = DIM / 8;
#pragma unroll 4
    for (int i = threadIdx.x; i < ROWS * CHUNKS; i += THREADS) {
        int row = i / CHUNKS, column = i % CHUNKS * 8;
        bool exists = first + row < n_rows;
        copy_async(to + row * stride(DIM) + column, from + u64(exists ? first + row : 0) * row_stride + column, exists);
    }
}

// Columns 16·step.. of the 16 rows from `rows` on, as an A.
template <int DIM>
__device__ __forceinline__ void load_rows(u32 (&a)[4], const bf16* rows, int step) {
    int lane = threadIdx.x % 32;
    load_matrices(a, rows + lane % 16 * stride(DIM) + step * 16 + lane / 16 * 8);
}

// s[16, COLUMNS] = A · Bᵀ, where a(fragment, step) loads A and the rows of B are the columns of s.
template <int COLUMNS, int DIM, class A>
__device__ __forceinline__ void dot_rows(float (&s)[COLUMNS / 8][4], A a, const bf16* b) {
    int lane = threadIdx.x % 32;
    b += (lane % 8 + lane / 16 * 8) * stride(DIM) + lane / 8 % 2 * 8;
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; ++n) s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0.f;
#pragma unroll
    for (int step = 0; step < DIM / 16; ++step) {
        u32 rows[4];
        a(rows, step);
#pragma unroll
        for (int n = 0; n < COLUMNS / 16; ++n) {
            u32 columns[4];
            load_matrices(columns, b + n * 16 * stride(DIM) + step * 16);
            multiply_add(s[2 * n], rows, columns[0], columns[1]);
            multiply_add(s[2 * n + 1], rows, columns[2], columns[3]);
        }
    }
}

// y[16, COLUMNS] += P[16, TERMS] · B, with P in registers and the TERMS rows of B from `b` on.
template <int TERMS, int COLUMNS, int DIM>
__device__ __forceinline__ void add_product(float (&y)[COLUMNS / 8][4], const u32 (&p)[TERMS / 16][4], const bf16* b) {
    int lane = threadIdx.x % 32;
    b += lane % 16 * stride(DIM) + lane / 16 * 8;
#pragma unroll
    for (int step = 0; step < TERMS / 16; ++step) {
#pragma unroll
        for (int n = 0; n < COLUMNS / 16; ++n) {
            u32 columns[4];
            load_matrices_transposed(columns, b + step * 16 * stride(DIM) + n * 16);
            multiply_add(y[2 * n], p[step], columns[0], columns[1]);
            multiply_add(y[2 * n + 1], p[step], columns[2], columns[3]);
        }
    }
}

// A result rounded to bf16, as the A of a product over its columns.
template <int COLUMNS>
__device__ __forceinline__ void round_to_bf16(u32 (&packed)[COLUMNS / 16][4], const float (&x)[COLUMNS / 8][4]) {
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; ++n) {
        packed[n / 2][n % 2 * 2] = pack_bf16(x[n][0], x[n][1]);
        packed[n / 2][n % 2 * 2 + 1] = pack_bf16(x[n][2], x[n][3]);
    }
}

// Writes x · factor[half] to the rows `first` + lane/4 (half 0) and eight further (half 1) of a head that exist.
template <int COLUMNS>
__device__ __forceinline__ void store_rows(
    bf16* to, int row_stride, int first, int n_rows, const float (&x)[COLUMNS / 8][4], const float (&factor)[2]) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        int row = first + lane / 4 + 8 * half;
        if (row >= n_rows) continue;
        bf16* out = to + u64(row) * row_stride + lane % 4 * 2;
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; ++n)
            *reinterpret_cast<u32*>(out + n * 8) =
                pack_bf16(x[n][2 * half] * factor[half], x[n][2 * half + 1] * factor[half]);
    }
}

// Sum over the four lanes that hold one row.
__device__ __forceinline__ float sum_row(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// ---- what a block does ----

// The block's tile of rows and its head: the same tile of all heads, then the next tile, so that those with most to do
// come first.
struct Place {
    int tile, head, sequence;

    __device__ Place(u32 block, int n_tiles, int n_heads, int n_sequences, bool last_is_longest) {
        int heads = n_heads * n_sequences;
        tile = block / heads;
        if (last_is_longest) tile = n_tiles - 1 - tile;
        head = block % heads % n_heads;
        sequence = block % heads / n_heads;
    }
};

// Goes over steps 0..n_steps: `copy(step, slot)` asks for tiles, `compute(step, slot)` has them.
template <class Copy, class Compute>
__device__ __forceinline__ void pipeline(int n_steps, Copy copy, Compute compute) {
#pragma unroll
    for (int step = 0; step < STAGES - 1; ++step) {
        if (step < n_steps) copy(step, step);
        copy_commit();
    }
    for (int step = 0; step < n_steps; ++step) {
        if (STAGES == 1) {
            __syncthreads();
            copy(step, 0);
            copy_commit();
            copy_wait<0>();
            __syncthreads();
        } else {
            // What this step needs has arrived, and no warp is at the step before, whose slot is filled next.
            copy_wait<STAGES == 1 ? 0 : STAGES - 2>();
            __syncthreads();
            int next = step + STAGES - 1;
            if (next < n_steps) copy(next, next % STAGES);
            copy_commit();
        }
        compute(step, step % STAGES);
    }
}

extern __shared__ uint4 memory[];
