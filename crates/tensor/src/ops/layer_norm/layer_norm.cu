// Each row is read once, into registers; the variance is summed around the mean, so that a large mean cancels exactly.

template <bool ADD>
__device__ __forceinline__ void forward(
    T* y, float* mean, float* inv_std, T* sum, const T* x, const T* addend, const T* addend_bias, const float* gain,
    const float* bias, u32 n, float eps) {
    u64 row = row_of_team();
    if (row >= n) return; // the whole team
    Row<T> values;
    values.load_from(x + row * D);
    if constexpr (ADD) add_and_keep(values, sum + row * D, addend + row * D, addend_bias);
    float total[1] = {};
    EACH_VECTOR(i) EACH_ELEMENT(j) total[0] += values[i][j];
    sum_over_team(total, 0);
    values.forget();
    float m = total[0] / D;
    float squares[1] = {};
    EACH_VECTOR(i) EACH_ELEMENT(j) squares[0] += (values[i][j] - m) * (values[i][j] - m);
    sum_over_team(squares, 1);
    values.forget();
    float r = rsqrtf(squares[0] / D + eps);
    if (threadIdx.x % TEAM == 0) {
        mean[row] = m;
        inv_std[row] = r;
    }
    EACH_VECTOR(i) {
        float g[WIDTH], b[WIDTH] = {}, out[WIDTH];
        asm volatile("" ::: "memory"); // parameters of one vector at a time are enough registers
        load(g, gain + column(i));
        if (bias) load(b, bias + column(i));
        EACH_ELEMENT(j) out[j] = g[j] * ((values[i][j] - m) * r) + b[j];
        store(y + row * D + column(i), out);
    }
}

// A row passes through two reductions, each of which is waited for: more rows at a time keep the memory busy.
constexpr int FORWARD_BLOCKS = sizeof(T) == 2 && BLOCK == 256 ? 6 : 1; // of a multiprocessor, at the least

extern "C" __global__ __launch_bounds__(BLOCK, FORWARD_BLOCKS) void layer_norm_forward(
    T* y, float* mean, float* inv_std, const T* x, const float* gain, const float* bias, u32 n, float eps) {
    wait_for_kernels_before();
    forward<false>(y, mean, inv_std, nullptr, x, nullptr, nullptr, gain, bias, n, eps);
}

extern "C" __global__ __launch_bounds__(BLOCK) void add_layer_norm_forward(
    T* y, float* mean, float* inv_std, T* sum, const T* x, const T* addend, const T* addend_bias, const float* gain,
    const float* bias, u32 n, float eps) {
    wait_for_kernels_before();
    forward<true>(y, mean, inv_std, sum, x, addend, addend_bias, gain, bias, n, eps);
}

// dx <- beta * dx + the gradient of x. Each block walks the rows and leaves its part of dgain in partial[block], that of
// dbias in partial[gridDim.x + block], and with COLUMN_SUMS that of the sums of the columns of dx in
// partial[2 * gridDim.x + block]; `sum_partials` adds those up in a fixed order.
extern "C" __global__ __launch_bounds__(BLOCK, RESIDENT) void layer_norm_backward(
    G* dx, float beta, float* partial, const T* dy, const T* x, const float* gain, const float* mean,
    const float* inv_std, u32 n) {
    wait_for_kernels_before();
    float dgain[VECTORS][WIDTH] = {}, dbias[VECTORS][WIDTH] = {}, sums[VECTORS][WIDTH] = {};
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
    float m = row < n ? mean[row] : 0.f, r = row < n ? inv_std[row] : 0.f;
    for (int slot = 0, stage = 0; row < n; row += step, slot ^= 1) {
        // Read a row ahead: nothing waits for them.
        u64 next = row + step < n ? row + step : row;
        float next_m = mean[next], next_r = inv_std[next];
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
        float means[2] = {}; // of g and g * x_hat, with g = gain * dy
        EACH_VECTOR(i) {
            float g[WIDTH];
            load(g, gain + column(i));
            EACH_ELEMENT(j) {
                float g_dy = g[j] * dys[i][j];
                means[0] += g_dy;
                means[1] += g_dy * (xs[i][j] - m);
            }
        }
        sum_over_team(means, slot);
        dys.forget();
        xs.forget();
        if (beta == 0.f) old.clear();
        means[0] = means[0] / D;
        means[1] = means[1] * r / D;
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
                float x_hat = (xs[i][j] - m) * r;
                dgain[i][j] += dys[i][j] * x_hat;
                dbias[i][j] += dys[i][j];
                out[j] = beta * old[i][j] + (g[j] * dys[i][j] - means[0] - x_hat * means[1]) * r;
                if (COLUMN_SUMS) sums[i][j] += out[j];
            }
            store(dx + row * D + column(i), out);
        }
        if constexpr (STAGES > 0) {
            fetch(row + STAGES * step, stage);
            stage = stage + 1 == STAGES ? 0 : stage + 1;
        }
        m = next_m;
        r = next_r;
    }
    add_up_teams(partial + u64(blockIdx.x) * D, dgain);
    add_up_teams(partial + (u64(gridDim.x) + blockIdx.x) * D, dbias);
    if (COLUMN_SUMS) add_up_teams(partial + (2 * u64(gridDim.x) + blockIdx.x) * D, sums);
}
