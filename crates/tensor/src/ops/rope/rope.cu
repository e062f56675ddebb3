// Rows of HEADS turned heads of HEAD elements, of which the first TURNED turn, then COPIED elements that only pass
// through; WIDTH divides all of them and TURNED / 2. An item is WIDTH pairs, or WIDTH elements to be copied.

constexpr u32 PAIRS = TURNED / 2;
constexpr u32 PAIR_ITEMS = PAIRS / WIDTH;          // of a head
constexpr u32 KEPT_ITEMS = (HEAD - TURNED) / WIDTH; // of a head
constexpr u32 ROW = HEADS * HEAD + COPIED;
constexpr u32 TURN_ITEMS = HEADS * PAIR_ITEMS;
constexpr u32 COPY_ITEMS = HEADS * KEPT_ITEMS + COPIED / WIDTH;

// Where an element to be copied is in its row.
__device__ __forceinline__ u32 place_to_copy(u32 item) {
    if (KEPT_ITEMS > 0 && item < HEADS * KEPT_ITEMS) {
        constexpr u32 KEPT = KEPT_ITEMS > 0 ? KEPT_ITEMS : 1;
        return (item / KEPT) * HEAD + TURNED + (item % KEPT) * WIDTH;
    }
    return HEADS * HEAD + (item - HEADS * KEPT_ITEMS) * WIDTH;
}

// Turns WIDTH pairs of one head. y may be x.
__device__ __forceinline__ void turn(G* y, const T* x, const float* cos, const float* sin, float sign) {
    float c[WIDTH], s[WIDTH], first[WIDTH], second[WIDTH];
    load(c, cos);
    load(s, sin);
#if INTERLEAVED
    constexpr int OTHER = WIDTH; // two vectors, in which pairs are neighbours
#else
    constexpr int OTHER = PAIRS; // the second elements of the pairs
#endif
    load(first, x);
    load(second, x + OTHER);
#if INTERLEAVED
    float all[2 * WIDTH];
    EACH_ELEMENT(j) {
        all[j] = first[j];
        all[WIDTH + j] = second[j];
    }
    EACH_ELEMENT(j) {
        float a = all[2 * j], b = all[2 * j + 1];
        all[2 * j] = a * c[j] - b * (sign * s[j]);
        all[2 * j + 1] = b * c[j] + a * (sign * s[j]);
    }
    EACH_ELEMENT(j) {
        first[j] = all[j];
        second[j] = all[WIDTH + j];
    }
#else
    EACH_ELEMENT(j) {
        float a = first[j], b = second[j];
        first[j] = a * c[j] - b * (sign * s[j]);
        second[j] = b * c[j] + a * (sign * s[j]);
    }
#endif
    store(y, first);
    store(y + OTHER, second);
}

// y = x with its heads turned, for n rows at positions start, start + 1, ..., start + t - 1, start, ... If y is x, what is
// only copied is left alone and there are TURN_ITEMS items a row.
extern "C" __global__ __launch_bounds__(BLOCK) void rope(
    G* y, const T* x, const float* cos, const float* sin, u32 n, u32 start, u32 t, float sign, u32 in_place) {
    u32 items = in_place ? TURN_ITEMS : TURN_ITEMS + COPY_ITEMS;
    EACH_VECTOR(i) {
        u64 number = vector_number(i);
        // Divided by constants, for speed.
        u64 row = in_place ? number / (TURN_ITEMS > 0 ? TURN_ITEMS : 1) : number / (TURN_ITEMS + COPY_ITEMS);
        u32 item = u32(number - row * items);
        if (row >= n) return;
        if (item < TURN_ITEMS) {
            constexpr u32 EACH = PAIR_ITEMS > 0 ? PAIR_ITEMS : 1;
            u32 head = item / EACH, pair = (item % EACH) * WIDTH;
            u64 at = row * ROW + head * HEAD + (INTERLEAVED ? 2 * pair : pair);
            u64 angle = u64(start + u32(row) % t) * PAIRS + pair;
            turn(y + at, x + at, cos + angle, sin + angle, sign);
        } else {
            u64 at = row * ROW + place_to_copy(item - TURN_ITEMS);
            float values[WIDTH];
            load(values, x + at);
            store(y + at, values);
        }
    }
}
