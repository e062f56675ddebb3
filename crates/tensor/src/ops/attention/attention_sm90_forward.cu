// Attention forward on Hopper: FlashAttention-3 (Shah et al., 2024, https://arxiv.org/abs/2407.08608, algorithm 2).
//
// One block per multiprocessor draws tiles of BLOCK_Q queries of one head, longest first. Its warpgroup 0 gives its
// registers away and one of its threads copies tiles: queries of two tiles, keys and values through rings of STAGES.
// Each other warpgroup computes 64 query rows. The multiprocessor does 16 exponentials while it does 4096 operations of
// products: with heads of 64 both take as long. Two things overlap with the exponentials: the products of the other
// warpgroups (they take turns to issue them), and the warpgroup's own next Q·Kᵀ, be it of the next tile.
//
// Bound by the matrix units: 4·t·s·e operations per head, half of it if causal.
//
// Compile-time: HEAD_DIM 64 or 128 · CAUSAL 0 or 1 · CONSUMERS warpgroups · BLOCK_K keys per tile · STAGES
// Dims: b batch · t query position · s key position · h query heads · g key/value heads · e head size

constexpr int HEAD_TILES = HEAD_DIM / 64;
constexpr int BLOCK_Q = 64 * CONSUMERS;
constexpr int THREADS = 128 * (CONSUMERS + 1);
constexpr int Q_SLOTS = 2;
constexpr u32 Q_TILE_BYTES = BLOCK_Q * 128;
constexpr u32 K_TILE_BYTES = BLOCK_K * 128;
// Measured: turns gain 2 to 9 % with heads of 128, and cost 3 to 6 % with heads of 64, where exponentials take as long
// as products and every wait is lost.
constexpr bool TAKE_TURNS = CONSUMERS > 1 && HEAD_DIM == 128;
constexpr float LOG2_E = 1.4426950408889634f;

struct ForwardParameters {
    float* log_sum_exp_bht;  // [b, h, t]
    u32* next_tile;          // 0 before and after
    int n_sequences, n_heads, queries_per_kv, k_column, v_column, t;
    int heads_per_section;  // heads whose keys and values are worked on at a time: what the L2 holds
    float scale;
};

struct alignas(1024) ForwardShared {
    unsigned char q[Q_SLOTS][HEAD_TILES][Q_TILE_BYTES];
    unsigned char k[STAGES][HEAD_TILES][K_TILE_BYTES];
    unsigned char v[STAGES][HEAD_TILES][K_TILE_BYTES];
    unsigned char y[HEAD_TILES][Q_TILE_BYTES];
    u64 q_full[Q_SLOTS], q_empty[Q_SLOTS], k_full[STAGES], k_empty[STAGES], v_full[STAGES], v_empty[STAGES];
    u64 tile_full[2], tile_empty[2];
    int tile[2];
};

struct ForwardTile {
    int sequence, head, q_start, n_key_tiles;

    // Sections of heads one after the other; in a section the longest tiles of all heads first.
    __device__ ForwardTile(const ForwardParameters& p, int tile) {
        const int q_tiles = (p.t + BLOCK_Q - 1) / BLOCK_Q;
        const int section = tile / (p.heads_per_section * q_tiles), rest = tile % (p.heads_per_section * q_tiles);
        const int before = section * p.heads_per_section;
        const int heads = min(p.heads_per_section, p.n_sequences * p.n_heads - before);
        const int q_tile = CAUSAL ? q_tiles - 1 - rest / heads : rest / heads;
        sequence = (before + rest % heads) / p.n_heads;
        head = (before + rest % heads) % p.n_heads;
        q_start = q_tile * BLOCK_Q;
        const int end = CAUSAL ? min(p.t, q_start + BLOCK_Q) : p.t;
        n_key_tiles = (end + BLOCK_K - 1) / BLOCK_K;
    }
};

