// The kernels of PC2. Every grid is one-dimensional; what is past `count` does nothing.
#include "work.cuh"

using namespace seal;

// Filled by the host when the module is loaded.
__constant__ constants<3> seal_constants_3;
__constant__ constants<9> seal_constants_9;
__constant__ constants<12> seal_constants_12;

// States of a block, one half of an element of all threads after the other.
#define SEAL_STATE(WIDTH)                                                                          \
  __shared__ half memory[2 * WIDTH * BLOCK];                                                       \
  const state_memory<BLOCK> state = {memory + threadIdx.x};                                        \
  const uint32_t index = blockIdx.x * BLOCK + threadIdx.x;                                         \
  if (index >= count)                                                                              \
  return

extern "C" __global__ void __launch_bounds__(BLOCK, 6)
    seal_columns_11(const __grid_constant__ layers_11 layers, uint32_t count, node *out, place *bad) {
  SEAL_STATE(12);
  hash_column<12, BLOCK>(seal_constants_12, state, layers, index, out, bad);
}

extern "C" __global__ void __launch_bounds__(BLOCK, 8)
    seal_columns_2(const __grid_constant__ layers_2 layers, uint32_t count, node *out, place *bad) {
  SEAL_STATE(3);
  hash_column<3, BLOCK>(seal_constants_3, state, layers, index, out, bad);
}

extern "C" __global__ void __launch_bounds__(BLOCK, 8)
    seal_rows_8(const node *children, uint32_t count, node *out, place *bad) {
  SEAL_STATE(9);
  hash_row<9, BLOCK>(seal_constants_9, state, children, index, out, bad);
}

extern "C" __global__ void __launch_bounds__(BLOCK, 8)
    seal_rows_2(const node *children, uint32_t count, node *out, place *bad) {
  SEAL_STATE(3);
  hash_row<3, BLOCK>(seal_constants_3, state, children, index, out, bad);
}

extern "C" __global__ void __launch_bounds__(BLOCK)
    seal_encode(const node *data, const node *labels, uint32_t count, node *out, place *bad) {
  const uint32_t index = blockIdx.x * BLOCK + threadIdx.x;
  if (index < count)
    encode_node(data, labels, index, out, bad);
}

extern "C" __global__ void __launch_bounds__(BLOCK)
    seal_generate(uint64_t seed, uint32_t count, node *out) {
  const uint32_t index = blockIdx.x * BLOCK + threadIdx.x;
  if (index < count)
    generate_node(seed, index, out);
}

extern "C" __global__ void __launch_bounds__(BLOCK)
    seal_field(uint32_t operation, const node *a, const node *b, uint32_t count, node *out) {
  const uint32_t index = blockIdx.x * BLOCK + threadIdx.x;
  if (index < count)
    field_operation(operation, a, b, count, index, out);
}

// The multiplier pipe: each thread has CHAINS chains of `rounds` dependent instructions. With one
// block of many warps on each multiprocessor there is more to issue than any pipe is deep. Each
// kernel is launched twice, with different numbers of rounds, and the difference in clocks counts.
// A step takes a factor from the next chain, so that no product is the same twice.
static const int CHAINS = 8;

template <typename T, typename STEP>
static __device__ __forceinline__ void pipe(T *values, uint32_t rounds, STEP step,
                                            long long *clocks, T *sink) {
  __syncthreads();
  const long long start = clock64();
#pragma unroll 1
  for (uint32_t round = 0; round < rounds; round++) {
#pragma unroll
    for (int chain = 0; chain < CHAINS; chain++)
      step(values[chain], values[(chain + 1) % CHAINS]);
  }
  __syncthreads();
  const long long end = clock64();
  // Keeps the work alive; nobody asks for this number of rounds.
  if (rounds == 0xffffffff) {
#pragma unroll
    for (int chain = 0; chain < CHAINS; chain++)
      sink[chain] = values[chain];
  }
  if (threadIdx.x == 0)
    clocks[blockIdx.x] = end - start;
}

extern "C" __global__ void seal_pipe_imad(uint32_t rounds, uint32_t a, long long *clocks,
                                          uint32_t *sink) {
  uint32_t values[CHAINS];
#pragma unroll
  for (int chain = 0; chain < CHAINS; chain++)
    values[chain] = threadIdx.x + chain;
  pipe(values, rounds,
       [=](uint32_t &v, uint32_t next) {
         asm volatile("mad.lo.u32 %0, %1, %2, %0;" : "+r"(v) : "r"(next), "r"(a));
       },
       clocks, sink);
}

extern "C" __global__ void seal_pipe_imad_wide(uint32_t rounds, uint32_t a, long long *clocks,
                                               uint64_t *sink) {
  uint64_t values[CHAINS];
#pragma unroll
  for (int chain = 0; chain < CHAINS; chain++)
    values[chain] = threadIdx.x + chain;
  pipe(values, rounds,
       [=](uint64_t &v, uint64_t next) {
         asm volatile("mul.wide.u32 %0, %1, %2;" : "=l"(v) : "r"((uint32_t)next), "r"(a));
       },
       clocks, sink);
}

// As in the field arithmetic: two wide products joined by the carry, an instruction each.
struct pair {
  uint64_t low, high;
};

extern "C" __global__ void seal_pipe_imad_wide_carry(uint32_t rounds, uint32_t a,
                                                     long long *clocks, pair *sink) {
  pair values[CHAINS];
#pragma unroll
  for (int chain = 0; chain < CHAINS; chain++)
    values[chain] = {threadIdx.x, (uint64_t)threadIdx.x + chain};
  pipe(values, rounds,
       [=](pair &v, const pair &next) {
         asm volatile("{ .reg .u32 t0, t1, t2, t3;\n\t"
                      "mov.b64 {t0, t1}, %0;\n\t"
                      "mov.b64 {t2, t3}, %1;\n\t"
                      "mad.lo.cc.u32 t0, %2, %4, t0;\n\t"
                      "madc.hi.cc.u32 t1, %2, %4, t1;\n\t"
                      "madc.lo.cc.u32 t2, %3, %4, t2;\n\t"
                      "madc.hi.u32 t3, %3, %4, t3;\n\t"
                      "mov.b64 %0, {t0, t1};\n\t"
                      "mov.b64 %1, {t2, t3}; }"
                      : "+l"(v.low), "+l"(v.high)
                      : "r"((uint32_t)next.low), "r"((uint32_t)next.high), "r"(a));
       },
       clocks, sink);
}

extern "C" __global__ void seal_pipe_dfma(uint32_t rounds, uint32_t a, long long *clocks,
                                          double *sink) {
  double values[CHAINS];
#pragma unroll
  for (int chain = 0; chain < CHAINS; chain++)
    values[chain] = threadIdx.x + chain;
  const double factor = 1.0 + a * 0x1p-40;
  pipe(values, rounds,
       [=](double &v, double next) {
         asm volatile("fma.rn.f64 %0, %1, %2, %0;" : "+d"(v) : "d"(next), "d"(factor));
       },
       clocks, sink);
}
