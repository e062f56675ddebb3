// Matrix products on Hopper: out[m, n] = A[m, k] · B[k, n], bf16 in, sums in f32, and what an epilogue makes of them.
//
// Blocks, or clusters of two, take tiles in a fixed order. Warpgroup 0 gives its registers away; one of its threads copies
// operands through a ring of N_STAGES, the half of an operand that both blocks of a cluster need into both. The two other
// warpgroups multiply: either each half of a tile's rows, or (PING_PONG) each every other tile, so that one writes its
// results while the other one multiplies.
//
// Bound by the matrix units and, at 8192³, by power: what is moved for an operation matters. A tile of 128 × 256 in a
// cluster that shares B reads 32 bytes from the L2 in a cycle of a multiprocessor.
//
// Every sum runs over k from 0 up. With SPLITS each part of k gives a plane of partial sums, joined later in their order.
//
// Compile-time: A_COLUMNS, B_COLUMNS 1 if the operand is stored [k, m], [k, n] instead of [m, k], [n, k] · WG_ROWS 64
// or 128 rows of a warpgroup · BLOCK_N 128 or 256 columns of a tile · PING_PONG · SHARE 0 no cluster, 1 blocks share A, 2 they
// share B · N_STAGES · N_SLOTS of the epilogue · EPILOGUE · F32_OUT · SUMS whether columns of the output are summed

enum { NONE, BIAS, GELU, SWIGLU, GELU_GRADIENT, SWIGLU_GRADIENT };
enum { ALONE, SHARE_A, SHARE_B };

constexpr int CLUSTER = SHARE == ALONE ? 1 : 2;
constexpr int N_PRODUCTS = WG_ROWS / 64;
constexpr int BLOCK_M = WG_ROWS * (PING_PONG ? 1 : 2);
constexpr int BLOCK_K = 64;
constexpr u32 A_BYTES = BLOCK_M * BLOCK_K * 2;
constexpr u32 B_BYTES = BLOCK_N * BLOCK_K * 2;
constexpr u32 TILE_BYTES = 64 * 128;  // of the epilogue: 64 rows of 128 bytes
// Gate and up, BLOCK_N / 2 columns each, from the two halves of the matrix's rows.
constexpr bool PAIRED_PRODUCT = EPILOGUE == SWIGLU;
constexpr bool PAIRED_OUT = EPILOGUE == SWIGLU_GRADIENT;
constexpr bool HAS_GIVEN = EPILOGUE == GELU_GRADIENT || EPILOGUE == SWIGLU_GRADIENT;
constexpr int COLUMNS = PAIRED_PRODUCT ? BLOCK_N / 2 : BLOCK_N;
constexpr int SLICE = F32_OUT ? 32 : 64;  // columns
constexpr int SLICES = COLUMNS / SLICE;
constexpr int SLOT_TILES = EPILOGUE == SWIGLU ? 3 : EPILOGUE == GELU || EPILOGUE == SWIGLU_GRADIENT ? 2 : 1;

struct Parameters {
    const u32* bias;  // [n / 2] pairs of bf16, or null
    float* sums;      // [⌈m / WG_ROWS⌉, n]: of the columns of the output, over the rows of a warpgroup
    int m, n;         // of the output; n is that of one half if there are two
    int rows, columns;  // of the grid of clusters' tiles
    int group;          // rows of that grid that are gone through together, column by column
    int k_tiles, splits;
    int add;   // whether results are added to what is there (f32)
    int keep;  // whether pre-activations are written
};

struct alignas(1024) Shared {
    unsigned char a[N_STAGES][A_BYTES];
    unsigned char b[N_STAGES][B_BYTES];
    unsigned char tiles[2][N_SLOTS][SLOT_TILES][TILE_BYTES];
    float sums[2][SUMS ? 4 : 1][64];
    u64 full[N_STAGES], empty[N_STAGES], given[2][N_SLOTS];
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
        row = (first + rest % rows) * (SHARE == SHARE_B ? 2 : 1) + (SHARE == SHARE_B ? rank : 0);
        column = rest / rows * (SHARE == SHARE_A ? 2 : 1) + (SHARE == SHARE_A ? rank : 0);
        row *= BLOCK_M;
        column *= COLUMNS;
        first_k_tile = p.k_tiles * split / p.splits;
        k_tiles = p.k_tiles * (split + 1) / p.splits - first_k_tile;
    }
};

