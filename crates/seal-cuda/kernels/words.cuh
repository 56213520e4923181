// Multiplication of 32-bit words with carry chains: the only place that knows which machine it is
// compiled for. On a device one chain is one piece of PTX, since the carry flag does not survive
// between pieces; ptxas makes of each mad.lo/madc.hi pair one IMAD.WIDE with carry. On a host the
// same chain is 64-bit arithmetic.
//
// Of two operands that it knows to be equal the compiler makes one register. So an output that is
// written before the last read of another operand says so ("+&r"); those without the mark are
// written when nothing else is read any more.
#pragma once

#include <stdint.h>

#ifdef __CUDACC__
#define SEAL_FN __device__ __forceinline__
#define SEAL_UNROLL _Pragma("unroll")
#define SEAL_ROLLED _Pragma("unroll 1")
#else
#define SEAL_FN inline
#define SEAL_UNROLL
#define SEAL_ROLLED
#endif

namespace seal {

typedef uint32_t word;

// Two words of a number, the lower one first: what one wide product is added to. The device keeps
// them in a pair of registers, and says so to the compiler, which else moves them about.
typedef uint64_t word_pair;

SEAL_FN word low(word_pair pair) { return (word)pair; }
SEAL_FN word high(word_pair pair) { return (word)(pair >> 32); }

// Adds the products a[0] b, a[2] b, ... of N words to t, a pair each, and the carry to top.
template <int N> SEAL_FN void mad_chain(word_pair *t, const word *a, word b, word &top) {
  static_assert(N >= 1 && N <= 4, "a chain has one to four products");
#ifdef __CUDA_ARCH__
  if constexpr (N == 1) {
    asm("{ .reg .u32 t0, t1;\n\t"
        "mov.b64 {t0, t1}, %0;\n\t"
        "mad.lo.cc.u32 t0, %2, %3, t0;\n\t"
        "madc.hi.cc.u32 t1, %2, %3, t1;\n\t"
        "addc.u32 %1, %1, 0;\n\t"
        "mov.b64 %0, {t0, t1};\n\t"
        "}"
        : "+l"(t[0]), "+r"(top)
        : "r"(a[0]), "r"(b));
  } else if constexpr (N == 2) {
    asm("{ .reg .u32 t0, t1, t2, t3;\n\t"
        "mov.b64 {t0, t1}, %0;\n\t"
        "mov.b64 {t2, t3}, %1;\n\t"
        "mad.lo.cc.u32 t0, %3, %5, t0;\n\t"
        "madc.hi.cc.u32 t1, %3, %5, t1;\n\t"
        "madc.lo.cc.u32 t2, %4, %5, t2;\n\t"
        "madc.hi.cc.u32 t3, %4, %5, t3;\n\t"
        "addc.u32 %2, %2, 0;\n\t"
        "mov.b64 %0, {t0, t1};\n\t"
        "mov.b64 %1, {t2, t3};\n\t"
        "}"
        : "+l"(t[0]), "+l"(t[1]), "+r"(top)
        : "r"(a[0]), "r"(a[2]), "r"(b));
  } else if constexpr (N == 3) {
    asm("{ .reg .u32 t0, t1, t2, t3, t4, t5;\n\t"
        "mov.b64 {t0, t1}, %0;\n\t"
        "mov.b64 {t2, t3}, %1;\n\t"
        "mov.b64 {t4, t5}, %2;\n\t"
        "mad.lo.cc.u32 t0, %4, %7, t0;\n\t"
        "madc.hi.cc.u32 t1, %4, %7, t1;\n\t"
        "madc.lo.cc.u32 t2, %5, %7, t2;\n\t"
        "madc.hi.cc.u32 t3, %5, %7, t3;\n\t"
        "madc.lo.cc.u32 t4, %6, %7, t4;\n\t"
        "madc.hi.cc.u32 t5, %6, %7, t5;\n\t"
        "addc.u32 %3, %3, 0;\n\t"
        "mov.b64 %0, {t0, t1};\n\t"
        "mov.b64 %1, {t2, t3};\n\t"
        "mov.b64 %2, {t4, t5};\n\t"
        "}"
        : "+l"(t[0]), "+l"(t[1]), "+l"(t[2]), "+r"(top)
        : "r"(a[0]), "r"(a[2]), "r"(a[4]), "r"(b));
  } else {
    asm("{ .reg .u32 t0, t1, t2, t3, t4, t5, t6, t7;\n\t"
        "mov.b64 {t0, t1}, %0;\n\t"
        "mov.b64 {t2, t3}, %1;\n\t"
        "mov.b64 {t4, t5}, %2;\n\t"
        "mov.b64 {t6, t7}, %3;\n\t"
        "mad.lo.cc.u32 t0, %5, %9, t0;\n\t"
        "madc.hi.cc.u32 t1, %5, %9, t1;\n\t"
        "madc.lo.cc.u32 t2, %6, %9, t2;\n\t"
        "madc.hi.cc.u32 t3, %6, %9, t3;\n\t"
        "madc.lo.cc.u32 t4, %7, %9, t4;\n\t"
        "madc.hi.cc.u32 t5, %7, %9, t5;\n\t"
        "madc.lo.cc.u32 t6, %8, %9, t6;\n\t"
        "madc.hi.cc.u32 t7, %8, %9, t7;\n\t"
        "addc.u32 %4, %4, 0;\n\t"
        "mov.b64 %0, {t0, t1};\n\t"
        "mov.b64 %1, {t2, t3};\n\t"
        "mov.b64 %2, {t4, t5};\n\t"
        "mov.b64 %3, {t6, t7};\n\t"
        "}"
        : "+l"(t[0]), "+l"(t[1]), "+l"(t[2]), "+l"(t[3]), "+r"(top)
        : "r"(a[0]), "r"(a[2]), "r"(a[4]), "r"(a[6]), "r"(b));
  }
#else
  word carry = 0;
  for (int i = 0; i < N; i++) {
    // A product leaves room for two words: (2^32 - 1)^2 + 2 (2^32 - 1) = 2^64 - 1.
    const uint64_t product = (uint64_t)a[2 * i] * b;
    const uint64_t lower = (uint64_t)low(t[i]) + (word)product + carry;
    const uint64_t upper = (uint64_t)high(t[i]) + (product >> 32) + (lower >> 32);
    t[i] = (upper << 32) | (word)lower;
    carry = (word)(upper >> 32);
  }
  top += carry;
#endif
}

// The same with a pair on top, whose lower word is known to have room for the carry.
template <int N> SEAL_FN void mad_chain(word_pair *t, const word *a, word b, word_pair &top) {
  word lower = low(top);
  mad_chain<N>(t, a, b, lower);
  top = ((word_pair)high(top) << 32) | lower;
}

// t += a + carry, N words, in pieces of at most eight. Returns the carry; one that comes in is 0 or
// 1.
template <int N> SEAL_FN word add_chain(word *t, const word *a, word carry = 0) {
#ifdef __CUDA_ARCH__
  if constexpr (N >= 8) {
    asm("add.cc.u32 %8, %8, 0xffffffff;\n\t"
        "addc.cc.u32 %0, %0, %9;\n\t"
        "addc.cc.u32 %1, %1, %10;\n\t"
        "addc.cc.u32 %2, %2, %11;\n\t"
        "addc.cc.u32 %3, %3, %12;\n\t"
        "addc.cc.u32 %4, %4, %13;\n\t"
        "addc.cc.u32 %5, %5, %14;\n\t"
        "addc.cc.u32 %6, %6, %15;\n\t"
        "addc.cc.u32 %7, %7, %16;\n\t"
        "addc.u32 %8, 0, 0;"
        : "+&r"(t[0]), "+&r"(t[1]), "+&r"(t[2]), "+&r"(t[3]), "+&r"(t[4]), "+&r"(t[5]), "+&r"(t[6]),
          "+r"(t[7]), "+&r"(carry)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(a[4]), "r"(a[5]), "r"(a[6]), "r"(a[7]));
    if constexpr (N > 8)
      carry = add_chain<N - 8>(t + 8, a + 8, carry);
    return carry;
  } else
#endif
  {
    SEAL_UNROLL
    for (int i = 0; i < N; i++) {
      const uint64_t sum = (uint64_t)t[i] + a[i] + carry;
      t[i] = (word)sum;
      carry = (word)(sum >> 32);
    }
    return carry;
  }
}

// Adds the squares of eight words to t, sixteen words. The sum fits.
SEAL_FN void add_squares(word *t, const word *a) {
#ifdef __CUDA_ARCH__
  asm("mad.lo.cc.u32 %0, %16, %16, %0;\n\t"
      "madc.hi.cc.u32 %1, %16, %16, %1;\n\t"
      "madc.lo.cc.u32 %2, %17, %17, %2;\n\t"
      "madc.hi.cc.u32 %3, %17, %17, %3;\n\t"
      "madc.lo.cc.u32 %4, %18, %18, %4;\n\t"
      "madc.hi.cc.u32 %5, %18, %18, %5;\n\t"
      "madc.lo.cc.u32 %6, %19, %19, %6;\n\t"
      "madc.hi.cc.u32 %7, %19, %19, %7;\n\t"
      "madc.lo.cc.u32 %8, %20, %20, %8;\n\t"
      "madc.hi.cc.u32 %9, %20, %20, %9;\n\t"
      "madc.lo.cc.u32 %10, %21, %21, %10;\n\t"
      "madc.hi.cc.u32 %11, %21, %21, %11;\n\t"
      "madc.lo.cc.u32 %12, %22, %22, %12;\n\t"
      "madc.hi.cc.u32 %13, %22, %22, %13;\n\t"
      "madc.lo.cc.u32 %14, %23, %23, %14;\n\t"
      "madc.hi.u32 %15, %23, %23, %15;"
      : "+&r"(t[0]), "+&r"(t[1]), "+&r"(t[2]), "+&r"(t[3]), "+&r"(t[4]), "+&r"(t[5]), "+&r"(t[6]),
        "+&r"(t[7]), "+&r"(t[8]), "+&r"(t[9]), "+&r"(t[10]), "+&r"(t[11]), "+&r"(t[12]),
        "+&r"(t[13]), "+&r"(t[14]), "+r"(t[15])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(a[4]), "r"(a[5]), "r"(a[6]), "r"(a[7]));
#else
  word carry = 0;
  for (int i = 0; i < 8; i++) {
    const uint64_t product = (uint64_t)a[i] * a[i];
    const uint64_t low = (uint64_t)t[2 * i] + (word)product + carry;
    const uint64_t high = (uint64_t)t[2 * i + 1] + (product >> 32) + (low >> 32);
    t[2 * i] = (word)low;
    t[2 * i + 1] = (word)high;
    carry = (word)(high >> 32);
  }
#endif
}

} // namespace seal
