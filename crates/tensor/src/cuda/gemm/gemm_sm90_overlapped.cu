// Products whose epilogue is done by warps of its own while others multiply the next tile: for bf16 results and short k.
// What both kernels do alike is in gemm_sm90.cuh.
//
// A warpgroup that multiplies rounds its sums to bf16 (a bias is added before), lays them into shared memory and goes on.
// Three warps of warpgroup 0 read them by rows, and read and write global memory with plain instructions of 16 bytes: what
// is given comes some batches ahead, in registers. A warp finishes 64 rows and columns at a time, so that sums of columns
// need no others. Warp 0 copies operands; warpgroups 1 and 2 multiply.
//
// 384 threads, since the compiler must see more than 154 registers for each: with them it has 168, and none change hands.

constexpr bool HAS_BIAS = EPILOGUE == BIAS || EPILOGUE == GELU;
constexpr int SUM_TILES = BLOCK_N / 64;
constexpr int PLANES = PAIRED_PRODUCT || PAIRED_OUT ? 2 : 1;
constexpr int FINISHERS = 3;  // warps
// The sums of one warpgroup are finished in parts, a part in batches: four chunks of eight columns in a thread for each.
constexpr int PARTS = 4;
constexpr int BATCHES = PAIRED_PRODUCT ? 2 : 4;
// Batches of what is given that are in registers: the current one, and those that are under way.
constexpr int HELD = !HAS_GIVEN ? 1 : PAIRED_OUT ? 2 : 4;
// One word more than a multiple of what a quarter of a warp reads at once.
constexpr int BIAS_PITCH = 36;

struct alignas(1024) Shared {
    unsigned char a[N_STAGES][A_BYTES];
    unsigned char b[N_STAGES][B_BYTES];
    unsigned char sums[2][SUM_TILES][TILE_BYTES];  // of products, rounded, of each warpgroup
    // For each warpgroup, pairs of columns in the order of registers: those of lanes 0, 4, …, then of 1, 5, ….
    alignas(16) u32 bias[2][4 * BIAS_PITCH];
    u64 full[N_STAGES], empty[N_STAGES];
    u64 laid[2], taken[2];  // the sums of a warpgroup: are there; may be overwritten
};

// One warpgroup: multiplies its half of the rows of every tile, and lays the sums down.
__device__ void multiply(Shared& shared, const Parameters& p, int warpgroup, u32 rank) {
    const int n_tiles = p.rows * p.columns, n_clusters = gridDim.x / CLUSTER;
    const int lane = threadIdx.x % 32;
    Multiplier multiplier(shared, warpgroup);
    const u32 my_sums = shared_address(shared.sums[warpgroup]);
    const u32 laid = slot_barrier(shared.laid, warpgroup), taken = slot_barrier(shared.taken, warpgroup);
    u32 phase = 0;
    for (int number = blockIdx.x / CLUSTER; number < n_tiles; number += n_clusters, phase ^= 1) {
        float d[BLOCK_N / 2];
        multiplier.multiply(d, shared, p.k_tiles);
        mbarrier_wait(taken, phase ^ 1);
#pragma unroll
        for (int s = 0; s < SUM_TILES; s++) {
            const float* x = d + 32 * s;
            u32 out[16], bias[8];
            if constexpr (HAS_BIAS) {
                const uint4* from = reinterpret_cast<const uint4*>(shared.bias[warpgroup] + lane % 4 * BIAS_PITCH) + 2 * s;
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const uint4 four = from[i];
                    bias[4 * i] = four.x, bias[4 * i + 1] = four.y, bias[4 * i + 2] = four.z, bias[4 * i + 3] = four.w;
                }
#pragma unroll
                for (int i = 0; i < 16; i++)
                    out[i] = pack_bf16(x[2 * i] + bf16_low(bias[i / 2]), x[2 * i + 1] + bf16_high(bias[i / 2]));
            } else {
#pragma unroll
                for (int i = 0; i < 16; i++) out[i] = pack_bf16(x[2 * i], x[2 * i + 1]);
            }
            store_tiles(my_sums + s * TILE_BYTES, 0, out);
        }
        __syncwarp();
        if (lane == 0) mbarrier_arrive(laid);
    }
}

