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

// With three sums for each column, registers do not suffice for dy until it is needed again: it comes from the L1 then.
constexpr bool READ_AGAIN = COLUMN_SUMS && VECTORS * WIDTH > 16;

// dx <- beta * dx + the gradient of x. Each block walks the rows and leaves its part of dgain in partial[block], that of
// dbias in partial[gridDim.x + block], and with COLUMN_SUMS that of the sums of the columns of dx in
// partial[2 * gridDim.x + block]; `sum_partials` adds those up in a fixed order.
extern "C" __global__ __launch_bounds__(BLOCK, RESIDENT) void layer_norm_backward(
    G* dx, float beta, float* partial, const T* dy, const T* x, const float* gain, const float* mean,
    const float* inv_std, u32 n) {
    float dgain[VECTORS][WIDTH] = {}, dbias[VECTORS][WIDTH] = {}, sums[VECTORS][WIDTH] = {};
    int slot = 0;
    for (u64 row = row_of_team(); row < n; row += u64(gridDim.x) * TEAMS, slot ^= 1) {
        Row<T> dys, xs;
        Row<G> old;
        dys.load_from(dy + row * D);
        xs.load_from(x + row * D);
        if (beta != 0.f) old.load_from(dx + row * D);
        else old.clear();
        float m = mean[row], r = inv_std[row];
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
        means[0] = means[0] / D;
        means[1] = means[1] * r / D;
        EACH_VECTOR(i) {
            float g[WIDTH], out[WIDTH];
            load(g, gain + column(i));
            if constexpr (READ_AGAIN) {
                asm volatile("" ::: "memory"); // one vector at a time
                load(dys.vectors[i], dy + row * D + column(i));
            }
            EACH_ELEMENT(j) {
                float x_hat = (xs[i][j] - m) * r;
                dgain[i][j] += dys[i][j] * x_hat;
                dbias[i][j] += dys[i][j];
                out[j] = beta * old[i][j] + (g[j] * dys[i][j] - means[0] - x_hat * means[1]) * r;
                if (COLUMN_SUMS) sums[i][j] += out[j];
            }
            store(dx + row * D + column(i), out);
        }
    }
    add_up_teams(partial + u64(blockIdx.x) * D, dgain);
    add_up_teams(partial + (u64(gridDim.x) + blockIdx.x) * D, dbias);
    if (COLUMN_SUMS) add_up_teams(partial + (2 * u64(gridDim.x) + blockIdx.x) * D, sums);
}