// ROWS rows (columns, if by columns) from `first` on, 64 terms from `k` on. A shared operand comes in two halves, one from
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
            const u32 place = to + part * PART * 128 + i * 64 * 128;
            const int x = BY_COLUMNS ? start + i * 64 : k, y = BY_COLUMNS ? k : start;
            if (SHARED)
                copy_box_to_blocks(place, map, x, y, plane, barrier, 3);
            else
                copy_box_to_shared(place, map, x, y, plane, barrier);
        }
    }
}

// One thread: keeps the ring full.
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
            copy_operand<BLOCK_M, A_COLUMNS, SHARE == SHARE_A, false>(
                shared_address(shared.a) + ring.slot * A_BYTES, a_map, tile.row, k, full, rank);
            copy_operand<BLOCK_N, B_COLUMNS, SHARE == SHARE_B, PAIRED_PRODUCT>(
                shared_address(shared.b) + ring.slot * B_BYTES, b_map, tile.column, k, full, rank);
            ring.advance();
        }
    }
}

// Writes 32 columns of floats as 128-byte rows, 16-byte chunks in the copy engine's order.
__device__ __forceinline__ void store_floats(u32 address, const float* x) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const int row = 16 * warp + lane / 4 + i % 2 * 8, chunk = i / 2 * 2 + lane % 4 / 2;
        const u32 to = address + row * 128 + ((chunk ^ (row % 8)) << 4) + lane % 2 * 8;
        asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(to), "f"(x[2 * i]), "f"(x[2 * i + 1]) : "memory");
    }
}

// Pairs of the bias in the order of a slice's registers: i / 2 is the group of eight columns.
__device__ __forceinline__ void load_bias(u32 (&pairs)[8], const Parameters& p, int column) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const int at = column + 8 * i + threadIdx.x % 4 * 2;
        pairs[i] = p.bias != nullptr && at < p.n ? __ldg(p.bias + at / 2) : 0;
    }
}

// ---- epilogues: 64 rows and 64 columns, two columns in a register; x and y are sums of products ----

