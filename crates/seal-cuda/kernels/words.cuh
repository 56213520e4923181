// Arithmetic of 32-bit words with carry chains: the only place that knows which machine it is
// compiled for. On a device one chain is one piece of PTX, since the carry flag does not survive
// between pieces; ptxas makes of each mad.lo/madc.hi pair one IMAD.WIDE with carry. A chain ends
// with its carry in a register, so that none is open while another runs: predicates, which hold
// open carries, are few. On a host the same chain is 64-bit arithmetic.
//
// Of two operands that it knows to be equal the compiler makes one register. So an output that is
// written before the last read of another operand says so ("+&r", "=&r"); those without the mark
// are written when nothing else is read any more.
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
SEAL_FN word_pair pair_of(word low, word high) {
#ifdef __CUDA_ARCH__
  word_pair pair;
  asm("mov.b64 %0, {%1, %2};" : "=l"(pair) : "r"(low), "r"(high));
  return pair;
#else
  return ((word_pair)high << 32) | low;
#endif
}

// Adds a product to a pair and a carry, and makes the carry of what came out. A product leaves room
// for two words: (2^32 - 1)^2 + 2 (2^32 - 1) = 2^64 - 1. For the host.
inline void mad_on_host(word_pair &t, word a, word b, word &carry) {
  const uint64_t product = (uint64_t)a * b;
  const uint64_t lower = (uint64_t)low(t) + (word)product + carry;
  const uint64_t upper = (uint64_t)high(t) + (product >> 32) + (lower >> 32);
  t = pair_of((word)lower, (word)upper);
  carry = (word)(upper >> 32);
}

// Adds the products a[0] b, a[2] b, ... of N words to t, a pair each. Drops the carry: for a last
// pair that has room, or a number whose words further up nobody asks for.
template <int N> SEAL_FN void mad_top(word_pair *t, const word *a, word b) {
  static_assert(N >= 1 && N <= 4, "a chain has one to four products");
#ifdef __CUDA_ARCH__
  if constexpr (N == 1) {
    t[0] += (word_pair)a[0] * b;
  } else if constexpr (N == 2) {
    asm("{ .reg .u32 t0, t1, t2, t3;\n\t"
        "mov.b64 {t0, t1}, %0;\n\t"
        "mov.b64 {t2, t3}, %1;\n\t"
        "mad.lo.cc.u32 t0, %2, %4, t0;\n\t"
        "madc.hi.cc.u32 t1, %2, %4, t1;\n\t"
        "madc.lo.cc.u32 t2, %3, %4, t2;\n\t"
        "madc.hi.u32 t3, %3, %4, t3;\n\t"
        "mov.b64 %0, {t0, t1};\n\t"
        "mov.b64 %1, {t2, t3};\n\t"
        "}"
        : "+l"(t[0]), "+l"(t[1])
        : "r"(a[0]), "r"(a[2]), "r"(b));
  } else if constexpr (N == 3) {
    asm("{ .reg .u32 t0, t1, t2, t3, t4, t5;\n\t"
        "mov.b64 {t0, t1}, %0;\n\t"
        "mov.b64 {t2, t3}, %1;\n\t"
        "mov.b64 {t4, t5}, %2;\n\t"
        "mad.lo.cc.u32 t0, %3, %6, t0;\n\t"
        "madc.hi.cc.u32 t1, %3, %6, t1;\n\t"
        "madc.lo.cc.u32 t2, %4, %6, t2;\n\t"
        "madc.hi.cc.u32 t3, %4, %6, t3;\n\t"
        "madc.lo.cc.u32 t4, %5, %6, t4;\n\t"
        "madc.hi.u32 t5, %5, %6, t5;\n\t"
        "mov.b64 %0, {t0, t1};\n\t"
        "mov.b64 %1, {t2, t3};\n\t"
        "mov.b64 %2, {t4, t5};\n\t"
        "}"
        : "+l"(t[0]), "+l"(t[1]), "+l"(t[2])
        : "r"(a[0]), "r"(a[2]), "r"(a[4]), "r"(b));
  } else {
    asm("{ .reg .u32 t0, t1, t2, t3, t4, t5, t6, t7;\n\t"
        "mov.b64 {t0, t1}, %0;\n\t"
        "mov.b64 {t2, t3}, %1;\n\t"
        "mov.b64 {t4, t5}, %2;\n\t"
        "mov.b64 {t6, t7}, %3;\n\t"
        "mad.lo.cc.u32 t0, %4, %8, t0;\n\t"
        "madc.hi.cc.u32 t1, %4, %8, t1;\n\t"
        "madc.lo.cc.u32 t2, %5, %8, t2;\n\t"
        "madc.hi.cc.u32 t3, %5, %8, t3;\n\t"
        "madc.lo.cc.u32 t4, %6, %8, t4;\n\t"
        "madc.hi.cc.u32 t5, %6, %8, t5;\n\t"
        "madc.lo.cc.u32 t6, %7, %8, t6;\n\t"
        "madc.hi.u32 t7, %7, %8, t7;\n\t"
        "mov.b64 %0, {t0, t1};\n\t"
        "mov.b64 %1, {t2, t3};\n\t"
        "mov.b64 %2, {t4, t5};\n\t"
        "mov.b64 %3, {t6, t7};\n\t"
        "}"
        : "+l"(t[0]), "+l"(t[1]), "+l"(t[2]), "+l"(t[3])
        : "r"(a[0]), "r"(a[2]), "r"(a[4]), "r"(a[6]), "r"(b));
  }
#else
  word carry = 0;
  for (int i = 0; i < N; i++)
    mad_on_host(t[i], a[2 * i], b, carry);
#endif
}

