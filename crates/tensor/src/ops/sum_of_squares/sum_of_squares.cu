// Norm over many tensors in two stages, both in a fixed order; scaling in place.

constexpr u32 THREADS = 256;
constexpr u32 CHUNK = 8192; // elements of a block
constexpr u32 VECTORS = 4;  // that a thread has on their way

struct Tensors {
    const float* x[TENSORS];
    u64 len[TENSORS];
    u32 first_block[TENSORS];
    u32 n;
};

// sums[block] = the sum of squares of the block's chunk.
extern "C" __global__ __launch_bounds__(THREADS) void sums_of_squares(
    float* sums, const __grid_constant__ Tensors tensors) {
    u32 tensor = tensor_of_block(tensors.first_block, tensors.n);
    u64 start = u64(blockIdx.x - tensors.first_block[tensor]) * CHUNK;
    const float* x = tensors.x[tensor] + start;
    u64 left = tensors.len[tensor] - start;
    float sum[4] = {};
    if (left >= CHUNK) {
#pragma unroll
        for (u32 i = 0; i < CHUNK; i += VECTORS * 4 * THREADS) {
            float values[VECTORS][4];
#pragma unroll
            for (u32 j = 0; j < VECTORS; ++j) load(values[j], x + i + (j * THREADS + threadIdx.x) * 4);
#pragma unroll
            for (u32 j = 0; j < VECTORS; ++j) {
#pragma unroll
                for (u32 k = 0; k < 4; ++k) sum[k] += values[j][k] * values[j][k];
            }
        }
    } else {
        for (u32 i = threadIdx.x; i < left; i += THREADS) sum[0] += x[i] * x[i];
    }
    float total = reduce_team<Sum, THREADS>((sum[0] + sum[1]) + (sum[2] + sum[3]));
    if (threadIdx.x == 0) sums[blockIdx.x] = total;
}

// The sum of x [n], in f64, for thread 0 of the only block.
__device__ __forceinline__ double sum_in_one_block(const float* x, u32 n) {
    __shared__ double of_thread[1024];
    double sum = 0.0;
#pragma unroll 4
    for (u32 i = threadIdx.x; i < n; i += 1024) sum += double(x[i]);
    of_thread[threadIdx.x] = sum;
    for (u32 width = 512; width > 0; width /= 2) {
        __syncthreads();
        if (threadIdx.x < width) of_thread[threadIdx.x] += of_thread[threadIdx.x + width];
    }
    return of_thread[0];
}

extern "C" __global__ __launch_bounds__(1024) void root_of_sum(float* root, const float* x, u32 n) {
    double sum = sum_in_one_block(x, n);
    if (threadIdx.x == 0) *root = float(sqrt(sum));
}

extern "C" __global__ __launch_bounds__(1024) void sum_over(float* y, const float* x, u32 n, float divisor) {
    double sum = sum_in_one_block(x, n);
    if (threadIdx.x == 0) *y = float(sum / double(divisor));
}

template <class T>
__device__ __forceinline__ void scale_elements(T* x, u64 n, float factor) {
    constexpr int WIDTH = 16 / sizeof(T);
    u64 step = u64(gridDim.x) * THREADS;
    u64 thread = u64(blockIdx.x) * THREADS + threadIdx.x;
    for (u64 i = thread; i < n / WIDTH; i += step) {
        float values[WIDTH];
        load(values, x + i * WIDTH);
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) values[j] *= factor;
        store(x + i * WIDTH, values);
    }
    u64 tail = n / WIDTH * WIDTH + thread;
    if (tail < n) x[tail] = from_float<T>(to_float(x[tail]) * factor);
}

extern "C" __global__ __launch_bounds__(THREADS) void scale_f32(float* x, u64 n, float factor) {
    scale_elements(x, n, factor);
}

extern "C" __global__ __launch_bounds__(THREADS) void scale_bf16(bf16* x, u64 n, float factor) {
    scale_elements(x, n, factor);
}
