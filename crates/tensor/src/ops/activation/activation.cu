extern "C" __global__ __launch_bounds__(BLOCK) void activation_forward(T* y, const T* x, u64 n) {
    float values[VECTORS][WIDTH];
    EACH_VECTOR(i) load_within(values[i], x, vector_number(i) * WIDTH, n);
    EACH_VECTOR(i) {
        EACH_ELEMENT(j) values[i][j] = FUNCTION(values[i][j]);
        store_within(y, vector_number(i) * WIDTH, n, values[i]);
    }
}

// dx may be dy.
extern "C" __global__ __launch_bounds__(BLOCK) void activation_backward(G* dx, const T* dy, const T* x, u64 n) {
    float values[VECTORS][WIDTH], dys[VECTORS][WIDTH];
    EACH_VECTOR(i) {
        load_within(values[i], x, vector_number(i) * WIDTH, n);
        load_within(dys[i], dy, vector_number(i) * WIDTH, n);
    }
    EACH_VECTOR(i) {
        EACH_ELEMENT(j) dys[i][j] *= DERIVATIVE(values[i][j]);
        store_within(dx, vector_number(i) * WIDTH, n, dys[i]);
    }
}
