// One pass over all parameters: gradient in, moments and parameter updated, and a copy of the parameter to compute with.

constexpr u32 THREADS = 256;
constexpr u32 CHUNK = 4096; // elements of a block
constexpr u32 VECTORS = 2;  // of 4 elements that a thread has on their way, of each array

struct Tensors {
    float* parameter[TENSORS];
    const float* gradient[TENSORS];
    float* first_moment[TENSORS];
    float* second_moment[TENSORS];
    void* compute[TENSORS]; // may be null
    u64 len[TENSORS];
    u32 first_block[TENSORS];
    float weight_decay[TENSORS];
    u32 compute_is_bf16[TENSORS];
    u32 n;
};

struct Settings {
    float beta1, one_minus_beta1, beta2, one_minus_beta2, eps, clip;
};

// What is the same for all elements of a tensor.
struct Factors {
    float gradient_scale, keep, step_size, inv_root_correction;
};

__device__ __forceinline__ void update(
    float& theta, float g, float& m, float& v, const Factors& factors, const Settings& s) {
    g *= factors.gradient_scale;
    m = s.beta1 * m + s.one_minus_beta1 * g;
    v = s.beta2 * v + s.one_minus_beta2 * (g * g);
    theta = factors.keep * theta - factors.step_size * m / (sqrtf(v) * factors.inv_root_correction + s.eps);
}

// numbers: learning rate, learning rate / (1 - beta1^t), 1 / sqrt(1 - beta2^t). Nothing changes unless the norm of all
// gradients is finite.
extern "C" __global__ __launch_bounds__(THREADS) void adamw(
    const __grid_constant__ Tensors tensors, const __grid_constant__ Settings settings, const float* numbers,
    const float* norm) {
    const float length = *norm; // looked at after the first loads are on their way
    const bool is_finite = fabsf(length) <= 3.402823466e38f;
    u32 tensor = tensor_of_block(tensors.first_block, tensors.n);
    u64 start = u64(blockIdx.x - tensors.first_block[tensor]) * CHUNK;
    u64 left = tensors.len[tensor] - start;
    u32 n = left < CHUNK ? u32(left) : CHUNK;
    float* parameter = tensors.parameter[tensor] + start;
    const float* gradient = tensors.gradient[tensor] + start;
    float* first_moment = tensors.first_moment[tensor] + start;
    float* second_moment = tensors.second_moment[tensor] + start;
    bool is_bf16 = tensors.compute_is_bf16[tensor];
    bf16* compute_bf16 = static_cast<bf16*>(tensors.compute[tensor]) + start;
    float* compute_f32 = static_cast<float*>(tensors.compute[tensor]) + start;
    bool has_compute = tensors.compute[tensor] != nullptr;

    Factors factors;
    factors.gradient_scale = settings.clip > 0.f ? fminf(settings.clip / (length + 1e-6f), 1.f) : 1.f;
    factors.keep = fmaf(-numbers[0], tensors.weight_decay[tensor], 1.f);
    factors.step_size = numbers[1];
    factors.inv_root_correction = numbers[2];

    u32 n_whole = n / 4 * 4;
    for (u32 first = threadIdx.x * 4; first < n_whole; first += VECTORS * THREADS * 4) {
        float theta[VECTORS][4], g[VECTORS][4], m[VECTORS][4], v[VECTORS][4];
#pragma unroll
        for (u32 j = 0; j < VECTORS; ++j) {
            u32 i = first + j * THREADS * 4;
            if (i < n_whole) {
                load(theta[j], parameter + i);
                load(g[j], gradient + i);
                load(m[j], first_moment + i);
                load(v[j], second_moment + i);
            }
        }
        if (!is_finite) return;
#pragma unroll
        for (u32 j = 0; j < VECTORS; ++j) {
            u32 i = first + j * THREADS * 4;
            if (i < n_whole) {
#pragma unroll
                for (u32 k = 0; k < 4; ++k) update(theta[j][k], g[j][k], m[j][k], v[j][k], factors, settings);
                store(parameter + i, theta[j]);
                store(first_moment + i, m[j]);
                store(second_moment + i, v[j]);
                if (has_compute) {
                    if (is_bf16) {
                        store(compute_bf16 + i, theta[j]);
                    } else {
                        store(compute_f32 + i, theta[j]);
                    }
                }
            }
        }
    }
    u32 i = n_whole + threadIdx.x;
    if (i < n && is_finite) {
        float theta = parameter[i], m = first_moment[i], v = second_moment[i];
        update(theta, gradient[i], m, v, factors, settings);
        parameter[i] = theta;
        first_moment[i] = m;
        second_moment[i] = v;
        if (has_compute) {
            if (is_bf16) {
                compute_bf16[i] = from_float<bf16>(theta);
            } else {
                compute_f32[i] = theta;
            }
        }
    }
}
