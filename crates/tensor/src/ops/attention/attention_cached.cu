// Attention of one new position to a cache of keys and values (Flash-Decoding, Dao et al., 2023,
// https://pytorch.org/blog/flash-decoding/): blocks share the keys of a head, a second kernel joins what they found.
//
// A warp looks at four keys at a time; eight lanes hold a key. Bound by memory: it reads keys and values once per query
// head, of which those that share them find them in the cache.
//
// Compile-time: ELEMENT · HEAD_DIM of queries and keys · V_HEAD_DIM of values · WIDTH elements of an access
// Dims: s key position · h query heads · g key/value heads · e head size, f that of values

using T = ELEMENT;

constexpr int WARPS = 4, LANES = 8, KEYS = 4 * WARPS; // keys at a time in a block
constexpr int K_CHUNKS = (HEAD_DIM + LANES * WIDTH - 1) / (LANES * WIDTH);
constexpr int V_CHUNKS = (V_HEAD_DIM + LANES * WIDTH - 1) / (LANES * WIDTH);
constexpr float LOG2_E = 1.4426950408889634f;

// Copies rows of keys and values that lie a stride apart to rows without gaps.
extern "C" __global__ __launch_bounds__(256) void append(
    T* keys, T* values, const T* k, const T* v, u32 k_stride, u32 v_stride, u32 k_width, u32 v_width, u32 n_rows) {
    const u64 i = u64(blockIdx.x) * 256 + threadIdx.x, row = i / (k_width + v_width);
    const u32 column = i % (k_width + v_width);
    if (row >= n_rows) return;
    if (column < k_width)
        keys[row * k_width + column] = k[row * k_stride + column];
    else
        values[row * v_width + column - k_width] = v[row * v_stride + column - k_width];
}

// The largest score seen, the sum of exp2(score - largest), and the values weighted with that.
struct Partial {
    float largest = __int_as_float(0xff800000), sum = 0.f, y[V_CHUNKS][WIDTH] = {};

    // `y_at(c, i)` gives the other's values.
    template <class Values>
    __device__ __forceinline__ void join(float other_largest, float other_sum, Values y_at) {
        float now = fmaxf(largest, other_largest);
        if (now == __int_as_float(0xff800000)) return; // neither has seen a key
        float mine = exp2f(largest - now), others = exp2f(other_largest - now);
        largest = now;
        sum = sum * mine + other_sum * others;
#pragma unroll
        for (int c = 0; c < V_CHUNKS; ++c)
#pragma unroll
            for (int i = 0; i < WIDTH; ++i) y[c][i] = y[c][i] * mine + y_at(c, i) * others;
    }
};

__device__ __forceinline__ int column(int chunk) {
    return (chunk * LANES + int(threadIdx.x) % LANES) * WIDTH;
}

