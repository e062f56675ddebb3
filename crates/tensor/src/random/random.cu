// The numbers of random/normal.rs, with the same bits. Every operation is spelled as one that rounds to nearest and is
// never joined with another: `a * b + c` would become a fused multiply-add, which rounds once instead of twice.

__device__ __forceinline__ float mul(float a, float b) {
    return __fmul_rn(a, b);
}

__device__ __forceinline__ float add(float a, float b) {
    return __fadd_rn(a, b);
}

// p * x + c
__device__ __forceinline__ float then(float p, float x, float c) {
    return add(mul(p, x), c);
}

constexpr float UNIT = 5.9604644775390625e-8f; // 2^-24

// The natural logarithm of a normal positive number.
__device__ __forceinline__ float natural_log(float x) {
    const u32 ROOT_OF_HALF = 0x3f3504f3u, ONE = 0x3f800000u;
    const u32 bits = __float_as_uint(x) + (ONE - ROOT_OF_HALF);
    const float e = __int2float_rn(int(bits >> 23) - 127);
    const float g = add(__uint_as_float((bits & 0x007fffffu) + ROOT_OF_HALF), -1.f);
    float p = 6.746644527e-2f;
    p = then(p, g, -1.167564616e-1f);
    p = then(p, g, 1.188815683e-1f);
    p = then(p, g, -1.240558922e-1f);
    p = then(p, g, 1.421955377e-1f);
    p = then(p, g, -1.666799635e-1f);
    p = then(p, g, 2.000211924e-1f);
    p = then(p, g, -2.500000894e-1f);
    p = then(p, g, 3.333331347e-1f);
    const float square = mul(g, g);
    float small = add(mul(mul(p, g), square), mul(e, -2.1219444e-4f));
    small = add(small, -mul(0.5f, square));
    return add(add(g, small), mul(e, 0.693359375f));
}

// Cosine and sine of turn / 2^24 of a full turn.
__device__ __forceinline__ void cos_sin_of_turn(float& cos, float& sin, u32 turn) {
    const u32 QUARTER = 1u << 22;
    const u32 quarters = (turn + QUARTER / 2) / QUARTER;
    const float x = mul(__int2float_rn(int(turn - quarters * QUARTER)), mul(6.28318530717958647692f, UNIT));
    const float z = mul(x, x);
    float s = -1.951528247e-4f;
    s = then(s, z, 8.332160302e-3f);
    s = then(s, z, -1.666665524e-1f);
    s = then(mul(s, z), x, x);
    float c = 2.44331568e-5f;
    c = then(c, z, -1.388731645e-3f);
    c = then(c, z, 4.166664556e-2f);
    c = then(mul(c, z), z, add(1.f, -mul(0.5f, z)));
    const bool odd = quarters & 1;
    const float turned_cos = odd ? s : c, turned_sin = odd ? c : s;
    cos = __uint_as_float(__float_as_uint(turned_cos) ^ ((quarters + 1) & 2) << 30);
    sin = __uint_as_float(__float_as_uint(turned_sin) ^ (quarters & 2) << 30);
}

// Two standard normal numbers from two random words.
__device__ __forceinline__ void box_muller(float& z0, float& z1, u32 a, u32 b) {
    const float u = mul(__uint2float_rn(a >> 8), UNIT);
    const float radius = __fsqrt_rn(mul(-2.f, natural_log(add(1.f, -u))));
    float cos, sin;
    cos_sin_of_turn(cos, sin, b >> 8);
    z0 = mul(radius, cos);
    z1 = mul(radius, sin);
}

// The four numbers of a block. Philox 4x32-10.
__device__ __forceinline__ void draw(float (&z)[4], u32 k0, u32 k1, u64 stream, u64 block) {
    u32 c0 = u32(block), c1 = u32(block >> 32), c2 = u32(stream), c3 = u32(stream >> 32);
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const u32 high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
        const u32 high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    box_muller(z[0], z[1], c0, c1);
    box_muller(z[2], z[3], c2, c3);
}

// A block of numbers for each thread.
extern "C" __global__ __launch_bounds__(256) void normal(float* x, u64 n, u32 k0, u32 k1, u64 stream, u64 first,
                                                         float std) {
    const u64 block = u64(blockIdx.x) * 256 + threadIdx.x, at = 4 * block;
    if (at >= n) return;
    float z[4];
    draw(z, k0, k1, stream, first + block);
#pragma unroll
    for (int j = 0; j < 4; ++j) z[j] = mul(z[j], std);
    if (at + 4 <= n) {
        store(x + at, z);
    } else {
        for (int j = 0; at + j < n; ++j) x[at + j] = z[j];
    }
}

// An element for each thread: the first number of its blocks that is inside.
extern "C" __global__ __launch_bounds__(256) void truncated_normal(float* x, u64 n, u32 k0, u32 k1, u64 stream, u64 first,
                                                                   float std, float cut) {
    const u64 i = u64(blockIdx.x) * 256 + threadIdx.x;
    if (i >= n) return;
    float found = 0.f;
    bool inside = false;
    for (u64 attempt = 0; attempt < ATTEMPTS && !inside; ++attempt) {
        float z[4];
        draw(z, k0, k1, stream, (attempt << ATTEMPT_BITS) + first + i);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            if (!inside && fabsf(z[j]) <= cut) {
                found = z[j];
                inside = true;
            }
        }
    }
    x[i] = mul(std, found);
}
