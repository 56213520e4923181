// The kernels' host build: the same sources, compiled for the processor. Memory of the device is
// memory of the process.
#pragma once

#include "../../kernels/host.cpp"

#include <stdlib.h>
#include <string.h>

#include <functional>
#include <map>
#include <tuple>
#include <utility>

#include "machine.hpp"

// Nameless, so that several copies of the library in one process share nothing: what is static in
// an inline function would be one for all of them.
namespace {
namespace host {

struct Kernel {
  std::vector<size_t> sizes;
  std::function<void(const std::vector<Bytes> &)> run;
};

template <typename T> T argument(const Bytes &bytes) {
  T value;
  memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

template <typename... T, size_t... I>
void call(void (*kernel)(T...), const std::vector<Bytes> &arguments, std::index_sequence<I...>) {
  kernel(argument<T>(arguments[I])...);
}

template <typename... T> Kernel kernel(void (*kernel)(T...)) {
  return {{sizeof(T)...}, [=](const std::vector<Bytes> &arguments) {
            call(kernel, arguments, std::index_sequence_for<T...>{});
          }};
}

inline const std::map<std::string, Kernel> &kernels() {
  static const std::map<std::string, Kernel> all = {
      {"seal_columns_11", kernel(seal_columns_11_host)},
      {"seal_columns_2", kernel(seal_columns_2_host)},
      {"seal_rows_8", kernel(seal_rows_8_host)},
      {"seal_rows_2", kernel(seal_rows_2_host)},
      {"seal_encode", kernel(seal_encode_host)},
      {"seal_generate", kernel(seal_generate_host)},
      {"seal_field", kernel(seal_field_host)},
  };
  return all;
}

struct Processor : Machine {
  uint64_t take(size_t bytes) override {
    void *memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (memory)
      memset(memory, 0xa5, bytes);
    return (uint64_t)memory;
  }

  void give_back(uint64_t address) override { free((void *)address); }

  bool write(uint64_t to, const void *from, size_t bytes) override {
    memcpy((void *)to, from, bytes);
    return true;
  }

  bool read(void *to, uint64_t from, size_t bytes) override {
    memcpy(to, (const void *)from, bytes);
    return true;
  }

  bool variable(const std::string &name, uint64_t &address, size_t &bytes) override {
    static const std::map<std::string, std::pair<void *, size_t>> all = {
        {"seal_constants_3", {&seal_constants_3, sizeof seal_constants_3}},
        {"seal_constants_9", {&seal_constants_9, sizeof seal_constants_9}},
        {"seal_constants_12", {&seal_constants_12, sizeof seal_constants_12}},
    };
    auto found = all.find(name);
    if (found == all.end())
      return false;
    address = (uint64_t)found->second.first;
    bytes = found->second.second;
    return true;
  }

  bool parameters(const std::string &name, std::vector<size_t> &sizes) override {
    auto found = kernels().find(name);
    if (found == kernels().end())
      return false;
    sizes = found->second.sizes;
    return true;
  }

  std::string run(const std::string &kernel, unsigned, unsigned threads,
                  const std::vector<Bytes> &arguments) override {
    if (threads != (unsigned)BLOCK)
      return "the kernels are for blocks of " + std::to_string(BLOCK) + " threads";
    kernels().at(kernel).run(arguments);
    return "";
  }
};

} // namespace host
} // namespace
