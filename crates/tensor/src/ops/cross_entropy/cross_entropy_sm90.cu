// Loss and gradient of rows of bf16 logits on Hopper. A block, one of each multiprocessor, walks rows; HELD_ROWS of them are in
// shared memory or on their way there, by the bulk copy engine. Once all of a row is in registers, VECTORS of 8 a thread, its
// slot is filled again: the memory is busy while the row is worked on.
//
// Exponentials are powers of two relative to 2^r with a whole r near the largest logit: what is relative to another r is
// scaled exactly.

constexpr u32 BLOCK = 1024, WARPS = BLOCK / 32;
constexpr u32 PIECES = 8; // copies of a row
constexpr u32 IGNORED = 0xffffffffu;
constexpr float LOG2_E = 1.44269504088896341f, LN_2 = 0.693147180559945309f, LN_2_REST = -1.904654299957768e-09f;
constexpr int FARTHEST = 1 << 30; // of r; logits of 7e8 and more make a row NaN or infinite

__device__ __forceinline__ u32 max_of_pairs(u32 a, u32 b) {
    u32 c;
    asm("max.bf16x2 %0, %1, %2;" : "=r"(c) : "r"(a), "r"(b));
    return c;
}

__device__ __forceinline__ int max_of_warp(int x) {
    int y;
    asm volatile("redux.sync.max.s32 %0, %1, 0xffffffff;" : "=r"(y) : "r"(x));
    return y;
}

__device__ __forceinline__ int exponent_of(float x) {
    return max(min(__float2int_rn(x * LOG2_E), FARTHEST), -FARTHEST);
}

// The low and the high number of a pair, as powers of e relative to 2^r.
__device__ __forceinline__ float power_low(u32 pair, float r) {
    return exp2_approx(fmaf(bf16_low(pair), LOG2_E, -r));
}

__device__ __forceinline__ float power_high(u32 pair, float r) {
    return exp2_approx(fmaf(bf16_high(pair), LOG2_E, -r));
}

