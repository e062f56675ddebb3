// Attention backward on the matrix units of sm_80 and later (FlashAttention-2, Dao, 2023, https://arxiv.org/abs/2307.08691,
// algorithm 2) as two kernels: one owns queries and sums dq, one owns keys and sums dk and dv. Scores are computed twice,
// but no sum is shared between blocks, so the result is the same in every run.
//
// Bound by the matrix units and shared memory: 14·t·s·e operations per head, half of it if causal.
//
// Compile-time, beside those of attention_mma.cuh: PARTS in which the columns of dk and dv are computed, where the
// registers do not hold them all

constexpr int K_PART = HEAD_DIM / PARTS, V_PART = V_HEAD_DIM / PARTS;
static_assert(K_PART % 16 == 0 && V_PART % 16 == 0, "whole products");

// dq, and delta for the kernel below.
extern "C" __global__ __launch_bounds__(THREADS) void attention_mma_backward_queries(const Parameters p) {
    const int n_tiles = (p.t + ROWS - 1) / ROWS, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const Place at(blockIdx.x, n_tiles, p.h, p.b, CAUSAL);
    const int kv_head = at.head / (p.h / p.g), first_row = at.tile * ROWS, warp_row = first_row + 16 * warp;
    bf16* q_tile = reinterpret_cast<bf16*>(memory);
    bf16* dy_tile = q_tile + ROWS * K_STRIDE;
    bf16* ring = dy_tile + ROWS * V_STRIDE; // keys, then values

    const bf16* k = p.k + p.k_at(at.sequence, kv_head);
    const bf16* v = p.v + p.v_at(at.sequence, kv_head);
    const bf16* dy = p.dy_bthe + p.y_at(at.sequence, at.head);
    const bf16* y = p.y_bthe + p.y_at(at.sequence, at.head);
    const int first_tile = visible(p, at.sequence, first_row).first / BLOCK;
    const int n_steps = visible(p, at.sequence, first_row + ROWS - 1).last / BLOCK + 1 - first_tile;
    const Visible of_first = visible(p, at.sequence, warp_row), of_last = visible(p, at.sequence, warp_row + 15);
    const Visible of_row[2] = {
        visible(p, at.sequence, warp_row + lane / 4), visible(p, at.sequence, warp_row + lane / 4 + 8)};
    const float alibi = ALIBI ? p.slopes_h[at.head] : 0.f, to_log2 = p.to_log2();

    copy_tile<ROWS, HEAD_DIM>(q_tile, p.q + p.q_at(at.sequence, at.head), p.q_stride, first_row, p.t);
    copy_tile<ROWS, V_HEAD_DIM>(dy_tile, dy, p.y_stride(), first_row, p.t);

    float delta[2] = {}, log_sum_exp[2] = {};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        int row = warp_row + lane / 4 + 8 * half;
        u64 statistic = p.statistics_at(at.sequence, at.head) + row;
        if (row < p.t) {
            for (int column = lane % 4 * 8; column < V_HEAD_DIM; column += 32) {
                float a[8], b[8];
                load(a, y + u64(row) * p.y_stride() + column);
                load(b, dy + u64(row) * p.y_stride() + column);
#pragma unroll
                for (int i = 0; i < 8; ++i) delta[half] += a[i] * b[i];
            }
            log_sum_exp[half] = p.log_sum_exp_bht[statistic] * LOG2_E;
        }
        delta[half] = sum_row(delta[half]);
        if (row < p.t && lane % 4 == 0) p.delta_bht[statistic] = delta[half];
    }

    float dq[HEAD_DIM / 8][4] = {};
    auto copy = [&](int step, int slot) {
        int first = (first_tile + step) * BLOCK;
        copy_tile<BLOCK, HEAD_DIM>(ring + slot * SLOT, k, p.k_stride, first, p.n_keys);
        copy_tile<BLOCK, V_HEAD_DIM>(ring + slot * SLOT + K_TILE, v, p.v_stride, first, p.n_keys);
    };
    auto compute = [&](int step, int slot) {
        const int first = (first_tile + step) * BLOCK;
        if (first > of_last.last || first + BLOCK <= of_first.first) return;
        float s[BLOCK / 8][4], ds[BLOCK / 8][4];
        auto queries = [&](u32 (&a)[4], int i) { load_rows<HEAD_DIM>(a, q_tile + 16 * warp * K_STRIDE, i); };
        auto outputs = [&](u32 (&a)[4], int i) { load_rows<V_HEAD_DIM>(a, dy_tile + 16 * warp * V_STRIDE, i); };
        dot_rows<BLOCK, HEAD_DIM>(s, queries, ring + slot * SLOT);
        dot_rows<BLOCK, V_HEAD_DIM>(ds, outputs, ring + slot * SLOT + K_TILE);

        const bool some_hidden = first + BLOCK - 1 > of_first.last || (HAS_FIRST && first < of_last.first);
        const int column = first + lane % 4 * 2, position = p.past + warp_row + lane / 4;
#pragma unroll
        for (int n = 0; n < BLOCK / 8; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                int key = column + n * 8 + i % 2;
                float slope;
                float x = score(p, alibi, position + i / 2 * 8 - key, s[n][i], slope);
                x = exp2_approx(x * to_log2 - log_sum_exp[i / 2]);
                if (some_hidden && (key > of_row[i / 2].last || (HAS_FIRST && key < of_row[i / 2].first))) x = 0.f;
                ds[n][i] = x * (ds[n][i] - delta[i / 2]) * slope;
            }
        u32 rounded[BLOCK / 16][4];
        round_to_bf16<BLOCK>(rounded, ds);
        add_product<BLOCK, HEAD_DIM, HEAD_DIM>(dq, rounded, ring + slot * SLOT);
    };
    pipeline(n_steps, copy, compute);

    const float scale[2] = {p.scale, p.scale};
    store_rows<HEAD_DIM>(p.dq + p.q_at(at.sequence, at.head), p.q_stride, warp_row, p.t, dq, scale);
}

