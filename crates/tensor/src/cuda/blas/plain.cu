// What cuBLASLt does not do: matrix products of any size and alignment, and sums of columns.
// IN and OUT are the element types of operands and results, WIDTH how many IN are read at once by column_sums.

#ifdef PRODUCT

// The numbers of key::Kind.
enum Epilogue { NONE, BIAS, GELU, GELU_GRADIENT };

// x / 2 * (1 + tanh u) = x * sigmoid(2u), u = sqrt(2 / pi) * (x + 0.044715 x^3).
__device__ float sigmoid_2u(float x) {
    return 1.f / (1.f + expf(-1.595769122f * (x + 0.044715f * x * x * x)));
}

__device__ float gelu_tanh(float x) {
    return x * sigmoid_2u(x);
}

__device__ float gelu_tanh_derivative(float x) {
    float b = fminf(fmaxf(x, -16.f), 16.f); // beyond, it is 0 or 1
    float s = sigmoid_2u(b);
    return s + b * s * (1.f - s) * 1.595769122f * (1.f + 3.f * 0.044715f * b * b);
}

// One thread for an element of out [m, n], one block for 16x16 of them; operands pass through shared memory, 16 terms
// at a time. Far from the peak: this is for shapes that are rare or small. Sums run over k from 0 up.
extern "C" __global__ __launch_bounds__(256) void plain_matmul(
    OUT* out, float beta, const IN* a, const IN* b, OUT* vector, OUT* pre_activation, u64 m, u64 n, u64 k,
    u64 a_stride, u64 b_stride, u64 out_stride, u32 a_transposed, u32 b_transposed, u32 epilogue) {
    __shared__ float of_a[16][17], of_b[16][17];
    u64 tiles = (n + 15) / 16;
    u32 x = threadIdx.x % 16, y = threadIdx.x / 16;
    u64 first_row = blockIdx.x / tiles * 16, first_column = blockIdx.x % tiles * 16;
    float sum = 0.f;
    for (u64 from = 0; from < k; from += 16) {
        // x runs along consecutive addresses, whichever way the operand is stored.
        u64 a_row = first_row + (a_transposed ? x : y), a_term = from + (a_transposed ? y : x);
        float value = 0.f;
        if (a_row < m && a_term < k) value = to_float(a[a_transposed ? a_term * a_stride + a_row : a_row * a_stride + a_term]);
        of_a[a_transposed ? x : y][a_transposed ? y : x] = value;
        u64 b_column = first_column + (b_transposed ? y : x), b_term = from + (b_transposed ? x : y);
        value = 0.f;
        if (b_column < n && b_term < k)
            value = to_float(b[b_transposed ? b_column * b_stride + b_term : b_term * b_stride + b_column]);
        of_b[b_transposed ? x : y][b_transposed ? y : x] = value;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 16; ++i) sum += of_a[y][i] * of_b[i][x];
        __syncthreads();
    }
    u64 row = first_row + y, column = first_column + x;
    if (row >= m || column >= n) return;
    OUT* to = out + row * out_stride + column;
    if (beta != 0.f) sum += beta * to_float(*to);
    if ((epilogue == BIAS || epilogue == GELU) && vector) sum += to_float(vector[column]);
    if (epilogue == GELU) {
        if (pre_activation) pre_activation[row * n + column] = from_float<OUT>(sum);
        sum = gelu_tanh(sum);
    }
    if (epilogue == GELU_GRADIENT) sum *= gelu_tanh_derivative(to_float(pre_activation[row * n + column]));
    *to = from_float<OUT>(sum);
}

#else

// partial [gridDim.y, d]: sums over slices of the rows of x [n, d]. A warp reads 32 * WIDTH columns of a row, the eight
// warps of a block every eighth row of the slice. Memory-bound: n * d * sizeof(IN) bytes.
extern "C" __global__ __launch_bounds__(256, BLOCKS) void partial_column_sums(
    float* partial, const IN* x, u64 n, u64 d, u64 stride, u64 slice) {
    constexpr int BATCH = 8; // rows under way
    __shared__ float of_warp[8][32][WIDTH + 1];
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u64 column = (u64(blockIdx.x) * 32 + lane) * WIDTH;
    u64 end = (blockIdx.y + 1) * slice < n ? (blockIdx.y + 1) * slice : n;
    float sum[WIDTH] = {};
    if (column < d) {
        // All of a batch are under way, also of the last one: rows one by one would be waited for one by one.
        const float zeros[WIDTH] = {};
        for (u64 row = blockIdx.y * slice + warp; row < end; row += 8 * BATCH) {
            Packed<IN, WIDTH> values[BATCH];
#pragma unroll
            for (int i = 0; i < BATCH; ++i) {
                if (row + 8 * i < end) load(values[i], x + (row + 8 * i) * stride + column);
                else values[i].set(zeros);
            }
#pragma unroll
            for (int i = 0; i < BATCH; ++i) {
                values[i].forget();
#pragma unroll
                for (int j = 0; j < WIDTH; ++j) sum[j] += values[i][j];
            }
        }
    }
#pragma unroll
    for (int j = 0; j < WIDTH; ++j) of_warp[warp][lane][j] = sum[j];
    __syncthreads();
    if (warp == 0 && column < d) {
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) {
            for (int other = 1; other < 8; ++other) sum[j] += of_warp[other][lane][j];
            partial[blockIdx.y * d + column + j] = sum[j];
        }
    }
}

// sums [d] <- beta * sums + the sums over n rows of partial [n, d]: a block for 32 columns, a warp every 32nd row.
extern "C" __global__ __launch_bounds__(1024) void join_column_sums(
    OUT* sums, float beta, const float* partial, u64 n, u64 d) {
    constexpr u32 WARPS = 32;
    __shared__ float of_warp[WARPS][32];
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u64 column = u64(blockIdx.x) * 32 + lane;
    float sum = 0.f;
    if (column < d) {
        for (u64 row = warp; row < n; row += 8 * WARPS) {
            float values[8];
#pragma unroll
            for (int i = 0; i < 8; ++i) values[i] = row + i * WARPS < n ? partial[(row + i * WARPS) * d + column] : 0.f;
#pragma unroll
            for (int i = 0; i < 8; ++i) sum += values[i];
        }
    }
    of_warp[warp][lane] = sum;
    __syncthreads();
    if (warp == 0 && column < d) {
#pragma unroll
        for (u32 other = 1; other < WARPS; ++other) sum += of_warp[other][lane];
        if (beta != 0.f) sum += beta * to_float(sums[column]);
        sums[column] = from_float<OUT>(sum);
    }
}

#endif
