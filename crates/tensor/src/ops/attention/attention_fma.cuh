// Attention without matrix units, for any head size and element type (FlashAttention-2, Dao, 2023,
// https://arxiv.org/abs/2307.08691): f32 arithmetic throughout.
//
// A block of 16 by 16 threads owns OWN = 16 · DEPTH rows and goes over tiles of BLOCK = 16 · BREADTH columns. Thread (y, x)
// computes the scores of rows y, y + 16, ... and columns x, x + 16, ..., and of those rows' results the columns 4x..4x + 3,
// 4(x + 16).., .... Half a warp holds a row.
//
// Bound by shared memory, at roughly a third of the multiply-adds that the device can do.
//
// Compile-time, beside those of attention_options.cuh: DEPTH · BREADTH

constexpr int THREADS = 256, OWN = 16 * DEPTH, BLOCK = 16 * BREADTH;
__device__ constexpr int width(int head_dim) { // in whole vectors; zeros behind the head's elements
    return (head_dim + 3) / 4 * 4;
}
__device__ constexpr int stride(int head_dim) { // an odd number of vectors: rows lie in different banks
    return width(head_dim) / 4 % 2 == 0 ? width(head_dim) + 4 : width(head_dim);
}
__device__ constexpr int chunks(int head_dim) { // vectors of a row that a thread sums
    return (width(head_dim) / 4 + 15) / 16;
}
constexpr int K_STRIDE = stride(HEAD_DIM), V_STRIDE = stride(V_HEAD_DIM), K_CHUNKS = chunks(HEAD_DIM),
              V_CHUNKS = chunks(V_HEAD_DIM);
constexpr int SCORES_STRIDE = BLOCK + 1;

// The block's tile of rows and its head: the same tile of all heads, then the next tile, so that those with most to do
// come first.
struct Place {
    int tile, head, sequence;

    __device__ Place(int n_tiles, int n_heads, int n_sequences, bool last_is_longest) {
        int heads = n_heads * n_sequences;
        tile = blockIdx.x / heads;
        if (last_is_longest) tile = n_tiles - 1 - tile;
        head = blockIdx.x % heads % n_heads;
        sequence = blockIdx.x % heads / n_heads;
    }
};

template <int ROWS, int DIM>
__device__ __forceinline__ void load_tile(float* to, const T* from, int row_stride, int first, int n_rows) {
    for (int i = threadIdx.x; i < ROWS * width(DIM); i += THREADS) {
        int row = i / width(DIM), column = i % width(DIM);
        bool exists = first + row < n_rows && column < DIM;
        to[row * stride(DIM) + column] = exists ? to_float(from[u64(first + row) * row_stride + column]) : 0.f;
    }
}

__device__ __forceinline__ float4 vector_at(const float* x) {
    return *reinterpret_cast<const float4*>(x);
}

// s = A · Bᵀ: the scores of this thread.
template <int DIM>
__device__ __forceinline__ void dot_rows(float (&s)[DEPTH][BREADTH], const float* a, const float* b) {
    a += threadIdx.x / 16 * stride(DIM);
    b += threadIdx.x % 16 * stride(DIM);
#pragma unroll
    for (int r = 0; r < DEPTH; ++r)
#pragma unroll
        for (int c = 0; c < BREADTH; ++c) s[r][c] = 0.f;
#pragma unroll 4
    for (int e = 0; e < width(DIM); e += 4) {
        float4 x[DEPTH], y[BREADTH];
#pragma unroll
        for (int r = 0; r < DEPTH; ++r) x[r] = vector_at(a + r * 16 * stride(DIM) + e);
#pragma unroll
        for (int c = 0; c < BREADTH; ++c) y[c] = vector_at(b + c * 16 * stride(DIM) + e);
#pragma unroll
        for (int r = 0; r < DEPTH; ++r)
#pragma unroll
            for (int c = 0; c < BREADTH; ++c)
                s[r][c] += x[r].x * y[c].x + x[r].y * y[c].y + x[r].z * y[c].z + x[r].w * y[c].w;
    }
}

// Puts the scores where the warp that owns the rows finds them.
__device__ __forceinline__ void put_scores(float* scores, const float (&s)[DEPTH][BREADTH]) {
#pragma unroll
    for (int r = 0; r < DEPTH; ++r)
#pragma unroll
        for (int c = 0; c < BREADTH; ++c)
            scores[(threadIdx.x / 16 + 16 * r) * SCORES_STRIDE + threadIdx.x % 16 + 16 * c] = s[r][c];
}

// sum += S · B, of this thread's columns.
template <int DIM>
__device__ __forceinline__ void add_product(
    float (&sum)[DEPTH][chunks(DIM)][4], const float* scores, const float* b) {
    scores += threadIdx.x / 16 * SCORES_STRIDE;
    b += threadIdx.x % 16 * 4;
#pragma unroll 4
    for (int j = 0; j < BLOCK; ++j) {
#pragma unroll
        for (int c = 0; c < chunks(DIM); ++c) {
            if (int(threadIdx.x % 16 * 4) + c * 64 >= width(DIM)) continue;
            float4 y = vector_at(b + j * stride(DIM) + c * 64);
#pragma unroll
            for (int r = 0; r < DEPTH; ++r) {
                float x = scores[r * 16 * SCORES_STRIDE + j];
                sum[r][c][0] += x * y.x;
                sum[r][c][1] += x * y.y;
                sum[r][c][2] += x * y.z;
                sum[r][c][3] += x * y.w;
            }
        }
    }
}

// Writes sum · factor[row] to the rows of a head that exist.
template <int DIM>
__device__ __forceinline__ void store_rows(
    T* to, int row_stride, int first, int n_rows, const float (&sum)[DEPTH][chunks(DIM)][4],
    const float (&factor)[DEPTH]) {
#pragma unroll
    for (int r = 0; r < DEPTH; ++r) {
        int row = first + threadIdx.x / 16 + 16 * r;
        if (row >= n_rows) continue;
#pragma unroll
        for (int c = 0; c < chunks(DIM); ++c)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                int column = threadIdx.x % 16 * 4 + c * 64 + i;
                if (column < DIM) to[u64(row) * row_stride + column] = from_float<T>(sum[r][c][i] * factor[r]);
            }
    }
}

// Over the half warp that holds a row.
template <class Op>
__device__ __forceinline__ float reduce_row(float x) {
#pragma unroll
    for (int distance = 8; distance > 0; distance /= 2) x = Op::join(x, __shfl_xor_sync(0xffffffffu, x, distance));
    return x;
}

extern __shared__ float4 memory[];
