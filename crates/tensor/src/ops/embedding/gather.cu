// Rows of D elements, a multiple of WIDTH.

constexpr u32 ROW = D / WIDTH; // vectors

// y[i] = table[ids[i]] (+ positions[start + i % t], if there are positions). An id that is not below v gives NaN.
extern "C" __global__ __launch_bounds__(BLOCK) void gather(
    T* y, const u32* ids, const T* table, const T* positions, u64 n_vectors, u32 v, u32 start, u32 t) {
    EACH_VECTOR(i) {
        u64 vector = vector_number(i);
        if (vector >= n_vectors) return;
        u32 row = u32(vector / ROW), column = u32(vector % ROW) * WIDTH;
        u32 id = ids[row];
        float values[WIDTH];
        EACH_ELEMENT(j) values[j] = __int_as_float(0x7fffffff);
        if (id < v) load(values, table + u64(id) * D + column);
        if (positions) {
            float position[WIDTH];
            load(position, positions + u64(start + row % t) * D + column);
            EACH_ELEMENT(j) values[j] += position[j];
        }
        store(y + vector * WIDTH, values);
    }
}

// dpositions[c] <- beta * dpositions[c] + the sum of dy[., c - start] over b sequences of t, in their order; for all of the
// context's positions.
extern "C" __global__ __launch_bounds__(BLOCK) void sum_positions(
    G* dpositions, float beta, const T* dy, u32 context, u32 start, u32 b, u32 t) {
    EACH_VECTOR(i) {
        u64 vector = vector_number(i);
        u32 position = u32(vector / ROW), column = u32(vector % ROW) * WIDTH;
        if (vector >= u64(context) * ROW) return;
        float sum[WIDTH] = {};
        if (start <= position && position < start + t) {
            const T* from = dy + u64(position - start) * D + column;
#pragma unroll 8
            for (u32 sequence = 0; sequence < b; ++sequence) {
                float values[WIDTH];
                load(values, from + u64(sequence) * t * D);
                EACH_ELEMENT(j) sum[j] += values[j];
            }
        }
        G* to = dpositions + u64(position) * D + column;
        float old[WIDTH] = {};
        if (beta != 0.f) load(old, to);
        EACH_ELEMENT(j) sum[j] += beta * old[j];
        store(to, sum);
    }
}
