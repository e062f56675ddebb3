// Attention backward on Hopper, the same bits on every run (after FlashAttention-3, Shah et al., 2024,
// https://arxiv.org/abs/2407.08608, appendix B.1, with ordered accumulation).
//
// Three kernels: `prepare` takes the sums dy_i·y_i; the main one computes dk and dv and accumulates dq in f32; `finish`
// rounds dq: two spare warps that did this in the main kernel made it slower (2 to 17 %) than a pass over memory.
//
// In the main kernel a block draws tiles of 128 keys of one head and goes over the query tiles that see them.
// Everything is transposed, so that each of its two computing warpgroups owns 64 keys and dk, dv stay in its registers:
//   Sᵀ = K·Qᵀ, dPᵀ = V·dYᵀ, Pᵀ = exp(scale·Sᵀ − lse), dSᵀ = Pᵀ ∘ (dPᵀ − dy·y), dV += Pᵀ·dY, dK += dSᵀ·Q, dQ += dS·K.
// Pᵀ and dSᵀ are operands from registers; dSᵀ also passes through shared memory, since dQ sums over both warpgroups.
//
// The order of dq's sums: key tiles come first to last, and a counter per query tile says whose turn it is. Blocks draw
// tiles in this order too (if causal, longest first), so that whoever is waited for has started: no deadlock. They go
// over query tiles from the last to the first, which all key tiles see, so that neighbours stay one step apart and
// hardly wait.
//
// With DELAYED, a step computes the dq of the step before it, whose dS both warpgroups have long written: neither waits
// for the other in the middle of a step.
//
// Bound by the matrix units: 10·t·s·e operations per head, half of it if causal.
//
// With SUMS, each warpgroup also leaves the sums of the columns of its 64 rows of dq, dk and dv, in f32 before they are
// rounded: the gradient of a bias of the projection is their sum over all tiles, in order.
//
// Compile-time: HEAD_DIM 64 or 128 · CAUSAL 0 or 1 · BLOCK_Q 64 or 128 · STAGES; HEAD_DIM · BLOCK_Q = 8192 ·
// DELAYED 0 or 1, with heads of 64 only · REVERSED 0 or 1: the passes over memory go from the last sequence to the first,
// so that each begins with what the cache still holds of the kernel before · SUMS 0 or 1, with heads of 64 only
// Dims: b batch · t query position · s key position · h query heads · g key/value heads · e head size

constexpr int BLOCK_K = 128;
constexpr int HEAD_TILES = HEAD_DIM / 64, Q_TILES = BLOCK_Q / 64;
constexpr u32 Q_TILE_BYTES = BLOCK_Q * 128;
constexpr u32 K_TILE_BYTES = BLOCK_K * 128;
constexpr int DQ_FLOATS = BLOCK_Q * HEAD_DIM;
constexpr int DQ_SLOTS = HEAD_DIM == 128 ? 2 : 1;  // what fits
// Where dk and dv leave from: if they fit, a buffer of ds, so that the next keys need not wait; else the memory of the
// keys and values.
constexpr bool STORES_IN_DS = HEAD_DIM == 64;
constexpr float LOG2_E = 1.4426950408889634f;
static_assert(!DELAYED || HEAD_DIM == 64, "wider heads leave no registers for it");
static_assert(!SUMS || HEAD_DIM == 64, "wider heads leave no shared memory for it");

struct BackwardParameters {
    const float* log_sum_exp_log2_bht;  // [b, h, t_padded]; infinity behind t
    const float* delta_bht;             // [b, h, t_padded]: dy·y; zero behind t
    float* dq_tiles;                    // [b, h, query tiles, DQ_FLOATS], in the order of the matrix units' registers
    u32* turns;                         // [b, h, query tiles]: key tiles summed so far; 0 before and after all kernels
    u32* next_tile;                     // 0 before and after
    float* sums;                        // [b, key tiles, 2, (h + 2g)·e] with SUMS: of the columns of 64 rows each
    int n_sequences, n_heads, queries_per_kv, k_column, v_column, width, t, t_padded;
    int kv_heads_per_section;  // worked on at a time: what the L2 holds
    float scale;
};

