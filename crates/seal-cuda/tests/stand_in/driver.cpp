// A stand-in for the NVIDIA driver: the functions that seal-cuda calls, with the kernels' host
// build behind them and failures by a script.
//
// Work given to a stream is done when the stream is waited for and not before, so that code that
// looks at results too early, or gives up its memory too early, is found out.
//
// The script is the file `<this library>.script`, read by each cuInit and cuMemGetInfo; a library is
// loaded once in a process, and counts on:
//   devices N            how many devices there are (1)
//   compute MAJOR MINOR  their architecture (9 0)
//   memory BYTES         memory of each (1 GiB); what does not fit is CUDA_ERROR_OUT_OF_MEMORY
//   fail FUNCTION N CODE the N-th call of a function, counted from 1, and all later ones return
//                        CODE, until a script without it is read
//   lose N               the N-th kernel, counted from 1, and everything after it, fails with
//                        CUDA_ERROR_LAUNCH_FAILED when it is waited for, until the context has been
//                        given back
//   spoil 1              kernels compute with other constants
//   misplace 1           replicas are encoded with the label of the next node
//   gone 1               giving the context back does not help
// When the context is given back, what was not is told in `<this library>.left`.
#include "../../kernels/host.cpp"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fstream>
#include <functional>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

namespace {

enum {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NOT_INITIALIZED = 3,
  NO_DEVICE = 100,
  INVALID_CONTEXT = 201,
  NOT_FOUND = 500,
  LAUNCH_FAILED = 719,
};

struct Stream {
  std::vector<std::function<int()>> work;
};

struct State {
  std::mutex mutex;
  bool initialised = false;
  int devices = 1, major = 9, minor = 0;
  size_t memory = (size_t)1 << 30, taken = 0;
  std::map<std::string, std::pair<long, int>> failures;
  std::map<std::string, long> calls;
  long lose = 0, kernels = 0;
  bool lost = false, gone = false, spoil = false, misplace = false;
  std::map<uint64_t, size_t> allocations, constants;
  size_t pinned = 0, streams = 0;
  Stream default_stream;
};

State state;

std::string own_path() {
  Dl_info info;
  return dladdr((void *)&own_path, &info) ? info.dli_fname : "";
}

void read_script() {
  std::ifstream script(own_path() + ".script");
  state.failures.clear();
  std::string line;
  while (std::getline(script, line)) {
    std::istringstream words(line);
    std::string key, name;
    words >> key;
    if (key == "devices")
      words >> state.devices;
    else if (key == "compute")
      words >> state.major >> state.minor;
    else if (key == "memory")
      words >> state.memory;
    else if (key == "lose")
      words >> state.lose;
    else if (key == "spoil")
      words >> state.spoil;
    else if (key == "misplace")
      words >> state.misplace;
    else if (key == "gone")
      words >> state.gone;
    else if (key == "fail") {
      long nth;
      int code;
      words >> name >> nth >> code;
      state.failures[name] = {nth, code};
    }
  }
}

// What every call does first. The mutex is held from here to the end of the call.
#define CALL()                                                                                     \
  std::lock_guard<std::mutex> guard(state.mutex);                                                  \
  if (int code = scripted(__func__))                                                               \
  return code

// What is given back is taken, also from who has lost the device, and then told to have failed.
#define GIVEN_BACK()                                                                               \
  std::lock_guard<std::mutex> guard(state.mutex);                                                  \
  int code = scripted(__func__)

int scripted(const char *function) {
  long nth = ++state.calls[function];
  auto failure = state.failures.find(function);
  if (failure != state.failures.end() && nth >= failure->second.first)
    return failure->second.second;
  if (!state.initialised && strcmp(function, "cuInit") != 0)
    return NOT_INITIALIZED;
  return state.lost && strncmp(function, "cuGetError", 10) != 0 ? LAUNCH_FAILED : SUCCESS;
}

// Whether all of it lies in one piece of memory of the device.
bool within(const std::map<uint64_t, size_t> &pieces, uint64_t address, size_t bytes) {
  auto after = pieces.upper_bound(address);
  if (after == pieces.begin())
    return false;
  --after;
  return address + bytes <= after->first + after->second;
}

bool on_device(uint64_t address, size_t bytes) {
  return within(state.allocations, address, bytes) || within(state.constants, address, bytes);
}

Stream *stream_of(uintptr_t handle) {
  return handle == 0 ? &state.default_stream : (Stream *)handle;
}

template <typename T> T argument(void **arguments, int i) {
  T value;
  memcpy(&value, arguments[i], sizeof(T));
  return value;
}

// A kernel with its arguments, to be run later.
typedef std::function<std::function<void()>(void **)> Kernel;

template <typename... T, size_t... I>
std::function<void()> with_arguments(void (*kernel)(T...), void **arguments, std::index_sequence<I...>) {
  return [=, values = std::make_tuple(argument<T>(arguments, I)...)] {
    std::apply(kernel, values);
  };
}

template <typename... T> Kernel host(void (*kernel)(T...)) {
  return [=](void **arguments) {
    return with_arguments(kernel, arguments, std::index_sequence_for<T...>{});
  };
}

void encode(const node *data, const node *labels, uint32_t count, node *out, place *bad) {
  seal_encode_host(data, labels, count, out, bad);
  if (state.misplace && count > 1)
    seal_encode_host(data, labels + 1, count - 1, out, bad);
}

const std::map<std::string, Kernel> &kernels() {
  static const std::map<std::string, Kernel> all = {
      {"seal_columns_11", host(seal_columns_11_host)},
      {"seal_columns_2", host(seal_columns_2_host)},
      {"seal_rows_8", host(seal_rows_8_host)},
      {"seal_rows_2", host(seal_rows_2_host)},
      {"seal_encode", host(encode)},
      {"seal_generate", host(seal_generate_host)},
      {"seal_field", host(seal_field_host)},
  };
  return all;
}

} // namespace

