// What the portable attention kernels share: parameters, which keys a query sees, what becomes of a score.
//
// Compile-time: ELEMENT · HEAD_DIM of queries and keys · V_HEAD_DIM of values · CAUSAL, WINDOW, SOFTCAP, ALIBI, DOCUMENTS 0 or 1
// Dims: b batch · t query position · s key position · h query heads · g key/value heads · e head size, f that of values · c (h + g)·e + g·f

using T = ELEMENT;

constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;
// Products go into the softmax as they are: only scaling lies between.
constexpr bool SCALED_ONLY = !SOFTCAP && !ALIBI;
// Rows whose first visible key is not key 0.
constexpr bool HAS_FIRST = WINDOW || DOCUMENTS;

struct Parameters {
    const T* q;                   // query heads of position i of sequence b at (b · t + i) · q_stride
    const T* k;                   // key heads of position j of sequence b at (b · n_keys + j) · k_stride; so values
    const T* v;
    T* y_bthe;                    // [b, t, h·f]
    float* log_sum_exp_bht;       // [b, h, t]
    const T* dy_bthe;             // [b, t, h·f]
    float* delta_bht;             // [b, h, t]: dy·y
    T* dq;                        // gradients, laid out as q, k and v
    T* dk;
    T* dv;
    const float* slopes_h;        // [h]
    const u32* document_start_bt; // [b, t], never decreasing
    int b, t, n_keys, h, g;
    int past;   // position of query 0 among the keys
    int window; // keys that a query sees on each side, itself counted
    int q_stride, k_stride, v_stride;
    float scale, softcap;

    __device__ u64 q_at(int sequence, int head) const {
        return u64(sequence) * t * q_stride + u64(head) * HEAD_DIM;
    }
    __device__ u64 k_at(int sequence, int kv_head) const {
        return u64(sequence) * n_keys * k_stride + u64(kv_head) * HEAD_DIM;
    }
    __device__ u64 v_at(int sequence, int kv_head) const {
        return u64(sequence) * n_keys * v_stride + u64(kv_head) * V_HEAD_DIM;
    }
    __device__ u64 y_at(int sequence, int head) const {
        return (u64(sequence) * t * h + head) * V_HEAD_DIM;
    }
    __device__ u64 statistics_at(int sequence, int head) const {
        return (u64(sequence) * h + head) * t;
    }
    __device__ int y_stride() const {
        return h * V_HEAD_DIM;
    }
    // The multiplier of what `score` returns, to base 2.
    __device__ float to_log2() const {
        return SCALED_ONLY ? scale * LOG2_E : LOG2_E;
    }
};

// Keys first..last, both included. At least one; neither ever decreases from one row to the next.
struct Visible {
    int first, last;
};

// Rows behind the last one see what it sees.
__device__ __forceinline__ Visible visible(const Parameters& p, int sequence, int row) {
    row = min(row, p.t - 1);
    int at = p.past + row;
    Visible keys = {0, p.n_keys - 1};
    if (CAUSAL) keys.last = min(keys.last, at);
    if (WINDOW && !CAUSAL) keys.last = min(keys.last, at + p.window - 1);
    if (WINDOW) keys.first = max(0, at - p.window + 1);
    if (DOCUMENTS) keys.first = max(keys.first, int(min(p.document_start_bt[u64(sequence) * p.t + row], u32(at))));
    return keys;
}

// What query and key at a `distance` (query minus key) score, from q·k; `slope` is its derivative with respect to
// scale · q·k. Without softcap and ALiBi the scale is left out.
__device__ __forceinline__ float score(const Parameters& p, float alibi, int distance, float product, float& slope) {
    slope = 1.f;
    if (SCALED_ONLY) return product;
    float x = product * p.scale;
    if (SOFTCAP) {
        float y = tanhf(x / p.softcap);
        slope = 1.f - y * y;
        x = y * p.softcap;
    }
    if (ALIBI) x -= alibi * float(abs(distance));
    return x;
}

__device__ __forceinline__ float minus_infinity() {
    return __int_as_float(0xff800000);
}
