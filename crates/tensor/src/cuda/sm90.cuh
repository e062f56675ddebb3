// Hopper's own instructions, one function each: mbarriers, the bulk tensor copy engine (TMA), warpgroup matrix products
// (wgmma) and register reallocation. Names follow the PTX ISA, sections 9.7.13 to 9.7.15.
//
// No header is included: the compiler of these sources at run time (NVRTC) has none of the host's.

typedef unsigned int u32;
typedef unsigned long long u64;

#define INFINITY __int_as_float(0x7f800000)

// A tensor map of the driver, passed by value as a `__grid_constant__` parameter.
struct alignas(64) TensorMap {
    u64 opaque[16];
};

__device__ __forceinline__ u32 shared_address(const void* pointer) {
    return static_cast<u32>(__cvta_generic_to_shared(pointer));
}

// ---- mbarriers: a phase ends when the expected arrivals and bytes are in; waiting names the parity of the phase ----

__device__ __forceinline__ void mbarrier_init(u32 barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}

// Makes initialised barriers visible to the copy engine. A `__syncthreads` must follow.
__device__ __forceinline__ void fence_mbarrier_init() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void mbarrier_expect_bytes(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

__device__ __forceinline__ void mbarrier_arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

#ifdef BOUNDED_WAITS
// For a kernel under test: a wait of more than about two seconds ends it instead of hanging.
__device__ __forceinline__ void mbarrier_wait(u32 barrier, u32 parity) {
    const long long start = clock64();
    while (true) {
        u32 done;
        asm volatile(
            "{\n"
            ".reg .pred done;\n"
            "mbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\n"
            "selp.u32 %0, 1, 0, done;\n"
            "}\n"
            : "=r"(done)
            : "r"(barrier), "r"(parity)
            : "memory");
        if (done) break;
        if (clock64() - start > 4000000000ll) asm volatile("trap;");
    }
}
#else
__device__ __forceinline__ void mbarrier_wait(u32 barrier, u32 parity) {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@done bra finished;\n"
        "bra again;\n"
        "finished:\n"
        "}\n" ::"r"(barrier),
        "r"(parity)
        : "memory");
}
#endif

// A place in a ring: the slot and the parity of its current phase.
template <int SLOTS>
struct Ring {
    int slot = 0;
    u32 phase = 0;
    __device__ void advance() {
        if (++slot == SLOTS) slot = 0, phase ^= 1;
    }
    __device__ void skip(int places) {
        slot += places;
        phase ^= slot / SLOTS & 1;
        slot %= SLOTS;
    }
};

__device__ __forceinline__ u32 slot_barrier(const u64* barriers, int slot) {
    return shared_address(barriers) + 8 * slot;
}

// ---- named barriers of a block, 0 being that of __syncthreads ----

__device__ __forceinline__ void named_barrier_sync(int id, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

__device__ __forceinline__ void named_barrier_arrive(int id, int threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// ---- clusters of blocks ----

__device__ __forceinline__ u32 rank_in_cluster() {
    u32 rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

// All threads of all blocks are here; whole warps.
__device__ __forceinline__ void wait_for_cluster() {
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// At the barrier that is at the same place in block `rank`.
__device__ __forceinline__ void mbarrier_arrive_at(u32 barrier, u32 rank) {
    asm volatile(
        "{\n"
        ".reg .b32 there;\n"
        "mapa.shared::cluster.u32 there, %0, %1;\n"
        "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
        "}\n" ::"r"(barrier),
        "r"(rank)
        : "memory");
}

// ---- the copy engine ----

__device__ __forceinline__ void prefetch_tensor_map(const TensorMap& map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(reinterpret_cast<u64>(&map)) : "memory");
}

// A box at column x, row y, plane z; elements outside the tensor arrive as zeros.
__device__ __forceinline__ void copy_box_to_shared(u32 to, const TensorMap& map, int x, int y, int z, u32 barrier) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], "
        "[%2];" ::"r"(to),
        "l"(reinterpret_cast<u64>(&map)), "r"(barrier), "r"(x), "r"(y), "r"(z)
        : "memory");
}

// The same into every block of the cluster whose bit is set: to the same place, with the bytes counted by the barrier at the
// same place.
__device__ __forceinline__ void copy_box_to_blocks(u32 to, const TensorMap& map, int x, int y, int z, u32 barrier,
                                                   unsigned short blocks) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
        "[%1, {%3, %4, %5}], [%2], %6;" ::"r"(to),
        "l"(reinterpret_cast<u64>(&map)), "r"(barrier), "r"(x), "r"(y), "r"(z), "h"(blocks)
        : "memory");
}

// Rows of a head of 64-column tiles, from boxes of 64 by 64.
template <int ROWS, int TILES>
__device__ __forceinline__ void copy_rows(u32 to, const TensorMap& map, int x, int y, int z, u32 barrier) {
    for (int tile = 0; tile < TILES; tile++)
        for (int i = 0; i < ROWS; i += 64)
            copy_box_to_shared(to + (tile * ROWS + i) * 128, map, x + tile * 64, y + i, z, barrier);
}