extern "C" {

int cuInit(unsigned) {
  read_script();
  CALL();
  state.initialised = true;
  return state.devices == 0 ? NO_DEVICE : SUCCESS;
}

int cuDriverGetVersion(int *version) {
  CALL();
  *version = 13000;
  return SUCCESS;
}

int cuGetErrorName(int code, const char **name) {
  switch (code) {
  case OUT_OF_MEMORY:
    *name = "CUDA_ERROR_OUT_OF_MEMORY";
    return SUCCESS;
  case NO_DEVICE:
    *name = "CUDA_ERROR_NO_DEVICE";
    return SUCCESS;
  case LAUNCH_FAILED:
    *name = "CUDA_ERROR_LAUNCH_FAILED";
    return SUCCESS;
  default:
    return INVALID_VALUE;
  }
}

int cuGetErrorString(int, const char **text) {
  *text = "said by the stand-in";
  return SUCCESS;
}

int cuDeviceGetCount(int *count) {
  CALL();
  *count = state.devices;
  return SUCCESS;
}

int cuDeviceGet(int *device, int index) {
  CALL();
  if (index < 0 || index >= state.devices)
    return 101;
  *device = index;
  return SUCCESS;
}

int cuDeviceGetName(char *name, int length, int) {
  CALL();
  snprintf(name, length, "stand-in");
  return SUCCESS;
}

int cuDeviceGetUuid_v2(unsigned char *uuid, int) {
  CALL();
  for (int i = 0; i < 16; i++)
    uuid[i] = (unsigned char)i;
  return SUCCESS;
}

int cuDeviceGetAttribute(int *value, int attribute, int) {
  CALL();
  *value = attribute == 75 ? state.major : attribute == 76 ? state.minor : attribute == 16 ? 1 : 0;
  return SUCCESS;
}

int cuDeviceTotalMem_v2(size_t *bytes, int) {
  CALL();
  *bytes = state.memory;
  return SUCCESS;
}

int cuDevicePrimaryCtxSetFlags_v2(int, unsigned) {
  CALL();
  return SUCCESS;
}

int cuDevicePrimaryCtxRetain(uintptr_t *context, int) {
  CALL();
  *context = 1;
  return SUCCESS;
}

int cuDevicePrimaryCtxRelease_v2(int) {
  // Also for a lost device, since programs end with one.
  std::lock_guard<std::mutex> guard(state.mutex);
  std::ofstream left(own_path() + ".left");
  left << "memory " << state.allocations.size() << " pinned " << state.pinned << " streams "
       << state.streams << "\n";
  state.lost = state.lost && state.gone;
  return SUCCESS;
}

int cuCtxSetCurrent(uintptr_t context) {
  CALL();
  return context == 1 ? SUCCESS : INVALID_CONTEXT;
}

int cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
  read_script();
  CALL();
  *free_bytes = state.memory < state.taken ? 0 : state.memory - state.taken;
  *total = state.memory;
  return SUCCESS;
}

