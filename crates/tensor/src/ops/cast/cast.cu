extern "C" __global__ __launch_bounds__(BLOCK) void cast(G* y, const T* x, u64 n) {
    float values[VECTORS][WIDTH];
    EACH_VECTOR(i) load_within(values[i], x, vector_number(i) * WIDTH, n);
    EACH_VECTOR(i) store_within(y, vector_number(i) * WIDTH, n, values[i]);
}
