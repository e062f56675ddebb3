extern "C" __global__ __launch_bounds__(BLOCK) void add(T* sum, const T* x, const T* y, u64 n) {
    float a[VECTORS][WIDTH], b[VECTORS][WIDTH];
    EACH_VECTOR(i) {
        load_within(a[i], x, vector_number(i) * WIDTH, n);
        load_within(b[i], y, vector_number(i) * WIDTH, n);
    }
    EACH_VECTOR(i) {
        EACH_ELEMENT(j) a[i][j] += b[i][j];
        store_within(sum, vector_number(i) * WIDTH, n, a[i]);
    }
}

// With one bias [d] for all rows.
extern "C" __global__ __launch_bounds__(BLOCK) void add_with_bias(
    T* sum, const T* x, const T* y, const T* bias, u64 d, u64 n) {
    float a[VECTORS][WIDTH], b[VECTORS][WIDTH];
    EACH_VECTOR(i) {
        load_within(a[i], x, vector_number(i) * WIDTH, n);
        load_within(b[i], y, vector_number(i) * WIDTH, n);
    }
    EACH_VECTOR(i) {
        EACH_ELEMENT(j) a[i][j] = a[i][j] + b[i][j] + to_float(bias[(vector_number(i) * WIDTH + j) % d]);
        store_within(sum, vector_number(i) * WIDTH, n, a[i]);
    }
}
