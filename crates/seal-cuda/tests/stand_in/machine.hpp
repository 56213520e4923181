// Who has the memory of the stand-in's device and runs its kernels.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <string>
#include <vector>

typedef std::vector<uint8_t> Bytes;

struct Machine {
  virtual ~Machine() {}

  // Memory for so many bytes; 0 if there is none.
  virtual uint64_t take(size_t bytes) = 0;
  virtual void give_back(uint64_t address) = 0;
  // Copies to and from the device. False where there is no such memory.
  virtual bool write(uint64_t to, const void *from, size_t bytes) = 0;
  virtual bool read(void *to, uint64_t from, size_t bytes) = 0;
  // Where a variable of the kernels lies.
  virtual bool variable(const std::string &name, uint64_t &address, size_t &bytes) = 0;
  // The bytes of each parameter of a kernel.
  virtual bool parameters(const std::string &name, std::vector<size_t> &sizes) = 0;
  // Runs a kernel to its end. What went wrong, or nothing.
  virtual std::string run(const std::string &kernel, unsigned blocks, unsigned threads,
                          const std::vector<Bytes> &arguments) = 0;
};
