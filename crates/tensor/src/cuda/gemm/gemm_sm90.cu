// Products whose epilogue is done by the warpgroups that multiply, through shared memory and the copy engine: for f32, and
// for sums over long k, where the epilogue's time is a small part. What both kernels do alike is in gemm_sm90.cuh.
//
// Warpgroup 0 gives its registers away; one of its threads copies operands. Compile-time, beside: N_SLOTS of the epilogue.

constexpr int SLICE = F32_OUT ? 32 : 64;  // columns
constexpr int SLICES = COLUMNS / SLICE;
constexpr int SLOT_TILES = EPILOGUE == SWIGLU ? 3 : EPILOGUE == GELU || EPILOGUE == SWIGLU_GRADIENT ? 2 : 1;

struct alignas(1024) Shared {
    unsigned char a[N_STAGES][A_BYTES];
    unsigned char b[N_STAGES][B_BYTES];
    unsigned char tiles[2][N_SLOTS][SLOT_TILES][TILE_BYTES];
    float sums[2][SUMS ? 4 : 1][64];
    u64 full[N_STAGES], empty[N_STAGES], given[2][N_SLOTS];
};

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
        if (p.pre != nullptr) copy_box_to_global(pre_map, column, row, 0, tile);
        copy_box_to_global(out_map, column, row, 0, tile + TILE_BYTES);
    } else if constexpr (EPILOGUE == SWIGLU) {
        if (p.pre != nullptr) {
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
    const u32 my_tiles = shared_address(shared.tiles[warpgroup]);
    Multiplier multiplier(shared, warpgroup);
    Ring<N_SLOTS> slots;

    for (int number = blockIdx.x / CLUSTER; number < n_tiles; number += n_clusters) {
        const Tile tile(p, number, rank);
        const int row = tile.row + warpgroup * 64;
        auto ask_for_given = [&](int slice, int slot) {
            const u32 barrier = slot_barrier(shared.given[warpgroup], slot);
            const u32 to = my_tiles + slot * (SLOT_TILES * TILE_BYTES);
            mbarrier_expect_bytes(barrier, SLOT_TILES * TILE_BYTES);
            for (int i = 0; i < SLOT_TILES; i++)
                copy_box_to_shared(to + i * TILE_BYTES, pre_map, tile.column + slice * 64, row, i, barrier);
        };
        if (HAS_GIVEN && first_thread) {
            copy_wait_read();
            for (int i = 0; i < N_SLOTS; i++) ask_for_given(i, i);
        }
        __syncwarp();

        float d[BLOCK_N / 2];
        multiplier.multiply(d, shared, tile.k_tiles);

#pragma unroll
        for (int s = 0; s < SLICES; s++) {
            const int column = tile.column + s * SLICE;
            const u32 to = my_tiles + slots.slot * (SLOT_TILES * TILE_BYTES);
            if (HAS_GIVEN) {
                mbarrier_wait(slot_barrier(shared.given[warpgroup], slots.slot), slots.phase);
            } else {
                // What was copied from here must have been read.
                if (first_thread) copy_wait_read_but<N_SLOTS - 1>();
                named_barrier_sync(own, 128);
            }
            if constexpr (F32_OUT) {
                store_floats(to, d + 16 * s);
            } else {
                u32 out[16];
                finish_slice(to, out, d + 32 * s, d + 32 * s + (PAIRED_PRODUCT ? BLOCK_N / 4 : 0), p, column);
                if constexpr (SUMS) {
                    float sums[16];
#pragma unroll
                    for (int i = 0; i < 16; i++) {
                        sums[i] = i % 2 == 0 ? bf16_low(out[i / 2 * 2]) + bf16_low(out[i / 2 * 2 + 1])
                                             : bf16_high(out[i / 2 * 2]) + bf16_high(out[i / 2 * 2 + 1]);
                        for (int offset = 4; offset < 32; offset *= 2)
                            sums[i] += __shfl_xor_sync(~0u, sums[i], offset);
                        if (lane < 4) shared.sums[warpgroup][warp][i / 2 * 8 + lane * 2 + i % 2] = sums[i];
                    }
                }
            }
            fence_shared_for_engines();
            named_barrier_sync(own, 128);
            if (first_thread) {
                write_slice(to, out_map, pre_map, p, column, row, tile.split);
                // The slot of the slice before is the first to be free.
                constexpr int FREED = N_SLOTS == 1 ? 0 : 1;
                if (HAS_GIVEN && s >= FREED && s - FREED + N_SLOTS < SLICES) {
                    copy_wait_read_but<FREED>();
                    ask_for_given(s - FREED + N_SLOTS, (slots.slot + N_SLOTS - FREED) % N_SLOTS);
                }
            }
            __syncwarp();
            if constexpr (SUMS) {
                const int i = threadIdx.x % 128;
                if (i < 64 && column + i < p.n && row < p.m) {
                    const float(*of_warp)[64] = shared.sums[warpgroup];
                    p.sums[static_cast<long long>(row / 64) * p.n + column + i] =
                        of_warp[0][i] + of_warp[1][i] + of_warp[2][i] + of_warp[3][i];
                }
                named_barrier_sync(own, 128);
            }
            slots.advance();
        }
    }
    if (first_thread) copy_wait();
    __syncwarp();
}

extern "C" __global__ void __launch_bounds__(384, 1) __cluster_dims__(CLUSTER, 1, 1)
    gemm(const __grid_constant__ TensorMap a_map, const __grid_constant__ TensorMap b_map,
         const __grid_constant__ TensorMap out_map, const __grid_constant__ TensorMap pre_map, const Parameters p) {
    extern __shared__ __align__(1024) unsigned char memory[];
    Shared& shared = *reinterpret_cast<Shared*>(memory);
    const u32 rank = rank_in_cluster();
    if (threadIdx.x == 0) {
        prepare_ring(shared, a_map, b_map);
        prefetch_tensor_map(out_map);
        for (int i = 0; i < 2 * N_SLOTS; i++) mbarrier_init(slot_barrier(shared.given[0], i), 1);
        fence_mbarrier_init();
    }
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
    wait_for_cluster();
}