// ---- the epilogue ----

__device__ __forceinline__ uint4 load_shared(u32 address) {
    uint4 x;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                 : "r"(address)
                 : "memory");
    return x;
}

// Read once: leaves no trace in the first cache.
__device__ __forceinline__ uint4 load_once(const unsigned char* from) {
    uint4 x;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                 : "l"(from));
    return x;
}

// The first to be given up by the L2, where operands should stay.
__device__ __forceinline__ void store_once(unsigned char* to, const uint4& x) {
    asm volatile("st.global.cs.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w)
                 : "memory");
}

// f on eight numbers of each, rounded.
template <class F>
__device__ __forceinline__ uint4 map(const uint4& x, const uint4& y, const uint4& z, F f) {
    auto pair = [&](u32 x, u32 y, u32 z) {
        return pack_bf16(f(bf16_low(x), bf16_low(y), bf16_low(z)), f(bf16_high(x), bf16_high(y), bf16_high(z)));
    };
    return uint4{pair(x.x, y.x, z.x), pair(x.y, y.y, z.y), pair(x.z, y.z, z.z), pair(x.w, y.w, z.w)};
}

// 1 / (1 + 2^x), also where that power is infinite. Three warps have the time of few instructions for each element.
__device__ __forceinline__ float inverse_of_one_and_power(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(1.f + exp2_approx(x)));
    return y;
}

constexpr float LOG2_E = 1.4426950f;

__device__ __forceinline__ float fast_sigmoid(float x) { return inverse_of_one_and_power(-LOG2_E * x); }

// x · sigmoid(SQRT_8_OVER_PI · (x + CUBIC · x³)), as elsewhere.
__device__ __forceinline__ float fast_gelu(float x) {
    constexpr float A = -LOG2_E * SQRT_8_OVER_PI, B = A * CUBIC;
    return x * inverse_of_one_and_power(x * (A + B * (x * x)));
}

// NaN where the cube is infinite, from 7e12 on.
__device__ __forceinline__ float fast_gelu_derivative(float x) {
    constexpr float A = -LOG2_E * SQRT_8_OVER_PI, B = A * CUBIC;
    constexpr float C = SQRT_8_OVER_PI, D = 3.f * CUBIC * SQRT_8_OVER_PI;
    const float square = x * x, s = inverse_of_one_and_power(x * (A + B * square));
    return s + x * (C + D * square) * (s - s * s);
}

// What a warp finishes at a time: part of the sums of one warpgroup.
struct Piece {
    int number, warpgroup, part;  // number of the block's tile, in the order of its tiles
    int row, column;              // of this thread's first chunk
    bool inside;                  // whether that column is

    __device__ Piece(const Parameters& p, int index, u32 rank) {
        const int n_clusters = gridDim.x / CLUSTER, lane = threadIdx.x % 32;
        number = index / (2 * PARTS);
        warpgroup = index / PARTS % 2;
        part = index % PARTS;
        const int tile_number = blockIdx.x / CLUSTER + number * n_clusters;
        const Tile tile(p, tile_number, rank);
        row = tile.row + warpgroup * 64 + lane / 8 + (PAIRED_PRODUCT ? part % 2 * 32 : 0);
        column = tile.column + (PAIRED_PRODUCT ? part / 2 : part) * 64 + lane % 8 * 8;
        inside = column < p.n && tile_number < p.rows * p.columns;
    }
};

// What is given for a batch.
__device__ __forceinline__ void ask_for_given(uint4 (&x)[PLANES][4], const Parameters& p, const Piece& piece, int batch) {
    const unsigned char* from = p.pre + piece.row * p.pre_stride + piece.column * 2ll;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int further = 16 * batch + 4 * i;
        const bool there = piece.inside && piece.row + further < p.m;
#pragma unroll
        for (int plane = 0; plane < PLANES; plane++)
            x[plane][i] = there ? load_once(from + further * p.pre_stride + plane * 2ll * p.n) : uint4{0, 0, 0, 0};
    }
}

