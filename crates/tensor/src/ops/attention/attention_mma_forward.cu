// Attention forward on the matrix units of sm_80 and later (FlashAttention-2, Dao, 2023, https://arxiv.org/abs/2307.08691,
// algorithm 1). Each warp computes 16 queries; tiles of keys and values pass through a ring in shared memory.
//
// Bound by the matrix units and shared memory: 4·t·s·e operations per head, half of it if causal.

extern "C" __global__ __launch_bounds__(THREADS) void attention_mma_forward(const Parameters p) {
    const int n_tiles = (p.t + ROWS - 1) / ROWS, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const Place at(blockIdx.x, n_tiles, p.h, p.b, CAUSAL);
    const int kv_head = at.head / (p.h / p.g), first_row = at.tile * ROWS, warp_row = first_row + 16 * warp;
    bf16* q_tile = reinterpret_cast<bf16*>(memory);
    bf16* ring = q_tile + ROWS * K_STRIDE; // keys, then values

    const bf16* k = p.k + p.k_at(at.sequence, kv_head);
    const bf16* v = p.v + p.v_at(at.sequence, kv_head);
    const int first_tile = visible(p, at.sequence, first_row).first / BLOCK;
    const int n_steps = visible(p, at.sequence, first_row + ROWS - 1).last / BLOCK + 1 - first_tile;
    const Visible of_first = visible(p, at.sequence, warp_row), of_last = visible(p, at.sequence, warp_row + 15);
    const Visible of_row[2] = {
        visible(p, at.sequence, warp_row + lane / 4), visible(p, at.sequence, warp_row + lane / 4 + 8)};
    const float alibi = ALIBI ? p.slopes_h[at.head] : 0.f, to_log2 = p.to_log2();

    constexpr bool KEEP = HEAD_DIM <= 128; // queries in registers
    u32 queries[KEEP ? HEAD_DIM / 16 : 1][4];
    float y[V_HEAD_DIM / 8][4] = {};
    float largest[2] = {minus_infinity(), minus_infinity()}, sum[2] = {};

    auto copy = [&](int step, int slot) {
        int first = (first_tile + step) * BLOCK;
        copy_tile<BLOCK, HEAD_DIM>(ring + slot * SLOT, k, p.k_stride, first, p.n_keys);
        copy_tile<BLOCK, V_HEAD_DIM>(ring + slot * SLOT + K_TILE, v, p.v_stride, first, p.n_keys);
    };
    auto compute = [&](int step, int slot) {
        if (KEEP && step == 0) {
#pragma unroll
            for (int i = 0; i < HEAD_DIM / 16; ++i)
                load_rows<HEAD_DIM>(queries[KEEP ? i : 0], q_tile + 16 * warp * K_STRIDE, i);
        }
        const int first = (first_tile + step) * BLOCK;
        if (first > of_last.last || first + BLOCK <= of_first.first) return; // no row of this warp sees any
        float s[BLOCK / 8][4];
        dot_rows<BLOCK, HEAD_DIM>(
            s,
            [&](u32 (&a)[4], int i) {
                if (KEEP) {
#pragma unroll
                    for (int x = 0; x < 4; ++x) a[x] = queries[KEEP ? i : 0][x];
                } else {
                    load_rows<HEAD_DIM>(a, q_tile + 16 * warp * K_STRIDE, i);
                }
            },
            ring + slot * SLOT);

        const int column = first + lane % 4 * 2, position = p.past + warp_row + lane / 4;
        if (!SCALED_ONLY) {
#pragma unroll
            for (int n = 0; n < BLOCK / 8; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    float slope;
                    int distance = position + i / 2 * 8 - (column + n * 8 + i % 2);
                    s[n][i] = score(p, alibi, distance, s[n][i], slope);
                }
        }
        if (first + BLOCK - 1 > of_first.last || (HAS_FIRST && first < of_last.first)) {
#pragma unroll
            for (int n = 0; n < BLOCK / 8; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    int key = column + n * 8 + i % 2;
                    if (key > of_row[i / 2].last || (HAS_FIRST && key < of_row[i / 2].first)) s[n][i] = minus_infinity();
                }
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float old = largest[half], now = old;
#pragma unroll
            for (int n = 0; n < BLOCK / 8; ++n) now = fmaxf(now, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
            now = fmaxf(now, __shfl_xor_sync(0xffffffffu, now, 1));
            now = fmaxf(now, __shfl_xor_sync(0xffffffffu, now, 2));
            // A row may see none of the keys so far.
            float offset = now == minus_infinity() ? 0.f : now * to_log2;
            float factor = exp2_approx(old * to_log2 - offset);
            largest[half] = now;
            sum[half] *= factor;
#pragma unroll
            for (int n = 0; n < BLOCK / 8; ++n)
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; ++i) {
                    s[n][i] = exp2_approx(s[n][i] * to_log2 - offset);
                    sum[half] += s[n][i];
                }
#pragma unroll
            for (int n = 0; n < V_HEAD_DIM / 8; ++n) {
                y[n][2 * half] *= factor;
                y[n][2 * half + 1] *= factor;
            }
        }
        u32 probabilities[BLOCK / 16][4];
        round_to_bf16<BLOCK>(probabilities, s);
        add_product<BLOCK, V_HEAD_DIM, V_HEAD_DIM>(y, probabilities, ring + slot * SLOT + K_TILE);
    };

    copy_tile<ROWS, HEAD_DIM>(q_tile, p.q + p.q_at(at.sequence, at.head), p.q_stride, first_row, p.t);
    pipeline(n_steps, copy, compute);

    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        sum[half] = sum_row(sum[half]);
        inverse[half] = 1.f / sum[half];
        int row = warp_row + lane / 4 + 8 * half;
        if (lane % 4 == 0 && row < p.t)
            p.log_sum_exp_bht[p.statistics_at(at.sequence, at.head) + row] =
                largest[half] * to_log2 * LN_2 + logf(sum[half]);
    }
    store_rows<V_HEAD_DIM>(p.y_bthe + p.y_at(at.sequence, at.head), p.y_stride(), warp_row, p.t, y, inverse);
}