struct alignas(1024) BackwardShared {
    unsigned char k[HEAD_TILES][K_TILE_BYTES];
    unsigned char v[HEAD_TILES][K_TILE_BYTES];
    unsigned char q[STAGES][HEAD_TILES][Q_TILE_BYTES];
    unsigned char dy[STAGES][HEAD_TILES][Q_TILE_BYTES];
    unsigned char ds[2][Q_TILES][K_TILE_BYTES];  // [keys, queries]
    float dq[DQ_SLOTS][DQ_FLOATS];
    float log_sum_exp[STAGES][BLOCK_Q], delta[STAGES][BLOCK_Q];
    float sums[2][2][4][SUMS ? HEAD_DIM : 1];  // of a warpgroup: dk and dv, by warp
    u64 kv_full, kv_empty, q_full[STAGES], dy_full[STAGES], q_empty[STAGES], dq_full[DQ_SLOTS], dq_empty[DQ_SLOTS],
        tile_full[2], tile_empty[2];
    int tile[2];
};

struct BackwardTile {
    int sequence, kv_head, key_tile, first_q_tile, n_q_tiles, n_key_tiles;

    __device__ BackwardTile(const BackwardParameters& p, int tile) {
        n_key_tiles = (p.t + BLOCK_K - 1) / BLOCK_K;
        n_q_tiles = (p.t + BLOCK_Q - 1) / BLOCK_Q;
        const int n_kv_heads = p.n_heads / p.queries_per_kv;
        const int section = tile / (p.kv_heads_per_section * n_key_tiles);
        const int rest = tile % (p.kv_heads_per_section * n_key_tiles), before = section * p.kv_heads_per_section;
        const int heads = min(p.kv_heads_per_section, p.n_sequences * n_kv_heads - before);
        sequence = (before + rest % heads) / n_kv_heads;
        kv_head = (before + rest % heads) % n_kv_heads;
        key_tile = rest / heads;
        first_q_tile = CAUSAL ? key_tile * BLOCK_K / BLOCK_Q : 0;
    }

    // Calls with each row of heads and query tile, in order.
    template <typename Step>
    __device__ __forceinline__ void for_each_step(const BackwardParameters& p, Step step) const {
        for (int q_tile = n_q_tiles - 1; q_tile >= first_q_tile; q_tile--)
            for (int head = kv_head * p.queries_per_kv; head < (kv_head + 1) * p.queries_per_kv; head++)
                step(sequence * p.n_heads + head, q_tile);
    }
};

__device__ int count_tiles(const BackwardParameters& p) {
    return p.n_sequences * (p.n_heads / p.queries_per_kv) * ((p.t + BLOCK_K - 1) / BLOCK_K);
}

