// Loss and gradient of rows of logits, each read once: a block walks rows, and while it works on one, the next ones are on
// their way to shared memory. A thread touches only its own vectors there, which it refills as soon as it has used them: the
// only thing that threads tell each other is the maximum and the sum.
//
// A multiprocessor has two blocks or more: while one of them reads and adds up, another one writes.
//
// What does not fit in shared memory (`resident` vectors of a row do) is read twice, the second time from the L2.

using T = ELEMENT;
using G = GRADIENT;
constexpr u32 BATCH = WIDTH * sizeof(ELEMENT) == 16 ? 2 : 8; // vectors that a thread reads before it uses them
constexpr float LOG2_E = 1.44269504088896341f;
constexpr u32 IGNORED = 0xffffffffu;

constexpr int VECTOR_BYTES = WIDTH * sizeof(T);
constexpr int WORDS = VECTOR_BYTES < 4 ? 1 : VECTOR_BYTES / 4; // of a vector in registers

__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// exp(x - max), where x <= max but for NaN.
__device__ __forceinline__ float exponential(float x, float max) {
    return exp2_fast((x - max) * LOG2_E);
}

// ---- sums of exponentials relative to their largest ----

struct alignas(8) Statistic {
    float max; // finite if there is nothing: then differences are no NaN
    float sum; // of exp(x - max)
};

constexpr float LOWEST = -3.402823466e38f;

// Rounded step by step: the same bits whichever of the two comes first.
__device__ __forceinline__ Statistic join(Statistic a, Statistic b) {
    float max = fmaxf(a.max, b.max);
    float of_a = __fmul_rn(a.sum, exponential(a.max, max));
    float of_b = __fmul_rn(b.sum, exponential(b.max, max));
    return {max, __fadd_rn(of_a, of_b)};
}

template <int LANES>
__device__ __forceinline__ Statistic join_lanes(Statistic x) {
#pragma unroll
    for (int offset = LANES / 2; offset > 0; offset /= 2) {
        Statistic other;
        other.max = __shfl_xor_sync(0xffffffffu, x.max, offset);
        other.sum = __shfl_xor_sync(0xffffffffu, x.sum, offset);
        x = join(x, other);
    }
    return x;
}

constexpr int WARPS = BLOCK / 32;

// Over the block. The caller alternates between two arrays `of_warp`, so that one barrier is enough.
__device__ __forceinline__ Statistic join_threads(Statistic x, Statistic* of_warp) {
    x = join_lanes<32>(x);
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = x;
    __syncthreads();
    return join_lanes<WARPS>(of_warp[threadIdx.x % WARPS]);
}

// ---- copies to shared memory that a thread waits for later ----

__device__ __forceinline__ void copy_async(void* to, const void* from) {
    u32 address = static_cast<u32>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from) : "memory");
}

__device__ __forceinline__ void end_group() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// All groups but the newest STAGES - 1 have arrived.
__device__ __forceinline__ void wait_for_oldest() {
    asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 1) : "memory");
}

// ---- vectors, as they are until they are used ----

__device__ __forceinline__ void read(u32 (&words)[WORDS], const void* from) {
    if constexpr (VECTOR_BYTES == 16) {
        uint4 x = *static_cast<const uint4*>(from);
        words[0] = x.x, words[1] = x.y, words[2] = x.z, words[3] = x.w;
    } else if constexpr (VECTOR_BYTES == 8) {
        uint2 x = *static_cast<const uint2*>(from);
        words[0] = x.x, words[1] = x.y;
    } else if constexpr (VECTOR_BYTES == 4) {
        words[0] = *static_cast<const u32*>(from);
    } else {
        words[0] = *static_cast<const unsigned short*>(from);
    }
}

// Columns from v on count as minus infinity.
__device__ __forceinline__ void unpack(float (&x)[WIDTH], const u32 (&words)[WORDS], u32 column, u32 v) {
#pragma unroll
    for (int j = 0; j < WIDTH; ++j) {
        if (sizeof(T) == 4) {
            x[j] = __uint_as_float(words[j]);
        } else {
            x[j] = __uint_as_float(j % 2 == 0 ? words[j / 2] << 16 : words[j / 2] & 0xffff0000u);
        }
    }
    if (column + WIDTH > v) {
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) {
            if (column + j >= v) x[j] = __int_as_float(0xff800000);
        }
    }
}

__device__ __forceinline__ void write(G* to, const float (&x)[WIDTH]) {
    constexpr int PIECE = WIDTH * sizeof(G) > 16 ? 16 / sizeof(G) : WIDTH;
#pragma unroll
    for (int i = 0; i < WIDTH; i += PIECE) {
        float piece[PIECE];
#pragma unroll
        for (int j = 0; j < PIECE; ++j) piece[j] = x[i + j];
        store(to + i, piece);
    }
}

