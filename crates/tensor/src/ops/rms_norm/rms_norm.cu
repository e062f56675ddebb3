// Each row is read once, into registers.

#if !BACKWARD

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

#else

// What backward reads of a row.
struct Inputs {
    Row<T> dys, xs;
    Row<G> old;
    float r;

    __device__ __forceinline__ void load_from(const T* dy, const T* x, const G* dx, const float* inv_rms, u64 row, bool adds) {
        dys.load_from(dy + row * D);
        xs.load_from(x + row * D);
        if (adds) old.load_from(dx + row * D);
        r = inv_rms[row];
    }
};

// dx <- beta * dx + the gradient of x. Each block walks the rows, of which each team has the next one under way, and leaves
// its part of dgain in partial[block], and with COLUMN_SUMS that of the sums of the columns of dx in
// partial[gridDim.x + block]; at the end they are joined in a fixed order. No more blocks than multiprocessors.
extern "C" __global__ __launch_bounds__(BLOCK, 1) void rms_norm_backward(
    G* dx, float beta, float* dgain, float* sums, float* partial, const T* dy, const T* x, const float* gain,
    const float* inv_rms, u32 n) {
    float gains[VECTORS][WIDTH], of_gain[VECTORS][WIDTH] = {}, of_columns[VECTORS][WIDTH] = {};
    EACH_VECTOR(i) load(gains[i], gain + column(i));
    const u64 step = u64(gridDim.x) * TEAMS;
    u64 row = row_of_team();
    Inputs next;
    next.old.clear();
    if (row < n) next.load_from(dy, x, dx, inv_rms, row, beta != 0.f);
    for (int slot = 0; row < n; row += step, slot ^= 1) {
        Inputs now = next;
        if (row + step < n) next.load_from(dy, x, dx, inv_rms, row + step, beta != 0.f);
        float dot[1] = {};
        EACH_VECTOR(i) EACH_ELEMENT(j) dot[0] += gains[i][j] * now.dys[i][j] * now.xs[i][j];
        sum_over_team(dot, slot);
        now.dys.forget();
        now.xs.forget();
        float r = now.r, mean = dot[0] * r / D; // of g * dy * x_hat
        EACH_VECTOR(i) {
            float out[WIDTH];
            EACH_ELEMENT(j) {
                float x_hat = now.xs[i][j] * r;
                of_gain[i][j] += now.dys[i][j] * x_hat;
                out[j] = beta * now.old[i][j] + (gains[i][j] * now.dys[i][j] - x_hat * mean) * r;
                if (COLUMN_SUMS) of_columns[i][j] += out[j];
            }
            store(dx + row * D + column(i), out);
        }
    }
    add_up_teams(partial + u64(blockIdx.x) * D, of_gain);
#if COLUMN_SUMS
    add_up_teams(partial + (u64(gridDim.x) + blockIdx.x) * D, of_columns);
    join_blocks<2>({dgain, sums}, partial);
#else
    join_blocks<1>({dgain}, partial);
#endif
}

#endif