// One thread: draws tiles and keeps the rings full.
__device__ void copy_tiles(BackwardShared& shared, const TensorMap& qkv_map, const TensorMap& dy_map,
                           const BackwardParameters& p) {
    const int n_tiles = count_tiles(p);
    Ring<STAGES> q_ring;
    Ring<2> tile_ring;
    u32 kv_phase = 0;
    int drawn = atomicAdd(p.next_tile, 1u);
    while (true) {
        mbarrier_wait(slot_barrier(shared.tile_empty, tile_ring.slot), tile_ring.phase ^ 1);
        shared.tile[tile_ring.slot] = drawn;
        mbarrier_arrive(slot_barrier(shared.tile_full, tile_ring.slot));
        tile_ring.advance();
        if (drawn >= n_tiles) break;

        const BackwardTile tile(p, drawn);
        const u32 kv_full = shared_address(&shared.kv_full);
        mbarrier_wait(shared_address(&shared.kv_empty), kv_phase ^ 1);
        kv_phase ^= 1;
        mbarrier_expect_bytes(kv_full, 2 * HEAD_TILES * K_TILE_BYTES);
        const int kv_column = tile.kv_head * HEAD_DIM, k_start = tile.key_tile * BLOCK_K;
        copy_rows<BLOCK_K, HEAD_TILES>(shared_address(shared.k), qkv_map, p.k_column + kv_column, k_start,
                                       tile.sequence, kv_full);
        copy_rows<BLOCK_K, HEAD_TILES>(shared_address(shared.v), qkv_map, p.v_column + kv_column, k_start,
                                       tile.sequence, kv_full);
        int steps_left = (tile.n_q_tiles - tile.first_q_tile) * p.queries_per_kv;
        tile.for_each_step(p, [&](int row, int q_tile) {
            // As late as its latency allows: other blocks may wait for the tile drawn.
            if (--steps_left == 0) drawn = atomicAdd(p.next_tile, 1u);
            const int slot = q_ring.slot, column = row % p.n_heads * HEAD_DIM, q_start = q_tile * BLOCK_Q;
            const u32 q_full = slot_barrier(shared.q_full, slot), dy_full = slot_barrier(shared.dy_full, slot);
            const long long statistics = row * static_cast<long long>(p.t_padded) + q_start;
            mbarrier_wait(slot_barrier(shared.q_empty, slot), q_ring.phase ^ 1);
            mbarrier_expect_bytes(q_full, HEAD_TILES * Q_TILE_BYTES + 2 * BLOCK_Q * 4);
            copy_rows<BLOCK_Q, HEAD_TILES>(shared_address(shared.q[slot]), qkv_map, column, q_start, tile.sequence,
                                           q_full);
            copy_bytes_to_shared(shared_address(shared.log_sum_exp[slot]), p.log_sum_exp_log2_bht + statistics,
                                 BLOCK_Q * 4, q_full);
            copy_bytes_to_shared(shared_address(shared.delta[slot]), p.delta_bht + statistics, BLOCK_Q * 4, q_full);
            mbarrier_expect_bytes(dy_full, HEAD_TILES * Q_TILE_BYTES);
            copy_rows<BLOCK_Q, HEAD_TILES>(shared_address(shared.dy[slot]), dy_map, column, q_start, tile.sequence,
                                           dy_full);
            q_ring.advance();
        });
    }
    // Every block draws one tile too many; whoever draws the last of those leaves the counter as it was found.
    if (drawn == n_tiles + static_cast<int>(gridDim.x) - 1) *p.next_tile = 0;
}

// One thread: adds each step's dq to global memory when its turn has come.
__device__ void add_dq(BackwardShared& shared, const BackwardParameters& p) {
    const int n_tiles = count_tiles(p);
    Ring<2> tile_ring;
    Ring<DQ_SLOTS> dq_ring;
    while (true) {
        mbarrier_wait(slot_barrier(shared.tile_full, tile_ring.slot), tile_ring.phase);
        const int drawn = shared.tile[tile_ring.slot];
        mbarrier_arrive(slot_barrier(shared.tile_empty, tile_ring.slot));
        tile_ring.advance();
        if (drawn >= n_tiles) break;
        const BackwardTile tile(p, drawn);
        tile.for_each_step(p, [&](int row, int q_tile) {
            const long long at = row * static_cast<long long>(tile.n_q_tiles) + q_tile;
            const u32 turn = tile.key_tile;
            while (load_acquire(p.turns + at) != turn) {
            }
            const u32 dq = shared_address(shared.dq[dq_ring.slot]);
            mbarrier_wait(slot_barrier(shared.dq_full, dq_ring.slot), dq_ring.phase);
            // Sums are made in the L2, where the one before is complete: its writer waited for that.
            if (turn == 0)
                copy_bytes_to_global(p.dq_tiles + at * DQ_FLOATS, dq, DQ_FLOATS * 4);
            else
                add_floats_to_global(p.dq_tiles + at * DQ_FLOATS, dq, DQ_FLOATS * 4);
            copy_commit();
            copy_wait_read();
            mbarrier_arrive(slot_barrier(shared.dq_empty, dq_ring.slot));
            dq_ring.advance();
            copy_wait();
            store_release(p.turns + at, turn + 1);
        });
    }
}

// The columns of an accumulator that this thread holds, two by two.
__device__ __forceinline__ void load_statistics(float2 (&to)[BLOCK_Q / 8], const float* from) {
#pragma unroll
    for (int i = 0; i < BLOCK_Q / 8; i++)
        to[i] = *reinterpret_cast<const float2*>(from + 8 * i + threadIdx.x % 4 * 2);
}