int cuModuleLoadData(uintptr_t *module, const void *) {
  CALL();
  *module = 1;
  return SUCCESS;
}

int cuModuleUnload(uintptr_t) {
  CALL();
  return SUCCESS;
}

int cuModuleGetFunction(uintptr_t *function, uintptr_t, const char *name) {
  CALL();
  auto found = kernels().find(name);
  if (found == kernels().end())
    return NOT_FOUND;
  *function = (uintptr_t)&found->second;
  return SUCCESS;
}

int cuModuleGetGlobal_v2(uint64_t *address, size_t *bytes, uintptr_t, const char *name) {
  CALL();
  std::string wanted = name;
  if (wanted == "seal_constants_3") {
    *address = (uint64_t)&seal_constants_3;
    *bytes = sizeof seal_constants_3;
  } else if (wanted == "seal_constants_9") {
    *address = (uint64_t)&seal_constants_9;
    *bytes = sizeof seal_constants_9;
  } else if (wanted == "seal_constants_12") {
    *address = (uint64_t)&seal_constants_12;
    *bytes = sizeof seal_constants_12;
  } else {
    return NOT_FOUND;
  }
  state.constants[*address] = *bytes;
  return SUCCESS;
}

int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
  CALL();
  if (state.taken + bytes > state.memory)
    return OUT_OF_MEMORY;
  void *memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (!memory)
    return OUT_OF_MEMORY;
  memset(memory, 0xa5, bytes);
  state.taken += bytes;
  *address = (uint64_t)memory;
  state.allocations[*address] = bytes;
  return SUCCESS;
}

int cuMemFree_v2(uint64_t address) {
  GIVEN_BACK();
  auto found = state.allocations.find(address);
  if (found == state.allocations.end())
    return INVALID_VALUE;
  state.taken -= found->second;
  state.allocations.erase(found);
  free((void *)address);
  return code;
}

int cuMemHostAlloc(void **memory, size_t bytes, unsigned) {
  CALL();
  *memory = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  if (!*memory)
    return OUT_OF_MEMORY;
  memset(*memory, 0xa5, bytes);
  state.pinned++;
  return SUCCESS;
}

int cuMemFreeHost(void *memory) {
  GIVEN_BACK();
  free(memory);
  state.pinned--;
  return code;
}

int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, uintptr_t stream) {
  CALL();
  if (!on_device(to, bytes))
    return INVALID_VALUE;
  stream_of(stream)->work.push_back([=] {
    memcpy((void *)to, from, bytes);
    return SUCCESS;
  });
  return SUCCESS;
}

int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, uintptr_t stream) {
  CALL();
  if (!on_device(from, bytes))
    return INVALID_VALUE;
  stream_of(stream)->work.push_back([=] {
    memcpy(to, (const void *)from, bytes);
    return SUCCESS;
  });
  return SUCCESS;
}

int cuStreamCreate(uintptr_t *stream, unsigned) {
  CALL();
  *stream = (uintptr_t) new Stream;
  state.streams++;
  return SUCCESS;
}

int cuStreamSynchronize(uintptr_t handle) {
  Stream work;
  {
    CALL();
    std::swap(work.work, stream_of(handle)->work);
  }
  for (auto &piece : work.work)
    if (int code = piece())
      return code;
  return SUCCESS;
}

int cuStreamDestroy_v2(uintptr_t stream) {
  GIVEN_BACK();
  delete (Stream *)stream;
  state.streams--;
  return code;
}

int cuLaunchKernel(uintptr_t function, unsigned grid, unsigned, unsigned, unsigned block, unsigned,
                   unsigned, unsigned, uintptr_t stream, void **arguments, void **) {
  CALL();
  if (grid == 0 || block != BLOCK)
    return INVALID_VALUE;
  auto run = (*(const Kernel *)function)(arguments);
  if (state.spoil) {
    seal_constants_12.first.w[0] ^= 1;
    seal_constants_9.first.w[0] ^= 1;
    seal_constants_3.first.w[0] ^= 1;
    state.spoil = false;
  }
  stream_of(stream)->work.push_back([run] {
    {
      std::lock_guard<std::mutex> guard(state.mutex);
      if (++state.kernels == state.lose)
        state.lost = true;
      if (state.lost)
        return (int)LAUNCH_FAILED;
    }
    run();
    return (int)SUCCESS;
  });
  return SUCCESS;
}
}