// The same with the carry added to `count`, which has room.
template <int N> SEAL_FN void mad_chain(word_pair *t, const word *a, word b, word &count) {
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
        : "+l"(t[0]), "+r"(count)
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
        : "+l"(t[0]), "+l"(t[1]), "+r"(count)
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
        : "+l"(t[0]), "+l"(t[1]), "+l"(t[2]), "+r"(count)
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
        : "+l"(t[0]), "+l"(t[1]), "+l"(t[2]), "+l"(t[3]), "+r"(count)
        : "r"(a[0]), "r"(a[2]), "r"(a[4]), "r"(a[6]), "r"(b));
  }
#else
  word carry = 0;
  for (int i = 0; i < N; i++)
    mad_on_host(t[i], a[2 * i], b, carry);
  count += carry;
#endif
}

// Adds the squares of four words to t, a pair each, and drops the carry.
SEAL_FN void add_squares(word_pair *t, const word *a) {
#ifdef __CUDA_ARCH__
  asm("{ .reg .u32 t0, t1, t2, t3, t4, t5, t6, t7;\n\t"
      "mov.b64 {t0, t1}, %0;\n\t"
      "mov.b64 {t2, t3}, %1;\n\t"
      "mov.b64 {t4, t5}, %2;\n\t"
      "mov.b64 {t6, t7}, %3;\n\t"
      "mad.lo.cc.u32 t0, %4, %4, t0;\n\t"
      "madc.hi.cc.u32 t1, %4, %4, t1;\n\t"
      "madc.lo.cc.u32 t2, %5, %5, t2;\n\t"
      "madc.hi.cc.u32 t3, %5, %5, t3;\n\t"
      "madc.lo.cc.u32 t4, %6, %6, t4;\n\t"
      "madc.hi.cc.u32 t5, %6, %6, t5;\n\t"
      "madc.lo.cc.u32 t6, %7, %7, t6;\n\t"
      "madc.hi.u32 t7, %7, %7, t7;\n\t"
      "mov.b64 %0, {t0, t1};\n\t"
      "mov.b64 %1, {t2, t3};\n\t"
      "mov.b64 %2, {t4, t5};\n\t"
      "mov.b64 %3, {t6, t7};\n\t"
      "}"
      : "+l"(t[0]), "+l"(t[1]), "+l"(t[2]), "+l"(t[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]));
#else
  word carry = 0;
  for (int i = 0; i < 4; i++)
    mad_on_host(t[i], a[i], a[i], carry);
#endif
}

