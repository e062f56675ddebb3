// Each row is read once, into registers; the variance is summed around the mean, so that a large mean cancels exactly.

#if !BACKWARD

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
        load(g, gain + column(i));
        if (bias) load(b, bias + column(i));
        EACH_ELEMENT(j) out[j] = g[j] * ((values[i][j] - m) * r) + b[j];
        store(y + row * D + column(i), out);
    }
}

extern "C" __global__ __launch_bounds__(BLOCK) void layer_norm_forward(
    T* y, float* mean, float* inv_std, const T* x, const float* gain, const float* bias, u32 n, float eps) {
    forward<false>(y, mean, inv_std, nullptr, x, nullptr, nullptr, gain, bias, n, eps);
}

extern "C" __global__ __launch_bounds__(BLOCK) void add_layer_norm_forward(
    T* y, float* mean, float* inv_std, T* sum, const T* x, const T* addend, const T* addend_bias, const float* gain,
    const float* bias, u32 n, float eps) {
    forward<true>(y, mean, inv_std, sum, x, addend, addend_bias, gain, bias, n, eps);
}

#else

// What backward reads of a row.
struct Inputs {
    Row<T> dys, xs;
    Row<G> old;
    float m, r;

    __device__ __forceinline__ void load_from(
        const T* dy, const T* x, const G* dx, const float* mean, const float* inv_std, u64 row, bool adds) {
        dys.load_from(dy + row * D);
        xs.load_from(x + row * D);
        if (adds) old.load_from(dx + row * D);
        m = mean[row], r = inv_std[row];
    }
};

// dx <- beta * dx + the gradient of x. Each block walks the rows, of which each team has the next one under way, and leaves
// its part of dgain in partial[block], that of dbias in partial[gridDim.x + block], and with COLUMN_SUMS that of the sums of
// the columns of dx in partial[2 * gridDim.x + block]; at the end they are joined in a fixed order. No more blocks than
// multiprocessors.
extern "C" __global__ __launch_bounds__(BLOCK, 1) void layer_norm_backward(
    G* dx, float beta, float* dgain, float* dbias, float* sums, float* partial, const T* dy, const T* x, const float* gain,
    const float* mean, const float* inv_std, u32 n) {
    float gains[VECTORS][WIDTH];
    float of_gain[VECTORS][WIDTH] = {}, of_bias[VECTORS][WIDTH] = {}, of_columns[VECTORS][WIDTH] = {};
    EACH_VECTOR(i) load(gains[i], gain + column(i));
    const u64 step = u64(gridDim.x) * TEAMS;
    u64 row = row_of_team();
    Inputs next;
    next.old.clear();
    if (row < n) next.load_from(dy, x, dx, mean, inv_std, row, beta != 0.f);
    for (int slot = 0; row < n; row += step, slot ^= 1) {
        Inputs now = next;
        if (row + step < n) next.load_from(dy, x, dx, mean, inv_std, row + step, beta != 0.f);
        float m = now.m, r = now.r;
        float means[2] = {}; // of g and g * x_hat, with g = gain * dy
        EACH_VECTOR(i) EACH_ELEMENT(j) {
            float g_dy = gains[i][j] * now.dys[i][j];
            means[0] += g_dy;
            means[1] += g_dy * (now.xs[i][j] - m);
        }
        sum_over_team(means, slot);
        now.dys.forget();
        now.xs.forget();
        means[0] = means[0] / D;
        means[1] = means[1] * r / D;
        EACH_VECTOR(i) {
            float out[WIDTH];
            EACH_ELEMENT(j) {
                float x_hat = (now.xs[i][j] - m) * r;
                of_gain[i][j] += now.dys[i][j] * x_hat;
                of_bias[i][j] += now.dys[i][j];
                out[j] = beta * now.old[i][j] + (gains[i][j] * now.dys[i][j] - means[0] - x_hat * means[1]) * r;
                if (COLUMN_SUMS) of_columns[i][j] += out[j];
            }
            store(dx + row * D + column(i), out);
        }
    }
    add_up_teams(partial + u64(blockIdx.x) * D, of_gain);
    add_up_teams(partial + (u64(gridDim.x) + blockIdx.x) * D, of_bias);
#if COLUMN_SUMS
    add_up_teams(partial + (2 * u64(gridDim.x) + blockIdx.x) * D, of_columns);
    join_blocks<3>({dgain, dbias, sums}, partial);
#else
    join_blocks<2>({dgain, dbias}, partial);
#endif
}

#endif