// One of two halves of x, added to the same of the lane at that distance, which keeps the other half.
template <int HALF>
__device__ __forceinline__ void share_sums(float (&x)[16], int distance) {
    const bool second = threadIdx.x & distance;
#pragma unroll
    for (int i = 0; i < HALF; i++) {
        const float kept = second ? x[i + HALF] : x[i], given = second ? x[i] : x[i + HALF];
        x[i] = kept + __shfl_xor_sync(~0u, given, distance);
    }
}

// The sums of the columns of a warp's 16 rows of an accumulator, of which rows from n_rows on do not count, to `to`.
template <int LEN>
__device__ __forceinline__ void sum_columns(float* to, const float (&x)[LEN], int n_rows) {
    static_assert(LEN == 32);
    const int group = threadIdx.x % 32 / 4;
    const bool upper = group < n_rows, lower = group + 8 < n_rows;
    float sums[16];  // of columns 8 * (i / 2) + 2 * (lane % 4) + i % 2
#pragma unroll
    for (int i = 0; i < 16; i++)
        sums[i] = (upper ? x[i / 2 * 4 + i % 2] : 0.f) + (lower ? x[i / 2 * 4 + 2 + i % 2] : 0.f);
    share_sums<8>(sums, 16);
    share_sums<4>(sums, 8);
    share_sums<2>(sums, 4);
    // The halves were chosen by the bits of the group, the upper ones first: i / 2 is the group.
    *reinterpret_cast<float2*>(to + 8 * group + 2 * (threadIdx.x % 4)) = make_float2(sums[0], sums[1]);
}

template <int LEN>
__device__ __forceinline__ void sum_columns_if_asked(float* to, const float (&x)[LEN], int n_rows) {
    if constexpr (SUMS) sum_columns(to, x, n_rows);
}

