// Rounding of a matrix to 8-bit numbers with one factor: its largest magnitude first, then the codes, as they lie and
// transposed. Rows and columns are multiples of 16.

constexpr u32 THREADS = 256;
constexpr u32 VECTORS = 4; // of 8 elements, that a thread has on their way
constexpr u32 TILE = 128;

#if E5M2
#define CONVERT "cvt.rn.satfinite.e5m2x2.f32"
constexpr float LARGEST = 57344.f;
#else
#define CONVERT "cvt.rn.satfinite.e4m3x2.f32"
constexpr float LARGEST = 448.f;
#endif

using Eight = Packed<bf16, 8>;

// ---- the largest magnitude: as bits of f32, which are ordered as the magnitudes are, with NaN above all ----

__device__ __forceinline__ u32 larger_magnitude(u32 largest, const Eight& x) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        largest = max(largest, (x.pairs[i] << 16) & 0x7fffffffu);
        largest = max(largest, x.pairs[i] & 0x7fff0000u);
    }
    return largest;
}

__device__ __forceinline__ u32 largest_of_block(u32 x) {
    __shared__ u32 of_warp[THREADS / 32];
    x = __reduce_max_sync(0xffffffffu, x);
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = x;
    __syncthreads();
#pragma unroll
    for (u32 warp = 0; warp < THREADS / 32; ++warp) x = max(x, of_warp[warp]);
    return x;
}

// partials[block] = the largest magnitude of every gridDim.x-th vector.
extern "C" __global__ __launch_bounds__(THREADS) void partial_magnitudes(u32* partials, const bf16* x, u64 n_vectors) {
    u32 largest = 0;
    u64 stride = u64(gridDim.x) * THREADS;
    u64 i = u64(blockIdx.x) * THREADS + threadIdx.x;
    for (; i + (VECTORS - 1) * stride < n_vectors; i += VECTORS * stride) {
        Eight values[VECTORS];
#pragma unroll
        for (u32 j = 0; j < VECTORS; ++j) load(values[j], x + (i + j * stride) * 8);
#pragma unroll
        for (u32 j = 0; j < VECTORS; ++j) largest = larger_magnitude(largest, values[j]);
    }
    for (; i < n_vectors; i += stride) {
        Eight values;
        load(values, x + i * 8);
        largest = larger_magnitude(largest, values);
    }
    largest = largest_of_block(largest);
    if (threadIdx.x == 0) partials[blockIdx.x] = largest;
}

// ---- the codes ----

// The first in the low byte.
__device__ __forceinline__ u32 two_codes(float first, float second) {
    unsigned short codes;
    asm(CONVERT " %0, %1, %2;" : "=h"(codes) : "f"(second), "f"(first));
    return codes;
}

__device__ __forceinline__ u32 four_codes(const Eight& x, int from, float factor) {
    return two_codes(x[from] * factor, x[from + 1] * factor) |
           two_codes(x[from + 2] * factor, x[from + 3] * factor) << 16;
}

// Byte i of the rows becomes columns[i].
__device__ __forceinline__ void transpose(u32 (&columns)[4], u32 row0, u32 row1, u32 row2, u32 row3) {
    u32 upper01 = __byte_perm(row0, row1, 0x5140), upper23 = __byte_perm(row0, row1, 0x7362);
    u32 lower01 = __byte_perm(row2, row3, 0x5140), lower23 = __byte_perm(row2, row3, 0x7362);
    columns[0] = __byte_perm(upper01, lower01, 0x5410);
    columns[1] = __byte_perm(upper01, lower01, 0x7632);
    columns[2] = __byte_perm(upper23, lower23, 0x5410);
    columns[3] = __byte_perm(upper23, lower23, 0x7632);
}

struct alignas(16) Chunks {
    u64 first, second;
};

// Either of `codes` [rows, columns] and `transposed` [columns, rows] may be left out. x = scale * (numbers of the codes).
// A block takes tiles in turn; a thread has 8 rows of 8 columns of a tile in registers.
extern "C" __global__ __launch_bounds__(THREADS, 4) void quantise(
    unsigned char* codes, unsigned char* transposed, float* scale, const bf16* x, const u32* partials, u32 n_partials,
    u64 rows, u64 columns) {
    // Chunks of 8 codes: 16 for each column of the tile. Their order is turned by the column's eighth, so that the 16
    // threads beside each other write to different banks.
    __shared__ Chunks shared_chunks[TILE * TILE / 16];
    u64* chunks = &shared_chunks[0].first;

    u32 bits = 0;
    for (u32 i = threadIdx.x; i < n_partials; i += THREADS) bits = max(bits, partials[i]);
    float largest = __uint_as_float(largest_of_block(bits));
    if (largest < 1e-30f) largest = 1e-30f; // NaN stays
    float factor = LARGEST / largest;
    if (blockIdx.x == 0 && threadIdx.x == 0) *scale = largest / LARGEST;

    u64 tiles_across = (columns + TILE - 1) / TILE;
    u64 n_tiles = (rows + TILE - 1) / TILE * tiles_across;
    u32 across = threadIdx.x % 16, down = threadIdx.x / 16;
    for (u64 turn = blockIdx.x; turn < n_tiles; turn += gridDim.x) {
        // From the last tile on: what was read last for the largest magnitude is still in the cache.
        u64 tile = n_tiles - 1 - turn;
        u64 first_row = tile / tiles_across * TILE, first_column = tile % tiles_across * TILE;
        u64 row = first_row + down * 8, column = first_column + across * 8;
        bool is_inside = row < rows && column < columns;
        u32 left[8], right[8];
        if (is_inside) {
            Eight values[8];
#pragma unroll
            for (int j = 0; j < 8; ++j) load(values[j], x + (row + j) * columns + column);
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                left[j] = four_codes(values[j], 0, factor);
                right[j] = four_codes(values[j], 4, factor);
            }
            if (codes != nullptr) {
#pragma unroll
                for (int j = 0; j < 8; ++j) {
                    *reinterpret_cast<u64*>(codes + (row + j) * columns + column) = left[j] | u64(right[j]) << 32;
                }
            }
        }
        if (transposed == nullptr) continue;
        __syncthreads(); // the chunks of the tile before may still be read
        if (is_inside) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                u32(&part)[8] = half == 0 ? left : right;
                u32 upper[4], lower[4];
                transpose(upper, part[0], part[1], part[2], part[3]);
                transpose(lower, part[4], part[5], part[6], part[7]);
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    u32 of_column = (across * 8 + half * 4 + j) * 16;
                    chunks[of_column + (down ^ across)] = upper[j] | u64(lower[j]) << 32;
                }
            }
        }
        __syncthreads();
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            u32 in_tile = threadIdx.x / 8 + 32 * i, pair = threadIdx.x % 8;
            u64 to_row = first_column + in_tile, to_column = first_row + 16 * pair;
            if (to_row < columns && to_column < rows) {
                u32 turned = in_tile / 8;
                Chunks both = shared_chunks[in_tile * 8 + (pair ^ (turned / 2))];
                if (turned % 2 == 1) both = {both.second, both.first};
                *reinterpret_cast<Chunks*>(transposed + to_row * rows + to_column) = both;
            }
        }
    }
}
