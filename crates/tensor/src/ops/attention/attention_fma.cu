// Attention without matrix units, for any head size and element type (FlashAttention-2, Dao, 2023,
// https://arxiv.org/abs/2307.08691): f32 arithmetic throughout.
//
// A block of 16 by 16 threads owns OWN = 16 · DEPTH rows and goes over tiles of BLOCK = 16 · BREADTH columns. Thread (y, x)
// computes the scores of rows y, y + 16, ... and columns x, x + 16, ..., and of those rows' results the columns 4x..4x + 3,
// 4(x + 16).., .... Half a warp holds a row. The backward pass is two kernels, as in attention_mma_backward.cu.
//
// Bound by shared memory, at roughly a third of the multiply-adds that the device can do.
//
// Compile-time, beside those of attention_options.cuh: DEPTH · BREADTH

constexpr int THREADS = 256, OWN = 16 * DEPTH, BLOCK = 16 * BREADTH;
constexpr int WIDTH = (HEAD_DIM + 3) / 4 * 4;                   // in whole vectors; zeros behind the head's elements
constexpr int STRIDE = WIDTH / 4 % 2 == 0 ? WIDTH + 4 : WIDTH;  // an odd number of vectors: rows lie in different banks
constexpr int CHUNKS = (WIDTH / 4 + 15) / 16;                   // vectors of a row that a thread sums
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

template <int ROWS>
__device__ __forceinline__ void load_tile(float* to, const T* from, int row_stride, int first, int n_rows) {
    for (int i = threadIdx.x; i < ROWS * WIDTH; i += THREADS) {
        int row = i / WIDTH, column = i % WIDTH;
        bool exists = first + row < n_rows && column < HEAD_DIM;
        to[row * STRIDE + column] = exists ? to_float(from[u64(first + row) * row_stride + column]) : 0.f;
    }
}

__device__ __forceinline__ float4 vector_at(const float* x) {
    return *reinterpret_cast<const float4*>(x);
}