// One warpgroup: 64 keys of each tile.
__device__ void differentiate(BackwardShared& shared, const TensorMap& dqkv_map, const BackwardParameters& p,
                              int warpgroup) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, thread = threadIdx.x % 128;
    const int n_tiles = count_tiles(p);
    const float scale_log2 = p.scale * LOG2_E;
    const u32 k = shared_address(shared.k), v = shared_address(shared.v), my_rows = warpgroup * 64 * 128;
    const u32 q = shared_address(shared.q), dy = shared_address(shared.dy);
    const u64 k_by_rows = operand_by_rows(k + my_rows), v_by_rows = operand_by_rows(v + my_rows);
    const u64 q_by_rows = operand_by_rows(q), q_by_columns = operand_by_columns(q, Q_TILE_BYTES);
    const u64 dy_by_rows = operand_by_rows(dy), dy_by_columns = operand_by_columns(dy, Q_TILE_BYTES);
    // This warpgroup's half of dq: 64 of 128 columns, or of 128 rows.
    const u64 k_by_columns = operand_by_columns(k + (HEAD_TILES == 2 ? warpgroup * K_TILE_BYTES : 0), 0);
    const u32 dq_ds = Q_TILES == 2 ? warpgroup * K_TILE_BYTES : 0;
    const int both = 1, own = 2 + warpgroup;
    // With DELAYED: that this, the other warpgroup's dS is in buffer 0; one more for buffer 1.
    const int mine_is_there = 4 + 2 * warpgroup, other_is_there = 4 + 2 * (1 - warpgroup);

    Ring<STAGES> q_ring;
    Ring<2> tile_ring;
    Ring<DQ_SLOTS> dq_ring;
    u32 kv_phase = 0;
    int ds_buffer = 0;

    while (true) {
        mbarrier_wait(slot_barrier(shared.tile_full, tile_ring.slot), tile_ring.phase);
        const int drawn = shared.tile[tile_ring.slot];
        __syncwarp();
        if (lane == 0) mbarrier_arrive(slot_barrier(shared.tile_empty, tile_ring.slot));
        tile_ring.advance();
        if (drawn >= n_tiles) break;
        const BackwardTile tile(p, drawn);
        const int k_start = tile.key_tile * BLOCK_K + warpgroup * 64;

        float dk[HEAD_DIM / 2], dv[HEAD_DIM / 2], s[BLOCK_Q / 2], dp[BLOCK_Q / 2];
        u32 probabilities[BLOCK_Q / 4], ds[BLOCK_Q / 4];
        const int n_steps = (tile.n_q_tiles - tile.first_q_tile) * p.queries_per_kv;
        int q_tile = tile.n_q_tiles - 1, head_of_group = 0;

        float dq[32];
        // Of the dS in a buffer.
        auto issue_dq = [&](int buffer) {
            const u64 ds_by_columns = operand_by_columns(shared_address(shared.ds[buffer]) + dq_ds, 0);
#pragma unroll
            for (int i = 0; i < BLOCK_K / 16; i++)
                wgmma<1, 1>(dq, further(ds_by_columns, i * 16 * 128), further(k_by_columns, i * 16 * 128), i != 0);
            wgmma_commit();
        };
        auto put_ds = [&](int buffer) {
            store_tiles(shared_address(shared.ds[buffer]) + my_rows, K_TILE_BYTES, ds);
            fence_shared_for_engines();
        };
        auto hand_over_dq = [&]() {
            mbarrier_wait(slot_barrier(shared.dq_empty, dq_ring.slot), dq_ring.phase ^ 1);
            float4* to = reinterpret_cast<float4*>(shared.dq[dq_ring.slot]) + warpgroup * (DQ_FLOATS / 8) + thread;
#pragma unroll
            for (int i = 0; i < 8; i++)
                to[i * 128] = make_float4(dq[4 * i], dq[4 * i + 1], dq[4 * i + 2], dq[4 * i + 3]);
            fence_shared_for_engines();
            mbarrier_arrive(slot_barrier(shared.dq_full, dq_ring.slot));
            dq_ring.advance();
        };
        auto issue_scores = [&](int slot) {
            const u64 q = further(q_by_rows, slot * (HEAD_TILES * Q_TILE_BYTES));
#pragma unroll
            for (int i = 0; i < HEAD_DIM / 16; i++)
                wgmma<0, 0>(s, further(k_by_rows, i / 4 * K_TILE_BYTES + i % 4 * 32),
                            further(q, i / 4 * Q_TILE_BYTES + i % 4 * 32), i != 0);
        };

        mbarrier_wait(shared_address(&shared.kv_full), kv_phase);
        kv_phase ^= 1;
        mbarrier_wait(slot_barrier(shared.q_full, q_ring.slot), q_ring.phase);
        pin(s);
        wgmma_fence();
        issue_scores(q_ring.slot);
        wgmma_commit();
        wgmma_wait<0>();
        pin(s);

#pragma unroll 1
        for (int step = 0; step < n_steps; step++) {
            const int slot = q_ring.slot;
            const u32 slot_bytes = slot * (HEAD_TILES * Q_TILE_BYTES);
            float2 statistics[BLOCK_Q / 8];
            load_statistics(statistics, shared.log_sum_exp[slot]);
            mbarrier_wait(slot_barrier(shared.dy_full, slot), q_ring.phase);
            pin(dp);
            wgmma_fence();
#pragma unroll
            for (int i = 0; i < HEAD_DIM / 16; i++)
                wgmma<0, 0>(dp, further(v_by_rows, i / 4 * K_TILE_BYTES + i % 4 * 32),
                            further(dy_by_rows, slot_bytes + i / 4 * Q_TILE_BYTES + i % 4 * 32), i != 0);
            wgmma_commit();

            const int first_query = q_tile * BLOCK_Q;
            if (CAUSAL && k_start + 63 > first_query) {
                // The first column that this thread's upper row is seen by, counted from its own first column.
                const int first = k_start + warp * 16 + lane / 4 - first_query - lane % 4 * 2;
#pragma unroll
                for (int i = 0; i < BLOCK_Q / 2; i++)
                    if (i / 4 * 8 + i % 2 - i / 2 % 2 * 8 < first) s[i] = -INFINITY;
            }
#pragma unroll
            for (int i = 0; i < BLOCK_Q / 2; i += 4) {
                const float2 log_sum_exp = statistics[i / 4];
                s[i] = exp2_approx(s[i] * scale_log2 - log_sum_exp.x);
                s[i + 1] = exp2_approx(s[i + 1] * scale_log2 - log_sum_exp.y);
                s[i + 2] = exp2_approx(s[i + 2] * scale_log2 - log_sum_exp.x);
                s[i + 3] = exp2_approx(s[i + 3] * scale_log2 - log_sum_exp.y);
            }
            round_to_bf16(probabilities, s);

            pin(dv);
            pin(probabilities);
            wgmma_fence();
#pragma unroll
            for (int i = 0; i < BLOCK_Q / 16; i++)
                wgmma(dv, probabilities + 4 * i, further(dy_by_columns, slot_bytes + i * 16 * 128),
                      step != 0 || i != 0);
            wgmma_commit();

            load_statistics(statistics, shared.delta[slot]);
            wgmma_wait<1>();
            pin(dp);
#pragma unroll
            for (int i = 0; i < BLOCK_Q / 2; i += 4) {
                const float2 delta = statistics[i / 4];
                // The rounded probabilities are kept anyway; there are no registers for the others.
                const u32 upper = probabilities[i / 2], lower = probabilities[i / 2 + 1];
                ds[i / 2] = pack_bf16(bf16_low(upper) * (dp[i] - delta.x), bf16_high(upper) * (dp[i + 1] - delta.y));
                ds[i / 2 + 1] =
                    pack_bf16(bf16_low(lower) * (dp[i + 2] - delta.x), bf16_high(lower) * (dp[i + 3] - delta.y));
            }
            // Two buffers: that the other warpgroup is done with this one was said at the barrier of the step before.
            const int written = ds_buffer;
            ds_buffer ^= 1;
            if (STORES_IN_DS && step == 0) {
                if (thread == 0) copy_wait_read();
                named_barrier_sync(own, 128);
            }
            if (!DELAYED) put_ds(written);
            wgmma_wait<0>();
            pin(dv);
            pin(probabilities);
            if (!DELAYED) named_barrier_sync(both, 256);
            if (DELAYED && step != 0) named_barrier_sync(other_is_there + (written ^ 1), 256);

            pin(dq);
            pin(dk);
            pin(ds);
            wgmma_fence();
            // With DELAYED, in the first step of nothing, never used, as the last scores below.
            issue_dq(DELAYED ? written ^ 1 : written);
#pragma unroll
            for (int i = 0; i < BLOCK_Q / 16; i++)
                wgmma(dk, ds + 4 * i, further(q_by_columns, slot_bytes + i * 16 * 128), step != 0 || i != 0);
            wgmma_commit();
            q_ring.advance();
            // After the last step these are scores of nothing, never used: a branch around a product would make the
            // compiler wait for it.
            if (step + 1 < n_steps) mbarrier_wait(slot_barrier(shared.q_full, q_ring.slot), q_ring.phase);
            pin(s);
            wgmma_fence();
            issue_scores(q_ring.slot);
            wgmma_commit();

            if (DELAYED) put_ds(written);
            wgmma_wait<2>();
            pin(dq);
            // Also that this warpgroup no longer reads the other buffer.
            if (DELAYED) named_barrier_arrive(mine_is_there + written, 256);
            if (!DELAYED || step != 0) hand_over_dq();

            // Nothing is under way across the loop's edge, or the compiler would serialise all products.
            wgmma_wait<0>();
            pin(dk);
            pin(s);
            if (lane == 0) mbarrier_arrive(slot_barrier(shared.q_empty, slot));
            if (++head_of_group == p.queries_per_kv) head_of_group = 0, q_tile--;
        }

        if (DELAYED) {
            named_barrier_sync(other_is_there + (ds_buffer ^ 1), 256);
            pin(dq);
            wgmma_fence();
            issue_dq(ds_buffer ^ 1);
            wgmma_wait<0>();
            pin(dq);
            hand_over_dq();
        }
        u32 dk_shared = k + my_rows, dv_shared = v + my_rows;
        if (STORES_IN_DS) {
            dk_shared = shared_address(shared.ds[ds_buffer][0]) + my_rows;
            dv_shared = shared_address(shared.ds[ds_buffer][Q_TILES - 1]) + my_rows;
            if (lane == 0) mbarrier_arrive(shared_address(&shared.kv_empty));
        } else {
            named_barrier_sync(both, 256);
        }
        u32 rounded[HEAD_DIM / 4];
#pragma unroll
        for (int i = 0; i < HEAD_DIM / 2; i++) dk[i] *= p.scale;
        // Readers of the sums of the tile before have since been at a barrier of this warpgroup.
        const int n_rows = p.t - k_start - warp * 16;
        sum_columns_if_asked(shared.sums[warpgroup][0][warp], dk, n_rows);
        sum_columns_if_asked(shared.sums[warpgroup][1][warp], dv, n_rows);
        round_to_bf16(rounded, dk);
        store_tiles(dk_shared, K_TILE_BYTES, rounded);
        round_to_bf16(rounded, dv);
        store_tiles(dv_shared, K_TILE_BYTES, rounded);
        fence_shared_for_engines();
        named_barrier_sync(own, 128);
        if constexpr (SUMS) {
            const int which = thread / 64, column = thread % 64;
            const auto& of_warp = shared.sums[warpgroup][which];
            const long long row = (tile.sequence * static_cast<long long>(tile.n_key_tiles) + tile.key_tile) * 2 + warpgroup;
            p.sums[row * p.width + (which == 0 ? p.k_column : p.v_column) + tile.kv_head * HEAD_DIM + column] =
                of_warp[0][column] + of_warp[1][column] + of_warp[2][column] + of_warp[3][column];
        }
        if (thread == 0) {
            const int column = tile.kv_head * HEAD_DIM;
            for (int i = 0; i < HEAD_TILES; i++) {
                copy_box_to_global(dqkv_map, p.k_column + column + i * 64, k_start, tile.sequence,
                                   dk_shared + i * K_TILE_BYTES);
                copy_box_to_global(dqkv_map, p.v_column + column + i * 64, k_start, tile.sequence,
                                   dv_shared + i * K_TILE_BYTES);
            }
            copy_commit();
            if (!STORES_IN_DS) {
                copy_wait_read();
                for (int i = 0; i < 4; i++) mbarrier_arrive(shared_address(&shared.kv_empty));
            }
        }
    }
    if (thread == 0) copy_wait();
}