// losses[row] = log(sum exp(logits[row])) - logits[row][target], gradient[row] = scale * (softmax(logits[row]) - one-hot).
// Rows are [v] at distances of `stride` elements, and what is between them may be written. `losses` or `gradient` may be
// null, and `gradient` may be `logits`. IGNORED targets give zeros; others outside of 0..v give NaN, and so does an infinite
// loss in its gradient.
extern "C" __global__ __launch_bounds__(BLOCK, BLOCKS) void cross_entropy(
    float* losses, G* gradient, const T* logits, const u32* targets, u32 n, u32 v, u32 stride, u32 resident,
    float scale) {
    extern __shared__ uint4 shared[]; // [STAGES][resident] vectors
    __shared__ Statistic of_warp[2][WARPS];
    static_assert(WARPS <= 32, "a warp joins what all warps have");
    const u32 n_vectors = (v + WIDTH - 1) / WIDTH, n_resident = min(resident, n_vectors);

    auto fetch = [&](u64 row, u32 stage, u32 vector) {
        copy_async(shared + stage * resident + vector, logits + row * stride + vector * WIDTH);
    };
    for (u32 stage = 0; stage < STAGES; ++stage) {
        u64 row = blockIdx.x + u64(stage) * gridDim.x;
        if (row < n) {
            for (u32 vector = threadIdx.x; vector < n_resident; vector += BLOCK) fetch(row, stage, vector);
        }
        end_group();
    }

    u32 next_target = blockIdx.x < n ? targets[blockIdx.x] : IGNORED;
    u32 stage = 0, parity = 0;
    for (u64 row = blockIdx.x; row < n; row += gridDim.x) {
        const u32 target = next_target;
        if (row + gridDim.x < n) next_target = targets[row + gridDim.x]; // read here: its latency would be waited for
        const T* x = logits + row * stride;
        const uint4* slots = shared + stage * resident;
        auto read_vector = [&](u32 (&words)[WORDS], u32 vector) {
            if (VECTOR_BYTES == 16 && vector < n_resident) {
                read(words, slots + vector);
            } else {
                read(words, x + vector * WIDTH);
            }
        };
        const u64 next_row = row + u64(STAGES) * gridDim.x;
        auto refill = [&](u32 vector) {
            if (vector < n_resident && next_row < n) fetch(next_row, stage, vector);
        };
        wait_for_oldest();

        Statistic statistic = {LOWEST, 0.f};
        for (u32 first = threadIdx.x; first < n_vectors; first += BATCH * BLOCK) {
            u32 words[BATCH][WORDS];
#pragma unroll
            for (u32 b = 0; b < BATCH; ++b) {
                u32 vector = first + b * BLOCK;
                if (vector < n_vectors) read_vector(words[b], vector);
            }
#pragma unroll
            for (u32 b = 0; b < BATCH; ++b) {
                u32 vector = first + b * BLOCK;
                if (vector >= n_vectors) break;
                float values[WIDTH];
                unpack(values, words[b], vector * WIDTH, v);
                float max = values[0];
#pragma unroll
                for (u32 j = 1; j < WIDTH; ++j) max = fmaxf(max, values[j]);
                if (max > statistic.max) {
                    statistic.sum *= exponential(statistic.max, max);
                    statistic.max = max;
                }
                float sum = exponential(values[0], statistic.max);
#pragma unroll
                for (u32 j = 1; j < WIDTH; ++j) sum += exponential(values[j], statistic.max);
                statistic.sum += sum;
                if (gradient == nullptr) refill(vector); // else it is needed again
            }
        }
        // Of the thread that has the target's logit; for other targets it is nobody's.
        const bool counts = target < v;
        const bool owns_target = counts && target / WIDTH % BLOCK == threadIdx.x;
        const float target_logit = owns_target ? to_float(x[target]) : 0.f;
        statistic = join_threads(statistic, of_warp[parity]);

        const float nan = __int_as_float(0x7fffffff);
        const float loss = logf(statistic.sum) + (statistic.max - target_logit);
        if (losses != nullptr) {
            if (owns_target) losses[row] = loss;
            if (!counts && threadIdx.x == 0) losses[row] = target == IGNORED ? 0.f : nan;
        }
        const float factor = counts ? scale / statistic.sum : nan;
        for (u32 first = threadIdx.x; gradient != nullptr && first < n_vectors; first += BATCH * BLOCK) {
            u32 words[BATCH][WORDS];
#pragma unroll
            for (u32 b = 0; b < BATCH; ++b) {
                u32 vector = first + b * BLOCK;
                if (vector < n_vectors) read_vector(words[b], vector);
            }
#pragma unroll
            for (u32 b = 0; b < BATCH; ++b) {
                u32 vector = first + b * BLOCK;
                if (vector >= n_vectors) break;
                float values[WIDTH];
                unpack(values, words[b], vector * WIDTH, v);
#pragma unroll
                for (u32 j = 0; j < WIDTH; ++j) values[j] = exponential(values[j], statistic.max) * factor;
                if (target == IGNORED) {
#pragma unroll
                    for (u32 j = 0; j < WIDTH; ++j) values[j] = 0.f;
                }
                write(gradient + row * stride + vector * WIDTH, values); // within the row's stride, of which WIDTH is a divisor
                refill(vector);
            }
        }
        // Over what this thread has written there.
        if (gradient != nullptr && owns_target) {
            float x = exponential(target_logit, statistic.max) * factor - scale;
            gradient[row * stride + target] = from_float<G>(fabsf(loss) <= -LOWEST ? x : nan);
        }
        end_group();
        stage = stage + 1 == STAGES ? 0 : stage + 1;
        parity ^= 1;
    }
}
