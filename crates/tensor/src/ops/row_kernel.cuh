// Rows of D elements in vectors of WIDTH. A team of TEAM threads (whole warps) holds a row in registers; a block is
// BLOCK / TEAM teams, at most 15 unless a team is one warp. T is the type of activations, G that of the gradient that is written.

using T = ELEMENT;
using G = GRADIENT;
constexpr int VECTORS = (D / WIDTH + TEAM - 1) / TEAM; // of a thread
constexpr int TEAMS = BLOCK / TEAM;

// The first element of this thread's vector i, counted from the start of the row, and whether there is such a vector.
__device__ __forceinline__ int column(int i) {
    return (i * TEAM + int(threadIdx.x) % TEAM) * WIDTH;
}

__device__ __forceinline__ bool holds(int i) {
    return (i + 1) * TEAM * WIDTH <= D || column(i) < D;
}

#define EACH_VECTOR(i) _Pragma("unroll") for (int i = 0; i < VECTORS; ++i) if (holds(i))
#define EACH_ELEMENT(j) _Pragma("unroll") for (int j = 0; j < WIDTH; ++j)

// The (first) row of this thread's team.
__device__ __forceinline__ u64 row_of_team() {
    return u64(blockIdx.x) * TEAMS + threadIdx.x / TEAM;
}

// A thread's share of a row.
template <class E>
struct Row {
    Packed<E, WIDTH> vectors[VECTORS];

    __device__ __forceinline__ void load_from(const E* row) {
        EACH_VECTOR(i) load(vectors[i], row + column(i));
    }
    __device__ __forceinline__ void clear() {
        float zeros[WIDTH] = {};
#pragma unroll
        for (int i = 0; i < VECTORS; ++i) vectors[i].set(zeros);
    }
    __device__ __forceinline__ void forget() {
#pragma unroll
        for (int i = 0; i < VECTORS; ++i) vectors[i].forget();
    }
    __device__ __forceinline__ const Packed<E, WIDTH>& operator[](int i) const {
        return vectors[i];
    }
};

// values <- values + addend + bias, rounded to T as it is kept in `sum`. All are rows; the bias may be null.
__device__ __forceinline__ void add_and_keep(Row<T>& values, T* sum, const T* addend, const T* bias) {
    Row<T> others;
    others.load_from(addend);
    EACH_VECTOR(i) {
        float total[WIDTH];
        EACH_ELEMENT(j) total[j] = values[i][j] + others[i][j];
        if (bias) {
            float b[WIDTH];
            load(b, bias + column(i));
            EACH_ELEMENT(j) total[j] += b[j];
        }
        values.vectors[i].set(total);
        store(sum + column(i), values[i]);
    }
}

// Replaces each of N numbers by its sum over the team, in a fixed order. Two reductions in a row need different `slot`s,
// 0 or 1: then one barrier each is enough.
template <int N>
__device__ __forceinline__ void sum_over_team(float (&x)[N], int slot) {
#pragma unroll
    for (int k = 0; k < N; ++k) x[k] = reduce_warp<Sum>(x[k]);
    if constexpr (TEAM > 32) {
        __shared__ float of_warp[2][N][BLOCK / 32];
        int team = threadIdx.x / TEAM;
        if (threadIdx.x % 32 == 0) {
#pragma unroll
            for (int k = 0; k < N; ++k) of_warp[slot][k][threadIdx.x / 32] = x[k];
        }
        // A barrier for the threads of this team alone: other teams may have no row left.
        asm volatile("bar.sync %0, %1;" ::"r"(team + 1), "n"(TEAM) : "memory");
#pragma unroll
        for (int k = 0; k < N; ++k) {
            x[k] = of_warp[slot][k][team * (TEAM / 32)];
#pragma unroll
            for (int warp = 1; warp < TEAM / 32; ++warp) x[k] += of_warp[slot][k][team * (TEAM / 32) + warp];
        }
    }
}

#if BACKWARD

// Writes the sum of the `sums` of all teams, D numbers, to `to`, in the order of the teams. For all threads of a block.
__device__ __forceinline__ void add_up_teams(float* to, const float (&sums)[VECTORS][WIDTH]) {
    if constexpr (TEAMS > 1) {
        __shared__ Vector<float, WIDTH> of_team[TEAMS][VECTORS * TEAM];
        __syncthreads(); // it may still be read from the last time
#pragma unroll
        for (int i = 0; i < VECTORS; ++i) {
            Vector<float, WIDTH> vector;
            EACH_ELEMENT(j) vector.x[j] = sums[i][j];
            of_team[threadIdx.x / TEAM][column(i) / WIDTH] = vector;
        }
        __syncthreads();
        for (int at = threadIdx.x; at < D; at += BLOCK) {
            float sum = of_team[0][at / WIDTH].x[at % WIDTH];
#pragma unroll
            for (int team = 1; team < TEAMS; ++team) sum += of_team[team][at / WIDTH].x[at % WIDTH];
            to[at] = sum;
        }
    } else {
        EACH_VECTOR(i) store(to + column(i), sums[i]);
    }
}

// ---- the end of a backward kernel, whose blocks all run at the same time ----

__device__ u32 n_arrived, generation;

// All blocks are here and see what the others have written. If not all of them run, it ends in an error after some seconds.
__device__ __forceinline__ void wait_for_grid() {
    __syncthreads();
    if (threadIdx.x == 0) {
        const volatile u32* now = &generation;
        const u32 before = *now;
        __threadfence();
        if (atomicAdd(&n_arrived, 1u) == gridDim.x - 1) {
            n_arrived = 0;
            __threadfence();
            atomicAdd(&generation, 1u);
        } else {
            for (u32 i = 0; *now == before; ++i) {
                if (i == 1u << 24) __trap();
            }
        }
        __threadfence();
    }
    __syncthreads();
}

// The sums [D] are those over the blocks of partial [sums, gridDim.x, D], in a fixed order. A warp of the grid has eight
// columns of a sum, and reads four rows at a time.
template <int SUMS>
__device__ __forceinline__ void join_blocks(float* const (&sums)[SUMS], const float* partial) {
    constexpr u32 PIECES = (D + 7) / 8; // of a sum
    constexpr u32 BATCH = 36; // loads under way: a column's share of a block of each of an H100's multiprocessors
    wait_for_grid();
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (u32 piece = warp * gridDim.x + blockIdx.x; piece < SUMS * PIECES; piece += BLOCK / 32 * gridDim.x) {
        const u32 which = piece / PIECES, column = piece % PIECES * 8 + lane % 8;
        const float* from = partial + u64(which) * gridDim.x * D + column;
        float x = 0.f;
        if (column < D) {
            for (u32 first = lane / 8; first < gridDim.x; first += 4 * BATCH) {
                float values[BATCH];
#pragma unroll
                for (u32 i = 0; i < BATCH; ++i) {
                    u32 row = first + 4 * i;
                    values[i] = 0.f;
                    // From the L2, where the other blocks' sums are.
                    if (row < gridDim.x) {
                        asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(values[i]) : "l"(from + u64(row) * D) : "memory");
                    }
                }
#pragma unroll
                for (u32 i = 0; i < BATCH; ++i) x += values[i];
            }
        }
        x += __shfl_xor_sync(0xffffffffu, x, 8);
        x += __shfl_xor_sync(0xffffffffu, x, 16);
        if (lane < 8 && column < D) {
#pragma unroll
            for (u32 i = 0; i < SUMS; ++i) {
                if (which == i) sums[i][column] = x;
            }
        }
    }
}

#endif
