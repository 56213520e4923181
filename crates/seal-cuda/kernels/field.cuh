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

// Word i of pairs.
SEAL_FN word at(const word_pair *pairs, int i) {
  return i % 2 == 0 ? low(pairs[i / 2]) : high(pairs[i / 2]);
}

// The sum of two rows of eight pairs, `odd` being one word further up, and of which the last word
// is 0, as sixteen words.
SEAL_FN void join(const word_pair *even, const word_pair *odd, word *t) {
  word o[15];
  SEAL_UNROLL
  for (int i = 0; i < 16; i++)
    t[i] = at(even, i);
  SEAL_UNROLL
  for (int i = 0; i < 15; i++)
    o[i] = at(odd, i);
  add_chain<15>(t + 1, o);
}

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
  word_pair even[(K + 9) / 2], odd[(K + 9) / 2];
  SEAL_UNROLL
  for (int i = 0; i < (K + 9) / 2; i++)
    even[i] = odd[i] = 0;
  word m = 0;
  int64_t carry = 0;
  SEAL_UNROLL
  for (int i = 0; i < K; i++) {
    // What is left of word i; the multiplier of the word before is added by the -2^32 of p.
    carry += (int64_t)t[i] + m;
    if (i >= 2)
      carry -= at(even, i - 2);
    if (i >= 3)
      carry -= at(odd, i - 3);
    m = (word)carry;
    carry = carry >> 32;
    const int j = i / 2;
    if (i % 2 == 0) {
      mad_chain<3>(even + j, q, m, even[j + 3]);
      mad_chain<3>(odd + j, q + 1, m, odd[j + 3]);
    } else {
      mad_chain<3>(odd + j, q, m, odd[j + 3]);
      mad_chain<3>(even + j + 1, q + 1, m, even[j + 4]);
    }
  }
  fr result;
  carry += m;
  SEAL_UNROLL
  for (int i = 0; i < LIMBS; i++) {
    carry += (int64_t)t[K + i] - at(even, K + i - 2);
    if (K + i >= 3)
      carry -= at(odd, K + i - 3);
    result.w[i] = (word)carry;
    carry = carry >> 32;
  }
  add_modulus_if(result, (word)(carry != 0));
  return result;
}

// a b 2^-256 modulo p.
SEAL_FN fr multiply(const fr &a, const fr &b) {
  word_pair even[9], odd[9];
  SEAL_UNROLL
  for (int i = 0; i < 9; i++)
    even[i] = odd[i] = 0;
  SEAL_UNROLL
  for (int j = 0; j < LIMBS / 2; j++) {
    mad_chain<4>(even + j, a.w, b.w[2 * j], even[j + 4]);
    mad_chain<4>(odd + j, a.w + 1, b.w[2 * j], odd[j + 4]);
    mad_chain<4>(odd + j, a.w, b.w[2 * j + 1], odd[j + 4]);
    // The last of these carries out of the product: it is 0.
    mad_chain<4>(even + j + 1, a.w + 1, b.w[2 * j + 1], even[j + 5]);
  }
  word t[16];
  join(even, odd, t);
  return reduce<LIMBS>(t);
}