// What is written lies in `tile`, one after the other, each TILE_BYTES; what is given lay there before.
__device__ __forceinline__ void finish_slice(u32 tile, u32 (&out)[16], const float* x, const float* y,
                                             const Parameters& p, int column) {
    if constexpr (EPILOGUE == NONE) {
#pragma unroll
        for (int i = 0; i < 16; i++) out[i] = pack_bf16(x[2 * i], x[2 * i + 1]);
        store_tiles(tile, 0, out);
    }
    if constexpr (EPILOGUE == BIAS || EPILOGUE == GELU) {
        u32 bias[8];
        load_bias(bias, p, column);
#pragma unroll
        for (int i = 0; i < 16; i++)
            out[i] = pack_bf16(x[2 * i] + bf16_low(bias[i / 2]), x[2 * i + 1] + bf16_high(bias[i / 2]));
        store_tiles(tile, 0, out);
        if constexpr (EPILOGUE == GELU) {
#pragma unroll
            for (int i = 0; i < 16; i++) out[i] = pack_bf16(gelu_tanh(bf16_low(out[i])), gelu_tanh(bf16_high(out[i])));
            store_tiles(tile + TILE_BYTES, 0, out);
        }
    }
    if constexpr (EPILOGUE == SWIGLU) {
        u32 up[16];
#pragma unroll
        for (int i = 0; i < 16; i++) {
            out[i] = pack_bf16(x[2 * i], x[2 * i + 1]);
            up[i] = pack_bf16(y[2 * i], y[2 * i + 1]);
        }
        store_tiles(tile, 0, out);
        store_tiles(tile + TILE_BYTES, 0, up);
#pragma unroll
        for (int i = 0; i < 16; i++)
            out[i] = pack_bf16(silu(bf16_low(out[i])) * bf16_low(up[i]), silu(bf16_high(out[i])) * bf16_high(up[i]));
        store_tiles(tile + 2 * TILE_BYTES, 0, out);
    }
    if constexpr (EPILOGUE == GELU_GRADIENT) {
        load_tile(out, tile);
#pragma unroll
        for (int i = 0; i < 16; i++)
            out[i] = pack_bf16(x[2 * i] * gelu_tanh_derivative(bf16_low(out[i])),
                               x[2 * i + 1] * gelu_tanh_derivative(bf16_high(out[i])));
        store_tiles(tile, 0, out);
    }
    if constexpr (EPILOGUE == SWIGLU_GRADIENT) {
        u32 up[16];
        load_tile(out, tile);
        load_tile(up, tile + TILE_BYTES);
#pragma unroll
        for (int i = 0; i < 16; i++) {
            float dgate[2], dup[2];
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const float gate = j == 0 ? bf16_low(out[i]) : bf16_high(out[i]);
                const float s = sigmoid(gate), dy = x[2 * i + j];
                dgate[j] = dy * (j == 0 ? bf16_low(up[i]) : bf16_high(up[i])) * (s * (1.f + gate * (1.f - s)));
                dup[j] = dy * (gate * s);
            }
            out[i] = pack_bf16(dgate[0], dgate[1]);
            up[i] = pack_bf16(dup[0], dup[1]);
        }
        store_tiles(tile, 0, out);
        store_tiles(tile + TILE_BYTES, 0, up);
    }
}

// One thread: the copies of a finished slice.
__device__ __forceinline__ void write_slice(u32 tile, const TensorMap& out_map, const TensorMap& pre_map,
                                            const Parameters& p, int column, int row, int split) {
    if constexpr (F32_OUT) {
        if (p.add)
            add_box_to_global(out_map, column, row, split, tile);
        else
            copy_box_to_global(out_map, column, row, split, tile);
    } else if constexpr (EPILOGUE == GELU) {
        if (p.keep) copy_box_to_global(pre_map, column, row, 0, tile);
        copy_box_to_global(out_map, column, row, 0, tile + TILE_BYTES);
    } else if constexpr (EPILOGUE == SWIGLU) {
        if (p.keep) {
            copy_box_to_global(pre_map, column, row, 0, tile);
            copy_box_to_global(pre_map, column, row, 1, tile + TILE_BYTES);
        }
        copy_box_to_global(out_map, column, row, 0, tile + 2 * TILE_BYTES);
    } else {
        copy_box_to_global(out_map, column, row, 0, tile);
        if (PAIRED_OUT) copy_box_to_global(out_map, column, row, 1, tile + TILE_BYTES);
    }
    copy_commit();
}

