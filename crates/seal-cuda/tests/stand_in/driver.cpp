// A stand-in for the NVIDIA driver: the functions that seal-cuda calls, with the kernels behind
// them and failures by a script. The kernels are their host build, or, where there is a file
// `<this library>.ptx`, the PTX that nvcc makes of them, executed. Its lines are the program that
// executes, the file with the PTX, the seed, and, if wanted, a directory for what was executed.
//
// Work given to a stream is done when the stream is waited for and not before, so that code that
// looks at results too early, or gives up its memory too early, is found out.
//
// The script is the file `<this library>.script`, read by each cuInit and cuMemGetInfo; a library is
// loaded once in a process, and counts on:
//   version N            the version of CUDA that it is for (13000)
//   devices N            how many devices there are (1)
//   compute MAJOR MINOR  their architecture (9 0)
//   card N KEY VALUE     the N-th device, counted from 0: its `name`, its `uuid` in hex, `compute`,
//                        its compute `mode`, and whether another process has it, `held 1`
//   visible 1            CUDA_VISIBLE_DEVICES is obeyed
//   memory BYTES         memory of each (1 GiB); what does not fit is CUDA_ERROR_OUT_OF_MEMORY
//   fail FUNCTION N CODE the N-th call of a function, counted from 1, and all later ones return
//                        CODE, until a script without it is read
//   wrong KERNEL N M X   the N-th launch of KERNEL, counted from 1 and from when the script was
//                        changed, and then each M-th (0: none), makes the node X wrongly, or `all`,
//                        or `nonsense`, which is no elements of the field
//   report KERNEL N M P  and there it reports that the node at the place P is no element
//   lose N               the N-th kernel, counted likewise, and everything after it, fails with
//                        CUDA_ERROR_LAUNCH_FAILED when it is waited for, until the context has been
//                        given back
//   spoil 1              kernels compute with other constants
//   misplace 1           replicas are encoded with the label of the next node
//   pinned 1             copies from and to other memory than pinned one are refused
//   gone 1               giving the context back does not help
// When the context is given back, what was not is told in `<this library>.left`.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

#include "cards.hpp"
#include "executed.hpp"
#include "faults.hpp"
#include "host.hpp"

