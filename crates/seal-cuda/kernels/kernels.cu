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

extern "C" __global__ void __launch_bounds__(BLOCK, 3)
    seal_columns_11(const __grid_constant__ layers_11 layers, uint32_t count, node *out, place *bad) {
  SEAL_STATE(12);
  hash_column<12, BLOCK>(seal_constants_12, state, layers, index, out, bad);
}

extern "C" __global__ void __launch_bounds__(BLOCK, 4)
    seal_columns_2(const __grid_constant__ layers_2 layers, uint32_t count, node *out, place *bad) {
  SEAL_STATE(3);
  hash_column<3, BLOCK>(seal_constants_3, state, layers, index, out, bad);
}

extern "C" __global__ void __launch_bounds__(BLOCK, 4)
    seal_rows_8(const node *children, uint32_t count, node *out, place *bad) {
  SEAL_STATE(9);
  hash_row<9, BLOCK>(seal_constants_9, state, children, index, out, bad);
}

extern "C" __global__ void __launch_bounds__(BLOCK, 4)
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

// The multiplier pipe. Each thread has CHAINS chains of `rounds` dependent instructions each;
// eight warps of chains a scheduler are more than any pipe is deep. Each kernel is launched twice,
// with different numbers of rounds, and the difference in clocks counts.
static const int CHAINS = 8;

template <typename STEP, typename T>
static __device__ __forceinline__ void pipe(T *values, uint32_t rounds, STEP step,
                                            long long *clocks, T *sink) {
  __syncthreads();
  const long long start = clock64();
#pragma unroll 1
  for (uint32_t round = 0; round < rounds; round++) {
#pragma unroll
    for (int chain = 0; chain < CHAINS; chain++)
      step(values[chain]);
  }
  __syncthreads();
  const long long end = clock64();
  T sum = 0;
#pragma unroll
  for (int chain = 0; chain < CHAINS; chain++)
    sum += values[chain];
  // The sum keeps the work alive; no thread has this number of rounds.
  if (rounds == 0xffffffff)
    sink[threadIdx.x] = sum;
  if (threadIdx.x == 0)
    clocks[blockIdx.x] = end - start;
}

extern "C" __global__ void seal_pipe_imad(uint32_t rounds, uint32_t a, long long *clocks,
                                          uint32_t *sink) {
  uint32_t values[CHAINS];
  for (int chain = 0; chain < CHAINS; chain++)
    values[chain] = threadIdx.x + chain;
  pipe(values, rounds,
       [=](uint32_t &v) { asm volatile("mad.lo.u32 %0, %0, %1, %1;" : "+r"(v) : "r"(a)); }, clocks,
       sink);
}

extern "C" __global__ void seal_pipe_imad_wide(uint32_t rounds, uint32_t a, long long *clocks,
                                               uint64_t *sink) {
  uint64_t values[CHAINS];
  for (int chain = 0; chain < CHAINS; chain++)
    values[chain] = threadIdx.x + chain;
  pipe(values, rounds,
       [=](uint64_t &v) {
         asm volatile("{ .reg .u32 low, high; mov.b64 {low, high}, %0;\n\t"
                      "mad.wide.u32 %0, low, %1, %0; }"
                      : "+l"(v)
                      : "r"(a));
       },
       clocks, sink);
}

// As in the field arithmetic: two wide products a chain, joined by the carry.
extern "C" __global__ void seal_pipe_imad_wide_carry(uint32_t rounds, uint32_t a,
                                                     long long *clocks, uint32_t *sink) {
  uint32_t values[CHAINS];
  uint32_t t[CHAINS][4];
  for (int chain = 0; chain < CHAINS; chain++) {
    values[chain] = chain;
    for (int i = 0; i < 4; i++)
      t[chain][i] = threadIdx.x + i;
  }
  int chain = 0;
  pipe(values, rounds,
       [&](uint32_t &v) {
         uint32_t *w = t[chain++ % CHAINS];
         const uint32_t b[3] = {a, 0, a ^ 1};
         mad_chain<2>(w, b, w[0], v);
       },
       clocks, sink);
}

extern "C" __global__ void seal_pipe_dfma(uint32_t rounds, uint32_t a, long long *clocks,
                                          double *sink) {
  double values[CHAINS];
  for (int chain = 0; chain < CHAINS; chain++)
    values[chain] = threadIdx.x + chain;
  const double factor = 1.0 + a * 0x1p-40;
  pipe(values, rounds,
       [=](double &v) { asm volatile("fma.rn.f64 %0, %0, %1, %1;" : "+d"(v) : "d"(factor)); },
       clocks, sink);
}