// Elements outside the tensor are not written.
__device__ __forceinline__ void copy_box_to_global(const TensorMap& map, int x, int y, int z, u32 from) {
    asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(
                     reinterpret_cast<u64>(&map)),
                 "r"(from), "r"(x), "r"(y), "r"(z)
                 : "memory");
}

// The same, added to what is there: one rounding each.
__device__ __forceinline__ void add_box_to_global(const TensorMap& map, int x, int y, int z, u32 from) {
    asm volatile(
        "cp.reduce.async.bulk.tensor.3d.global.shared::cta.add.tile.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(
            reinterpret_cast<u64>(&map)),
        "r"(from), "r"(x), "r"(y), "r"(z)
        : "memory");
}

// Contiguous bytes, 16-byte aligned, a multiple of 16.
__device__ __forceinline__ void copy_bytes_to_shared(u32 to, const void* from, u32 bytes, u32 barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
                 "l"(reinterpret_cast<u64>(from)), "r"(bytes), "r"(barrier)
                 : "memory");
}

__device__ __forceinline__ void copy_bytes_to_global(void* to, u32 from, u32 bytes) {
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(reinterpret_cast<u64>(to)),
                 "r"(from), "r"(bytes)
                 : "memory");
}

__device__ __forceinline__ void add_floats_to_global(float* to, u32 from, u32 bytes) {
    asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(
                     reinterpret_cast<u64>(to)),
                 "r"(from), "r"(bytes)
                 : "memory");
}