// One warpgroup: multiplies, and finishes its rows.
__device__ void multiply(Shared& shared, const TensorMap& out_map, const TensorMap& pre_map, const Parameters& p,
                         int warpgroup, u32 rank) {
    const int n_tiles = p.rows * p.columns * p.splits, n_clusters = gridDim.x / CLUSTER;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const bool first_thread = threadIdx.x % 128 == 0;
    const int own = 1 + warpgroup;  // named barrier
    const int first_row = PING_PONG ? 0 : warpgroup * WG_ROWS;
    const u32 my_a = first_row * 128;  // 64 rows of 64 terms take as much as 64 terms of 64 columns
    const u64 a_operand = A_COLUMNS ? operand_by_columns(shared_address(shared.a) + my_a, TILE_BYTES)
                                       : operand_by_rows(shared_address(shared.a) + my_a);
    const u64 b_operand = B_COLUMNS ? operand_by_columns(shared_address(shared.b), TILE_BYTES)
                                       : operand_by_rows(shared_address(shared.b));
    const u32 my_tiles = shared_address(shared.tiles[warpgroup]);
    Ring<N_STAGES> ring;
    Ring<N_SLOTS> slots;
    int turn = 0;

    auto release = [&](int slot) {
        const u32 empty = slot_barrier(shared.empty, slot);
        if (CLUSTER == 1) {
            if (lane == 0) mbarrier_arrive(empty);
        } else if (lane < CLUSTER) {
            mbarrier_arrive_at(empty, lane);
        }
    };

    for (int number = blockIdx.x / CLUSTER; number < n_tiles; number += n_clusters, turn ^= 1) {
        const Tile tile(p, number, rank);
        if (PING_PONG && turn != warpgroup) {
            ring.skip(tile.k_tiles);
            continue;
        }
        const int row = tile.row + first_row;
        // Slices are finished column by column, so that sums of columns are of all rows; numbered in that order.
        auto ask_for_given = [&](int slice, int slot) {
            const u32 barrier = slot_barrier(shared.given[warpgroup], slot);
            const u32 to = my_tiles + slot * (SLOT_TILES * TILE_BYTES);
            mbarrier_expect_bytes(barrier, SLOT_TILES * TILE_BYTES);
            for (int i = 0; i < SLOT_TILES; i++)
                copy_box_to_shared(to + i * TILE_BYTES, pre_map, tile.column + slice / N_PRODUCTS * 64,
                                   row + slice % N_PRODUCTS * 64, i, barrier);
        };
        if (HAS_GIVEN && first_thread) {
            copy_wait_read();
            for (int i = 0; i < N_SLOTS; i++) ask_for_given(i, i);
        }
        __syncwarp();

        float d[N_PRODUCTS][BLOCK_N / 2];
        auto issue = [&](bool keep) {
            const u64 a = further(a_operand, ring.slot * A_BYTES), b = further(b_operand, ring.slot * B_BYTES);
#pragma unroll
            for (int i = 0; i < BLOCK_K / 16; i++) {
#pragma unroll
                for (int r = 0; r < N_PRODUCTS; r++)
                    wgmma<A_COLUMNS, B_COLUMNS>(
                        d[r], further(a, r * TILE_BYTES + (A_COLUMNS ? i * 16 * 128 : i * 32)),
                        further(b, B_COLUMNS ? i * 16 * 128 : i * 32), keep || i != 0);
            }
            wgmma_commit();
        };
        auto pin_all = [&]() {
#pragma unroll
            for (int r = 0; r < N_PRODUCTS; r++) pin(d[r]);
        };
        // One step of products is always under way while the next is issued.
        mbarrier_wait(slot_barrier(shared.full, ring.slot), ring.phase);
        pin_all();
        wgmma_fence();
        issue(false);
        int before = ring.slot;
        ring.advance();
#pragma unroll 1
        for (int i = 1; i < tile.k_tiles; i++) {
            mbarrier_wait(slot_barrier(shared.full, ring.slot), ring.phase);
            wgmma_fence();
            issue(true);
            wgmma_wait<1>();
            release(before);
            before = ring.slot;
            ring.advance();
        }
        wgmma_wait<0>();
        pin_all();
        release(before);

#pragma unroll
        for (int s = 0; s < SLICES; s++) {
            float sums[SUMS ? 16 : 1] = {};
#pragma unroll
            for (int r = 0; r < N_PRODUCTS; r++) {
                const int slice = s * N_PRODUCTS + r, column = tile.column + s * SLICE;
                const u32 to = my_tiles + slots.slot * (SLOT_TILES * TILE_BYTES);
                if (HAS_GIVEN) {
                    mbarrier_wait(slot_barrier(shared.given[warpgroup], slots.slot), slots.phase);
                } else {
                    // What was copied from here must have been read.
                    if (first_thread) copy_wait_read_but<N_SLOTS - 1>();
                    named_barrier_sync(own, 128);
                }
                if constexpr (F32_OUT) {
                    store_floats(to, d[r] + 16 * s);
                } else {
                    u32 out[16];
                    finish_slice(to, out, d[r] + 32 * s, d[r] + 32 * s + (PAIRED_PRODUCT ? BLOCK_N / 4 : 0), p, column);
                    if constexpr (SUMS) {
#pragma unroll
                        for (int i = 0; i < 16; i++) {
                            sums[i / 2 * 2] += bf16_low(out[i]);
                            sums[i / 2 * 2 + 1] += bf16_high(out[i]);
                        }
                    }
                }
                fence_shared_for_engines();
                if constexpr (SUMS) {
                    if (r == N_PRODUCTS - 1) {
#pragma unroll
                        for (int i = 0; i < 16; i++) {
                            for (int offset = 4; offset < 32; offset *= 2)
                                sums[i] += __shfl_xor_sync(~0u, sums[i], offset);
                            if (lane < 4) shared.sums[warpgroup][warp][i / 2 * 8 + lane * 2 + i % 2] = sums[i];
                        }
                    }
                }
                named_barrier_sync(own, 128);
                if (first_thread) {
                    write_slice(to, out_map, pre_map, p, column, row + 64 * r, tile.split);
                    // The slot of the slice before is the first to be free.
                    constexpr int FREED = N_SLOTS == 1 ? 0 : 1;
                    if (HAS_GIVEN && slice >= FREED && slice - FREED + N_SLOTS < SLICES * N_PRODUCTS) {
                        copy_wait_read_but<FREED>();
                        ask_for_given(slice - FREED + N_SLOTS, (slots.slot + N_SLOTS - FREED) % N_SLOTS);
                    }
                }
                __syncwarp();
                if constexpr (SUMS) {
                    const int i = threadIdx.x % 128;
                    if (r == N_PRODUCTS - 1 && i < 64 && column + i < p.n && row < p.m) {
                        const float(*of_warp)[64] = shared.sums[warpgroup];
                        p.sums[static_cast<long long>(row / WG_ROWS) * p.n + column + i] =
                            of_warp[0][i] + of_warp[1][i] + of_warp[2][i] + of_warp[3][i];
                    }
                    // With more products the next slice's own barrier keeps its sums out until these have been read.
                    if (N_PRODUCTS == 1) named_barrier_sync(own, 128);
                }
                slots.advance();
            }
        }
    }
    if (first_thread) copy_wait();
    __syncwarp();
}

