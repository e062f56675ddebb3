// What portable kernels share: bf16 without CUDA's headers, wide loads and stores, reductions over a team of threads.

typedef unsigned int u32;
typedef unsigned long long u64;

// ---- element types: arithmetic is always in f32 ----

struct bf16 {
    unsigned short bits;
};

__device__ __forceinline__ float to_float(float x) {
    return x;
}

__device__ __forceinline__ float to_float(bf16 x) {
    return __uint_as_float(u32(x.bits) << 16);
}

template <class T>
__device__ __forceinline__ T from_float(float x);

template <>
__device__ __forceinline__ float from_float<float>(float x) {
    return x;
}

template <>
__device__ __forceinline__ bf16 from_float<bf16>(float x) { // to nearest, ties to even
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}

// ---- N elements at consecutive addresses, in one access of N * sizeof(T) <= 16 bytes (two of 16 for 32) ----

template <class T, int N>
struct alignas(sizeof(T) * N) Vector {
    T x[N];
};

// N elements as they are in memory: bf16 in pairs, two in a register.
template <class T, int N>
struct alignas(sizeof(T) * N) Packed {
    T x[N];

    __device__ __forceinline__ float operator[](int i) const {
        return to_float(x[i]);
    }
    __device__ __forceinline__ void set(const float (&from)[N]) {
#pragma unroll
        for (int i = 0; i < N; ++i) x[i] = from_float<T>(from[i]);
    }
    __device__ __forceinline__ void forget() {}
};

template <int N>
struct alignas(2 * N) PackedPairs {
    u32 pairs[N / 2];

    __device__ __forceinline__ float operator[](int i) const {
        return __uint_as_float(i % 2 == 0 ? pairs[i / 2] << 16 : pairs[i / 2] & 0xffff0000u);
    }
    __device__ __forceinline__ void set(const float (&from)[N]) {
#pragma unroll
        for (int i = 0; i < N / 2; ++i) {
            asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pairs[i]) : "f"(from[2 * i + 1]), "f"(from[2 * i]));
        }
    }
    // The compiler no longer knows the elements: it widens them again where they are used next, instead of keeping them in
    // twice the registers.
    __device__ __forceinline__ void forget() {
#pragma unroll
        for (int i = 0; i < N / 2; ++i) asm volatile("" : "+r"(pairs[i]));
    }
};

template <>
struct Packed<bf16, 2> : PackedPairs<2> {};
template <>
struct Packed<bf16, 4> : PackedPairs<4> {};
template <>
struct Packed<bf16, 8> : PackedPairs<8> {};

template <int N, class T>
__device__ __forceinline__ void load(Packed<T, N>& x, const T* from) {
    x = *reinterpret_cast<const Packed<T, N>*>(from);
}

template <int N, class T>
__device__ __forceinline__ void load(float (&x)[N], const T* from) {
    Packed<T, N> packed;
    load(packed, from);
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = packed[i];
}

// To global memory, 16 bytes at a time. In assembly: of plain assignments the compiler makes four stores of 4 bytes where it
// has computed the elements one by one, each of which writes a part of every sector.
template <int N, class T>
__device__ __forceinline__ void store(T* to, const Packed<T, N>& x) {
    constexpr int BYTES = N * sizeof(T);
    if constexpr (BYTES % 16 == 0) {
        const u32* words = reinterpret_cast<const u32*>(&x);
#pragma unroll
        for (int i = 0; i < BYTES / 16; ++i) {
            asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(reinterpret_cast<char*>(to) + 16 * i),
                         "r"(words[4 * i]), "r"(words[4 * i + 1]), "r"(words[4 * i + 2]), "r"(words[4 * i + 3])
                         : "memory");
        }
    } else if constexpr (BYTES == 8) {
        const u32* words = reinterpret_cast<const u32*>(&x);
        asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(to), "r"(words[0]), "r"(words[1]) : "memory");
    } else {
        *reinterpret_cast<Packed<T, N>*>(to) = x;
    }
}

template <int N, class T>
__device__ __forceinline__ void store(T* to, const float (&x)[N]) {
    Packed<T, N> packed;
    packed.set(x);
    store(to, packed);
}

// ---- reductions: every thread of a team of THREADS (a power of two from 32 on) gets the result ----

struct Sum {
    __device__ static float zero() {
        return 0.f;
    }
    __device__ static float join(float a, float b) {
        return a + b;
    }
};

struct Max {
    __device__ static float zero() {
        return __int_as_float(0xff800000); // minus infinity
    }
    __device__ static float join(float a, float b) {
        return fmaxf(a, b);
    }
};

template <class Op>
__device__ __forceinline__ float reduce_warp(float x) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) x = Op::join(x, __shfl_xor_sync(0xffffffffu, x, offset));
    return x;
}

// The whole block is one team, unless THREADS is 32: then each warp is one. In a fixed order, so always the same bits.
template <class Op, int THREADS>
__device__ __forceinline__ float reduce_team(float x) {
    x = reduce_warp<Op>(x);
    if (THREADS > 32) {
        __shared__ float of_warp[32];
        __syncthreads(); // of_warp may still be read from the last time
        if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = x;
        __syncthreads();
        x = of_warp[0];
#pragma unroll
        for (int warp = 1; warp < THREADS / 32; ++warp) x = Op::join(x, of_warp[warp]);
    }
    return x;
}