__device__ __forceinline__ void copy_commit() {
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

// Until shared memory may be written again.
__device__ __forceinline__ void copy_wait_read() {
    asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

// Until all but the last `PENDING` groups have been read.
template <int PENDING>
__device__ __forceinline__ void copy_wait_read_but() {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(PENDING) : "memory");
}

// Until the writes are visible.
__device__ __forceinline__ void copy_wait() {
    asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

// Makes this thread's ordinary writes to shared memory visible to the copy engine and the matrix units.
__device__ __forceinline__ void fence_shared_for_engines() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// The same for global memory, both ways.
__device__ __forceinline__ void fence_all_for_engines() {
    asm volatile("fence.proxy.async;" ::: "memory");
}

// ---- flags in global memory ----

__device__ __forceinline__ u32 load_acquire(const u32* flag) {
    u32 value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
    return value;
}

__device__ __forceinline__ void store_release(u32* flag, u32 value) {
    asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(flag), "r"(value) : "memory");
}

// ---- registers between warpgroups ----

template <int REGISTERS>
__device__ __forceinline__ void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

template <int REGISTERS>
__device__ __forceinline__ void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

// ---- small arithmetic ----

__device__ __forceinline__ float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Two floats rounded to bf16, the first in the lower half.
__device__ __forceinline__ u32 pack_bf16(float low, float high) {
    u32 packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

__device__ __forceinline__ float bf16_low(u32 packed) { return __uint_as_float(packed << 16); }
__device__ __forceinline__ float bf16_high(u32 packed) { return __uint_as_float(packed & 0xffff0000u); }

// ---- matrix products of a warpgroup: D[64, N] (+)= A[64, 16] · B[16, N], bf16 in, f32 out ----
//
// D in registers: thread `lane` of warp `w` holds in d[4j + 2r + c] the element of row 16w + lane/4 + 8r and column
// 8j + 2(lane%4) + c. A from registers has the same layout packed to pairs, so an accumulator rounded to bf16 is the A
// of the next product.
//
// In shared memory all operands are tiles of 64 columns: 128 bytes a row, 16-byte chunk i of row r at i ^ (r % 8)
// (the copy engine's 128-byte swizzle), each tile aligned to 1024 bytes. By rows 32 columns are possible too: 64 bytes a
// row, chunk i at i ^ (r / 2 % 4) (the 64-byte swizzle).

// The columns are the summed dimension.
__device__ __forceinline__ u64 operand_by_rows(u32 address) {
    return static_cast<u64>((address & 0x3ffff) >> 4) | (1ull << 16) | (64ull << 32) | (1ull << 62);
}

// The rows are the summed dimension; `tile_bytes` from one 64-column tile to the next.
__device__ __forceinline__ u64 operand_by_columns(u32 address, u32 tile_bytes) {
    return static_cast<u64>((address & 0x3ffff) >> 4) | (static_cast<u64>(tile_bytes >> 4) << 16) | (64ull << 32) |
           (1ull << 62);
}

// The operand so many bytes further: one addition, where a new operand takes several instructions.
__device__ __forceinline__ u64 further(u64 operand, u32 bytes) { return operand + (bytes >> 4); }

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Until at most `PENDING` committed groups are under way.
template <int PENDING>
__device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

// Keeps the compiler from moving uses of registers across this point: it does not know that a product is asynchronous.
template <int LEN>
__device__ __forceinline__ void pin(float (&x)[LEN]) {
#pragma unroll
    for (int i = 0; i < LEN; i++) asm volatile("" : "+f"(x[i])::"memory");
}
template <int LEN>
__device__ __forceinline__ void pin(u32 (&x)[LEN]) {
#pragma unroll
    for (int i = 0; i < LEN; i++) asm volatile("" : "+r"(x[i])::"memory");
}

#define FLOATS8(d, i) \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), \
        "+f"(d[i + 7])
#define FLOATS32(d, i) FLOATS8(d, i), FLOATS8(d, i + 8), FLOATS8(d, i + 16), FLOATS8(d, i + 24)
#define NAMES32 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
    "%24, %25, %26, %27, %28, %29, %30, %31"
#define NAMES64 \
    NAMES32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, " \
            "%52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define NAMES128 \
    NAMES64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, " \
            "%84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, " \
            "%104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, " \
            "%121, %122, %123, %124, %125, %126, %127"
#define WGMMA(n, d, a, b, keep, flags) \
    "{\n.reg .pred keep;\nsetp.ne.b32 keep, " keep ", 0;\n" \
    "wgmma.mma_async.sync.aligned.m64n" n "k16.f32.bf16.bf16 {" d "}, " a ", " b ", keep, 1, 1, " flags ";\n}\n"

// A and B from shared memory; the flags say whether an operand is by columns.
template <int A_BY_COLUMNS, int B_BY_COLUMNS>
__device__ __forceinline__ void wgmma(float (&d)[32], u64 a, u64 b, bool keep) {
    asm volatile(WGMMA("64", NAMES32, "%32", "%33", "%34", "%35, %36")
                 : FLOATS32(d, 0)
                 : "l"(a), "l"(b), "r"(static_cast<int>(keep)), "n"(A_BY_COLUMNS), "n"(B_BY_COLUMNS));
}
template <int A_BY_COLUMNS, int B_BY_COLUMNS>
__device__ __forceinline__ void wgmma(float (&d)[64], u64 a, u64 b, bool keep) {
    asm volatile(WGMMA("128", NAMES64, "%64", "%65", "%66", "%67, %68")
                 : FLOATS32(d, 0), FLOATS32(d, 32)
                 : "l"(a), "l"(b), "r"(static_cast<int>(keep)), "n"(A_BY_COLUMNS), "n"(B_BY_COLUMNS));
}
template <int A_BY_COLUMNS, int B_BY_COLUMNS>
__device__ __forceinline__ void wgmma(float (&d)[128], u64 a, u64 b, bool keep) {
    asm volatile(WGMMA("256", NAMES128, "%128", "%129", "%130", "%131, %132")
                 : FLOATS32(d, 0), FLOATS32(d, 32), FLOATS32(d, 64), FLOATS32(d, 96)
                 : "l"(a), "l"(b), "r"(static_cast<int>(keep)), "n"(A_BY_COLUMNS), "n"(B_BY_COLUMNS));
}

// A from registers, B by columns from shared memory.
__device__ __forceinline__ void wgmma(float (&d)[32], const u32* a, u64 b, bool keep) {
    asm volatile(WGMMA("64", NAMES32, "{%32, %33, %34, %35}", "%36", "%37", "1")
                 : FLOATS32(d, 0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(keep)));
}
__device__ __forceinline__ void wgmma(float (&d)[64], const u32* a, u64 b, bool keep) {
    asm volatile(WGMMA("128", NAMES64, "{%64, %65, %66, %67}", "%68", "%69", "1")
                 : FLOATS32(d, 0), FLOATS32(d, 32)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(keep)));
}

// An accumulator rounded to bf16: four registers per 16 columns, the A of a product that sums over its columns.
template <int LEN>
__device__ __forceinline__ void round_to_bf16(u32 (&packed)[LEN], const float (&x)[2 * LEN]) {
#pragma unroll
    for (int i = 0; i < LEN; i++) packed[i] = pack_bf16(x[2 * i], x[2 * i + 1]);
}

// Writes such registers as 64-column tiles, `tile_bytes` apart; the first row of the warpgroup is at `address`.
template <int LEN>
__device__ __forceinline__ void store_tiles(u32 address, u32 tile_bytes, const u32 (&packed)[LEN]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const int row = 16 * warp + lane % 16, chunk = lane / 16;
#pragma unroll
    for (int i = 0; i < LEN; i += 4) {
        const u32 to = address + (i / 16) * tile_bytes + row * 128 + (((i / 2 % 8 + chunk) ^ (row % 8)) << 4);
        asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(packed[i]),
                     "r"(packed[i + 1]), "r"(packed[i + 2]), "r"(packed[i + 3])
                     : "memory");
    }
}

// Reads a 64-column tile as `store_tiles` writes it.
__device__ __forceinline__ void load_tile(u32 (&packed)[16], u32 address) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const int row = 16 * warp + lane % 16, chunk = lane / 16;
#pragma unroll
    for (int i = 0; i < 16; i += 4) {
        const u32 from = address + row * 128 + (((i / 2 + chunk) ^ (row % 8)) << 4);
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(packed[i]), "=r"(packed[i + 1]), "=r"(packed[i + 2]), "=r"(packed[i + 3])
                     : "r"(from)
                     : "memory");
    }
}
