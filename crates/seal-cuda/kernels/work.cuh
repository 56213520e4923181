// What one thread does in each kernel. The same functions run on a host, where tests call them and
// where the stand-in for the driver runs whole grids of them.
#pragma once

#include "poseidon.cuh"

namespace seal {

// Threads of a block. Small blocks fill what registers and shared memory allow: with width 12 a
// block's states take 24 KiB.
static const int BLOCK = 64;

// A node as it is in files: 32 bytes, little-endian.
struct alignas(32) node {
  half low, high;
};

// Where the labels of a batch lie, layer by layer.
struct layers_11 {
  const node *layer[11];
};
struct layers_2 {
  const node *layer[2];
};

// The smallest place of a node that is no field element, or all ones. Places are counted by the
// callers below.
typedef unsigned long long place;

SEAL_FN void report(place *bad, place found) {
#ifdef __CUDA_ARCH__
  atomicMin(bad, found);
#else
  if (found < *bad)
    *bad = found;
#endif
}

SEAL_FN fr number(const node &n) {
  return {{n.low.w[0], n.low.w[1], n.low.w[2], n.low.w[3], n.high.w[0], n.high.w[1], n.high.w[2],
           n.high.w[3]}};
}

SEAL_FN node to_node(const fr &x) {
  return {{{x.w[0], x.w[1], x.w[2], x.w[3]}}, {{x.w[4], x.w[5], x.w[6], x.w[7]}}};
}

// Takes a node of the preimage into the state, unless it is no element.
template <int STRIDE>
SEAL_FN void take(const state_memory<STRIDE> &state, int element, const node &n, const fr &key,
                  place *bad, place at) {
  fr x = number(n);
  if (subtract_modulus(x))
    report(bad, at);
  state.store(element, add(x, key));
}

// The leaf over one column. Places are node times number of layers plus layer.
template <int WIDTH, int STRIDE, typename LAYERS>
SEAL_FN void hash_column(const constants<WIDTH> &c, const state_memory<STRIDE> &state,
                         const LAYERS &layers, uint32_t index, node *out, place *bad) {
  const int arity = WIDTH - 1;
  SEAL_ROLLED
  for (int layer = 0; layer < arity; layer++)
    take<STRIDE>(state, 1 + layer, layers.layer[layer][index], c.first_key[layer], bad,
                 (place)index * arity + layer);
  out[index] = to_node(permute<WIDTH, STRIDE>(c, state));
}

// The parent of WIDTH - 1 children that lie side by side. Places are those of children.
template <int WIDTH, int STRIDE>
SEAL_FN void hash_row(const constants<WIDTH> &c, const state_memory<STRIDE> &state,
                      const node *children, uint32_t index, node *out, place *bad) {
  const int arity = WIDTH - 1;
  SEAL_ROLLED
  for (int child = 0; child < arity; child++) {
    const place at = (place)index * arity + child;
    take<STRIDE>(state, 1 + child, children[at], c.first_key[child], bad, at);
  }
  out[index] = to_node(permute<WIDTH, STRIDE>(c, state));
}

// One node of the replica: data plus label. Places are twice the node, plus one for the label.
SEAL_FN void encode_node(const node *data, const node *labels, uint32_t index, node *out,
                         place *bad) {
  fr x = number(data[index]), key = number(labels[index]);
  if (subtract_modulus(x))
    report(bad, 2 * (place)index);
  if (subtract_modulus(key))
    report(bad, 2 * (place)index + 1);
  out[index] = to_node(add(x, key));
}

// One node of made-up data below 2^252, different for each seed and index: a few rounds of
// mixing by Murmur's finaliser, which is enough to have no two operands alike.
SEAL_FN void generate_node(uint64_t seed, uint32_t index, node *out) {
  fr x;
  SEAL_ROLLED
  for (int i = 0; i < LIMBS; i++) {
    uint64_t mixed = seed + ((uint64_t)index * LIMBS + i) * 0x9e3779b97f4a7c15ull;
    mixed = (mixed ^ (mixed >> 33)) * 0xff51afd7ed558ccdull;
    mixed = (mixed ^ (mixed >> 33)) * 0xc4ceb9fe1a85ec53ull;
    x.w[i] = (word)(mixed >> 32);
  }
  x.w[LIMBS - 1] >>= 4;
  out[index] = to_node(x);
}

// Operations of the field by themselves, for tests. With x and y the numbers at `index` and R =
// 2^256: 0: x y / R, 1: x x / R, 2: x + y, 3: x^5 / R^4 + y / R, 4: x - p where x is not below it;
// over the twelve pairs from `index` on, from the first again after the last, 5: x + (y + sum of
// x y) / 2^288, and 6 and 7, with the lowest one and two words of each y: sum of x y / 2^64; 8: x x
// / R, lazily, 9: (x y + y) / R, and 10: 5 without x.
SEAL_FN void field_operation(uint32_t operation, const node *a, const node *b, uint32_t count,
                             uint32_t index, node *out) {
  fr x = number(a[index]);
  const fr y = number(b[index]);
  if (operation == 0)
    x = multiply(x, y);
  if (operation == 1)
    x = square(x);
  if (operation == 2)
    x = add(x, y);
  if (operation == 3)
    x = quintic(x, y);
  if (operation == 4)
    subtract_modulus(x);
  if (operation == 8)
    x = square_lazy(x);
  if (operation == 9)
    x = multiply_add(x, y, y);
  if ((operation >= 5 && operation <= 7) || operation == 10) {
    dot sum;
    small_dot<1> one;
    small_dot<2> two;
    sum.begin(y);
    one.begin();
    two.begin();
    SEAL_ROLLED
    for (uint32_t i = 0; i < 12; i++) {
      const fr u = number(a[(index + i) % count]), v = number(b[(index + i) % count]);
      sum.add(u, v);
      one.add(u, v.w);
      two.add(u, v.w);
    }
    if (operation == 5)
      x = sum.finish(x);
    if (operation == 6)
      x = one.finish();
    if (operation == 7)
      x = two.finish();
    if (operation == 10)
      x = sum.finish();
  }
  out[index] = to_node(x);
}

} // namespace seal
