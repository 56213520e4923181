// The kernels' PTX, executed by `ptx-run` in a process of its own, which has the device's memory.
// `crates/ptx-run/src/serve.rs` tells what is asked and answered.
#pragma once

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <mutex>

#include "machine.hpp"

// Nameless, so that several copies of the library in one process share nothing: what is static in
// an inline function would be one for all of them.
namespace {
namespace executed {

struct Process : Machine {
  int socket = -1;
  pid_t child = -1;
  std::mutex mutex;

  // Starts `program` with these arguments.
  Process(const std::string &program, const std::vector<std::string> &arguments) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
      return;
    std::vector<char *> list = {(char *)program.c_str()};
    for (auto &argument : arguments)
      list.push_back((char *)argument.c_str());
    list.push_back(nullptr);
    child = fork();
    if (child == 0) {
      dup2(ends[1], 0);
      dup2(ends[1], 1);
      execv(program.c_str(), list.data());
      _exit(127);
    }
    close(ends[1]);
    socket = ends[0];
  }

  ~Process() override { end(); }

  bool put(const void *bytes, size_t length) {
    const char *from = (const char *)bytes;
    while (length > 0) {
      ssize_t done = send(socket, from, length, MSG_NOSIGNAL);
      if (done <= 0)
        return false;
      from += done;
      length -= (size_t)done;
    }
    return true;
  }

  bool get(void *bytes, size_t length) {
    char *to = (char *)bytes;
    while (length > 0) {
      ssize_t done = recv(socket, to, length, MSG_WAITALL);
      if (done <= 0)
        return false;
      to += done;
      length -= (size_t)done;
    }
    return true;
  }

  // A request, and whether it was done. The caller holds the mutex.
  bool ask(const Bytes &request, std::string &said) {
    uint8_t refused = 1;
    if (!put(request.data(), request.size()) || !get(&refused, 1)) {
      said = "ptx-run is gone; what it said stands on standard error";
      return false;
    }
    if (!refused)
      return true;
    uint64_t length = 0;
    if (get(&length, sizeof length) && length < 1 << 20) {
      said.resize(length);
      get(&said[0], length);
    }
    return false;
  }

  static void number(Bytes &request, uint64_t value) {
    for (int i = 0; i < 8; i++)
      request.push_back((uint8_t)(value >> (8 * i)));
  }

  static void text(Bytes &request, const std::string &value) {
    number(request, value.size());
    request.insert(request.end(), value.begin(), value.end());
  }

  uint64_t take(size_t bytes) override {
    std::lock_guard<std::mutex> guard(mutex);
    Bytes request = {'A'};
    number(request, bytes);
    std::string said;
    uint64_t address = 0;
    return ask(request, said) && get(&address, sizeof address) ? address : 0;
  }

  void give_back(uint64_t address) override {
    std::lock_guard<std::mutex> guard(mutex);
    Bytes request = {'F'};
    number(request, address);
    std::string said;
    ask(request, said);
  }

  bool write(uint64_t to, const void *from, size_t bytes) override {
    std::lock_guard<std::mutex> guard(mutex);
    Bytes request = {'W'};
    number(request, to);
    number(request, bytes);
    request.insert(request.end(), (const uint8_t *)from, (const uint8_t *)from + bytes);
    std::string said;
    return ask(request, said);
  }

  bool read(void *to, uint64_t from, size_t bytes) override {
    std::lock_guard<std::mutex> guard(mutex);
    Bytes request = {'R'};
    number(request, from);
    number(request, bytes);
    std::string said;
    return ask(request, said) && get(to, bytes);
  }

  bool variable(const std::string &name, uint64_t &address, size_t &bytes) override {
    std::lock_guard<std::mutex> guard(mutex);
    Bytes request = {'V'};
    text(request, name);
    std::string said;
    return ask(request, said) && get(&address, sizeof address) && get(&bytes, sizeof bytes);
  }

  bool parameters(const std::string &name, std::vector<size_t> &sizes) override {
    std::lock_guard<std::mutex> guard(mutex);
    Bytes request = {'K'};
    text(request, name);
    std::string said;
    uint64_t count = 0;
    if (!ask(request, said) || !get(&count, sizeof count) || count > 256)
      return false;
    sizes.resize(count);
    return get(sizes.data(), count * sizeof sizes[0]);
  }

  std::string run(const std::string &kernel, unsigned blocks, unsigned threads,
                  const std::vector<Bytes> &arguments) override {
    std::lock_guard<std::mutex> guard(mutex);
    Bytes request = {'L'};
    text(request, kernel);
    number(request, blocks);
    number(request, threads);
    number(request, arguments.size());
    for (auto &argument : arguments) {
      number(request, argument.size());
      request.insert(request.end(), argument.begin(), argument.end());
    }
    std::string said;
    if (ask(request, said))
      return "";
    // Whoever looks at a failed test wants to know.
    fprintf(stderr, "%s\n", said.c_str());
    return said.empty() ? "ptx-run gave no reason" : said;
  }

  // Ends the process, and waits until it has told what it has executed.
  void end() {
    std::lock_guard<std::mutex> guard(mutex);
    if (socket >= 0)
      close(socket);
    socket = -1;
    if (child > 0)
      waitpid(child, nullptr, 0);
    child = -1;
  }
};

} // namespace executed
} // namespace