// Statistics of a tile of queries.
struct Statistics {
    float log_sum_exp[BLOCK], delta[BLOCK];
    u32 document_start[DOCUMENTS ? BLOCK : 1];
};

// dk and dv, summed over the query heads that share them, in their order. All scores are transposed: rows are keys.
extern "C" __global__ __launch_bounds__(THREADS) void attention_mma_backward_keys(const Parameters p) {
    const int n_tiles = (p.n_keys + ROWS - 1) / ROWS, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const Place at(blockIdx.x / PARTS, n_tiles, p.g, p.b, false);
    const int part = blockIdx.x % PARTS, group = p.h / p.g;
    const int first_key = at.tile * ROWS, last_key = first_key + ROWS - 1, warp_key = first_key + 16 * warp;
    bf16* k_tile = reinterpret_cast<bf16*>(memory);
    bf16* v_tile = k_tile + ROWS * K_STRIDE;
    bf16* ring = v_tile + ROWS * V_STRIDE; // queries, then gradients of outputs
    Statistics* statistics = reinterpret_cast<Statistics*>(ring + STAGES * SLOT);

    // Tiles of queries that see any of the keys.
    int first_tile = 0, end_tile = (p.t + BLOCK - 1) / BLOCK;
    if (CAUSAL) first_tile = first_key / BLOCK;
    if (WINDOW && !CAUSAL) first_tile = max(0, first_key - p.window + 1) / BLOCK;
    if (WINDOW) end_tile = min(end_tile, (last_key + p.window - 1) / BLOCK + 1);
    if (DOCUMENTS) {
        // The first tile that begins in a later document.
        int low = min(first_tile, end_tile);
        while (low < end_tile) {
            int middle = (low + end_tile) / 2;
            if (visible(p, at.sequence, middle * BLOCK).first > last_key)
                end_tile = middle;
            else
                low = middle + 1;
        }
    }
    const int tiles = max(0, end_tile - first_tile);
    const float to_log2 = p.to_log2();

    auto copy = [&](int step, int slot) {
        const int head = at.head * group + step / tiles, first = (first_tile + step % tiles) * BLOCK;
        copy_tile<BLOCK, HEAD_DIM>(ring + slot * SLOT, p.q + p.q_at(at.sequence, head), p.q_stride, first, p.t);
        copy_tile<BLOCK, V_HEAD_DIM>(ring + slot * SLOT + K_TILE, p.dy_bthe + p.y_at(at.sequence, head), p.y_stride(), first,
                                     p.t);
        const u64 from = p.statistics_at(at.sequence, head);
        for (int i = threadIdx.x; i < BLOCK; i += THREADS) {
            const bool exists = first + i < p.t;
            const int row = exists ? first + i : 0;
            copy_async_word(&statistics[slot].log_sum_exp[i], p.log_sum_exp_bht + from + row, exists);
            copy_async_word(&statistics[slot].delta[i], p.delta_bht + from + row, exists);
            if (DOCUMENTS)
                copy_async_word(&statistics[slot].document_start[DOCUMENTS ? i : 0],
                                p.document_start_bt + u64(at.sequence) * p.t + row, exists);
        }
    };
    float dk[K_PART / 8][4] = {}, dv[V_PART / 8][4] = {};
    auto compute = [&](int step, int slot) {
        const int first = (first_tile + step % tiles) * BLOCK, last = first + BLOCK - 1;
        if (CAUSAL && last < warp_key) return;
        const float alibi = ALIBI ? p.slopes_h[at.head * group + step / tiles] : 0.f;
        const bf16* q_tile = ring + slot * SLOT;
        const bf16* dy_tile = q_tile + K_TILE;
        float s[BLOCK / 8][4], ds[BLOCK / 8][4];
        dot_rows<BLOCK, HEAD_DIM>(
            s, [&](u32 (&a)[4], int i) { load_rows<HEAD_DIM>(a, k_tile + 16 * warp * K_STRIDE, i); }, q_tile);
        dot_rows<BLOCK, V_HEAD_DIM>(
            ds, [&](u32 (&a)[4], int i) { load_rows<V_HEAD_DIM>(a, v_tile + 16 * warp * V_STRIDE, i); }, dy_tile);

        const bool some_hidden = DOCUMENTS || last >= p.t || (CAUSAL && first < warp_key + 15) ||
                                 (WINDOW && (last - warp_key >= p.window || warp_key + 15 - first >= p.window));
        const Statistics& of = statistics[slot];
#pragma unroll
        for (int n = 0; n < BLOCK / 8; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int column = n * 8 + lane % 4 * 2 + i % 2, row = first + column;
                const int key = warp_key + lane / 4 + i / 2 * 8, distance = row - key;
                float slope;
                float x = score(p, alibi, distance, s[n][i], slope);
                x = exp2_approx(x * to_log2 - of.log_sum_exp[column] * LOG2_E);
                if (some_hidden) {
                    bool hidden = row >= p.t || (CAUSAL && distance < 0);
                    if (WINDOW) hidden = hidden || abs(distance) >= p.window;
                    if (DOCUMENTS) hidden = hidden || key < int(min(of.document_start[DOCUMENTS ? column : 0], u32(row)));
                    if (hidden) x = 0.f;
                }
                s[n][i] = x;
                ds[n][i] = x * (ds[n][i] - of.delta[column]) * slope;
            }
        u32 rounded[BLOCK / 16][4];
        round_to_bf16<BLOCK>(rounded, s);
        add_product<BLOCK, V_PART, V_HEAD_DIM>(dv, rounded, dy_tile + part * V_PART);
        round_to_bf16<BLOCK>(rounded, ds);
        add_product<BLOCK, K_PART, HEAD_DIM>(dk, rounded, q_tile + part * K_PART);
    };

    copy_tile<ROWS, HEAD_DIM>(k_tile, p.k + p.k_at(at.sequence, at.head), p.k_stride, first_key, p.n_keys);
    copy_tile<ROWS, V_HEAD_DIM>(v_tile, p.v + p.v_at(at.sequence, at.head), p.v_stride, first_key, p.n_keys);
    pipeline(group * tiles, copy, compute);

    const float scale[2] = {p.scale, p.scale}, one[2] = {1.f, 1.f};
    bf16* dk_to = p.dk + p.k_at(at.sequence, at.head) + part * K_PART;
    bf16* dv_to = p.dv + p.v_at(at.sequence, at.head) + part * V_PART;
    store_rows<K_PART>(dk_to, p.k_stride, warp_key, p.n_keys, dk, scale);
    store_rows<V_PART>(dv_to, p.v_stride, warp_key, p.n_keys, dv, one);
}
