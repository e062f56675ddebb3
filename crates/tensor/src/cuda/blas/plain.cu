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

constexpr u32 LANES = 16, GROUPS = 256 / LANES; // threads of a row of a tile, rows at a time
constexpr u32 TILE = LANES * WIDTH;

__device__ u32 arrived[MOST_TILES]; // blocks of each tile; 0 again after the last one

// sums [d] <- beta * sums + the sums over the n rows of x, in a fixed order. A block has a tile of the columns and a slice of
// the rows, of which it leaves the sums in partial [gridDim.y, d]; the last one of a tile joins them. Memory-bound:
// n * d * sizeof(IN) bytes.
extern "C" __global__ __launch_bounds__(256, BLOCKS) void column_sums(
    OUT* sums, float beta, float* partial, const IN* x, u64 n, u64 d, u64 stride, u64 slice) {
    constexpr u32 BATCH = 8; // rows under way
    __shared__ float of_group[GROUPS][LANES][WIDTH + 1];
    const u32 lane = threadIdx.x % LANES, group = threadIdx.x / LANES;
    const u64 first_column = u64(blockIdx.x) * TILE, column = first_column + lane * WIDTH;
    const u64 end = (blockIdx.y + 1) * slice < n ? (blockIdx.y + 1) * slice : n;
    float sum[WIDTH] = {};
    if (column < d) {
        // All of a batch are under way, also of the last one: rows one by one would be waited for one by one.
        const float zeros[WIDTH] = {};
        for (u64 row = blockIdx.y * slice + group; row < end; row += GROUPS * BATCH) {
            Packed<IN, WIDTH> values[BATCH];
#pragma unroll
            for (u32 i = 0; i < BATCH; ++i) {
                if (row + GROUPS * i < end) load(values[i], x + (row + GROUPS * i) * stride + column);
                else values[i].set(zeros);
            }
#pragma unroll
            for (u32 i = 0; i < BATCH; ++i) {
                values[i].forget();
#pragma unroll
                for (int j = 0; j < WIDTH; ++j) sum[j] += values[i][j];
            }
        }
    }
#pragma unroll
    for (int j = 0; j < WIDTH; ++j) of_group[group][lane][j] = sum[j];
    __syncthreads();
    // From here on a thread has one column, and several threads have rows of it.
    const u32 in_tile = threadIdx.x % TILE, part = threadIdx.x / TILE;
    const bool has_column = first_column + in_tile < d;
    float total = 0.f;
    if (part == 0) {
#pragma unroll
        for (u32 other = 0; other < GROUPS; ++other) total += of_group[other][in_tile / WIDTH][in_tile % WIDTH];
    }
    if (gridDim.y > 1) {
        __shared__ bool is_last;
        if (part == 0 && has_column) partial[blockIdx.y * d + first_column + in_tile] = total;
        __threadfence();
        __syncthreads();
        if (threadIdx.x == 0) is_last = atomicInc(&arrived[blockIdx.x], gridDim.y - 1) == gridDim.y - 1;
        __syncthreads();
        if (!is_last) return;
        __threadfence();
        constexpr u32 PARTS = 256 / TILE, LOADS = 22;
        __shared__ float of_part[PARTS][TILE];
        total = 0.f;
        for (u32 first = part; has_column && first < gridDim.y; first += PARTS * LOADS) {
            float values[LOADS];
#pragma unroll
            for (u32 i = 0; i < LOADS; ++i) {
                const u32 row = first + PARTS * i;
                values[i] = 0.f;
                // From the L2, where the other blocks' sums are.
                if (row < gridDim.y) {
                    asm volatile("ld.global.cg.f32 %0, [%1];"
                                 : "=f"(values[i])
                                 : "l"(partial + row * d + first_column + in_tile)
                                 : "memory");
                }
            }
#pragma unroll
            for (u32 i = 0; i < LOADS; ++i) total += values[i];
        }
        of_part[part][in_tile] = total;
        __syncthreads();
#pragma unroll
        for (u32 other = 1; part == 0 && other < PARTS; ++other) total += of_part[other][in_tile];
    }
    if (part == 0 && has_column) {
        OUT* to = sums + first_column + in_tile;
        if (beta != 0.f) total += beta * to_float(*to);
        *to = from_float<OUT>(total);
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