extern "C" __global__ void __launch_bounds__(384, 1)
    attention_backward(const __grid_constant__ TensorMap qkv_map, const __grid_constant__ TensorMap dy_map,
                       const __grid_constant__ TensorMap dqkv_map, const BackwardParameters p) {
    extern __shared__ unsigned char memory[];
    BackwardShared& shared = *reinterpret_cast<BackwardShared*>(memory + (-shared_address(memory) & 1023u));
    if (threadIdx.x == 0) {
        mbarrier_init(shared_address(&shared.kv_full), 1);
        mbarrier_init(shared_address(&shared.kv_empty), 8);
        for (int i = 0; i < STAGES; i++) {
            mbarrier_init(slot_barrier(shared.q_full, i), 1);
            mbarrier_init(slot_barrier(shared.dy_full, i), 1);
            mbarrier_init(slot_barrier(shared.q_empty, i), 8);
        }
        for (int i = 0; i < DQ_SLOTS; i++) {
            mbarrier_init(slot_barrier(shared.dq_full, i), 256);
            mbarrier_init(slot_barrier(shared.dq_empty, i), 1);
        }
        for (int i = 0; i < 2; i++) {
            mbarrier_init(slot_barrier(shared.tile_full, i), 1);
            mbarrier_init(slot_barrier(shared.tile_empty, i), 8 + 1);
        }
        fence_mbarrier_init();
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        give_registers<24>();
        if (threadIdx.x == 0) copy_tiles(shared, qkv_map, dy_map, p);
        if (threadIdx.x == 32) add_dq(shared, p);
    } else {
        take_registers<240>();
        differentiate(shared, dqkv_map, p, threadIdx.x / 128 - 1);
    }
}