// The longer chain of a reduced word. The word is m = x + y; it is added to the next one, and its
// products with q[0], q[2] and q[4] to the three pairs above; with what carries come on the way.
// Returns `count` + the last carry + the complement of m, to which `more` is added one word up.
SEAL_FN word_pair reduce_chain(word x, word y, word &next, word_pair *t, const word *q, word count,
                               word more, word &m) {
#ifdef __CUDA_ARCH__
  word_pair above;
  asm("{ .reg .u32 t0, t1, t2, t3, t4, t5, t6, t7;\n\t"
      "mov.b64 {t0, t1}, %0;\n\t"
      "mov.b64 {t2, t3}, %1;\n\t"
      "mov.b64 {t4, t5}, %2;\n\t"
      "add.cc.u32 %3, %6, %7;\n\t"
      "addc.cc.u32 %4, %4, %3;\n\t"
      "madc.lo.cc.u32 t0, %3, %8, t0;\n\t"
      "madc.hi.cc.u32 t1, %3, %8, t1;\n\t"
      "madc.lo.cc.u32 t2, %3, %9, t2;\n\t"
      "madc.hi.cc.u32 t3, %3, %9, t3;\n\t"
      "madc.lo.cc.u32 t4, %3, %10, t4;\n\t"
      "madc.hi.cc.u32 t5, %3, %10, t5;\n\t"
      "not.b32 t6, %3;\n\t"
      "addc.cc.u32 t6, %11, t6;\n\t"
      "addc.u32 t7, %12, 0;\n\t"
      "mov.b64 %0, {t0, t1};\n\t"
      "mov.b64 %1, {t2, t3};\n\t"
      "mov.b64 %2, {t4, t5};\n\t"
      "mov.b64 %5, {t6, t7};\n\t"
      "}"
      : "+l"(t[0]), "+l"(t[1]), "+l"(t[2]), "=&r"(m), "+&r"(next), "=l"(above)
      : "r"(x), "r"(y), "r"(q[0]), "r"(q[2]), "r"(q[4]), "r"(count), "r"(more));
  return above;
#else
  const uint64_t sum = (uint64_t)x + y;
  m = (word)sum;
  const uint64_t added = (uint64_t)next + m + (sum >> 32);
  next = (word)added;
  word carry = (word)(added >> 32);
  for (int i = 0; i < 3; i++)
    mad_on_host(t[i], m, q[2 * i], carry);
  return (uint64_t)count + (word)~m + carry + ((uint64_t)more << 32);
#endif
}

// The same for the lowest word of all, which is m as it is.
SEAL_FN word_pair reduce_first_chain(word m, word &next, word_pair *t, const word *q, word count,
                                     word more) {
#ifdef __CUDA_ARCH__
  word_pair above;
  asm("{ .reg .u32 t0, t1, t2, t3, t4, t5, t6, t7;\n\t"
      "mov.b64 {t0, t1}, %0;\n\t"
      "mov.b64 {t2, t3}, %1;\n\t"
      "mov.b64 {t4, t5}, %2;\n\t"
      "add.cc.u32 %3, %3, %5;\n\t"
      "madc.lo.cc.u32 t0, %5, %6, t0;\n\t"
      "madc.hi.cc.u32 t1, %5, %6, t1;\n\t"
      "madc.lo.cc.u32 t2, %5, %7, t2;\n\t"
      "madc.hi.cc.u32 t3, %5, %7, t3;\n\t"
      "madc.lo.cc.u32 t4, %5, %8, t4;\n\t"
      "madc.hi.cc.u32 t5, %5, %8, t5;\n\t"
      "not.b32 t6, %5;\n\t"
      "addc.cc.u32 t6, %9, t6;\n\t"
      "addc.u32 t7, %10, 0;\n\t"
      "mov.b64 %0, {t0, t1};\n\t"
      "mov.b64 %1, {t2, t3};\n\t"
      "mov.b64 %2, {t4, t5};\n\t"
      "mov.b64 %4, {t6, t7};\n\t"
      "}"
      : "+l"(t[0]), "+l"(t[1]), "+l"(t[2]), "+&r"(next), "=l"(above)
      : "r"(m), "r"(q[0]), "r"(q[2]), "r"(q[4]), "r"(count), "r"(more));
  return above;
#else
  return reduce_chain(m, 0, next, t, q, count, more, m);
#endif
}

// t += a, with the carry added to `count`, which has room.
SEAL_FN void add_pair(word_pair &t, word_pair a, word &count) {
#ifdef __CUDA_ARCH__
  asm("{ .reg .u32 t0, t1, a0, a1;\n\t"
      "mov.b64 {t0, t1}, %0;\n\t"
      "mov.b64 {a0, a1}, %2;\n\t"
      "add.cc.u32 t0, t0, a0;\n\t"
      "addc.cc.u32 t1, t1, a1;\n\t"
      "addc.u32 %1, %1, 0;\n\t"
      "mov.b64 %0, {t0, t1};\n\t"
      "}"
      : "+l"(t), "+r"(count)
      : "l"(a));
#else
  t += a;
  count += t < a;
#endif
}