// Block (part, head) looks at the keys KEYS·part, KEYS·(part + parts), ... and so on, KEYS at a time, and leaves a row of
// V_HEAD_DIM + 2 numbers: values, sum, largest.
extern "C" __global__ __launch_bounds__(32 * WARPS) void attention_decode(
    float* partials, const T* q, const T* keys, const T* values, u32 n_keys, u32 k_width, u32 v_width,
    u32 queries_per_kv, float scale) {
    __shared__ float of_warp[WARPS][V_HEAD_DIM + 2];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, head = blockIdx.y, parts = gridDim.x;
    const u64 kv_head = head / queries_per_kv;
    float query[K_CHUNKS][WIDTH] = {};
#pragma unroll
    for (int c = 0; c < K_CHUNKS; ++c)
        if (column(c) < HEAD_DIM) load(query[c], q + u64(head) * HEAD_DIM + column(c));

    Partial mine;
    const u32 rounds = (n_keys + KEYS - 1) / KEYS;
    for (u32 round = blockIdx.x; round < rounds; round += parts) {
        const u32 key = round * KEYS + warp * 4 + lane / LANES;
        // Keys that do not exist are read as the first.
        const u64 row = key < n_keys ? key : 0;
        float score = 0.f, value[V_CHUNKS][WIDTH] = {};
#pragma unroll
        for (int c = 0; c < K_CHUNKS; ++c) {
            if (column(c) >= HEAD_DIM) continue;
            float k[WIDTH];
            load(k, keys + row * k_width + kv_head * HEAD_DIM + column(c));
#pragma unroll
            for (int i = 0; i < WIDTH; ++i) score += query[c][i] * k[i];
        }
#pragma unroll
        for (int c = 0; c < V_CHUNKS; ++c)
            if (column(c) < V_HEAD_DIM) load(value[c], values + row * v_width + kv_head * V_HEAD_DIM + column(c));
#pragma unroll
        for (int distance = 1; distance < LANES; distance *= 2) score += __shfl_xor_sync(0xffffffffu, score, distance);
        if (key < n_keys) mine.join(score * (scale * LOG2_E), 1.f, [&](int c, int i) { return value[c][i]; });
    }
    // The four keys of the warp, then the warps, in a fixed order.
#pragma unroll
    for (int distance = LANES; distance < 32; distance *= 2) {
        const float largest = __shfl_xor_sync(0xffffffffu, mine.largest, distance);
        const float sum = __shfl_xor_sync(0xffffffffu, mine.sum, distance);
        float y[V_CHUNKS][WIDTH];
#pragma unroll
        for (int c = 0; c < V_CHUNKS; ++c)
#pragma unroll
            for (int i = 0; i < WIDTH; ++i) y[c][i] = __shfl_xor_sync(0xffffffffu, mine.y[c][i], distance);
        mine.join(largest, sum, [&](int c, int i) { return y[c][i]; });
    }
    if (lane < LANES) {
#pragma unroll
        for (int c = 0; c < V_CHUNKS; ++c)
#pragma unroll
            for (int i = 0; i < WIDTH; ++i)
                if (column(c) < V_HEAD_DIM) of_warp[warp][column(c) + i] = mine.y[c][i];
        of_warp[warp][V_HEAD_DIM] = mine.sum;
        of_warp[warp][V_HEAD_DIM + 1] = mine.largest;
    }
    __syncthreads();
    if (warp != 0 || lane >= LANES) return;
    for (int other = 1; other < WARPS; ++other) {
        const float* row = of_warp[other];
        mine.join(row[V_HEAD_DIM + 1], row[V_HEAD_DIM], [&](int c, int i) {
            return column(c) < V_HEAD_DIM ? row[column(c) + i] : 0.f;
        });
    }
    float* to = partials + (u64(head) * parts + blockIdx.x) * (V_HEAD_DIM + 2);
#pragma unroll
    for (int c = 0; c < V_CHUNKS; ++c)
#pragma unroll
        for (int i = 0; i < WIDTH; ++i)
            if (column(c) < V_HEAD_DIM) to[column(c) + i] = mine.y[c][i];
    if (lane == 0) {
        to[V_HEAD_DIM] = mine.sum;
        to[V_HEAD_DIM + 1] = mine.largest;
    }
}

// y [h·f] from the partial results of each head: one block per head.
extern "C" __global__ __launch_bounds__(256) void attention_decode_join(T* y, const float* partials, u32 parts) {
    const float* rows = partials + u64(blockIdx.x) * parts * (V_HEAD_DIM + 2);
    float largest = __int_as_float(0xff800000);
    for (u32 part = 0; part < parts; ++part) largest = fmaxf(largest, rows[part * (V_HEAD_DIM + 2) + V_HEAD_DIM + 1]);
    const int e = threadIdx.x;
    if (e >= V_HEAD_DIM) return;
    float sum = 0.f, value = 0.f;
    for (u32 part = 0; part < parts; ++part) {
        const float* row = rows + part * (V_HEAD_DIM + 2);
        const float weight = exp2f(row[V_HEAD_DIM + 1] - largest);
        sum += row[V_HEAD_DIM] * weight;
        value += row[e] * weight;
    }
    y[u64(blockIdx.x) * V_HEAD_DIM + e] = from_float<T>(value / sum);
}
