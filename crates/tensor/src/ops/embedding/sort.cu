// A stable radix sort of ids with their places, 8 bits a pass: equal ids keep the order of their places. Ids that are not
// below v count as v. A block has a tile of ids; each of its warps has the tile's next 256 of them, 32 at a time.

constexpr int BLOCK = 256;
constexpr int WARPS = BLOCK / 32;
constexpr int ROUNDS = 8;
constexpr u32 TILE = BLOCK * ROUNDS;

__device__ __forceinline__ u32 id_at(const u32* ids, u32 at, u32 v) {
    u32 id = ids[at];
    return id < v ? id : v;
}

// counts[tile][digit]
extern "C" __global__ __launch_bounds__(BLOCK) void count_digits(u32* counts, const u32* ids, u32 n, u32 v, u32 shift) {
    __shared__ u32 count[256];
    count[threadIdx.x] = 0;
    __syncthreads();
#pragma unroll
    for (int round = 0; round < ROUNDS; ++round) {
        u32 at = blockIdx.x * TILE + round * BLOCK + threadIdx.x;
        if (at < n) atomicAdd(&count[id_at(ids, at, v) >> shift & 255], 1u); // of integers: in any order the same
    }
    __syncthreads();
    counts[blockIdx.x * 256 + threadIdx.x] = count[threadIdx.x];
}

// The sum of x over the threads before this one.
__device__ __forceinline__ u32 sum_before(u32 x) {
    __shared__ u32 of_warp[WARPS];
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, sum = x;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
        u32 other = __shfl_up_sync(0xffffffffu, sum, offset);
        if (lane >= offset) sum += other;
    }
    if (lane == 31) of_warp[warp] = sum;
    __syncthreads();
    for (u32 other = 0; other < warp; ++other) sum += of_warp[other];
    return sum - x;
}

// Moves each id and its place (its index, if no places are given) behind all with smaller digits and all earlier ones with
// the same digit.
extern "C" __global__ __launch_bounds__(BLOCK) void move_by_digit(
    u32* sorted_ids, u32* sorted_places, const u32* counts, const u32* ids, const u32* places, u32 n, u32 v, u32 shift) {
    __shared__ u32 next[WARPS][256]; // how many of a digit a warp has seen; then, where its first goes
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int i = 0; i < WARPS; ++i) next[i][threadIdx.x] = 0;
    __syncthreads();

    u32 id[ROUNDS], place[ROUNDS], rank[ROUNDS];
    u32 first = blockIdx.x * TILE + warp * (32 * ROUNDS) + lane;
#pragma unroll
    for (int round = 0; round < ROUNDS; ++round) {
        u32 at = first + round * 32;
        id[round] = at < n ? id_at(ids, at, v) : 0;
        place[round] = at < n && places ? places[at] : at;
    }
#pragma unroll
    for (int round = 0; round < ROUNDS; ++round) {
        bool exists = first + round * 32 < n;
        u32 digit = id[round] >> shift & 255;
        u32 peers = __match_any_sync(0xffffffffu, exists ? digit : 256);
        u32 before = __popc(peers & ((1u << lane) - 1));
        rank[round] = next[warp][digit] + before;
        __syncwarp();
        if (exists && before == 0) next[warp][digit] += __popc(peers);
        __syncwarp();
    }
    __syncthreads();

    // This thread's digit is its number.
    u32 all = 0, in_earlier_tiles = 0;
#pragma unroll 8
    for (u32 tile = 0; tile < gridDim.x; ++tile) {
        u32 count = counts[tile * 256 + threadIdx.x];
        all += count;
        if (tile < blockIdx.x) in_earlier_tiles += count;
    }
    u32 start = sum_before(all) + in_earlier_tiles;
    for (int i = 0; i < WARPS; ++i) {
        u32 count = next[i][threadIdx.x];
        next[i][threadIdx.x] = start;
        start += count;
    }
    __syncthreads();
#pragma unroll
    for (int round = 0; round < ROUNDS; ++round) {
        if (first + round * 32 < n) {
            u32 to = next[warp][id[round] >> shift & 255] + rank[round];
            sorted_ids[to] = id[round];
            sorted_places[to] = place[round];
        }
    }
}