// t += a, eight words; drops the carry.
SEAL_FN void add_words(word *t, const word *a) {
#ifdef __CUDA_ARCH__
  asm("add.cc.u32 %0, %0, %8;\n\t"
      "addc.cc.u32 %1, %1, %9;\n\t"
      "addc.cc.u32 %2, %2, %10;\n\t"
      "addc.cc.u32 %3, %3, %11;\n\t"
      "addc.cc.u32 %4, %4, %12;\n\t"
      "addc.cc.u32 %5, %5, %13;\n\t"
      "addc.cc.u32 %6, %6, %14;\n\t"
      "addc.u32 %7, %7, %15;"
      : "+&r"(t[0]), "+&r"(t[1]), "+&r"(t[2]), "+&r"(t[3]), "+&r"(t[4]), "+&r"(t[5]), "+&r"(t[6]),
        "+r"(t[7])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(a[4]), "r"(a[5]), "r"(a[6]), "r"(a[7]));
#else
  word carry = 0;
  for (int i = 0; i < 8; i++) {
    const uint64_t sum = (uint64_t)t[i] + a[i] + carry;
    t[i] = (word)sum;
    carry = (word)(sum >> 32);
  }
#endif
}

// t -= a, eight words. Returns all ones where a was larger, and t is thus 2^256 too large, else 0.
SEAL_FN word subtract_words(word *t, const word *a) {
#ifdef __CUDA_ARCH__
  word borrow;
  asm("sub.cc.u32 %0, %0, %9;\n\t"
      "subc.cc.u32 %1, %1, %10;\n\t"
      "subc.cc.u32 %2, %2, %11;\n\t"
      "subc.cc.u32 %3, %3, %12;\n\t"
      "subc.cc.u32 %4, %4, %13;\n\t"
      "subc.cc.u32 %5, %5, %14;\n\t"
      "subc.cc.u32 %6, %6, %15;\n\t"
      "subc.cc.u32 %7, %7, %16;\n\t"
      "subc.u32 %8, 0, 0;"
      : "+&r"(t[0]), "+&r"(t[1]), "+&r"(t[2]), "+&r"(t[3]), "+&r"(t[4]), "+&r"(t[5]), "+&r"(t[6]),
        "+r"(t[7]), "=r"(borrow)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(a[4]), "r"(a[5]), "r"(a[6]), "r"(a[7]));
  return borrow;
#else
  word borrow = 0;
  for (int i = 0; i < 8; i++) {
    const uint64_t difference = (uint64_t)t[i] - a[i] - borrow;
    t[i] = (word)difference;
    borrow = (word)(difference >> 63);
  }
  return 0 - borrow;
#endif
}

// t += a where `sign` is negative, eight words; drops the carry.
SEAL_FN void add_words_if_negative(word sign, word *t, const word *a) {
#ifdef __CUDA_ARCH__
  asm("{ .reg .pred negative;\n\t"
      "setp.lt.s32 negative, %8, 0;\n\t"
      "@negative add.cc.u32 %0, %0, %9;\n\t"
      "@negative addc.cc.u32 %1, %1, %10;\n\t"
      "@negative addc.cc.u32 %2, %2, %11;\n\t"
      "@negative addc.cc.u32 %3, %3, %12;\n\t"
      "@negative addc.cc.u32 %4, %4, %13;\n\t"
      "@negative addc.cc.u32 %5, %5, %14;\n\t"
      "@negative addc.cc.u32 %6, %6, %15;\n\t"
      "@negative addc.u32 %7, %7, %16;\n\t"
      "}"
      : "+&r"(t[0]), "+&r"(t[1]), "+&r"(t[2]), "+&r"(t[3]), "+&r"(t[4]), "+&r"(t[5]), "+&r"(t[6]),
        "+r"(t[7])
      : "r"(sign), "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(a[4]), "r"(a[5]), "r"(a[6]),
        "r"(a[7]));
#else
  if (sign >> 31 != 0)
    add_words(t, a);
#endif
}

} // namespace seal