namespace {

enum {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NOT_INITIALIZED = 3,
  DEVICE_UNAVAILABLE = 46,
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
  int version = 13000;
  cards::Cards cards;
  faults::Faults faults;
  std::string script;
  size_t memory = (size_t)1 << 30, taken = 0;
  std::map<std::string, std::pair<long, int>> failures;
  std::map<std::string, long> calls;
  long lose = 0, kernels = 0;
  bool lost = false, gone = false, spoil = false, spoilt = false, misplace = false;
  std::map<uint64_t, size_t> allocations, constants;
  std::map<uint64_t, size_t> pinned;
  bool only_pinned = false;
  size_t streams = 0;
  Stream default_stream;
  std::unique_ptr<Machine> machine;
  executed::Process *process = nullptr;
  // What the last kernel that failed did.
  std::string said = "said by the stand-in";
};

State state;

// Whether the context is current on this thread.
thread_local bool is_current = false;

std::string own_path() {
  Dl_info info;
  return dladdr((void *)&own_path, &info) ? info.dli_fname : "";
}

void find_machine() {
  std::ifstream file(own_path() + ".ptx");
  std::string program, ptx, seed, counts;
  if (std::getline(file, program) && std::getline(file, ptx) && std::getline(file, seed)) {
    std::vector<std::string> arguments = {"serve", ptx, "--seed", seed};
    if (std::getline(file, counts) && !counts.empty())
      arguments.insert(arguments.end(), {"--counts", counts});
    state.process = new executed::Process(program, arguments);
    state.machine.reset(state.process);
  } else {
    state.machine.reset(new host::Processor);
  }
}

void read_script() {
  std::lock_guard<std::mutex> guard(state.mutex);
  std::ifstream script(own_path() + ".script");
  state.failures.clear();
  state.faults.wrong.clear();
  state.faults.reports.clear();
  std::stringstream whole;
  whole << script.rdbuf();
  if (whole.str() != state.script) {
    state.script = whole.str();
    state.faults.launches.clear();
    state.kernels = state.lose = 0;
    state.misplace = false;
  }
  script.clear();
  script.seekg(0);
  std::string line;
  while (std::getline(script, line)) {
    std::istringstream words(line);
    std::string key, name;
    words >> key;
    if (key == "version") {
      words >> state.version;
    } else if (key == "devices") {
      int devices = 0;
      words >> devices;
      state.cards.count(devices);
    } else if (key == "compute") {
      int major = 0, minor = 0;
      words >> major >> minor;
      for (auto &card : state.cards.all)
        card.major = major, card.minor = minor;
    } else if (key == "card")
      state.cards.read(words);
    else if (key == "visible")
      words >> state.cards.obey;
    else if (key == "wrong")
      state.faults.read_wrong(words);
    else if (key == "report")
      state.faults.read_report(words);
    else if (key == "memory")
      words >> state.memory;
    else if (key == "lose")
      words >> state.lose;
    else if (key == "spoil")
      words >> state.spoil;
    else if (key == "misplace")
      words >> state.misplace;
    else if (key == "pinned")
      words >> state.only_pinned;
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
  if (!state.initialised && strcmp(function, "cuInit") != 0 &&
      strcmp(function, "cuDriverGetVersion") != 0)
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

// Whether the device may copy from or to this memory of the machine.
bool reached(const void *memory, size_t bytes) {
  return !state.only_pinned || within(state.pinned, (uint64_t)memory, bytes);
}

Stream *stream_of(uintptr_t handle) {
  return handle == 0 ? &state.default_stream : (Stream *)handle;
}

// A kernel by its name, with the sizes of its parameters.
struct Function {
  std::string name;
  std::vector<size_t> sizes;
};

// Functions that were asked for: they stay where they are.
std::map<std::string, std::unique_ptr<Function>> functions;

// Makes tables of constants other than they are.
void spoil() {
  for (const char *name : {"seal_constants_3", "seal_constants_9", "seal_constants_12"}) {
    uint64_t address;
    size_t bytes;
    uint8_t first;
    if (state.machine->variable(name, address, bytes) && state.machine->read(&first, address, 1)) {
      first ^= 1;
      state.machine->write(address, &first, 1);
    }
  }
}

// Runs a kernel, and a replica once more with the labels one node further.
std::string run(const std::string &name, unsigned blocks, unsigned threads,
                std::vector<Bytes> arguments) {
  std::string said = state.machine->run(name, blocks, threads, arguments);
  if (said.empty() && state.misplace && name == "seal_encode") {
    uint64_t labels;
    uint32_t count;
    memcpy(&labels, arguments[1].data(), sizeof labels);
    memcpy(&count, arguments[2].data(), sizeof count);
    if (count > 1) {
      labels += sizeof(node);
      count--;
      memcpy(arguments[1].data(), &labels, sizeof labels);
      memcpy(arguments[2].data(), &count, sizeof count);
      said = state.machine->run(name, blocks, threads, arguments);
    }
  }
  return said;
}

} // namespace

extern "C" {

int cuInit(unsigned) {
  read_script();
  CALL();
  if (!state.machine)
    find_machine();
  state.initialised = true;
  state.cards.look();
  return state.cards.shown.empty() ? NO_DEVICE : SUCCESS;
}

int cuDriverGetVersion(int *version) {
  read_script();
  CALL();
  *version = state.version;
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
  *text = state.said.c_str();
  return SUCCESS;
}

int cuDeviceGetCount(int *count) {
  CALL();
  *count = (int)state.cards.shown.size();
  return SUCCESS;
}

int cuDeviceGet(int *device, int index) {
  CALL();
  if (index < 0 || index >= (int)state.cards.shown.size())
    return 101;
  *device = index;
  return SUCCESS;
}

int cuDeviceGetName(char *name, int length, int device) {
  CALL();
  snprintf(name, length, "%s", state.cards.seen(device).name.c_str());
  return SUCCESS;
}

int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
  CALL();
  memcpy(uuid, state.cards.seen(device).uuid, 16);
  return SUCCESS;
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
  CALL();
  const cards::Card &card = state.cards.seen(device);
  // One multiprocessor, with cooperative launches.
  *value = attribute == 75   ? card.major
           : attribute == 76 ? card.minor
           : attribute == 20 ? card.mode
           : attribute == 16 || attribute == 95 ? 1
                                                : 0;
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

int cuDevicePrimaryCtxRetain(uintptr_t *context, int device) {
  CALL();
  const cards::Card &card = state.cards.seen(device);
  // Prohibited, or exclusive and another's.
  if (card.mode == 2 || (card.mode == 3 && card.held))
    return DEVICE_UNAVAILABLE;
  *context = 1;
  return SUCCESS;
}

int cuDevicePrimaryCtxRelease_v2(int) {
  // Also for a lost device, since programs end with one.
  std::lock_guard<std::mutex> guard(state.mutex);
  std::ofstream left(own_path() + ".left");
  left << "memory " << state.allocations.size() << " pinned " << state.pinned.size() << " streams "
       << state.streams << "\n";
  state.lost = state.lost && state.gone;
  return SUCCESS;
}

int cuCtxSetCurrent(uintptr_t context) {
  CALL();
  is_current = context == 1;
  return is_current ? SUCCESS : INVALID_CONTEXT;
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
  auto &known = functions[name];
  if (!known) {
    Function function = {name, {}};
    if (!state.machine->parameters(name, function.sizes))
      return NOT_FOUND;
    known.reset(new Function(function));
  }
  *function = (uintptr_t)known.get();
  return SUCCESS;
}

int cuModuleGetGlobal_v2(uint64_t *address, size_t *bytes, uintptr_t, const char *name) {
  CALL();
  if (!state.machine->variable(name, *address, *bytes))
    return NOT_FOUND;
  state.constants[*address] = *bytes;
  return SUCCESS;
}

int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
  CALL();
  if (state.taken + bytes > state.memory)
    return OUT_OF_MEMORY;
  *address = state.machine->take(bytes);
  if (!*address)
    return OUT_OF_MEMORY;
  state.taken += bytes;
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
  state.machine->give_back(address);
  return code;
}

int cuMemHostAlloc(void **memory, size_t bytes, unsigned) {
  CALL();
  *memory = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  if (!*memory)
    return OUT_OF_MEMORY;
  memset(*memory, 0xa5, bytes);
  state.pinned[(uint64_t)*memory] = bytes;
  return SUCCESS;
}

int cuMemFreeHost(void *memory) {
  GIVEN_BACK();
  state.pinned.erase((uint64_t)memory);
  free(memory);
  return code;
}

int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, uintptr_t stream) {
  CALL();
  if (!on_device(to, bytes) || !reached(from, bytes))
    return INVALID_VALUE;
  stream_of(stream)->work.push_back([=] {
    return state.machine->write(to, from, bytes) ? (int)SUCCESS : (int)LAUNCH_FAILED;
  });
  return SUCCESS;
}

int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, uintptr_t stream) {
  CALL();
  if (!on_device(from, bytes) || !reached(to, bytes))
    return INVALID_VALUE;
  stream_of(stream)->work.push_back([=] {
    return state.machine->read(to, from, bytes) ? (int)SUCCESS : (int)LAUNCH_FAILED;
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
    if (!is_current)
      return INVALID_CONTEXT;
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
  if (grid == 0 || block == 0)
    return INVALID_VALUE;
  auto &called = *(const Function *)function;
  // Arguments are taken now, the work is done later.
  std::vector<Bytes> values;
  for (size_t i = 0; i < called.sizes.size(); i++) {
    const uint8_t *from = (const uint8_t *)arguments[i];
    values.emplace_back(from, from + called.sizes[i]);
  }
  auto spoil_results = state.faults.launched(called.name, arguments);
  // Once, however often the script is read.
  if (state.spoil && !state.spoilt)
    spoil();
  state.spoilt = state.spoilt || state.spoil;
  stream_of(stream)->work.push_back([=, &called] {
    {
      std::lock_guard<std::mutex> guard(state.mutex);
      if (++state.kernels == state.lose)
        state.lost = true;
      if (state.lost)
        return (int)LAUNCH_FAILED;
    }
    std::string said = run(called.name, grid, block, values);
    if (said.empty()) {
      spoil_results(
          [](void *to, uint64_t from, size_t bytes) { return state.machine->read(to, from, bytes); },
          [](uint64_t to, const void *from, size_t bytes) {
            return state.machine->write(to, from, bytes);
          });
      return (int)SUCCESS;
    }
    std::lock_guard<std::mutex> guard(state.mutex);
    state.said = said;
    state.lost = true;
    return (int)LAUNCH_FAILED;
  });
  return SUCCESS;
}
}
