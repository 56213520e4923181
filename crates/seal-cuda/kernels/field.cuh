// The scalar field of BLS12-381 in eight words, least significant first.
//
// p = 1 - 2^32 + 2^64 Q with Q = (p >> 64) + 1 of six words. A sum T is divided by 2^32 modulo p by
// subtracting its lowest word m times p, because p = 1 mod 2^32:
//
//     T - m p = (T - m) + 2^32 m + 2^64 m (2^192 - Q) - 2^256 m
//
// so the word is taken off and added to the next one, and six word multiplications add its products
// with 2^192 - Q. What is left to subtract, eight words further up, is added as the complement:
// -m = (2^32 - 1 - m) + 1 - 2^32. For m_0, m_1, ... of words 0, 1, ... the last two terms are
// 2^256 (1 - 2^32) (1 + 2^32 + 2^64 + ...): 2^256, and what lies above all the words that are kept.
// So a reduction is of additions only, its chains end where they are, and one is added in word 8.
//
// Sums of products are collected in two rows of pairs of words, those that begin at even and those
// that begin at odd places, so that each word's products with the words of a number are two chains
// that need not wait for each other. In a product the words are reduced while it is made: when all
// products of place i are there, the word at i is. A pair of a row is begun by the product with the
// highest word, until when what is carried to its places is counted in a word each.
//
// Bounds, on which everything below rests (2^256 = 2.2082 p):
// - Subtracting M p with M < 2^32K for a reduction by K words from T and dividing by 2^32K gives a
//   number above -p and not above T / 2^32K. Where p is added to it, or a multiple of p to T,
//   which is free where sums begin with constants, no comparison is needed: what results is above 0
//   and not above p + T / 2^32K. Such numbers are called lazy here.
// - A lazy product of numbers A p and B p is at most (1 + 0.4529 A B) p. It must be below 2^256, so
//   A B is at most 2.66.
// - `square` adds p only where the number is negative, which its top bit tells, since 2^255 is
//   1.104 p. It takes numbers up to 1.1 p, so that doubled they have eight words, and returns them
//   below p, since 0.4529 * 1.1^2 is below 1: it can follow on itself.
// - The fifth power of a number up to 1.1 p: the square is below p, its square, lazy, at most
//   1.4529 p, and the lazy product of that with the number at most 1.724 p. A key, times 2^256
//   modulo p, is added before the reduction: then it adds less than one to the bound.
// - A dot product has at most 13 terms below 2^256 p and is reduced by nine words: at most
//   p + 13 p / 2^32 comes of it. With a number added to it see `finish`.
// - A dot product with small integers is below 2^304 and is reduced by two words: at most p + 2^240
//   comes of it.
// - A pair is begun by a product, to which are added a count, the complement of a word, `more` in
//   the upper word, which is at most 2, and carries of one into both words: less than 2^34 in all.
//   Nothing is carried out of it if the product is at most 2^64 - 2^34, which it is if the highest
//   word of the first factor is at most 2^32 - 5. Numbers up to 2.2 p have such, and 2^192 - Q.
// - A count holds a word of p and the carries of at most two chains in a product, or 30 in a dot
//   product. Where the word of p has no room for them a part of it lies elsewhere at its place.
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

// x - p where x is not below p. Returns whether it was not.
SEAL_FN bool subtract_modulus(fr &x) {
  const fr p = modulus();
  const word below = subtract_words(x.w, p.w);
  add_words_if_negative(below, x.w, p.w);
  return below == 0;
}

// The sum of numbers below p, below p.
SEAL_FN fr add(const fr &a, const fr &b) {
  fr sum = a;
  add_words(sum.w, b.w);
  subtract_modulus(sum);
  return sum;
}

// A sum as it is collected: `even[k]` is at places 2k and 2k + 1, `odd[k]` at 2k + 1 and 2k + 2.
// `count[i]` is at place i; the first eight are not used.
struct rows {
  word_pair even[9], odd[9];
  word count[17];
};

// Divides by 2^32 once more, when words below I are gone: subtracts word I times p. What belongs
// eight places up begins a pair there, with `more` in its upper word. TOP says that the last pair
// that is added to has room, or that what is above it is not asked for.
template <int I, bool TOP> SEAL_FN void reduce_word(rows &sum, word more = 0) {
  // 2^192 - Q.
  const word q[6] = {0x0001a401, 0xac425bfd, 0xf65e27fa, 0xccc627f7, 0xd66282b7, 0x8c1258ac};
  word_pair *own = (I % 2 == 0 ? sum.even : sum.odd) + I / 2;
  word_pair *other = I % 2 == 0 ? sum.odd + I / 2 + 1 : sum.even + I / 2 + 2;
  word m, next = high(own[0]);
  if constexpr (I == 0) {
    m = low(own[0]);
    own[4] = reduce_first_chain(m, next, own + 1, q, sum.count[8], more);
  } else {
    // The other row's pair that begins one place below.
    const word carried = high(other[-2]);
    own[4] = reduce_chain(low(own[0]), carried, next, own + 1, q, sum.count[I + 8], more, m);
  }
  own[0] = pair_of(0, next);
  if constexpr (TOP)
    mad_top<3>(other, q + 1, m);
  else
    mad_chain<3>(other, q + 1, m, sum.count[I + 9]);
}