// One thread: draws tiles and keeps the rings full. Empty slots are waited for with the opposite parity, so that the
// first round passes.
__device__ void copy_tiles(ForwardShared& shared, const TensorMap& qkv_map, const ForwardParameters& p) {
    const int n_tiles = p.n_sequences * p.n_heads * ((p.t + BLOCK_Q - 1) / BLOCK_Q);
    Ring<STAGES> k_ring, v_ring;
    Ring<2> tile_ring;
    Ring<Q_SLOTS> q_ring;

    int drawn = atomicAdd(p.next_tile, 1u);
    while (true) {
        mbarrier_wait(slot_barrier(shared.tile_empty, tile_ring.slot), tile_ring.phase ^ 1);
        shared.tile[tile_ring.slot] = drawn;
        mbarrier_arrive(slot_barrier(shared.tile_full, tile_ring.slot));
        tile_ring.advance();
        if (drawn >= n_tiles) break;

        const ForwardTile tile(p, drawn);
        const int kv_column = tile.head / p.queries_per_kv * HEAD_DIM;
        auto copy_keys = [&](int j) {
            mbarrier_wait(slot_barrier(shared.k_empty, k_ring.slot), k_ring.phase ^ 1);
            const u32 full = slot_barrier(shared.k_full, k_ring.slot);
            mbarrier_expect_bytes(full, HEAD_TILES * K_TILE_BYTES);
            copy_rows<BLOCK_K, HEAD_TILES>(shared_address(shared.k[k_ring.slot]), qkv_map, p.k_column + kv_column,
                                           j * BLOCK_K, tile.sequence, full);
            k_ring.advance();
        };
        auto copy_values = [&](int j) {
            mbarrier_wait(slot_barrier(shared.v_empty, v_ring.slot), v_ring.phase ^ 1);
            const u32 full = slot_barrier(shared.v_full, v_ring.slot);
            mbarrier_expect_bytes(full, HEAD_TILES * K_TILE_BYTES);
            copy_rows<BLOCK_K, HEAD_TILES>(shared_address(shared.v[v_ring.slot]), qkv_map, p.v_column + kv_column,
                                           j * BLOCK_K, tile.sequence, full);
            v_ring.advance();
        };
        const u32 q_full = slot_barrier(shared.q_full, q_ring.slot);
        mbarrier_wait(slot_barrier(shared.q_empty, q_ring.slot), q_ring.phase ^ 1);
        mbarrier_expect_bytes(q_full, HEAD_TILES * Q_TILE_BYTES);
        copy_rows<BLOCK_Q, HEAD_TILES>(shared_address(shared.q[q_ring.slot]), qkv_map, tile.head * HEAD_DIM,
                                       tile.q_start, tile.sequence, q_full);
        q_ring.advance();
        copy_keys(tile.n_key_tiles - 1);
        for (int j = tile.n_key_tiles - 1; j > 0; j--) {
            copy_keys(j - 1);
            copy_values(j);
        }
        // As late as its latency allows, so that the blocks end at the same time.
        drawn = atomicAdd(p.next_tile, 1u);
        copy_values(0);
    }
    // Every block draws one tile too many; whoever draws the last of those leaves the counter as it was found.
    if (drawn == n_tiles + static_cast<int>(gridDim.x) - 1) *p.next_tile = 0;
}

// The running maximum and sum of a thread's two rows.
struct Softmax {
    float max[2], sum[2];

    // Turns scores into probabilities relative to the new maximum; returns what older results are to be multiplied by.
    __device__ __forceinline__ void step(float (&s)[BLOCK_K / 2], float scale_log2, float (&factor)[2]) {
        // Four chains, since each operation waits for the one before in its chain.
        float maxima[4] = {max[0], s[1], max[1], s[3]};
#pragma unroll
        for (int i = 0; i < BLOCK_K / 2; i++) maxima[i % 4] = fmaxf(maxima[i % 4], s[i]);
        float new_max[2] = {fmaxf(maxima[0], maxima[1]), fmaxf(maxima[2], maxima[3])};
        float offset[2];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            new_max[r] = fmaxf(new_max[r], __shfl_xor_sync(~0u, new_max[r], 1));
            new_max[r] = fmaxf(new_max[r], __shfl_xor_sync(~0u, new_max[r], 2));
            // A row may see none of the first tile's keys.
            offset[r] = new_max[r] == -INFINITY ? 0.0f : new_max[r] * scale_log2;
            factor[r] = exp2_approx(max[r] * scale_log2 - offset[r]);
            max[r] = new_max[r];
        }
        float sums[4] = {sum[0] * factor[0], 0.0f, sum[1] * factor[1], 0.0f};
#pragma unroll
        for (int i = 0; i < BLOCK_K / 2; i++) {
            s[i] = exp2_approx(s[i] * scale_log2 - offset[i / 2 % 2]);
            sums[i % 4] += s[i];
        }
        sum[0] = sums[0] + sums[1];
        sum[1] = sums[2] + sums[3];
    }
};

