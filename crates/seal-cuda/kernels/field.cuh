// The scalar field of BLS12-381 in eight words, least significant first.
//
// p = 1 - 2^32 + 2^64 Q with Q = (p >> 64) + 1 of six words. Montgomery reduction subtracts
// multiples of p: the multiplier for a word is the word itself, because p = 1 mod 2^32, and takes
// six word multiplications, not eight.
//
// Sums of products are collected in two rows of words, those at even and those at odd places, so
// that each word's products with the words of a number are two chains that need not wait for each
// other.
//
// Bounds, on which everything below rests (2^256 = 2.2 p):
// - `reduce` of T by K words returns a number that is congruent to T 2^-32K and, if T / 2^32K is
//   below B, below max(p, B): the difference T - M p with M < 2^32K lies above -p 2^32K, and p is
//   added once where it is negative.
// - `multiply` of numbers below a and b therefore returns one below max(p, a b / 2^256): below p
//   when both are below 1.4 p.
// - A dot product has at most 13 terms below 2 p times p, and is reduced by nine words: what is
//   above p is then below p 2^-27.
#pragma once

#include "words.cuh"

namespace seal {

static const int LIMBS = 8;

// A number; what bound it keeps is said where it matters.
struct fr {
  word w[LIMBS];
};

// The modulus.
SEAL_FN fr modulus() {
  return {{0x00000001, 0xffffffff, 0xfffe5bfe, 0x53bda402, 0x09a1d805, 0x3339d808, 0x299d7d48,
           0x73eda753}};
}

// Adds p where `negative` is 1, and nothing where it is 0; carries out of the top are dropped.
SEAL_FN void add_modulus_if(fr &x, word negative) {
  const fr p = modulus();
  word masked[LIMBS];
  SEAL_UNROLL
  for (int i = 0; i < LIMBS; i++)
    masked[i] = p.w[i] & (0 - negative);
  add_chain<LIMBS>(x.w, masked);
}

// x - p where x is not below p. The borrow of the subtraction tells.
SEAL_FN bool subtract_modulus(fr &x) {
  const fr p = modulus();
  fr y;
  int64_t sum = 0;
  SEAL_UNROLL
  for (int i = 0; i < LIMBS; i++) {
    sum += (int64_t)x.w[i] - p.w[i];
    y.w[i] = (word)sum;
    sum >>= 32;
  }
  const bool below = sum != 0;
  SEAL_UNROLL
  for (int i = 0; i < LIMBS; i++)
    x.w[i] = below ? x.w[i] : y.w[i];
  return !below;
}

// The sum of numbers below p, below p.
SEAL_FN fr add(const fr &a, const fr &b) {
  fr sum = a;
  add_chain<LIMBS>(sum.w, b.w);
  subtract_modulus(sum);
  return sum;
}

// The sum of numbers whose sum is below 2^256.
SEAL_FN fr add_lazy(const fr &a, const fr &b) {
  fr sum = a;
  add_chain<LIMBS>(sum.w, b.w);
  return sum;
}

// t 2^-32K modulo p; t has K + 8 words. K is at least 2.
template <int K> SEAL_FN fr reduce(const word *t) {
  const word q[6] = {0xfffe5bff, 0x53bda402, 0x09a1d805, 0x3339d808, 0x299d7d48, 0x73eda753};
  // The multiples of Q, from word 2 on: even and odd places. A row's carry goes into a word that
  // holds at most the carry of the row before.
  word even[K + 8], odd[K + 8];
  SEAL_UNROLL
  for (int i = 0; i < K + 8; i++)
    even[i] = odd[i] = 0;
  word m = 0;
  int64_t carry = 0;
  SEAL_UNROLL
  for (int i = 0; i < K; i++) {
    // What is left of word i; the multiplier of the word before is added by the -2^32 of p.
    carry += (int64_t)t[i] + m;
    if (i >= 2)
      carry -= even[i - 2];
    if (i >= 3)
      carry -= odd[i - 3];
    m = (word)carry;
    carry = carry >> 32;
    if (i % 2 == 0) {
      mad_chain<3>(even + i, q, m, even[i + 6]);
      mad_chain<3>(odd + i, q + 1, m, odd[i + 6]);
    } else {
      mad_chain<3>(odd + i - 1, q, m, odd[i + 5]);
      mad_chain<3>(even + i + 1, q + 1, m, even[i + 7]);
    }
  }
  fr result;
  carry += m;
  SEAL_UNROLL
  for (int i = 0; i < LIMBS; i++) {
    carry += (int64_t)t[K + i] - even[K + i - 2];
    if (K + i >= 3)
      carry -= odd[K + i - 3];
    result.w[i] = (word)carry;
    carry = carry >> 32;
  }
  add_modulus_if(result, (word)(carry != 0));
  return result;
}

// a b 2^-256 modulo p.
SEAL_FN fr multiply(const fr &a, const fr &b) {
  word even[17], odd[17];
  SEAL_UNROLL
  for (int i = 0; i < 17; i++)
    even[i] = odd[i] = 0;
  SEAL_UNROLL
  for (int j = 0; j < LIMBS; j += 2) {
    mad_chain<4>(even + j, a.w, b.w[j], even[j + 8]);
    mad_chain<4>(odd + j, a.w + 1, b.w[j], odd[j + 8]);
    mad_chain<4>(odd + j, a.w, b.w[j + 1], odd[j + 8]);
    // The last of these carries out of the product: it is 0.
    mad_chain<4>(even + j + 2, a.w + 1, b.w[j + 1], even[j + 10]);
  }
  add_chain<15>(even + 1, odd);
  return reduce<LIMBS>(even);
}

// a a 2^-256 modulo p: the products of different words once, doubled, and the squares.
SEAL_FN fr square(const fr &a) {
  word even[16], odd[16];
  SEAL_UNROLL
  for (int i = 0; i < 16; i++)
    even[i] = odd[i] = 0;
  const word *w = a.w;
  // Word i with the words above it. The first of them is at an odd place, the second at an even.
  mad_chain<4>(odd, w + 1, w[0], odd[8]);
  mad_chain<3>(even + 2, w + 2, w[0], even[8]);
  mad_chain<3>(odd + 2, w + 2, w[1], odd[8]);
  mad_chain<3>(even + 4, w + 3, w[1], even[10]);
  mad_chain<3>(odd + 4, w + 3, w[2], odd[10]);
  mad_chain<2>(even + 6, w + 4, w[2], even[10]);
  mad_chain<2>(odd + 6, w + 4, w[3], odd[10]);
  mad_chain<2>(even + 8, w + 5, w[3], even[12]);
  mad_chain<2>(odd + 8, w + 5, w[4], odd[12]);
  mad_chain<1>(even + 10, w + 6, w[4], even[12]);
  mad_chain<1>(odd + 10, w + 6, w[5], odd[12]);
  mad_chain<1>(even + 12, w + 7, w[5], even[14]);
  mad_chain<1>(odd + 12, w + 7, w[6], odd[14]);
  add_chain<15>(even + 1, odd);
  word high = 0;
  SEAL_UNROLL
  for (int i = 0; i < 16; i++) {
    const word doubled = (even[i] << 1) | high;
    high = even[i] >> 31;
    even[i] = doubled;
  }
  add_squares(even, w);
  return reduce<LIMBS>(even);
}

// a^5 2^-1024 modulo p: the S-box.
SEAL_FN fr quintic(const fr &a) { return multiply(square(square(a)), a); }

// A sum of products of numbers of full size. Carries out of chains are counted apart, because the
// words they belong to are in use.
struct dot {
  word even[16], odd[14];
  word even_carry[5], odd_carry[4];

