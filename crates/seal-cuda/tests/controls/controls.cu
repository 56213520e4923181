// Faults as they come into device code, each beside what is right, for the tests that show that
// executing what nvcc makes of them finds them.
#include <stdint.h>

static const int THREADS = 64;

// The sum of eight words and eight others, with the carry that comes in as 0. `CARRY` is how the
// carry's operand is declared: it is written by the first instruction, before the words are read.
#define ADD_CHAIN(CARRY)                                                                           \
  asm("add.cc.u32 %8, %8, 0xffffffff;\n\t"                                                         \
      "addc.cc.u32 %0, %0, %9;\n\t"                                                                \
      "addc.cc.u32 %1, %1, %10;\n\t"                                                               \
      "addc.cc.u32 %2, %2, %11;\n\t"                                                               \
      "addc.cc.u32 %3, %3, %12;\n\t"                                                               \
      "addc.cc.u32 %4, %4, %13;\n\t"                                                               \
      "addc.cc.u32 %5, %5, %14;\n\t"                                                               \
      "addc.cc.u32 %6, %6, %15;\n\t"                                                               \
      "addc.cc.u32 %7, %7, %16;\n\t"                                                               \
      "addc.u32 %8, 0, 0;"                                                                         \
      : "+&r"(t[0]), "+&r"(t[1]), "+&r"(t[2]), "+&r"(t[3]), "+&r"(t[4]), "+&r"(t[5]),              \
        "+&r"(t[6]), "+r"(t[7]), CARRY(carry)                                                      \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(a[4]), "r"(a[5]), "r"(a[6]), "r"(a[7]))

// Adds zeros to eight copies of each word, as the compiler knows, and tells the last of them.
#define ADD_ZEROS(NAME, CARRY)                                                                     \
  extern "C" __global__ void NAME(uint32_t *words, uint32_t count) {                               \
    const uint32_t index = blockIdx.x * THREADS + threadIdx.x;                                     \
    if (index >= count)                                                                            \
      return;                                                                                      \
    uint32_t t[8], a[8], carry = 0;                                                                \
    for (int i = 0; i < 8; i++) {                                                                  \
      t[i] = words[index] + i;                                                                     \
      a[i] = 0;                                                                                    \
    }                                                                                              \
    ADD_CHAIN(CARRY);                                                                              \
    words[index] = t[7] - 7 + carry;                                                               \
  }
ADD_ZEROS(add_zeros, "+&r")
ADD_ZEROS(add_zeros_as_it_was, "+r")

// Hands each word to the thread on the other side of the block.
#define TURN_ROUND(NAME, BARRIER)                                                                  \
  extern "C" __global__ void NAME(uint32_t *words, uint32_t) {                                     \
    __shared__ uint32_t memory[THREADS];                                                           \
    const uint32_t index = blockIdx.x * THREADS + threadIdx.x;                                     \
    memory[threadIdx.x] = words[index];                                                            \
    BARRIER;                                                                                       \
    words[index] = memory[THREADS - 1 - threadIdx.x];                                              \
  }
TURN_ROUND(turn_round, __syncthreads())
TURN_ROUND(turn_round_without_a_barrier, )
// Threads that are past the end do not come to it.
TURN_ROUND(turn_round_with_half_a_barrier, if (threadIdx.x < THREADS / 2) __syncthreads())

// Sums up neighbours in shared memory.
#define SUM_PAIRS(NAME, OWNER)                                                                     \
  extern "C" __global__ void NAME(uint32_t *words, uint32_t) {                                     \
    __shared__ uint32_t memory[THREADS];                                                           \
    const uint32_t index = blockIdx.x * THREADS + threadIdx.x;                                     \
    memory[threadIdx.x] = words[index];                                                            \
    __syncthreads();                                                                               \
    if (OWNER)                                                                                     \
      memory[threadIdx.x & ~1u] += memory[threadIdx.x | 1];                                        \
    __syncthreads();                                                                               \
    words[index] = memory[threadIdx.x & ~1u];                                                      \
  }
SUM_PAIRS(sum_pairs, threadIdx.x % 2 == 0)
SUM_PAIRS(sum_pairs_in_a_race, true)

// Adds 1 to each word.
#define INCREMENT(NAME, PLACE, INSIDE)                                                             \
  extern "C" __global__ void NAME(uint32_t *words, uint32_t count) {                               \
    const uint32_t index = blockIdx.x * THREADS + threadIdx.x;                                     \
    if (INSIDE)                                                                                    \
      words[PLACE]++;                                                                              \
  }
INCREMENT(increment, index, index < count)
INCREMENT(increment_one_further, index + 1, index < count)
INCREMENT(increment_without_bounds, index, true)
