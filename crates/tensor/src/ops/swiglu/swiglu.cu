// Rows of gate and up, F elements each, a multiple of WIDTH. A vector of y has the same number as its gate and up among
// all pairs.

constexpr u32 ROW = F / WIDTH;

// Where the gate of y's vector begins, in elements; up is F behind it.
__device__ __forceinline__ u64 gate_of(u64 vector) {
    return (vector / ROW) * (2 * F) + (vector % ROW) * WIDTH;
}

extern "C" __global__ __launch_bounds__(BLOCK) void swiglu_forward(T* y, const T* gate_up, u64 n_vectors) {
    Packed<T, WIDTH> gate[VECTORS], up[VECTORS];
    EACH_VECTOR(i) {
        u64 vector = vector_number(i);
        if (vector < n_vectors) {
            load(gate[i], gate_up + gate_of(vector));
            load(up[i], gate_up + gate_of(vector) + F);
        }
    }
    EACH_VECTOR(i) {
        u64 vector = vector_number(i);
        if (vector < n_vectors) {
            float out[WIDTH];
            EACH_ELEMENT(j) out[j] = silu(gate[i][j]) * up[i][j];
            store(y + vector * WIDTH, out);
        }
    }
}

extern "C" __global__ __launch_bounds__(BLOCK) void swiglu_backward(
    G* dgate_up, const T* dy, const T* gate_up, u64 n_vectors) {
    Packed<T, WIDTH> dys[VECTORS], gate[VECTORS], up[VECTORS];
    EACH_VECTOR(i) {
        u64 vector = vector_number(i);
        if (vector < n_vectors) {
            load(dys[i], dy + vector * WIDTH);
            load(gate[i], gate_up + gate_of(vector));
            load(up[i], gate_up + gate_of(vector) + F);
        }
    }
    EACH_VECTOR(i) {
        u64 vector = vector_number(i);
        if (vector < n_vectors) {
            float dgate[WIDTH], dup[WIDTH];
            EACH_ELEMENT(j) {
                float s = sigmoid(gate[i][j]);
                dgate[j] = dys[i][j] * up[i][j] * (s * (1.f + gate[i][j] * (1.f - s)));
                dup[j] = dys[i][j] * (gate[i][j] * s);
            }
            store(dgate_up + gate_of(vector), dgate);
            store(dgate_up + gate_of(vector) + F, dup);
        }
    }
}
