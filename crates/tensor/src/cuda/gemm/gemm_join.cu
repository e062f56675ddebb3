// Joins partial sums of a product whose terms were split, in the order of the parts. Memory-bound.

// out [n] <- beta * out + the sum of `parts` planes of n numbers each, four in a thread; n is a multiple of 4.
extern "C" __global__ __launch_bounds__(256) void join_parts(float* out, float beta, const float* partial, u64 n, u32 parts) {
    u64 at = (u64(blockIdx.x) * 256 + threadIdx.x) * 4;
    if (at >= n) return;
    float sum[4], other[4];
    load(sum, partial + at);
    for (u32 part = 1; part < parts; ++part) {
        load(other, partial + part * n + at);
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[i] += other[i];
    }
    if (beta != 0.f) {
        load(other, out + at);
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[i] += beta * other[i];
    }
    store(out + at, sum);
}
