// One launch over many tensors, cut into chunks: block b has chunk b - first_block[i] of tensor i.

// The last i with first_block[i] <= blockIdx.x; the first of them is 0.
__device__ __forceinline__ u32 tensor_of_block(const u32* first_block, u32 n_tensors) {
    u32 low = 0, high = n_tensors;
    while (high - low > 1) {
        u32 middle = (low + high) / 2;
        if (first_block[middle] <= blockIdx.x) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}
