// Matrix products on Hopper: out[m, n] = A[m, k] · B[k, n], bf16 in, sums in f32, and what an epilogue makes of them. Here is
// what their two kernels share: how tiles are gone through, copied and multiplied.
//
// Clusters of two blocks take tiles in a fixed order. One thread of a block copies operands through a ring of N_STAGES, half
// of B into both blocks; two warpgroups multiply, each half of the tile's rows.
//
// Bound by the matrix units and, at 8192³, by power: what is moved for an operation matters. A tile of 128 × 256 in a
// cluster that shares B reads 32 bytes from the L2 in a cycle of a multiprocessor, and 128 bytes of shared memory are read or
// written, which is all that it can do: with narrower tiles the matrix units wait.
//
// Every sum runs over k from 0 up. With splits each part of k gives a plane of partial sums, joined later in their order.
//
// Compile-time: A_COLUMNS, B_COLUMNS 1 if the operand is stored [k, m], [k, n] instead of [m, k], [n, k] · N_STAGES of
// BLOCK_K terms, 64 · EPILOGUE · F32_OUT · SUMS whether columns of the output are summed

enum { NONE, BIAS, GELU, SWIGLU, GELU_GRADIENT, SWIGLU_GRADIENT };

constexpr int CLUSTER = 2;
constexpr int BLOCK_M = 128;
constexpr int BLOCK_N = 256;
constexpr u32 A_BYTES = BLOCK_M * BLOCK_K * 2;
constexpr u32 B_BYTES = BLOCK_N * BLOCK_K * 2;
constexpr u32 TILE_BYTES = 64 * 128;  // of the epilogue: 64 rows of 128 bytes
// Gate and up, BLOCK_N / 2 columns each, from the two halves of the matrix's rows.
constexpr bool PAIRED_PRODUCT = EPILOGUE == SWIGLU;
constexpr bool PAIRED_OUT = EPILOGUE == SWIGLU_GRADIENT;
constexpr bool HAS_GIVEN = EPILOGUE == GELU_GRADIENT || EPILOGUE == SWIGLU_GRADIENT;
constexpr int COLUMNS = PAIRED_PRODUCT ? BLOCK_N / 2 : BLOCK_N;

struct Parameters {
    const u32* bias;  // [n / 2] pairs of bf16, or null
    float* sums;      // [⌈m / 64⌉, n]: of the columns of the output, over the rows of a warpgroup
    unsigned char* out;  // bf16, and the bytes from one row to the next
    unsigned char* pre;  // pre-activations, kept or given, [m, n or 2n], or null
    long long out_stride, pre_stride;
    int m, n;         // of the output; n is that of one half if there are two
    int rows, columns;  // of the grid of clusters' tiles
    int group;          // rows of that grid that are gone through together, column by column
    int k_tiles, splits;
    int add;  // whether results are added to what is there (f32)
};

// What one block computes at a time.
struct Tile {
    int row, column, split, first_k_tile, k_tiles;

    __device__ Tile(const Parameters& p, int number, int rank) {
        const int of_split = p.rows * p.columns;
        split = number / of_split;
        const int of_group = p.group * p.columns;
        const int rest = number % of_split % of_group;
        const int first = number % of_split / of_group * p.group;
        const int rows = min(p.group, p.rows - first);
        row = (first + rest % rows) * CLUSTER * BLOCK_M + rank * BLOCK_M;
        column = rest / rows * COLUMNS;
        first_k_tile = p.k_tiles * split / p.splits;
        k_tiles = p.k_tiles * (split + 1) / p.splits - first_k_tile;
    }
};

// ROWS rows (columns, if by columns) from `first` on, BLOCK_K terms from `k` on. A shared operand comes in two halves, one from
// each block; a paired one from two planes.
template <int ROWS, bool BY_COLUMNS, bool SHARED, bool PAIRED>
__device__ __forceinline__ void copy_operand(u32 to, const TensorMap& map, int first, int k, u32 barrier, u32 rank) {
    constexpr int PARTS = SHARED || PAIRED ? 2 : 1;
    constexpr int PART = ROWS / PARTS;
    static_assert(PART % 64 == 0 && !(BY_COLUMNS && PAIRED), "parts are of whole tiles");
#pragma unroll
    for (int part = 0; part < PARTS; part++) {
        if (SHARED && part != rank) continue;
        const int start = first + (PAIRED ? 0 : part * PART), plane = PAIRED ? part : 0;
#pragma unroll
        for (int i = 0; i < (BY_COLUMNS ? PART / 64 : 1); i++) {
            const u32 place = to + (part * PART + i * 64) * (BLOCK_K * 2);
            const int x = BY_COLUMNS ? start + i * 64 : k, y = BY_COLUMNS ? k : start;
            if (SHARED)
                copy_box_to_blocks(place, map, x, y, plane, barrier, 3);
            else
                copy_box_to_shared(place, map, x, y, plane, barrier);
        }
    }
}

