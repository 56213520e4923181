// Loops that do one operation of the field each, for `cargo xtask cuda-report`, which counts the
// instructions of a pass. They are part of no binary. Each thread has numbers of its own: what is the
// same for all is not computed by threads.
#include "work.cuh"

using namespace seal;

// More than any compiler unrolls.
static const int PASSES = 100;

extern "C" __global__ void seal_operation_product(node *x, const node *y) {
  fr a = number(x[threadIdx.x]);
  const fr b = number(y[threadIdx.x]);
  SEAL_ROLLED
  for (int pass = 0; pass < PASSES; pass++)
    a = multiply(a, b);
  x[threadIdx.x] = to_node(a);
}

extern "C" __global__ void seal_operation_square(node *x, const node *y) {
  fr a = number(x[threadIdx.x]);
  SEAL_ROLLED
  for (int pass = 0; pass < PASSES; pass++)
    a = square(a);
  x[threadIdx.x] = to_node(a);
}

extern "C" __global__ void seal_operation_fifth_power(node *x, const node *y) {
  fr a = number(x[threadIdx.x]);
  SEAL_ROLLED
  for (int pass = 0; pass < PASSES; pass++)
    a = quintic(a);
  x[threadIdx.x] = to_node(a);
}

extern "C" __global__ void seal_operation_dot_term(node *x, const node *y) {
  const fr a = number(x[threadIdx.x]), b = number(y[threadIdx.x]);
  dot sum;
  sum.begin();
  SEAL_ROLLED
  for (int pass = 0; pass < PASSES; pass++)
    sum.add(a, b);
  x[threadIdx.x] = to_node(sum.finish());
}
