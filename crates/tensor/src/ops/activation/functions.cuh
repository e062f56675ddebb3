// The non-linearities and their derivatives on one element, as on the CPU (activation/cpu.rs says where they are from).

__device__ __forceinline__ float sigmoid(float x) {
    return __fdividef(1.f, 1.f + __expf(-x));
}

__device__ __forceinline__ float silu(float x) {
    return x * sigmoid(x);
}

__device__ __forceinline__ float silu_derivative(float x) {
    float s = sigmoid(x);
    return s * (1.f + x * (1.f - s));
}

// Beyond +-16 every function here equals 0 or x; the bound keeps cubes finite. NaN stays NaN.
__device__ __forceinline__ float bounded(float x) {
    x = x > 16.f ? 16.f : x;
    return x < -16.f ? -16.f : x;
}

constexpr float SQRT_8_OVER_PI = 1.595769f;
constexpr float CUBIC = 0.044715f;

__device__ __forceinline__ float gelu_tanh(float x) {
    float b = bounded(x);
    return x * sigmoid(SQRT_8_OVER_PI * (b + CUBIC * b * b * b));
}

__device__ __forceinline__ float gelu_tanh_derivative(float x) {
    x = bounded(x);
    // Bounded, so that e * s is not infinity times 0.
    float e = __expf(fminf(-SQRT_8_OVER_PI * (x + CUBIC * x * x * x), 80.f));
    float s = __fdividef(1.f, 1.f + e);
    return s + x * s * (e * s) * (SQRT_8_OVER_PI * (1.f + 3.f * CUBIC * x * x));
}

// The distribution function of N(0, 1) and its density.
__device__ __forceinline__ float normal_distribution(float x, float& density) {
    x = bounded(x);
    float z = fabsf(x) * 0.70710678f;
    float gaussian = __expf(-0.5f * x * x);
    float t = __fdividef(1.f, 1.f + 0.3275911f * z);
    float polynomial = 1.0614054f;
    polynomial = polynomial * t - 1.453152f;
    polynomial = polynomial * t + 1.4214137f;
    polynomial = polynomial * t - 0.28449674f;
    polynomial = polynomial * t + 0.2548296f;
    float tail = 0.5f * polynomial * t * gaussian;
    density = 0.3989423f * gaussian;
    return x < 0.f ? tail : 1.f - tail;
}

__device__ __forceinline__ float gelu_erf(float x) {
    float density;
    return x * normal_distribution(x, density);
}

__device__ __forceinline__ float gelu_erf_derivative(float x) {
    x = bounded(x);
    float density, distribution = normal_distribution(x, density);
    return distribution + x * density;
}

__device__ __forceinline__ float relu(float x) {
    return x < 0.f ? 0.f : x;
}

__device__ __forceinline__ float relu_derivative(float x) {
    return x > 0.f ? 1.f : 0.f;
}
