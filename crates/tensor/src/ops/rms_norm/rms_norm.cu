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
    forward<false>(y, inv_rms, nullptr, x, nullptr, nullptr, gain, n, eps);
}

extern "C" __global__ __launch_bounds__(BLOCK) void add_rms_norm_forward(
    T* y, float* inv_rms, T* sum, const T* x, const T* addend, const T* addend_bias, const float* gain, u32 n,
    float eps) {
    forward<true>(y, inv_rms, sum, x, addend, addend_bias, gain, n, eps);
}

// dx <- beta * dx + the gradient of x. Each block walks the rows and leaves its part of dgain in partial[block], and with
// COLUMN_SUMS that of the sums of the columns of dx in partial[gridDim.x + block]; `sum_partials` adds those up in a fixed
// order.
extern "C" __global__ __launch_bounds__(BLOCK, RESIDENT) void rms_norm_backward(
    G* dx, float beta, float* partial, const T* dy, const T* x, const float* gain, const float* inv_rms, u32 n) {
    float dgain[VECTORS][WIDTH] = {}, sums[VECTORS][WIDTH] = {};
    int slot = 0;
    for (u64 row = row_of_team(); row < n; row += u64(gridDim.x) * TEAMS, slot ^= 1) {
        Row<T> dys, xs;
        Row<G> old;
        dys.load_from(dy + row * D);
        xs.load_from(x + row * D);
        if (beta != 0.f) old.load_from(dx + row * D);
        else old.clear();
        float r = inv_rms[row];
        float dot[1] = {};
        EACH_VECTOR(i) {
            float g[WIDTH];
            load(g, gain + column(i));
            EACH_ELEMENT(j) dot[0] += g[j] * dys[i][j] * xs[i][j];
        }
        sum_over_team(dot, slot);
        dys.forget();
        xs.forget();
        float mean = dot[0] * r / D; // of g * dy * x_hat
        EACH_VECTOR(i) {
            float g[WIDTH], out[WIDTH];
            load(g, gain + column(i));
            EACH_ELEMENT(j) {
                float x_hat = xs[i][j] * r;
                dgain[i][j] += dys[i][j] * x_hat;
                out[j] = beta * old[i][j] + (g[j] * dys[i][j] - x_hat * mean) * r;
                if (COLUMN_SUMS) sums[i][j] += out[j];
            }
            store(dx + row * D + column(i), out);
        }
    }
    add_up_teams(partial + u64(blockIdx.x) * D, dgain);
    if (COLUMN_SUMS) add_up_teams(partial + (u64(gridDim.x) + blockIdx.x) * D, sums);
}
