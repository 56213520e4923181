// The kernels compiled for a host: what tests compare with the published arithmetic, and what the
// stand-in for the driver runs. Exported by the kernels' names with `_host` behind them.
#include "work.cuh"

using namespace seal;

extern "C" {

constants<3> seal_constants_3;
constants<9> seal_constants_9;
constants<12> seal_constants_12;

void seal_columns_11_host(layers_11 layers, uint32_t count, node *out, place *bad) {
  half memory[2 * 12];
  for (uint32_t index = 0; index < count; index++)
    hash_column<12, 1>(seal_constants_12, {memory}, layers, index, out, bad);
}

void seal_columns_2_host(layers_2 layers, uint32_t count, node *out, place *bad) {
  half memory[2 * 3];
  for (uint32_t index = 0; index < count; index++)
    hash_column<3, 1>(seal_constants_3, {memory}, layers, index, out, bad);
}

void seal_rows_8_host(const node *children, uint32_t count, node *out, place *bad) {
  half memory[2 * 9];
  for (uint32_t index = 0; index < count; index++)
    hash_row<9, 1>(seal_constants_9, {memory}, children, index, out, bad);
}

void seal_rows_2_host(const node *children, uint32_t count, node *out, place *bad) {
  half memory[2 * 3];
  for (uint32_t index = 0; index < count; index++)
    hash_row<3, 1>(seal_constants_3, {memory}, children, index, out, bad);
}

void seal_encode_host(const node *data, const node *labels, uint32_t count, node *out,
                      place *bad) {
  for (uint32_t index = 0; index < count; index++)
    encode_node(data, labels, index, out, bad);
}

void seal_field_host(uint32_t operation, const node *a, const node *b, uint32_t count, node *out) {
  for (uint32_t index = 0; index < count; index++)
    field_operation(operation, a, b, count, index, out);
}

void seal_generate_host(uint64_t seed, uint32_t count, node *out) {
  for (uint32_t index = 0; index < count; index++)
    generate_node(seed, index, out);
}
}