  SEAL_FN void clear() {
    SEAL_UNROLL
    for (int i = 0; i < 16; i++)
      even[i] = 0;
    SEAL_UNROLL
    for (int i = 0; i < 14; i++)
      odd[i] = 0;
    SEAL_UNROLL
    for (int i = 0; i < 5; i++)
      even_carry[i] = 0;
    SEAL_UNROLL
    for (int i = 0; i < 4; i++)
      odd_carry[i] = 0;
  }

  // Adds a b.
  SEAL_FN void add(const fr &a, const fr &b) {
    SEAL_UNROLL
    for (int j = 0; j < LIMBS; j += 2) {
      mad_chain<4>(even + j, a.w, b.w[j], even_carry[j / 2]);
      mad_chain<4>(odd + j, a.w + 1, b.w[j], odd_carry[j / 2]);
      mad_chain<4>(odd + j, a.w, b.w[j + 1], odd_carry[j / 2]);
      mad_chain<4>(even + j + 2, a.w + 1, b.w[j + 1], even_carry[j / 2 + 1]);
    }
  }

  // The sum 2^-288 modulo p, plus `more`, which is below 2 p.
  SEAL_FN fr finish(const fr &more) const {
    word t[17];
    t[0] = even[0];
    uint64_t sum = 0;
    SEAL_UNROLL
    for (int i = 1; i < 17; i++) {
      sum += i < 16 ? even[i] : 0;
      sum += i < 15 ? odd[i - 1] : 0;
      if (i >= 8)
        sum += i % 2 == 0 ? even_carry[(i - 8) / 2] : odd_carry[(i - 9) / 2];
      t[i] = (word)sum;
      sum >>= 32;
    }
    // Nine words go, so this is where `more` is added to what stays.
    add_chain<LIMBS>(t + 9, more.w);
    return reduce<9>(t);
  }

  SEAL_FN fr finish() const { return finish(fr{{0, 0, 0, 0, 0, 0, 0, 0}}); }
};

// A sum of products with small integers of WORDS words, of at most 2^304 in all.
template <int WORDS> struct small_dot {
  static_assert(WORDS == 1 || WORDS == 2, "small integers have one or two words");
  word even[10], odd[9];
  // What belongs to word 8, which is in use with two words.
  word carries;

  SEAL_FN void clear() {
    SEAL_UNROLL
    for (int i = 0; i < 10; i++)
      even[i] = 0;
    SEAL_UNROLL
    for (int i = 0; i < 9; i++)
      odd[i] = 0;
    carries = 0;
  }

  // Adds a e.
  SEAL_FN void add(const fr &a, const word *e) {
    mad_chain<4>(even, a.w, e[0], carries);
    mad_chain<4>(odd, a.w + 1, e[0], odd[8]);
    if constexpr (WORDS == 2) {
      mad_chain<4>(odd, a.w, e[1], odd[8]);
      word none = 0;
      mad_chain<4>(even + 2, a.w + 1, e[1], none);
    }
  }

  // The sum 2^-64 modulo p.
  SEAL_FN fr finish() const {
    word t[10];
    SEAL_UNROLL
    for (int i = 0; i < 10; i++)
      t[i] = even[i];
    t[9] += add_chain<1>(t + 8, &carries);
    add_chain<9>(t + 1, odd);
    return reduce<2>(t);
  }
};

} // namespace seal
