// The gradient of the table, from ids sorted with their places. The sorted list is cut into chunks. A team walks a chunk
// and adds up rows of dy; a run of equal ids that lies within the chunk goes straight to the table. What is cut by a
// chunk's borders is left in partials[chunk][0] (begun before) or [1] (begun here and not ended), and `join_runs` adds
// those up in order: however frequent an id is, its rows are added by many teams, and always in the same order.

constexpr u32 CHUNK = 32;
constexpr int GROUP = 8; // rows that are loaded together
constexpr int JOINING_WARPS = 4;

// x <- beta * x; with beta = 0 the old elements are not read.
extern "C" __global__ __launch_bounds__(BLOCK) void scale(G* x, float beta, u64 n) {
    EACH_VECTOR(i) {
        float values[WIDTH] = {};
        u64 at = vector_number(i) * WIDTH;
        if (beta != 0.f) load_within(values, x, at, n);
        EACH_ELEMENT(j) values[j] *= beta;
        store_within(x, at, n, values);
    }
}

// `keep`: whether the table has something that the sum is added to.
__device__ __forceinline__ void add_to_table(G* to, const float (&sum)[WIDTH], bool keep) {
    float values[WIDTH] = {};
    if (keep) load(values, to);
    EACH_ELEMENT(j) values[j] += sum[j];
    store(to, values);
}

extern "C" __global__ __launch_bounds__(COLUMNS) void sum_runs(
    G* dtable, u32 keep, float* partials, const T* __restrict__ dy, const u32* __restrict__ ids,
    const u32* __restrict__ places, u32 n, u32 v) {
    u32 column = (blockIdx.y * COLUMNS + threadIdx.x) * WIDTH;
    if (column >= D) return;
    u32 first = blockIdx.x * CHUNK, end = first + CHUNK < n ? first + CHUNK : n;
    u32 id = ids[first];
    bool begun_here = first == 0 || ids[first - 1] != id;
    float sum[WIDTH] = {};
    auto finish = [&](bool ended) {
        if (id >= v) return;
        if (begun_here && ended) add_to_table(dtable + u64(id) * D + column, sum, keep);
        else store(partials + (u64(blockIdx.x) * 2 + begun_here) * D + column, sum);
    };
    for (u32 base = first; base < end; base += GROUP) {
        Packed<T, WIDTH> rows[GROUP];
        u32 id_of[GROUP];
#pragma unroll
        for (int k = 0; k < GROUP; ++k) {
            if (base + k >= end) continue;
            id_of[k] = ids[base + k];
            if (id_of[k] >= v) continue;
            load(rows[k], dy + u64(places[base + k]) * D + column);
            if (keep) asm volatile("prefetch.global.L2 [%0];" ::"l"(dtable + u64(id_of[k]) * D + column));
        }
#pragma unroll
        for (int k = 0; k < GROUP; ++k) {
            if (base + k >= end) continue;
            if (id_of[k] != id) {
                finish(true);
                id = id_of[k];
                begun_here = true;
                EACH_ELEMENT(j) sum[j] = 0.f;
            }
            if (id < v) EACH_ELEMENT(j) sum[j] += rows[k][j];
        }
    }
    finish(end == n || ids[end] != id);
}

// For each chunk whose last run begins in it and goes on: that run's parts, in order.
extern "C" __global__ __launch_bounds__(32 * JOINING_WARPS) void join_runs(
    G* dtable, u32 keep, const float* partials, const u32* ids, u32 n, u32 v) {
    u32 chunk = blockIdx.x, first = chunk * CHUNK, end = first + CHUNK;
    if (end >= n) return;
    u32 id = ids[end - 1];
    if (id >= v || ids[end] != id) return;
    if (first > 0 && ids[first - 1] == id) return;
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;

    // The chunks behind this one that begin with the same id.
    u32 parts = 0;
    for (bool more = true; more;) {
        u64 at = (u64(chunk) + 1 + parts + lane) * CHUNK;
        u32 same = __ballot_sync(0xffffffffu, at < n && ids[at] == id);
        parts += __popc(same);
        more = same == 0xffffffffu;
    }

    // Each warp adds up a contiguous share of them.
    u32 column = (blockIdx.y * 32 + lane) * WIDTH;
    u32 share = (parts + JOINING_WARPS - 1) / JOINING_WARPS;
    u32 from = warp * share, to = from + share < parts ? from + share : parts;
    float sum[WIDTH] = {};
    if (column < D) {
        if (warp == 0) load(sum, partials + (u64(chunk) * 2 + 1) * D + column);
#pragma unroll 8
        for (u32 part = from; part < to; ++part) {
            float values[WIDTH];
            load(values, partials + (u64(chunk) + 1 + part) * 2 * D + column);
            EACH_ELEMENT(j) sum[j] += values[j];
        }
    }
    __shared__ float of_warp[JOINING_WARPS][WIDTH][32];
    EACH_ELEMENT(j) of_warp[warp][j][lane] = sum[j];
    __syncthreads();
    if (warp == 0 && column < D) {
        for (int other = 1; other < JOINING_WARPS; ++other) EACH_ELEMENT(j) sum[j] += of_warp[other][j][lane];
        add_to_table(dtable + u64(id) * D + column, sum, keep);
    }
}