// a a 2^-256 modulo p: the products of different words once, doubled, and the squares.
SEAL_FN fr square(const fr &a) {
  word_pair even[8], odd[8];
  SEAL_UNROLL
  for (int i = 0; i < 8; i++)
    even[i] = odd[i] = 0;
  const word *w = a.w;
  // Word i with the words above it. The first of them is at an odd place, the second at an even.
  mad_chain<4>(odd, w + 1, w[0], odd[4]);
  mad_chain<3>(even + 1, w + 2, w[0], even[4]);
  mad_chain<3>(odd + 1, w + 2, w[1], odd[4]);
  mad_chain<3>(even + 2, w + 3, w[1], even[5]);
  mad_chain<3>(odd + 2, w + 3, w[2], odd[5]);
  mad_chain<2>(even + 3, w + 4, w[2], even[5]);
  mad_chain<2>(odd + 3, w + 4, w[3], odd[5]);
  mad_chain<2>(even + 4, w + 5, w[3], even[6]);
  mad_chain<2>(odd + 4, w + 5, w[4], odd[6]);
  mad_chain<1>(even + 5, w + 6, w[4], even[6]);
  mad_chain<1>(odd + 5, w + 6, w[5], odd[6]);
  mad_chain<1>(even + 6, w + 7, w[5], even[7]);
  mad_chain<1>(odd + 6, w + 7, w[6], odd[7]);
  word t[16];
  join(even, odd, t);
  word above = 0;
  SEAL_UNROLL
  for (int i = 0; i < 16; i++) {
    const word doubled = (t[i] << 1) | above;
    above = t[i] >> 31;
    t[i] = doubled;
  }
  add_squares(t, w);
  return reduce<LIMBS>(t);
}

// a^5 2^-1024 modulo p: the S-box.
SEAL_FN fr quintic(const fr &a) { return multiply(square(square(a)), a); }

// A sum of products of numbers of full size. Carries out of chains are counted apart, because the
// words they belong to are in use.
struct dot {
  word_pair even[8], odd[7];
  word even_carry[5], odd_carry[4];

  SEAL_FN void clear() {
    SEAL_UNROLL
    for (int i = 0; i < 8; i++)
      even[i] = 0;
    SEAL_UNROLL
    for (int i = 0; i < 7; i++)
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
    for (int j = 0; j < LIMBS / 2; j++) {
      mad_chain<4>(even + j, a.w, b.w[2 * j], even_carry[j]);
      mad_chain<4>(odd + j, a.w + 1, b.w[2 * j], odd_carry[j]);
      mad_chain<4>(odd + j, a.w, b.w[2 * j + 1], odd_carry[j]);
      mad_chain<4>(even + j + 1, a.w + 1, b.w[2 * j + 1], even_carry[j + 1]);
    }
  }

  // The sum 2^-288 modulo p, plus `more`, which is below 2 p.
  SEAL_FN fr finish(const fr &more) const {
    word t[17];
    t[0] = at(even, 0);
    uint64_t sum = 0;
    SEAL_UNROLL
    for (int i = 1; i < 17; i++) {
      sum += i < 16 ? at(even, i) : 0;
      sum += i < 15 ? at(odd, i - 1) : 0;
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
  word_pair even[5], odd[4];
  // What belongs to word 8, which is in use with two words, and to word 9.
  word carry_8, carry_9;

  SEAL_FN void clear() {
    SEAL_UNROLL
    for (int i = 0; i < 5; i++)
      even[i] = 0;
    SEAL_UNROLL
    for (int i = 0; i < 4; i++)
      odd[i] = 0;
    carry_8 = carry_9 = 0;
  }

  // Adds a e.
  SEAL_FN void add(const fr &a, const word *e) {
    mad_chain<4>(even, a.w, e[0], carry_8);
    mad_chain<4>(odd, a.w + 1, e[0], carry_9);
    if constexpr (WORDS == 2) {
      mad_chain<4>(odd, a.w, e[1], carry_9);
      word none = 0;
      mad_chain<4>(even + 1, a.w + 1, e[1], none);
    }
  }

  // The sum 2^-64 modulo p.
  SEAL_FN fr finish() const {
    word t[10], o[9];
    SEAL_UNROLL
    for (int i = 0; i < 10; i++)
      t[i] = at(even, i);
    SEAL_UNROLL
    for (int i = 0; i < 8; i++)
      o[i] = at(odd, i);
    o[8] = carry_9;
    t[9] += add_chain<1>(t + 8, &carry_8);
    add_chain<9>(t + 1, o);
    return reduce<2>(t);
  }
};

} // namespace seal
