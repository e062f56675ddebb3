// The backward pass as two kernels, as in attention_mma_backward.cu.

// dq, and delta for the kernel below.
extern "C" __global__ __launch_bounds__(THREADS) void attention_fma_backward_queries(const Parameters p) {
    const Place at((p.t + OWN - 1) / OWN, p.h, p.b, CAUSAL);
    const int kv_head = at.head / (p.h / p.g), first_row = at.tile * OWN, row = threadIdx.x / 16, lane = threadIdx.x % 16;
    float* q_tile = reinterpret_cast<float*>(memory);
    float* dy_tile = q_tile + OWN * K_STRIDE;
    float* k_tile = dy_tile + OWN * V_STRIDE;
    float* v_tile = k_tile + BLOCK * K_STRIDE;
    float* scores = v_tile + BLOCK * V_STRIDE;
    const T* k = p.k + p.k_at(at.sequence, kv_head);
    const T* v = p.v + p.v_at(at.sequence, kv_head);
    const int first_tile = visible(p, at.sequence, first_row).first / BLOCK;
    const int last_tile = visible(p, at.sequence, first_row + OWN - 1).last / BLOCK;
    const float alibi = ALIBI ? p.slopes_h[at.head] : 0.f, to_log2 = p.to_log2();

    load_tile<OWN, HEAD_DIM>(q_tile, p.q + p.q_at(at.sequence, at.head), p.q_stride, first_row, p.t);
    load_tile<OWN, V_HEAD_DIM>(dy_tile, p.dy_bthe + p.y_at(at.sequence, at.head), p.y_stride(), first_row, p.t);
    __syncthreads();
    Visible keys[DEPTH];
    float dq[DEPTH][K_CHUNKS][4] = {}, delta[DEPTH], log_sum_exp[DEPTH], scale[DEPTH];
#pragma unroll
    for (int r = 0; r < DEPTH; ++r) {
        const int at_row = first_row + row + 16 * r;
        const u64 statistic = p.statistics_at(at.sequence, at.head) + at_row;
        keys[r] = visible(p, at.sequence, at_row);
        scale[r] = p.scale;
        delta[r] = log_sum_exp[r] = 0.f;
        if (at_row < p.t) {
            const T* y = p.y_bthe + p.y_at(at.sequence, at.head) + u64(at_row) * p.y_stride();
            for (int e = lane; e < V_HEAD_DIM; e += 16) delta[r] += to_float(y[e]) * dy_tile[(row + 16 * r) * V_STRIDE + e];
            log_sum_exp[r] = p.log_sum_exp_bht[statistic] * LOG2_E;
        }
        delta[r] = reduce_row<Sum>(delta[r]);
        if (lane == 0 && at_row < p.t) p.delta_bht[statistic] = delta[r];
    }

    for (int tile = first_tile; tile <= last_tile; ++tile) {
        const int first = tile * BLOCK;
        __syncthreads();
        load_tile<BLOCK, HEAD_DIM>(k_tile, k, p.k_stride, first, p.n_keys);
        load_tile<BLOCK, V_HEAD_DIM>(v_tile, v, p.v_stride, first, p.n_keys);
        __syncthreads();
        float s[DEPTH][BREADTH], ds[DEPTH][BREADTH];
        dot_rows<HEAD_DIM>(s, q_tile, k_tile);
        dot_rows<V_HEAD_DIM>(ds, dy_tile, v_tile);
#pragma unroll
        for (int r = 0; r < DEPTH; ++r)
#pragma unroll
            for (int c = 0; c < BREADTH; ++c) {
                const int key = first + lane + 16 * c;
                float slope;
                float x = score(p, alibi, p.past + first_row + row + 16 * r - key, s[r][c], slope);
                x = exp2f(x * to_log2 - log_sum_exp[r]);
                if (key < keys[r].first || key > keys[r].last) x = 0.f;
                ds[r][c] = x * (ds[r][c] - delta[r]) * slope;
            }
        __syncwarp();
        put_scores(scores, ds);
        __syncwarp();
        add_product<HEAD_DIM>(dq, scores, k_tile);
    }
    store_rows<HEAD_DIM>(p.dq + p.q_at(at.sequence, at.head), p.q_stride, first_row, p.t, dq, scale);
}