// One thread: keeps the ring full.
template <class Shared>
__device__ void copy_operands(Shared& shared, const TensorMap& a_map, const TensorMap& b_map, const Parameters& p,
                              u32 rank) {
    const int n_tiles = p.rows * p.columns * p.splits, n_clusters = gridDim.x / CLUSTER;
    Ring<N_STAGES> ring;
    for (int number = blockIdx.x / CLUSTER; number < n_tiles; number += n_clusters) {
        const Tile tile(p, number, rank);
#pragma unroll 1
        for (int i = 0; i < tile.k_tiles; i++) {
            const int k = (tile.first_k_tile + i) * BLOCK_K;
            mbarrier_wait(slot_barrier(shared.empty, ring.slot), ring.phase ^ 1);
            const u32 full = slot_barrier(shared.full, ring.slot);
            mbarrier_expect_bytes(full, A_BYTES + B_BYTES);
            copy_operand<BLOCK_M, A_COLUMNS, false, false>(
                shared_address(shared.a) + ring.slot * A_BYTES, a_map, tile.row, k, full, rank);
            copy_operand<BLOCK_N, B_COLUMNS, true, PAIRED_PRODUCT>(
                shared_address(shared.b) + ring.slot * B_BYTES, b_map, tile.column, k, full, rank);
            ring.advance();
        }
    }
}

// Where a warpgroup is among the operands.
struct Multiplier {
    u64 a, b;  // of the ring's first slot
    Ring<N_STAGES> ring;

    template <class Shared>
    __device__ Multiplier(const Shared& shared, int warpgroup) {
        // Of 64 rows, or of 64 columns: the same.
        constexpr u32 BYTES = 64 * BLOCK_K * 2;
        const u32 my_a = shared_address(shared.a) + warpgroup * BYTES, all_b = shared_address(shared.b);
        a = A_COLUMNS ? operand_by_columns(my_a, BYTES) : operand_by_rows(my_a);
        b = B_COLUMNS ? operand_by_columns(all_b, BYTES) : operand_by_rows(all_b);
    }

    __device__ __forceinline__ void issue(float (&d)[BLOCK_N / 2], bool keep) {
        const u64 my_a = further(a, ring.slot * A_BYTES), all_b = further(b, ring.slot * B_BYTES);
#pragma unroll
        for (int i = 0; i < BLOCK_K / 16; i++)
            wgmma<A_COLUMNS, B_COLUMNS>(d, further(my_a, A_COLUMNS ? i * 16 * 128 : i * 32),
                                        further(all_b, B_COLUMNS ? i * 16 * 128 : i * 32), keep || i != 0);
        wgmma_commit();
    }

    // The slot may be filled anew, in both blocks.
    template <class Shared>
    __device__ __forceinline__ void release(const Shared& shared, int slot) {
        const int lane = threadIdx.x % 32;
        if (lane < CLUSTER) mbarrier_arrive_at(slot_barrier(shared.empty, slot), lane);
    }

    // d[64, BLOCK_N] = the products of one tile; one step of them is always under way while the next is issued.
    template <class Shared>
    __device__ __forceinline__ void multiply(float (&d)[BLOCK_N / 2], const Shared& shared, int k_tiles) {
        mbarrier_wait(slot_barrier(shared.full, ring.slot), ring.phase);
        pin(d);
        wgmma_fence();
        issue(d, false);
        int before = ring.slot;
        ring.advance();
#pragma unroll 1
        for (int i = 1; i < k_tiles; i++) {
            mbarrier_wait(slot_barrier(shared.full, ring.slot), ring.phase);
            wgmma_fence();
            issue(d, true);
            wgmma_wait<1>();
            release(shared, before);
            before = ring.slot;
            ring.advance();
        }
        wgmma_wait<0>();
        pin(d);
        release(shared, before);
    }
};

// One thread, before all wait for the cluster.
template <class Shared>
__device__ void prepare_ring(Shared& shared, const TensorMap& a_map, const TensorMap& b_map) {
    if (shared_address(&shared) % 1024 != 0) asm volatile("trap;");
    prefetch_tensor_map(a_map);
    prefetch_tensor_map(b_map);
    for (int i = 0; i < N_STAGES; i++) {
        mbarrier_init(slot_barrier(shared.full, i), 1);
        // Every warp that multiplies, in both blocks.
        mbarrier_init(slot_barrier(shared.empty, i), 8 * CLUSTER);
    }
}
