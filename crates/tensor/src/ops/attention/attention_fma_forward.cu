// The forward pass, as algorithm 1 of FlashAttention-2.

extern "C" __global__ __launch_bounds__(THREADS) void attention_fma_forward(const Parameters p) {
    const Place at((p.t + OWN - 1) / OWN, p.h, p.b, CAUSAL);
    const int kv_head = at.head / (p.h / p.g), first_row = at.tile * OWN, row = threadIdx.x / 16, lane = threadIdx.x % 16;
    float* q_tile = reinterpret_cast<float*>(memory);
    float* k_tile = q_tile + OWN * K_STRIDE;
    float* v_tile = k_tile + BLOCK * K_STRIDE;
    float* scores = v_tile + BLOCK * V_STRIDE;
    const T* k = p.k + p.k_at(at.sequence, kv_head);
    const T* v = p.v + p.v_at(at.sequence, kv_head);
    const int first_tile = visible(p, at.sequence, first_row).first / BLOCK;
    const int last_tile = visible(p, at.sequence, first_row + OWN - 1).last / BLOCK;
    const float alibi = ALIBI ? p.slopes_h[at.head] : 0.f, to_log2 = p.to_log2();
    Visible keys[DEPTH];
    float y[DEPTH][V_CHUNKS][4] = {}, largest[DEPTH], sum[DEPTH];
#pragma unroll
    for (int r = 0; r < DEPTH; ++r) {
        keys[r] = visible(p, at.sequence, first_row + row + 16 * r);
        largest[r] = minus_infinity();
        sum[r] = 0.f;
    }

    load_tile<OWN, HEAD_DIM>(q_tile, p.q + p.q_at(at.sequence, at.head), p.q_stride, first_row, p.t);
    for (int tile = first_tile; tile <= last_tile; ++tile) {
        const int first = tile * BLOCK;
        __syncthreads(); // no warp is at the tile before
        load_tile<BLOCK, HEAD_DIM>(k_tile, k, p.k_stride, first, p.n_keys);
        load_tile<BLOCK, V_HEAD_DIM>(v_tile, v, p.v_stride, first, p.n_keys);
        __syncthreads();
        float s[DEPTH][BREADTH];
        dot_rows<HEAD_DIM>(s, q_tile, k_tile);
#pragma unroll
        for (int r = 0; r < DEPTH; ++r) {
            float now = largest[r];
#pragma unroll
            for (int c = 0; c < BREADTH; ++c) {
                const int key = first + lane + 16 * c;
                float slope;
                s[r][c] = score(p, alibi, p.past + first_row + row + 16 * r - key, s[r][c], slope);
                if (key < keys[r].first || key > keys[r].last) s[r][c] = minus_infinity();
                now = fmaxf(now, s[r][c]);
            }
            now = reduce_row<Max>(now);
            // A row may see none of the keys so far.
            const float offset = now == minus_infinity() ? 0.f : now * to_log2;
            const float factor = exp2f(largest[r] * to_log2 - offset);
            largest[r] = now;
            sum[r] *= factor;
#pragma unroll
            for (int c = 0; c < BREADTH; ++c) {
                s[r][c] = exp2f(s[r][c] * to_log2 - offset);
                sum[r] += s[r][c];
            }
#pragma unroll
            for (int c = 0; c < V_CHUNKS; ++c)
#pragma unroll
                for (int i = 0; i < 4; ++i) y[r][c][i] *= factor;
        }
        __syncwarp(); // the warp's scores of the tile before are read
        put_scores(scores, s);
        __syncwarp();
        add_product<V_HEAD_DIM>(y, scores, v_tile);
    }
    float inverse[DEPTH];
#pragma unroll
    for (int r = 0; r < DEPTH; ++r) {
        sum[r] = reduce_row<Sum>(sum[r]);
        inverse[r] = 1.f / sum[r];
        const int at_row = first_row + row + 16 * r;
        if (lane == 0 && at_row < p.t)
            p.log_sum_exp_bht[p.statistics_at(at.sequence, at.head) + at_row] =
                largest[r] * to_log2 * LN_2 + logf(sum[r]);
    }
    store_rows<V_HEAD_DIM>(p.y_bthe + p.y_at(at.sequence, at.head), p.y_stride(), first_row, p.t, y, inverse);
}