// Begins a product that is to be reduced by eight words, lazily: with p, and one in word 8. The
// second word of p is all ones. So that place 9 has room for carries, two of it are left to `more`.
static const word MORE = 2;
SEAL_FN void begin_lazy(rows &sum) {
  const fr p = modulus();
  SEAL_UNROLL
  for (int i = 0; i < LIMBS; i++)
    sum.count[8 + i] = p.w[i];
  sum.count[8] += 1;
  sum.count[9] -= MORE;
}

// The eight words from place 8 on.
SEAL_FN fr upper_half(const rows &sum) {
  const word_pair *even = sum.even, *odd = sum.odd;
  fr x = {{low(even[4]), high(even[4]), low(even[5]), high(even[5]), low(even[6]), high(even[6]),
           low(even[7]), high(even[7])}};
  const word more[LIMBS] = {high(odd[3]), low(odd[4]), high(odd[4]), low(odd[5]),
                            high(odd[5]), low(odd[6]), high(odd[6]), low(odd[7])};
  add_words(x.w, more);
  return x;
}

// Adds the products of word J of b, and reduces the word that is then complete.
template <int J> SEAL_FN void product_row(rows &sum, const fr &a, const fr &b) {
  word_pair *own = (J % 2 == 0 ? sum.even : sum.odd) + J / 2;
  word_pair *other = J % 2 == 0 ? sum.odd + J / 2 : sum.even + J / 2 + 1;
  mad_chain<4>(own, a.w, b.w[J], sum.count[J + 8]);
  mad_top<4>(other, a.w + 1, b.w[J]);
  reduce_word<J, J == 7>(sum);
}

// What follows on the first row of a product.
SEAL_FN fr product_rows(rows &sum, const fr &a, const fr &b) {
  SEAL_UNROLL
  for (int i = 0; i < 4; i++)
    sum.odd[i] = (word_pair)a.w[2 * i + 1] * b.w[0];
  reduce_word<0, false>(sum, MORE);
  product_row<1>(sum, a, b);
  product_row<2>(sum, a, b);
  product_row<3>(sum, a, b);
  product_row<4>(sum, a, b);
  product_row<5>(sum, a, b);
  product_row<6>(sum, a, b);
  product_row<7>(sum, a, b);
  return upper_half(sum);
}

// a b 2^-256 modulo p, lazily.
SEAL_FN fr multiply(const fr &a, const fr &b) {
  rows sum;
  begin_lazy(sum);
  SEAL_UNROLL
  for (int i = 0; i < 4; i++)
    sum.even[i] = (word_pair)a.w[2 * i] * b.w[0];
  return product_rows(sum, a, b);
}

// (a b + c) 2^-256 modulo p, lazily.
SEAL_FN fr multiply_add(const fr &a, const fr &b, const fr &c) {
  rows sum;
  begin_lazy(sum);
  SEAL_UNROLL
  for (int i = 0; i < 4; i++)
    sum.even[i] = pair_of(c.w[2 * i], c.w[2 * i + 1]);
  mad_chain<4>(sum.even, a.w, b.w[0], sum.count[8]);
  return product_rows(sum, a, b);
}

