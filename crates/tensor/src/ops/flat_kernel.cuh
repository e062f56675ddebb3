// Element by element: VECTORS vectors of WIDTH for each thread. T is the type of activations, G that of the gradient that
// is written.

using T = ELEMENT;
using G = GRADIENT;
constexpr int BLOCK = 256;
constexpr int VECTORS = 2;

#define EACH_VECTOR(i) _Pragma("unroll") for (int i = 0; i < VECTORS; ++i)
#define EACH_ELEMENT(j) _Pragma("unroll") for (int j = 0; j < WIDTH; ++j)

// The number of this thread's vector i among all.
__device__ __forceinline__ u64 vector_number(int i) {
    return (u64(blockIdx.x) * VECTORS + i) * BLOCK + threadIdx.x;
}

// As `load` and `store` of the elements from x + at on, but only of those before x + n; the others are 0.
template <int N, class E>
__device__ __forceinline__ void load_within(float (&values)[N], const E* x, u64 at, u64 n) {
    if (at + N <= n) {
        load(values, x + at);
    } else {
#pragma unroll
        for (int j = 0; j < N; ++j) values[j] = at + j < n ? to_float(x[at + j]) : 0.f;
    }
}

template <int N, class E>
__device__ __forceinline__ void store_within(E* x, u64 at, u64 n, const float (&values)[N]) {
    if (at + N <= n) {
        store(x + at, values);
    } else {
#pragma unroll
        for (int j = 0; j < N; ++j) {
            if (at + j < n) x[at + j] = from_float<E>(values[j]);
        }
    }
}