// s = A · Bᵀ: the scores of this thread.
__device__ __forceinline__ void dot_rows(float (&s)[DEPTH][BREADTH], const float* a, const float* b) {
    a += threadIdx.x / 16 * STRIDE;
    b += threadIdx.x % 16 * STRIDE;
#pragma unroll
    for (int r = 0; r < DEPTH; ++r)
#pragma unroll
        for (int c = 0; c < BREADTH; ++c) s[r][c] = 0.f;
#pragma unroll 4
    for (int e = 0; e < WIDTH; e += 4) {
        float4 x[DEPTH], y[BREADTH];
#pragma unroll
        for (int r = 0; r < DEPTH; ++r) x[r] = vector_at(a + r * 16 * STRIDE + e);
#pragma unroll
        for (int c = 0; c < BREADTH; ++c) y[c] = vector_at(b + c * 16 * STRIDE + e);
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
__device__ __forceinline__ void add_product(float (&sum)[DEPTH][CHUNKS][4], const float* scores, const float* b) {
    scores += threadIdx.x / 16 * SCORES_STRIDE;
    b += threadIdx.x % 16 * 4;
#pragma unroll 4
    for (int j = 0; j < BLOCK; ++j) {
#pragma unroll
        for (int c = 0; c < CHUNKS; ++c) {
            if (int(threadIdx.x % 16 * 4) + c * 64 >= WIDTH) continue;
            float4 y = vector_at(b + j * STRIDE + c * 64);
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
__device__ __forceinline__ void store_rows(
    T* to, int row_stride, int first, int n_rows, const float (&sum)[DEPTH][CHUNKS][4], const float (&factor)[DEPTH]) {
#pragma unroll
    for (int r = 0; r < DEPTH; ++r) {
        int row = first + threadIdx.x / 16 + 16 * r;
        if (row >= n_rows) continue;
#pragma unroll
        for (int c = 0; c < CHUNKS; ++c)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                int column = threadIdx.x % 16 * 4 + c * 64 + i;
                if (column < HEAD_DIM) to[u64(row) * row_stride + column] = from_float<T>(sum[r][c][i] * factor[r]);
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

extern "C" __global__ __launch_bounds__(THREADS) void attention_fma_forward(const Parameters p) {
    const Place at((p.t + OWN - 1) / OWN, p.h, p.b, CAUSAL);
    const int kv_head = at.head / (p.h / p.g), first_row = at.tile * OWN, row = threadIdx.x / 16, lane = threadIdx.x % 16;
    float* q_tile = reinterpret_cast<float*>(memory);
    float* k_tile = q_tile + OWN * STRIDE;
    float* v_tile = k_tile + BLOCK * STRIDE;
    float* scores = v_tile + BLOCK * STRIDE;
    const T* k = p.k + p.kv_at(at.sequence, kv_head);
    const T* v = p.v + p.kv_at(at.sequence, kv_head);
    const int first_tile = visible(p, at.sequence, first_row).first / BLOCK;
    const int last_tile = visible(p, at.sequence, first_row + OWN - 1).last / BLOCK;
    const float alibi = ALIBI ? p.slopes_h[at.head] : 0.f, to_log2 = p.to_log2();
    Visible keys[DEPTH];
    float y[DEPTH][CHUNKS][4] = {}, largest[DEPTH], sum[DEPTH];
#pragma unroll
    for (int r = 0; r < DEPTH; ++r) {
        keys[r] = visible(p, at.sequence, first_row + row + 16 * r);
        largest[r] = minus_infinity();
        sum[r] = 0.f;
    }

    load_tile<OWN>(q_tile, p.q + p.q_at(at.sequence, at.head), p.q_stride, first_row, p.t);
    for (int tile = first_tile; tile <= last_tile; ++tile) {
        const int first = tile * BLOCK;
        __syncthreads(); // no warp is at the tile before
        load_tile<BLOCK>(k_tile, k, p.kv_stride, first, p.n_keys);
        load_tile<BLOCK>(v_tile, v, p.kv_stride, first, p.n_keys);
        __syncthreads();
        float s[DEPTH][BREADTH];
        dot_rows(s, q_tile, k_tile);
#pragma unroll
        for (int r = 0; r < DEPTH; ++r) {
            float now = largest[r];
#pragma unroll
            for (int c = 0; c < BREADTH; ++c) {
                const int key = first + lane + 16 * c;
                float slope;
                s[r][c] = score(p, alibi, p.past + first_row + row + 16 * r - key, s[r][c], slope);
                if (key < keys[r].first || key > keys[r].last) s[r][c] = minus_infinity();
                now = fmaxf(now, s[r][c]);
            }
            now = reduce_row<Max>(now);
            // A row may see none of the keys so far.
            const float offset = now == minus_infinity() ? 0.f : now * to_log2;
            const float factor = exp2f(largest[r] * to_log2 - offset);
            largest[r] = now;
            sum[r] *= factor;
#pragma unroll
            for (int c = 0; c < BREADTH; ++c) {
                s[r][c] = exp2f(s[r][c] * to_log2 - offset);
                sum[r] += s[r][c];
            }
#pragma unroll
            for (int c = 0; c < CHUNKS; ++c)
#pragma unroll
                for (int i = 0; i < 4; ++i) y[r][c][i] *= factor;
        }
        __syncwarp(); // the warp's scores of the tile before are read
        put_scores(scores, s);
        __syncwarp();
        add_product(y, scores, v_tile);
    }
    float inverse[DEPTH];
#pragma unroll
    for (int r = 0; r < DEPTH; ++r) {
        sum[r] = reduce_row<Sum>(sum[r]);
        inverse[r] = 1.f / sum[r];
        const int at_row = first_row + row + 16 * r;
        if (lane == 0 && at_row < p.t)
            p.log_sum_exp_bht[p.statistics_at(at.sequence, at.head) + at_row] =
                largest[r] * to_log2 * LN_2 + logf(sum[r]);
    }
    store_rows(p.y_bthe + p.y_at(at.sequence, at.head), p.y_stride(), first_row, p.t, y, inverse);
}

// dq, and delta for the kernel below.
extern "C" __global__ __launch_bounds__(THREADS) void attention_fma_backward_queries(const Parameters p) {
    const Place at((p.t + OWN - 1) / OWN, p.h, p.b, CAUSAL);
    const int kv_head = at.head / (p.h / p.g), first_row = at.tile * OWN, row = threadIdx.x / 16, lane = threadIdx.x % 16;
    float* q_tile = reinterpret_cast<float*>(memory);
    float* dy_tile = q_tile + OWN * STRIDE;
    float* k_tile = dy_tile + OWN * STRIDE;
    float* v_tile = k_tile + BLOCK * STRIDE;
    float* scores = v_tile + BLOCK * STRIDE;
    const T* k = p.k + p.kv_at(at.sequence, kv_head);
    const T* v = p.v + p.kv_at(at.sequence, kv_head);
    const int first_tile = visible(p, at.sequence, first_row).first / BLOCK;
    const int last_tile = visible(p, at.sequence, first_row + OWN - 1).last / BLOCK;
    const float alibi = ALIBI ? p.slopes_h[at.head] : 0.f, to_log2 = p.to_log2();

    load_tile<OWN>(q_tile, p.q + p.q_at(at.sequence, at.head), p.q_stride, first_row, p.t);
    load_tile<OWN>(dy_tile, p.dy_bthe + p.y_at(at.sequence, at.head), p.y_stride(), first_row, p.t);
    __syncthreads();
    Visible keys[DEPTH];
    float dq[DEPTH][CHUNKS][4] = {}, delta[DEPTH], log_sum_exp[DEPTH], scale[DEPTH];
#pragma unroll
    for (int r = 0; r < DEPTH; ++r) {
        const int at_row = first_row + row + 16 * r;
        const u64 statistic = p.statistics_at(at.sequence, at.head) + at_row;
        keys[r] = visible(p, at.sequence, at_row);
        scale[r] = p.scale;
        delta[r] = log_sum_exp[r] = 0.f;
        if (at_row < p.t) {
            const T* y = p.y_bthe + p.y_at(at.sequence, at.head) + u64(at_row) * p.y_stride();
            for (int e = lane; e < HEAD_DIM; e += 16) delta[r] += to_float(y[e]) * dy_tile[(row + 16 * r) * STRIDE + e];
            log_sum_exp[r] = p.log_sum_exp_bht[statistic] * LOG2_E;
        }
        delta[r] = reduce_row<Sum>(delta[r]);
        if (lane == 0 && at_row < p.t) p.delta_bht[statistic] = delta[r];
    }

    for (int tile = first_tile; tile <= last_tile; ++tile) {
        const int first = tile * BLOCK;
        __syncthreads();
        load_tile<BLOCK>(k_tile, k, p.kv_stride, first, p.n_keys);
        load_tile<BLOCK>(v_tile, v, p.kv_stride, first, p.n_keys);
        __syncthreads();
        float s[DEPTH][BREADTH], ds[DEPTH][BREADTH];
        dot_rows(s, q_tile, k_tile);
        dot_rows(ds, dy_tile, v_tile);
#pragma unroll
        for (int r = 0; r < DEPTH; ++r)
#pragma unroll
            for (int c = 0; c < BREADTH; ++c) {
                const int key = first + lane + 16 * c;
                float slope;
                float x = score(p, alibi, p.past + first_row + row + 16 * r - key, s[r][c], slope);
                x = exp2f(x * to_log2 - log_sum_exp[r]);
                if (key < keys[r].first || key > keys[r].last) x = 0.f;
                ds[r][c] = x * (ds[r][c] - delta[r]) * slope;
            }
        __syncwarp();
        put_scores(scores, ds);
        __syncwarp();
        add_product(dq, scores, k_tile);
    }
    store_rows(p.dq + p.q_at(at.sequence, at.head), p.q_stride, first_row, p.t, dq, scale);
}

// dk and dv, summed over the query heads that share them, in their order. All scores are transposed: rows are keys.
extern "C" __global__ __launch_bounds__(THREADS) void attention_fma_backward_keys(const Parameters p) {
    const Place at((p.n_keys + OWN - 1) / OWN, p.g, p.b, false);
    const int first_key = at.tile * OWN, last_key = first_key + OWN - 1, row = threadIdx.x / 16, lane = threadIdx.x % 16;
    const int group = p.h / p.g;
    float* k_tile = reinterpret_cast<float*>(memory);
    float* v_tile = k_tile + OWN * STRIDE;
    float* q_tile = v_tile + OWN * STRIDE;
    float* dy_tile = q_tile + BLOCK * STRIDE;
    float* scores = dy_tile + BLOCK * STRIDE;
    const float to_log2 = p.to_log2();

    load_tile<OWN>(k_tile, p.k + p.kv_at(at.sequence, at.head), p.kv_stride, first_key, p.n_keys);
    load_tile<OWN>(v_tile, p.v + p.kv_at(at.sequence, at.head), p.kv_stride, first_key, p.n_keys);
    float dk[DEPTH][CHUNKS][4] = {}, dv[DEPTH][CHUNKS][4] = {}, scale[DEPTH], one[DEPTH];
#pragma unroll
    for (int r = 0; r < DEPTH; ++r) {
        scale[r] = p.scale;
        one[r] = 1.f;
    }
    const int n_tiles = (p.t + BLOCK - 1) / BLOCK;
    for (int head = at.head * group; head < (at.head + 1) * group; ++head) {
        const float alibi = ALIBI ? p.slopes_h[head] : 0.f;
        const float* of_rows = p.log_sum_exp_bht + p.statistics_at(at.sequence, head);
        const float* deltas = p.delta_bht + p.statistics_at(at.sequence, head);
        for (int tile = CAUSAL ? first_key / BLOCK : 0; tile < n_tiles; ++tile) {
            const int first = tile * BLOCK;
            if (visible(p, at.sequence, first + BLOCK - 1).last < first_key) continue; // none of these keys yet
            if (visible(p, at.sequence, first).first > last_key) break;                // none of them any more
            __syncthreads();
            load_tile<BLOCK>(q_tile, p.q + p.q_at(at.sequence, head), p.q_stride, first, p.t);
            load_tile<BLOCK>(dy_tile, p.dy_bthe + p.y_at(at.sequence, head), p.y_stride(), first, p.t);
            __syncthreads();
            float s[DEPTH][BREADTH], ds[DEPTH][BREADTH];
            dot_rows(s, k_tile, q_tile);
            dot_rows(ds, v_tile, dy_tile);
#pragma unroll
            for (int c = 0; c < BREADTH; ++c) {
                const int query = first + lane + 16 * c;
                const bool exists = query < p.t;
                const Visible keys = visible(p, at.sequence, query);
                const float log_sum_exp = exists ? of_rows[query] * LOG2_E : 0.f, delta = exists ? deltas[query] : 0.f;
#pragma unroll
                for (int r = 0; r < DEPTH; ++r) {
                    const int key = first_key + row + 16 * r;
                    float slope;
                    float x = score(p, alibi, p.past + query - key, s[r][c], slope);
                    x = exp2f(x * to_log2 - log_sum_exp);
                    if (!exists || key < keys.first || key > keys.last) x = 0.f;
                    s[r][c] = x;
                    ds[r][c] = x * (ds[r][c] - delta) * slope;
                }
            }
            __syncwarp();
            put_scores(scores, s);
            __syncwarp();
            add_product(dv, scores, dy_tile);
            __syncwarp();
            put_scores(scores, ds);
            __syncwarp();
            add_product(dk, scores, q_tile);
        }
    }
    const u64 to = p.kv_at(at.sequence, at.head);
    store_rows(p.dk + to, p.kv_stride, first_key, p.n_keys, dk, scale);
    store_rows(p.dv + to, p.kv_stride, first_key, p.n_keys, dv, one);
}