// a a 2^-256 modulo p for a up to 1.1 p: above -p, as a number of eight words in two's complement,
// or, where `sum` begins with p, lazily. Products of different words are taken once, by doubling
// what lies above word i. That is words of 2 a but for the lowest one, which there has the highest
// bit of word i. The squares of words begin the lower half and are added last to the upper.
SEAL_FN fr square_rows(rows &sum, const fr &a, word more) {
  const word *w = a.w;
  word lowest[8], above[8];
  SEAL_UNROLL
  for (int i = 1; i < 8; i++) {
    lowest[i] = w[i] << 1;
    above[i] = (w[i] << 1) | (w[i - 1] >> 31);
  }
  SEAL_UNROLL
  for (int i = 0; i < 4; i++)
    sum.even[i] = (word_pair)w[i] * w[i];
  sum.odd[0] = (word_pair)lowest[1] * w[0];
  sum.odd[1] = (word_pair)above[3] * w[0];
  sum.odd[2] = (word_pair)above[5] * w[0];
  sum.odd[3] = (word_pair)above[7] * w[0];
  mad_chain<3>(sum.even + 1, above + 2, w[0], sum.count[8]);
  reduce_word<0, false>(sum, more);
  word doubled[8];
  SEAL_UNROLL
  for (int i = 2; i < 8; i++)
    doubled[i] = above[i];
  doubled[2] = lowest[2];
  mad_chain<3>(sum.odd + 1, doubled + 2, w[1], sum.count[9]);
  mad_top<3>(sum.even + 2, doubled + 3, w[1]);
  reduce_word<1, false>(sum);
  doubled[3] = lowest[3];
  mad_chain<2>(sum.even + 3, doubled + 4, w[2], sum.count[10]);
  mad_top<3>(sum.odd + 2, doubled + 3, w[2]);
  reduce_word<2, false>(sum);
  doubled[4] = lowest[4];
  mad_chain<2>(sum.odd + 3, doubled + 4, w[3], sum.count[11]);
  mad_top<2>(sum.even + 4, doubled + 5, w[3]);
  reduce_word<3, false>(sum);
  doubled[5] = lowest[5];
  mad_chain<1>(sum.even + 5, doubled + 6, w[4], sum.count[12]);
  mad_top<2>(sum.odd + 4, doubled + 5, w[4]);
  reduce_word<4, false>(sum);
  doubled[6] = lowest[6];
  mad_chain<1>(sum.odd + 5, doubled + 6, w[5], sum.count[13]);
  mad_top<1>(sum.even + 6, doubled + 7, w[5]);
  reduce_word<5, false>(sum);
  mad_top<1>(sum.odd + 6, lowest + 7, w[6]);
  reduce_word<6, false>(sum);
  reduce_word<7, true>(sum);
  add_squares(sum.even + 4, w + 4);
  return upper_half(sum);
}

// a a 2^-256 modulo p for a up to 1.1 p, below p.
SEAL_FN fr square(const fr &a) {
  rows sum;
  sum.count[8] = 1;
  SEAL_UNROLL
  for (int i = 9; i < 16; i++)
    sum.count[i] = 0;
  fr x = square_rows(sum, a, 0);
  const fr p = modulus();
  add_words_if_negative(x.w[LIMBS - 1], x.w, p.w);
  return x;
}

// The same, lazily.
SEAL_FN fr square_lazy(const fr &a) {
  rows sum;
  begin_lazy(sum);
  return square_rows(sum, a, MORE);
}

// a^5 2^-1024 modulo p, lazily: the S-box of a up to 1.1 p.
SEAL_FN fr quintic(const fr &a) { return multiply(square_lazy(square(a)), a); }

// The same plus `key` 2^-256, which is below p.
SEAL_FN fr quintic(const fr &a, const fr &key) {
  return multiply_add(square_lazy(square(a)), a, key);
}

// A sum of products of numbers of full size. Its pairs are in use from the start, so that all
// carries are counted.
struct dot {
  rows sum;

  // Begins with `first`, and with p 2^288, which makes the result lazy.
  SEAL_FN void begin(const fr &first) {
    const fr p = modulus();
    SEAL_UNROLL
    for (int i = 0; i < 8; i++)
      sum.even[i] = i < 4 ? pair_of(first.w[2 * i], first.w[2 * i + 1]) : 0;
    SEAL_UNROLL
    for (int i = 0; i < 7; i++)
      sum.odd[i] = 0;
    sum.count[8] = 1;
    SEAL_UNROLL
    for (int i = 0; i < LIMBS; i++)
      sum.count[9 + i] = p.w[i];
    // The word of all ones: room for carries.
    sum.count[10] -= 0xff;
    sum.even[5] = 0xff;
  }

  SEAL_FN void begin() { begin(fr{{0, 0, 0, 0, 0, 0, 0, 0}}); }

  // Adds a b.
  SEAL_FN void add(const fr &a, const fr &b) {
    SEAL_UNROLL
    for (int j = 0; j < LIMBS / 2; j++) {
      mad_chain<4>(sum.even + j, a.w, b.w[2 * j], sum.count[8 + 2 * j]);
      mad_chain<4>(sum.odd + j, a.w + 1, b.w[2 * j], sum.count[9 + 2 * j]);
      mad_chain<4>(sum.odd + j, a.w, b.w[2 * j + 1], sum.count[9 + 2 * j]);
      mad_chain<4>(sum.even + j + 1, a.w + 1, b.w[2 * j + 1], sum.count[10 + 2 * j]);
    }
  }

