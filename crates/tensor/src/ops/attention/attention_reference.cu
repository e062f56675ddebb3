// The definition of attention, forward and backward, for comparison with the fast kernels: one warp per row, f32
// arithmetic, nothing clever. Inputs are bf16, results f32.
//
// Compile-time: HEAD_DIM, a multiple of 32
// Dims: b batch · t position · h query heads · g key/value heads · e head size · c (h + 2g)·e

constexpr int LANE_DIMS = HEAD_DIM / 32;
typedef unsigned short bf16;

struct ReferenceParameters {
    const bf16* qkv_btc;       // [b, t, c]
    const bf16* dy_bthe;       // [b, t, h·e]
    float* y_bthe;             // [b, t, h·e]
    float* log_sum_exp_bht;    // [b, h, t]
    float* dqkv_btc;           // [b, t, c]
    int b, t, h, g, causal;
    float scale;
};

// A row of a head, spread over the lanes of a warp.
struct Row {
    float x[LANE_DIMS] = {};

    __device__ Row() {}
    __device__ Row(const bf16* row) {
        for (int i = 0; i < LANE_DIMS; i++)
            x[i] = __uint_as_float(static_cast<unsigned>(row[i * 32 + threadIdx.x % 32]) << 16);
    }
    __device__ void add(float factor, const Row& other) {
        for (int i = 0; i < LANE_DIMS; i++) x[i] += factor * other.x[i];
    }
    __device__ void store(float* row) const {
        for (int i = 0; i < LANE_DIMS; i++) row[i * 32 + threadIdx.x % 32] = x[i];
    }
};

__device__ float dot(const Row& a, const Row& b) {
    float sum = 0.0f;
    for (int i = 0; i < LANE_DIMS; i++) sum += a.x[i] * b.x[i];
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
    return sum;
}

struct Place {
    const ReferenceParameters& p;
    int sequence;
    __device__ long long row(int t) const { return static_cast<long long>(sequence) * p.t + t; }
    __device__ long long qkv(int t, int column) const {
        return (row(t) * (p.h + 2 * p.g) + column) * static_cast<long long>(HEAD_DIM);
    }
    __device__ long long q(int t, int head) const { return qkv(t, head); }
    __device__ long long k(int s, int kv_head) const { return qkv(s, p.h + kv_head); }
    __device__ long long v(int s, int kv_head) const { return qkv(s, p.h + p.g + kv_head); }
    __device__ long long y(int t, int head) const { return (row(t) * p.h + head) * static_cast<long long>(HEAD_DIM); }
    __device__ long long statistic(int t, int head) const {
        return (static_cast<long long>(sequence) * p.h + head) * p.t + t;
    }
};

// grid: (t, h, b), one warp per block. y_i = Σ_j softmax_j(scale · q_i·k_j) · v_j
extern "C" __global__ void reference_forward(const ReferenceParameters p) {
    const Place at = {p, static_cast<int>(blockIdx.z)};
    const int i = blockIdx.x, head = blockIdx.y, kv_head = head / (p.h / p.g);
    const Row q(p.qkv_btc + at.q(i, head));
    Row y;
    float max = -1e30f, sum = 0.0f;
    for (int j = 0; j < (p.causal ? i + 1 : p.t); j++) {
        const float score = p.scale * dot(q, Row(p.qkv_btc + at.k(j, kv_head)));
        const float new_max = fmaxf(max, score), factor = expf(max - new_max), weight = expf(score - new_max);
        for (int e = 0; e < LANE_DIMS; e++) y.x[e] *= factor;
        y.add(weight, Row(p.qkv_btc + at.v(j, kv_head)));
        sum = sum * factor + weight;
        max = new_max;
    }
    for (int e = 0; e < LANE_DIMS; e++) y.x[e] /= sum;
    y.store(p.y_bthe + at.y(i, head));
    if (threadIdx.x == 0) p.log_sum_exp_bht[at.statistic(i, head)] = max + logf(sum);
}

// grid: (t, h, b). dq_i = scale · Σ_j p_ij · (dy_i·v_j − dy_i·y_i) · k_j
extern "C" __global__ void reference_backward_queries(const ReferenceParameters p) {
    const Place at = {p, static_cast<int>(blockIdx.z)};
    const int i = blockIdx.x, head = blockIdx.y, kv_head = head / (p.h / p.g);
    const Row q(p.qkv_btc + at.q(i, head)), dy(p.dy_bthe + at.y(i, head));
    Row y;
    for (int e = 0; e < LANE_DIMS; e++) y.x[e] = p.y_bthe[at.y(i, head) + e * 32 + threadIdx.x];
    const float log_sum_exp = p.log_sum_exp_bht[at.statistic(i, head)], delta = dot(dy, y);
    Row dq;
    for (int j = 0; j < (p.causal ? i + 1 : p.t); j++) {
        const Row k(p.qkv_btc + at.k(j, kv_head));
        const float probability = expf(p.scale * dot(q, k) - log_sum_exp);
        dq.add(p.scale * probability * (dot(dy, Row(p.qkv_btc + at.v(j, kv_head))) - delta), k);
    }
    dq.store(p.dqkv_btc + at.q(i, head));
}

// grid: (t, g, b). dv_j = Σ_i p_ij · dy_i; dk_j = scale · Σ_i p_ij · (dy_i·v_j − dy_i·y_i) · q_i
extern "C" __global__ void reference_backward_keys(const ReferenceParameters p) {
    const Place at = {p, static_cast<int>(blockIdx.z)};
    const int j = blockIdx.x, kv_head = blockIdx.y, group = p.h / p.g;
    const Row k(p.qkv_btc + at.k(j, kv_head)), v(p.qkv_btc + at.v(j, kv_head));
    Row dk, dv;
    for (int head = kv_head * group; head < (kv_head + 1) * group; head++) {
        for (int i = p.causal ? j : 0; i < p.t; i++) {
            const Row q(p.qkv_btc + at.q(i, head)), dy(p.dy_bthe + at.y(i, head));
            Row y;
            for (int e = 0; e < LANE_DIMS; e++) y.x[e] = p.y_bthe[at.y(i, head) + e * 32 + threadIdx.x];
            const float probability = expf(p.scale * dot(q, k) - p.log_sum_exp_bht[at.statistic(i, head)]);
            dv.add(probability, dy);
            dk.add(p.scale * probability * (dot(dy, v) - dot(dy, y)), q);
        }
    }
    dk.store(p.dqkv_btc + at.k(j, kv_head));
    dv.store(p.dqkv_btc + at.v(j, kv_head));
}