// dx = dy · GELU′(x) for a chunk; its columns, as rounded, are added to sums.
__device__ __forceinline__ uint4 gelu_gradient(const uint4& dy, const uint4& x, float (&sums)[8]) {
    const u32 dys[4] = {dy.x, dy.y, dy.z, dy.w}, xs[4] = {x.x, x.y, x.z, x.w};
    u32 dxs[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        dxs[i] = pack_bf16(bf16_low(dys[i]) * fast_gelu_derivative(bf16_low(xs[i])),
                           bf16_high(dys[i]) * fast_gelu_derivative(bf16_high(xs[i])));
        if (SUMS) sums[2 * i] += bf16_low(dxs[i]), sums[2 * i + 1] += bf16_high(dxs[i]);
    }
    return uint4{dxs[0], dxs[1], dxs[2], dxs[3]};
}

// One chunk: what becomes of the sums of products x (and y), and of what is given.
__device__ __forceinline__ void finish(const uint4& x, const uint4& y, const uint4 (&given)[PLANES][4], int i,
                                       float (&sums)[8], const Parameters& p, const Piece& piece, int further) {
    const int row = piece.row + further;
    const bool there = piece.inside && row < p.m;
    unsigned char* out = p.out + row * p.out_stride + piece.column * 2ll;
    unsigned char* pre = p.pre + row * p.pre_stride + piece.column * 2ll;
    const long long plane = 2ll * p.n;
    uint4 result = x;
    if constexpr (EPILOGUE == GELU) {
        if (there && p.pre != nullptr) store_once(pre, x);
        result = map(x, x, x, [](float x, float, float) { return fast_gelu(x); });
    }
    if constexpr (EPILOGUE == SWIGLU) {
        if (there && p.pre != nullptr) {
            store_once(pre, x);
            store_once(pre + plane, y);
        }
        result = map(x, y, x, [](float gate, float up, float) { return gate * fast_sigmoid(gate) * up; });
    }
    if constexpr (EPILOGUE == GELU_GRADIENT) result = gelu_gradient(x, given[0][i], sums);
    if constexpr (EPILOGUE == SWIGLU_GRADIENT) {
        const uint4 dup = map(x, given[0][i], x, [](float dy, float gate, float) { return dy * (gate * fast_sigmoid(gate)); });
        result = map(x, given[0][i], given[1][i], [](float dy, float gate, float up) {
            const float s = fast_sigmoid(gate);
            return dy * up * (s + gate * s * (1.f - s));
        });
        if (there) store_once(out + plane, dup);
    }
    if (there) store_once(out, result);
}

// The pair of the bias that belongs to a column.
__device__ __forceinline__ u32 load_bias(const Parameters& p, int column) {
    return p.bias != nullptr && column < p.n ? __ldg(p.bias + column / 2) : 0;
}

__device__ __forceinline__ void lay_bias(Shared& shared, int warpgroup, int pair, u32 x) {
    shared.bias[warpgroup][pair % 4 * BIAS_PITCH + pair / 4] = x;
}