  // The sum 2^-288 modulo p, lazily.
  SEAL_FN fr finish() const {
    // The pairs that are begun here are others than those of the sum.
    rows left;
    SEAL_UNROLL
    for (int i = 0; i < 4; i++) {
      left.even[i] = sum.even[i];
      left.odd[i] = sum.odd[i];
    }
    SEAL_UNROLL
    for (int i = 8; i < 17; i++)
      left.count[i] = sum.count[i];
    reduce_word<0, false>(left);
    // Place 8 is reduced, too.
    add_pair(left.even[4], sum.even[4], left.count[10]);
    reduce_word<1, false>(left);
    reduce_word<2, true>(left);
    reduce_word<3, true>(left);
    reduce_word<4, true>(left);
    reduce_word<5, true>(left);
    reduce_word<6, true>(left);
    reduce_word<7, true>(left);
    reduce_word<8, true>(left);
    const word_pair *even = left.even, *odd = left.odd;
    fr x = {{high(even[4]), low(even[5]), high(even[5]), low(even[6]), high(even[6]), low(even[7]),
             high(even[7]), low(even[8])}};
    const word more[LIMBS] = {low(odd[4]), high(odd[4]), low(odd[5]), high(odd[5]),
                              low(odd[6]), high(odd[6]), low(odd[7]), high(odd[7])};
    add_words(x.w, more);
    const word even_sum[LIMBS] = {0,
                                  low(sum.even[5]),
                                  high(sum.even[5]),
                                  low(sum.even[6]),
                                  high(sum.even[6]),
                                  low(sum.even[7]),
                                  high(sum.even[7]),
                                  0};
    add_words(x.w, even_sum);
    const word odd_sum[LIMBS] = {low(sum.odd[4]),  high(sum.odd[4]), low(sum.odd[5]),
                                 high(sum.odd[5]), low(sum.odd[6]),  high(sum.odd[6]), 0, 0};
    add_words(x.w, odd_sum);
    return x;
  }

  // The sum 2^-288 plus `more` modulo p, for `more` up to 2.2 p, below 2^256. Lazily it is above
  // `more` and at most p + 13 p / 2^32 above it. If it is not below 2^256, what is left of it in
  // eight words is below more - 1.2 p, and its highest word thus below that of `more`, which it
  // else is not; then p is subtracted.
  SEAL_FN fr finish(const fr &more) const {
    // 2^256 - p.
    const fr minus_p = {{0xffffffff, 0x00000000, 0x0001a401, 0xac425bfd, 0xf65e27fa, 0xccc627f7,
                         0xd66282b7, 0x8c1258ac}};
    fr x = finish();
    add_words(x.w, more.w);
    add_words_if_negative(x.w[LIMBS - 1] < more.w[LIMBS - 1] ? ~(word)0 : 0, x.w, minus_p.w);
    return x;
  }
};

// A sum of products with small integers of WORDS words, of at most 2^304 in all.
template <int WORDS> struct small_dot {
  static_assert(WORDS == 1 || WORDS == 2, "small integers have one or two words");
  word_pair even[5], odd[4];
  // What is carried to places 8 and 9.
  word carry_8, carry_9;

  // Begins with p 2^64, which makes the result lazy, and one in word 8.
  SEAL_FN void begin() {
    const fr p = modulus();
    even[0] = even[4] = 0;
    SEAL_UNROLL
    for (int i = 0; i < 3; i++)
      even[i + 1] = pair_of(p.w[2 * i], p.w[2 * i + 1]);
    SEAL_UNROLL
    for (int i = 0; i < 4; i++)
      odd[i] = 0;
    carry_8 = p.w[6] + 1;
    carry_9 = p.w[7];
  }

  // Adds a e.
  SEAL_FN void add(const fr &a, const word *e) {
    mad_chain<4>(even, a.w, e[0], carry_8);
    mad_chain<4>(odd, a.w + 1, e[0], carry_9);
    if constexpr (WORDS == 2) {
      mad_chain<4>(odd, a.w, e[1], carry_9);
      mad_top<4>(even + 1, a.w + 1, e[1]);
    }
  }

  // The sum 2^-64 modulo p, lazily.
  SEAL_FN fr finish() const {
    rows left;
    SEAL_UNROLL
    for (int i = 0; i < 4; i++) {
      left.even[i] = even[i];
      left.odd[i] = odd[i];
    }
    left.count[8] = carry_8;
    left.count[9] = carry_9;
    reduce_word<0, false>(left);
    left.even[4] += even[4];
    reduce_word<1, true>(left);
    fr x = {{low(left.even[1]), high(left.even[1]), low(left.even[2]), high(left.even[2]),
             low(left.even[3]), high(left.even[3]), low(left.even[4]), high(left.even[4])}};
    const word more[LIMBS] = {high(left.odd[0]), low(left.odd[1]),  high(left.odd[1]),
                              low(left.odd[2]),  high(left.odd[2]), low(left.odd[3]),
                              high(left.odd[3]), low(left.odd[4])};
    add_words(x.w, more);
    return x;
  }
};

} // namespace seal