extern "C" __global__ void __launch_bounds__(384, 1)
#if SHARE
__cluster_dims__(2, 1, 1)
#endif
    gemm(const __grid_constant__ TensorMap a_map, const __grid_constant__ TensorMap b_map,
         const __grid_constant__ TensorMap out_map, const __grid_constant__ TensorMap pre_map, const Parameters p) {
    extern __shared__ __align__(1024) unsigned char memory[];
    Shared& shared = *reinterpret_cast<Shared*>(memory);
    const u32 rank = CLUSTER == 1 ? 0 : rank_in_cluster();
    if (threadIdx.x == 0) {
        if (shared_address(memory) % 1024 != 0) asm volatile("trap;");
        prefetch_tensor_map(a_map);
        prefetch_tensor_map(b_map);
        prefetch_tensor_map(out_map);
        for (int i = 0; i < N_STAGES; i++) {
            mbarrier_init(slot_barrier(shared.full, i), 1);
            // Every warp that multiplies, in every block that gets the copies.
            mbarrier_init(slot_barrier(shared.empty, i), 4 * (PING_PONG ? 1 : 2) * CLUSTER);
        }
        for (int i = 0; i < 2 * N_SLOTS; i++) mbarrier_init(slot_barrier(shared.given[0], i), 1);
        fence_mbarrier_init();
    }
    if (CLUSTER == 1)
        __syncthreads();
    else
        wait_for_cluster();
    if (threadIdx.x < 128) {
        give_registers<40>();
        if (threadIdx.x == 0) copy_operands(shared, a_map, b_map, p, rank);
        __syncwarp();
    } else {
        take_registers<232>();
        multiply(shared, out_map, pre_map, p, threadIdx.x / 128 - 1, rank);
    }
    // Nothing comes to a block that has ended.
    if (CLUSTER > 1) wait_for_cluster();
}