// One warpgroup: 64 query rows of each tile.
__device__ void attend(ForwardShared& shared, const TensorMap& y_map, const ForwardParameters& p, int warpgroup) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const int n_tiles = p.n_sequences * p.n_heads * ((p.t + BLOCK_Q - 1) / BLOCK_Q);
    const float scale_log2 = p.scale * LOG2_E;
    const u64 q_operand = operand_by_rows(shared_address(shared.q) + warpgroup * 64 * 128);
    const u64 k_operand = operand_by_rows(shared_address(shared.k));
    const u64 v_operand = operand_by_columns(shared_address(shared.v), K_TILE_BYTES);
    const u32 y = shared_address(shared.y) + warpgroup * 64 * 128;
    // Named barriers: one per warpgroup for its turn, one per warpgroup for itself.
    const int my_turn = 1 + warpgroup, next_turn = 1 + (warpgroup + 1) % CONSUMERS, own = 1 + CONSUMERS + warpgroup;
    if (TAKE_TURNS && warpgroup == CONSUMERS - 1) named_barrier_arrive(next_turn, 256);

    Ring<STAGES> k_ring, v_ring;
    Ring<2> tile_ring;
    Ring<Q_SLOTS> q_ring;

    auto next_tile = [&]() {
        mbarrier_wait(slot_barrier(shared.tile_full, tile_ring.slot), tile_ring.phase);
        const int drawn = shared.tile[tile_ring.slot];
        __syncwarp();
        if (lane == 0) mbarrier_arrive(slot_barrier(shared.tile_empty, tile_ring.slot));
        tile_ring.advance();
        return drawn;
    };
    auto wait_turn = [&]() {
        if (TAKE_TURNS) named_barrier_sync(my_turn, 256);
    };
    auto pass_turn = [&]() {
        if (TAKE_TURNS) named_barrier_arrive(next_turn, 256);
    };
    auto wait_keys = [&]() { mbarrier_wait(slot_barrier(shared.k_full, k_ring.slot), k_ring.phase); };
    auto release_keys = [&]() {
        if (lane == 0) mbarrier_arrive(slot_barrier(shared.k_empty, k_ring.slot));
        k_ring.advance();
    };
    auto wait_queries = [&]() { mbarrier_wait(slot_barrier(shared.q_full, q_ring.slot), q_ring.phase); };
    float s[BLOCK_K / 2];
    auto issue_scores = [&]() {
        const u64 q = further(q_operand, q_ring.slot * (HEAD_TILES * Q_TILE_BYTES));
        const u64 k = further(k_operand, k_ring.slot * (HEAD_TILES * K_TILE_BYTES));
#pragma unroll
        for (int i = 0; i < HEAD_DIM / 16; i++)
            wgmma<0, 0>(s, further(q, i / 4 * Q_TILE_BYTES + i % 4 * 32),
                        further(k, i / 4 * K_TILE_BYTES + i % 4 * 32), i != 0);
        wgmma_commit();
    };

    // The first tile's first scores. Those of later tiles are computed beside the last outputs of the tile before.
    int drawn = next_tile();
    if (drawn < n_tiles) {
        wait_queries();
        wait_keys();
    }
    wait_turn();
    pin(s);
    wgmma_fence();
    issue_scores();
    pass_turn();
    wgmma_wait<0>();
    pin(s);
    if (drawn < n_tiles) release_keys();

    while (drawn < n_tiles) {
        const ForwardTile tile(p, drawn);
        const int row = tile.q_start + warpgroup * 64 + warp * 16 + lane / 4;

        float o[HEAD_DIM / 2];
        u32 probabilities[BLOCK_K / 4];
        Softmax softmax = {{-INFINITY, -INFINITY}, {0.0f, 0.0f}};

        auto issue_outputs = [&](bool keep) {
            const u64 v = further(v_operand, v_ring.slot * (HEAD_TILES * K_TILE_BYTES));
#pragma unroll
            for (int i = 0; i < BLOCK_K / 16; i++)
                wgmma(o, probabilities + 4 * i, further(v, i * 16 * 128), keep || i != 0);
            wgmma_commit();
        };
        auto mask = [&](int j) {
            // The first row of this warpgroup decides for all of it, so that the branch is uniform.
            const int start = j * BLOCK_K;
            const int first_row = tile.q_start + warpgroup * 64;
            if (CAUSAL ? start + BLOCK_K - 1 > first_row : start + BLOCK_K > p.t) {
                // The last columns that this thread's rows see, counted from its own first column.
                const int first = start + lane % 4 * 2;
                const int last[2] = {(CAUSAL ? row : p.t - 1) - first, (CAUSAL ? row + 8 : p.t - 1) - first};
#pragma unroll
                for (int i = 0; i < BLOCK_K / 2; i++)
                    if (i / 4 * 8 + i % 2 > last[i / 2 % 2]) s[i] = -INFINITY;
            }
        };
        float factor[2];
        int j = tile.n_key_tiles - 1;
        mask(j);
        softmax.step(s, scale_log2, factor);
        round_to_bf16(probabilities, s);

#pragma unroll 1
        for (; j > 0; j--) {
            wait_keys();
            wait_turn();
            pin(s);
            pin(o);
            pin(probabilities);
            wgmma_fence();
            issue_scores();
            mbarrier_wait(slot_barrier(shared.v_full, v_ring.slot), v_ring.phase);
            issue_outputs(j != tile.n_key_tiles - 1);
            pass_turn();
            wgmma_wait<1>();
            pin(s);
            release_keys();
            mask(j - 1);
            softmax.step(s, scale_log2, factor);
            wgmma_wait<0>();
            pin(o);
            pin(probabilities);
            if (lane == 0) mbarrier_arrive(slot_barrier(shared.v_empty, v_ring.slot));
            v_ring.advance();
            round_to_bf16(probabilities, s);
#pragma unroll
            for (int i = 0; i < HEAD_DIM / 2; i++) o[i] *= factor[i / 2 % 2];
        }
        if (lane == 0) mbarrier_arrive(slot_barrier(shared.q_empty, q_ring.slot));
        q_ring.advance();

        drawn = next_tile();
        if (drawn < n_tiles) {
            wait_queries();
            wait_keys();
        }
        wait_turn();
        pin(s);
        pin(o);
        pin(probabilities);
        wgmma_fence();
        // After the last tile these are scores of nothing, never used: a branch around a product would make the
        // compiler wait for it.
        issue_scores();
        mbarrier_wait(slot_barrier(shared.v_full, v_ring.slot), v_ring.phase);
        issue_outputs(tile.n_key_tiles != 1);
        pass_turn();

        float inverse[2];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float sum = softmax.sum[r];
            sum += __shfl_xor_sync(~0u, sum, 1);
            sum += __shfl_xor_sync(~0u, sum, 2);
            inverse[r] = 1.0f / sum;
            const int at = row + 8 * r;
            if (lane % 4 == 0 && at < p.t)
                p.log_sum_exp_bht[(tile.sequence * p.n_heads + tile.head) * static_cast<long long>(p.t) + at] =
                    softmax.max[r] * p.scale + __logf(sum);
        }
        wgmma_wait<0>();
        pin(s);
        pin(o);
        if (drawn < n_tiles) release_keys();
        if (lane == 0) mbarrier_arrive(slot_barrier(shared.v_empty, v_ring.slot));
        v_ring.advance();

        u32 rounded[HEAD_DIM / 4];
