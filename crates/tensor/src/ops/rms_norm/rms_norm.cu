// Each row is read once, into registers.

template <bool ADD>
__device__ __forceinline__ void forward(
    T* y, float* inv_rms, T* sum, const T* x, const T* addend, const T* addend_bias, const float* gain, u32 n,
    float eps) {
    u64 row = row_of_team();
    if (row >= n) return; // the whole team
    Row<T> values;
    values.load_from(x + row * D);
    if constexpr (ADD) add_and_keep(values, sum + row * D, addend + row * D, addend_bias);
    float squares[1] = {};
    EACH_VECTOR(i) EACH_ELEMENT(j) squares[0] += values[i][j] * values[i][j];
    sum_over_team(squares, 0);
    values.forget();
    float r = rsqrtf(squares[0] / D + eps);
    if (threadIdx.x % TEAM == 0) inv_rms[row] = r;
    EACH_VECTOR(i) {
        float g[WIDTH], out[WIDTH];
        load(g, gain + column(i));
        EACH_ELEMENT(j) out[j] = g[j] * (values[i][j] * r);
        store(y + row * D + column(i), out);
    }
}

extern "C" __global__ __launch_bounds__(BLOCK) void rms_norm_forward(
    T* y, float* inv_rms, const T* x, const float* gain, u32 n, float eps) {
    wait_for_kernels_before();
    forward<false>(y, inv_rms, nullptr, x, nullptr, nullptr, gain, n, eps);
}

extern "C" __global__ __launch_bounds__(BLOCK) void add_rms_norm_forward(
    T* y, float* inv_rms, T* sum, const T* x, const T* addend, const T* addend_bias, const float* gain, u32 n,
    float eps) {
    wait_for_kernels_before();
    forward<true>(y, inv_rms, sum, x, addend, addend_bias, gain, n, eps);
}

// dx <- beta * dx + the gradient of x. Each block walks the rows and leaves its part of dgain in partial[block], and with
// COLUMN_SUMS that of the sums of the columns of dx in partial[gridDim.x + block]; `sum_partials` adds those up in a fixed
// order.
extern "C" __global__ __launch_bounds__(BLOCK, RESIDENT) void rms_norm_backward(
    G* dx, float beta, float* partial, const T* dy, const T* x, const float* gain, const float* inv_rms, u32 n) {
    wait_for_kernels_before();
    float dgain[VECTORS][WIDTH] = {}, sums[VECTORS][WIDTH] = {};
    const u64 step = u64(gridDim.x) * TEAMS;
    auto fetch = [&](u64 row, int stage) {
        if (row < n) {
            fetch_row(stage, 0, dy + row * D);
            fetch_row(stage, 1, x + row * D);
            if (beta != 0.f) fetch_row(stage, 2, dx + row * D);
        }
        end_group();
    };
    u64 row = row_of_team();
    for (int stage = 0; stage < STAGES; ++stage) fetch(row + stage * step, stage);
    float r = row < n ? inv_rms[row] : 0.f;
    for (int slot = 0, stage = 0; row < n; row += step, slot ^= 1) {
        float next_r = inv_rms[row + step < n ? row + step : row]; // a row ahead: nothing waits for it
        Row<T> dys, xs;
        Row<G> old;
        if constexpr (STAGES > 0) {
            wait_for_oldest();
            dys.take_from(stage, 0);
            xs.take_from(stage, 1);
        } else {
            dys.load_from(dy + row * D);
            xs.load_from(x + row * D);
            if (beta != 0.f) old.load_from(dx + row * D);
        }
        float dot[1] = {};
        EACH_VECTOR(i) {
            float g[WIDTH];
            load(g, gain + column(i));
            EACH_ELEMENT(j) dot[0] += g[j] * dys[i][j] * xs[i][j];
        }
        sum_over_team(dot, slot);
        dys.forget();
        xs.forget();
        if (beta == 0.f) old.clear();
        float mean = dot[0] * r / D; // of g * dy * x_hat
        EACH_VECTOR(i) {
            float g[WIDTH], out[WIDTH];
            if constexpr (STAGES > 0) {
                asm volatile("" ::: "memory"); // taken again, one at a time, instead of being kept in registers
                dys.take_vector_from(stage, 0, i);
                xs.take_vector_from(stage, 1, i);
                if (beta != 0.f) old.take_vector_from(stage, 2, i);
            }
            load(g, gain + column(i));
            EACH_ELEMENT(j) {
                float x_hat = xs[i][j] * r;
                dgain[i][j] += dys[i][j] * x_hat;
                out[j] = beta * old[i][j] + (g[j] * dys[i][j] - x_hat * mean) * r;
                if (COLUMN_SUMS) sums[i][j] += out[j];
            }
            store(dx + row * D + column(i), out);
        }
        if constexpr (STAGES > 0) {
            fetch(row + STAGES * step, stage);
            stage = stage + 1 == STAGES ? 0 : stage + 1;
        }
        r = next_r;
    }
    add_up_teams(partial + u64(blockIdx.x) * D, dgain);
    if (COLUMN_SUMS) add_up_teams(partial + (u64(gridDim.x) + blockIdx.x) * D, sums);
}