// dk and dv, summed over the query heads that share them, in their order. All scores are transposed: rows are keys.
extern "C" __global__ __launch_bounds__(THREADS) void attention_fma_backward_keys(const Parameters p) {
    const Place at((p.n_keys + OWN - 1) / OWN, p.g, p.b, false);
    const int first_key = at.tile * OWN, last_key = first_key + OWN - 1, row = threadIdx.x / 16, lane = threadIdx.x % 16;
    const int group = p.h / p.g;
    float* k_tile = reinterpret_cast<float*>(memory);
    float* v_tile = k_tile + OWN * K_STRIDE;
    float* q_tile = v_tile + OWN * V_STRIDE;
    float* dy_tile = q_tile + BLOCK * K_STRIDE;
    float* scores = dy_tile + BLOCK * V_STRIDE;
    const float to_log2 = p.to_log2();

    load_tile<OWN, HEAD_DIM>(k_tile, p.k + p.k_at(at.sequence, at.head), p.k_stride, first_key, p.n_keys);
    load_tile<OWN, V_HEAD_DIM>(v_tile, p.v + p.v_at(at.sequence, at.head), p.v_stride, first_key, p.n_keys);
    float dk[DEPTH][K_CHUNKS][4] = {}, dv[DEPTH][V_CHUNKS][4] = {}, scale[DEPTH], one[DEPTH];
#pragma unroll
    for (int r = 0; r < DEPTH; ++r) {
        scale[r] = p.scale;
        one[r] = 1.f;
    }
    const int n_tiles = (p.t + BLOCK - 1) / BLOCK;
    for (int head = at.head * group; head < (at.head + 1) * group; ++head) {
        const float alibi = ALIBI ? p.slopes_h[head] : 0.f;
        const float* of_rows = p.log_sum_exp_bht + p.statistics_at(at.sequence, head);
        const float* deltas = p.delta_bht + p.statistics_at(at.sequence, head);
        for (int tile = CAUSAL ? first_key / BLOCK : 0; tile < n_tiles; ++tile) {
            const int first = tile * BLOCK;
            if (visible(p, at.sequence, first + BLOCK - 1).last < first_key) continue; // none of these keys yet
            if (visible(p, at.sequence, first).first > last_key) break;                // none of them any more
            __syncthreads();
            load_tile<BLOCK, HEAD_DIM>(q_tile, p.q + p.q_at(at.sequence, head), p.q_stride, first, p.t);
            load_tile<BLOCK, V_HEAD_DIM>(dy_tile, p.dy_bthe + p.y_at(at.sequence, head), p.y_stride(), first, p.t);
            __syncthreads();
            float s[DEPTH][BREADTH], ds[DEPTH][BREADTH];
            dot_rows<HEAD_DIM>(s, k_tile, q_tile);
            dot_rows<V_HEAD_DIM>(ds, v_tile, dy_tile);
#pragma unroll
            for (int c = 0; c < BREADTH; ++c) {
                const int query = first + lane + 16 * c;
                const bool exists = query < p.t;
                const Visible keys = visible(p, at.sequence, query);
                const float log_sum_exp = exists ? of_rows[query] * LOG2_E : 0.f, delta = exists ? deltas[query] : 0.f;
#pragma unroll
                for (int r = 0; r < DEPTH; ++r) {
                    const int key = first_key + row + 16 * r;
                    float slope;
                    float x = score(p, alibi, p.past + query - key, s[r][c], slope);
                    x = exp2f(x * to_log2 - log_sum_exp);
                    if (!exists || key < keys.first || key > keys.last) x = 0.f;
                    s[r][c] = x;
                    ds[r][c] = x * (ds[r][c] - delta) * slope;
                }
            }
            __syncwarp();
            put_scores(scores, s);
            __syncwarp();
            add_product<V_HEAD_DIM>(dv, scores, dy_tile);
            __syncwarp();
            put_scores(scores, ds);
            __syncwarp();
            add_product<HEAD_DIM>(dk, scores, q_tile);
        }
    }
    store_rows<HEAD_DIM>(p.dk + p.k_at(at.sequence, at.head), p.k_stride, first_key, p.n_keys, dk, scale);
    store_rows<V_HEAD_DIM>(p.dv + p.v_at(at.sequence, at.head), p.v_stride, first_key, p.n_keys, dv, one);
}