// As `cross_entropy` of cross_entropy.cu, with rows at distances that are multiples of 8.
extern "C" __global__ __launch_bounds__(BLOCK, 1) void cross_entropy_rows(
    float* losses, bf16* gradient, const bf16* logits, const u32* targets, u32 n, u32 v, u32 stride, float scale) {
    extern __shared__ uint4 slots[]; // [HELD_ROWS][n_vectors]
    __shared__ u64 full[HELD_ROWS];
    __shared__ int exponents[2][WARPS];
    __shared__ float sums[2][WARPS];
    const u32 n_vectors = (v + 7) / 8, lane = threadIdx.x % 32, warp = threadIdx.x / 32;

    // By one thread.
    auto fetch = [&](u64 row, u32 slot) {
        const u32 barrier = slot_barrier(full, slot), piece = (n_vectors + PIECES - 1) / PIECES;
        mbarrier_expect_bytes(barrier, n_vectors * 16);
        for (u32 from = 0; from < n_vectors; from += piece) {
            copy_bytes_to_shared(shared_address(slots + slot * n_vectors + from), logits + row * stride + from * 8,
                                 min(piece, n_vectors - from) * 16, barrier);
        }
    };
    if (threadIdx.x == 0) {
        for (u32 slot = 0; slot < HELD_ROWS; ++slot) mbarrier_init(slot_barrier(full, slot), 1);
        fence_mbarrier_init();
        for (u32 slot = 0; slot < HELD_ROWS; ++slot) {
            const u64 row = blockIdx.x + u64(slot) * gridDim.x;
            if (row < n) fetch(row, slot);
        }
    }
    __syncthreads();

    Ring<HELD_ROWS> ring;
    u32 parity = 0, next_target = blockIdx.x < n ? targets[blockIdx.x] : IGNORED;
    for (u64 row = blockIdx.x; row < n; row += gridDim.x) {
        const u32 target = next_target;
        if (row + gridDim.x < n) next_target = targets[row + gridDim.x]; // read here: its latency would be waited for
        const uint4* slot = slots + ring.slot * n_vectors;
        mbarrier_wait(slot_barrier(full, ring.slot), ring.phase);

        u32 words[VECTORS][4];
        u32 largest = 0xff80ff80u; // minus infinity, twice
#pragma unroll
        for (int k = 0; k < VECTORS; ++k) {
            const u32 vector = k * BLOCK + threadIdx.x;
            if (k < VECTORS - 1 || vector < n_vectors) {
                const uint4 x = slot[vector];
                words[k][0] = x.x, words[k][1] = x.y, words[k][2] = x.z, words[k][3] = x.w;
                if (k == VECTORS - 1 && vector * 8 + 8 > v) {
#pragma unroll
                    for (int i = 0; i < 4; ++i) { // columns from v on count as minus infinity
                        if (vector * 8 + 2 * i >= v) words[k][i] = 0xff80ff80u;
                        else if (vector * 8 + 2 * i + 1 >= v) words[k][i] = words[k][i] & 0xffffu | 0xff800000u;
                    }
                }
            } else {
#pragma unroll
                for (int i = 0; i < 4; ++i) words[k][i] = 0xff80ff80u;
            }
#pragma unroll
            for (int i = 0; i < 4; ++i) largest = max_of_pairs(largest, words[k][i]);
        }
        const bool counts = target < v;
        const float target_logit = counts ? to_float(reinterpret_cast<const bf16*>(slot)[target]) : 0.f;

        int exponent = max_of_warp(exponent_of(fmaxf(bf16_low(largest), bf16_high(largest))));
        float r = static_cast<float>(exponent), sum = 0.f;
#pragma unroll
        for (int k = 0; k < VECTORS; ++k) {
            if (k == VECTORS - 1 && k * BLOCK + warp * 32 >= n_vectors) break; // nothing of the warp's
            float low = 0.f, high = 0.f;
#pragma unroll
            for (int i = 0; i < 4; ++i) low += power_low(words[k][i], r), high += power_high(words[k][i], r);
            sum += low + high;
        }
        sum = reduce_warp<Sum>(sum);
        if (lane == 0) exponents[parity][warp] = exponent, sums[parity][warp] = sum;
        __syncthreads(); // also: the row is in registers
        const u64 next_row = row + u64(HELD_ROWS) * gridDim.x;
        if (threadIdx.x == 0 && next_row < n) fetch(next_row, ring.slot);
        const int of_warp = exponents[parity][lane];
        exponent = max_of_warp(of_warp);
        sum = reduce_warp<Sum>(sums[parity][lane] * exp2_approx(static_cast<float>(of_warp - exponent)));
        r = static_cast<float>(exponent);

        const float nan = __int_as_float(0x7fffffff);
        const float loss = logf(sum) + (fmaf(r, LN_2, -target_logit) + r * LN_2_REST);
        if (threadIdx.x == 0 && losses != nullptr) losses[row] = counts ? loss : target == IGNORED ? 0.f : nan;
        if (gradient != nullptr) {
            bf16* to = gradient + row * stride;
            const float factor = counts ? scale / sum : nan;
#pragma unroll
            for (int k = 0; k < VECTORS; ++k) {
                const u32 vector = k * BLOCK + threadIdx.x;
                if (k == VECTORS - 1 && vector >= n_vectors) break;
                Packed<bf16, 8> out;
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const u32 pair =
                        pack_bf16(power_low(words[k][i], r) * factor, power_high(words[k][i], r) * factor);
                    out.pairs[i] = target == IGNORED ? 0u : pair;
                }
                store(to + vector * 8, out); // within the row's stride
            }
            // Over what this thread has written there.
            if (counts && target / 8 % BLOCK == threadIdx.x) {
                const float x = exp2_approx(fmaf(target_logit, LOG2_E, -r)) * factor - scale;
                to[target] = from_float<bf16>(fabsf(loss) < INFINITY ? x : nan);
            }
        }
        ring.advance();
        parity ^= 1;
    }
}