// One warp of the epilogue.
__device__ void finish_tiles(Shared& shared, const Parameters& p, int finisher, u32 rank) {
    const int n_clusters = gridDim.x / CLUSTER, first_number = blockIdx.x / CLUSTER, lane = threadIdx.x % 32;
    const int n_tiles = (p.rows * p.columns - first_number + n_clusters - 1) / n_clusters;
    // In a tile of sums: rows of a batch's first chunks, and of every second one, four rows further.
    const u32 even = lane / 8 * 128 + ((lane % 8 ^ lane / 8) << 4);
    const u32 odd = (lane / 8 + 4) * 128 + ((lane % 8 ^ (lane / 8 + 4)) << 4);

    uint4 given[HELD][PLANES][4];
    Piece piece(p, finisher, rank);
    if constexpr (HAS_GIVEN) {
#pragma unroll
        for (int batch = 0; batch < HELD - 1; batch++) ask_for_given(given[batch], p, piece, batch);
    }
#pragma unroll 1
    for (int index = finisher; index < n_tiles * 2 * PARTS; index += FINISHERS) {
        const Piece next(p, index + FINISHERS, rank);
        u32 next_bias = 0;
        const int pair = piece.part * 32 + lane;
        if (HAS_BIAS && piece.number + 1 < n_tiles)
            next_bias = load_bias(p, Tile(p, first_number + (piece.number + 1) * n_clusters, rank).column + 2 * pair);

        mbarrier_wait(slot_barrier(shared.laid, piece.warpgroup), piece.number % 2);
        if (HAS_BIAS) lay_bias(shared, piece.warpgroup, pair, next_bias);
        const u32 first = shared_address(shared.sums[piece.warpgroup]) +
                          (PAIRED_PRODUCT ? piece.part / 2 * TILE_BYTES + piece.part % 2 * 32 * 128 : piece.part * TILE_BYTES);
        float sums[8] = {};
#pragma unroll
        for (int batch = 0; batch < BATCHES; batch++) {
            if constexpr (HAS_GIVEN) {
                const int later = batch + HELD - 1;
                ask_for_given(given[later % HELD], p, later < BATCHES ? piece : next, later % BATCHES);
            }
            uint4 x[4], y[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const u32 from = first + (i % 2 == 0 ? even : odd) + (16 * batch + i / 2 * 8) * 128;
                x[i] = load_shared(from);
                y[i] = PAIRED_PRODUCT ? load_shared(from + 2 * TILE_BYTES) : x[i];
            }
            if (batch == BATCHES - 1) {
                __syncwarp();
                if (lane == 0) mbarrier_arrive(slot_barrier(shared.taken, piece.warpgroup));
            }
#pragma unroll
            for (int i = 0; i < 4; i++)
                finish(x[i], y[i], given[batch % HELD], i, sums, p, piece, 16 * batch + 4 * i);
        }
        if constexpr (SUMS) {
#pragma unroll
            for (int j = 0; j < 8; j++) {
                sums[j] += __shfl_xor_sync(~0u, sums[j], 8);
                sums[j] += __shfl_xor_sync(~0u, sums[j], 16);
            }
            // Lanes 0 to 7 have the first row.
            if (lane < 8 && piece.inside && piece.row < p.m) {
                float* to = p.sums + piece.row / 64 * static_cast<long long>(p.n) + piece.column;
                reinterpret_cast<float4*>(to)[0] = float4{sums[0], sums[1], sums[2], sums[3]};
                reinterpret_cast<float4*>(to)[1] = float4{sums[4], sums[5], sums[6], sums[7]};
            }
        }
        piece = next;
    }
}

extern "C" __global__ void __launch_bounds__(384, 1) __cluster_dims__(CLUSTER, 1, 1)
    gemm(const __grid_constant__ TensorMap a_map, const __grid_constant__ TensorMap b_map, const Parameters p) {
    extern __shared__ __align__(1024) unsigned char memory[];
    Shared& shared = *reinterpret_cast<Shared*>(memory);
    const u32 rank = rank_in_cluster();
    const int warp = threadIdx.x / 32;
    if (threadIdx.x == 0) {
        prepare_ring(shared, a_map, b_map);
        for (int i = 0; i < 2; i++) {
            mbarrier_init(slot_barrier(shared.laid, i), 4);
            mbarrier_init(slot_barrier(shared.taken, i), PARTS);
        }
        fence_mbarrier_init();
    }
    if (HAS_BIAS && threadIdx.x >= 128) {
        const int pair = threadIdx.x % 128;
        lay_bias(shared, warp / 4 - 1, pair, load_bias(p, Tile(p, blockIdx.x / CLUSTER, rank).column + 2 * pair));
    }
    wait_for_cluster();
    if (warp == 0) {
        if (threadIdx.x == 0) copy_operands(shared, a_map, b_map, p, rank);
        __syncwarp();
    } else if (warp < 1 + FINISHERS) {
        finish_tiles(shared, p, warp - 1, rank);
    } else {
        multiply(shared, p, warp / 4 - 1, rank);
    }
    // Nothing comes to a block that has ended.
    wait_for_cluster();
}