#pragma unroll
        for (int i = 0; i < HEAD_DIM / 2; i++) o[i] *= inverse[i / 2 % 2];
        round_to_bf16(rounded, o);
        // The previous tile's copy must have read this memory.
        const bool first_thread = threadIdx.x % 128 == 0;
        if (first_thread) copy_wait_read();
        named_barrier_sync(own, 128);
        store_tiles(y, Q_TILE_BYTES, rounded);
        fence_shared_for_engines();
        named_barrier_sync(own, 128);
        if (first_thread) {
            for (int i = 0; i < HEAD_TILES; i++)
                copy_box_to_global(y_map, tile.head * HEAD_DIM + i * 64, tile.q_start + warpgroup * 64, tile.sequence,
                                   y + i * Q_TILE_BYTES);
            copy_commit();
        }
    }
    if (threadIdx.x % 128 == 0) copy_wait();
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    attention_forward(const __grid_constant__ TensorMap qkv_map, const __grid_constant__ TensorMap y_map,
                      const ForwardParameters p) {
    extern __shared__ unsigned char memory[];
    ForwardShared& shared = *reinterpret_cast<ForwardShared*>(memory + (-shared_address(memory) & 1023u));
    if (threadIdx.x == 0) {
        prefetch_tensor_map(qkv_map);
        prefetch_tensor_map(y_map);
        for (int i = 0; i < Q_SLOTS; i++) {
            mbarrier_init(slot_barrier(shared.q_full, i), 1);
            mbarrier_init(slot_barrier(shared.q_empty, i), 4 * CONSUMERS);
        }
        for (int i = 0; i < STAGES; i++) {
            mbarrier_init(slot_barrier(shared.k_full, i), 1);
            mbarrier_init(slot_barrier(shared.v_full, i), 1);
            mbarrier_init(slot_barrier(shared.k_empty, i), 4 * CONSUMERS);
            mbarrier_init(slot_barrier(shared.v_empty, i), 4 * CONSUMERS);
        }
        for (int i = 0; i < 2; i++) {
            mbarrier_init(slot_barrier(shared.tile_full, i), 1);
            mbarrier_init(slot_barrier(shared.tile_empty, i), 4 * CONSUMERS);
        }
        fence_mbarrier_init();
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        give_registers<CONSUMERS == 3 ? 32 : 24>();
        if (threadIdx.x == 0) copy_tiles(shared, qkv_map, p);
    } else {
        take_registers<CONSUMERS == 3 ? 160 : 240>();
        attend(shared, y_map, p, threadIdx.x / 128 - 1);
    }
}