// delta = dy·y and log-sum-exp in base 2, padded. Eight elements a thread; grid: (⌈t_padded·h·e/8 / 256⌉, b).
// Bound by memory: 4·t·h·e bytes a sequence.
extern "C" __global__ void __launch_bounds__(256)
    attention_backward_prepare(float* log_sum_exp_log2_bht, float* delta_bht, const uint4* y_bthe, const uint4* dy_bthe,
                               const float* log_sum_exp_bht, int h, int t, int t_padded) {
    constexpr int THREADS_PER_ROW = HEAD_DIM / 8;
    const int block = REVERSED ? gridDim.x - 1 - blockIdx.x : blockIdx.x;
    const int width = h * THREADS_PER_ROW, index = block * 256 + threadIdx.x;
    const int sequence = REVERSED ? gridDim.y - 1 - blockIdx.y : blockIdx.y;
    const int at = index / width, head = index % width / THREADS_PER_ROW;
    float delta = 0.0f;
    if (at < t) {
        const long long from = (static_cast<long long>(sequence) * t + at) * width + index % width;
        const uint4 y = y_bthe[from], dy = dy_bthe[from];
        const u32 ys[4] = {y.x, y.y, y.z, y.w}, dys[4] = {dy.x, dy.y, dy.z, dy.w};
#pragma unroll
        for (int i = 0; i < 4; i++)
            delta += bf16_low(ys[i]) * bf16_low(dys[i]) + bf16_high(ys[i]) * bf16_high(dys[i]);
    }
#pragma unroll
    for (int distance = 1; distance < THREADS_PER_ROW; distance *= 2)
        delta += __shfl_xor_sync(~0u, delta, distance);
    if (at < t_padded && index % THREADS_PER_ROW == 0) {
        const long long row = static_cast<long long>(sequence) * h + head;
        log_sum_exp_log2_bht[row * t_padded + at] = at < t ? log_sum_exp_bht[row * t + at] * LOG2_E : INFINITY;
        delta_bht[row * t_padded + at] = delta;
    }
}

// Scales and rounds dq, and resets the turns. A block per query tile; grid: (query tiles, h, b).
// Bound by memory: 6·t·h·e bytes a sequence.
extern "C" __global__ void __launch_bounds__(256)
    attention_backward_finish(const __grid_constant__ TensorMap dqkv_map, const float* dq_tiles, u32* turns, float* sums,
                              int width, float scale) {
    __shared__ alignas(1024) unsigned char tiles[2][64 * 128];
    __shared__ float of_warp[8][SUMS ? HEAD_DIM : 1];
    float dq[32];
    const int half = threadIdx.x / 128, q_tile = blockIdx.x;
    const int head = REVERSED ? gridDim.y - 1 - blockIdx.y : blockIdx.y;
    const int sequence = REVERSED ? gridDim.z - 1 - blockIdx.z : blockIdx.z;
    const long long at = (static_cast<long long>(sequence) * gridDim.y + head) * gridDim.x + q_tile;
    const float4* from = reinterpret_cast<const float4*>(dq_tiles + at * DQ_FLOATS) + half * (DQ_FLOATS / 8);
    u32 rounded[16];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float4 x = from[i * 128 + threadIdx.x % 128];
        dq[4 * i] = x.x * scale, dq[4 * i + 1] = x.y * scale, dq[4 * i + 2] = x.z * scale, dq[4 * i + 3] = x.w * scale;
    }
    round_to_bf16(rounded, dq);
    sum_columns_if_asked(of_warp[threadIdx.x / 32], dq, 16);  // queries behind the last one have 0
    store_tiles(shared_address(tiles[half]), 0, rounded);
    fence_shared_for_engines();
    __syncthreads();
    if (threadIdx.x % 128 == 0) {
        copy_box_to_global(dqkv_map, head * HEAD_DIM + (HEAD_TILES == 2 ? half * 64 : 0),
                           q_tile * BLOCK_Q + (Q_TILES == 2 ? half * 64 : 0), sequence, shared_address(tiles[half]));
        copy_commit();
        copy_wait();
    }
    if constexpr (SUMS) {
        const int column = threadIdx.x % 128;
        if (column < 64) {
            const auto* mine = of_warp + half * 4;
            sums[((sequence * static_cast<long long>(gridDim.x) + q_tile) * 2 + half) * width + head * HEAD_DIM + column] =
                mine[0][column] + mine[1][column] + mine[2][column] + mine[3][column];
        }
    }
    if (threadIdx.x == 0) turns[at] = 0;
}
