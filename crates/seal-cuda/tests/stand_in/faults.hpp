// What the stand-in computes wrongly, and reports wrongly, by its script.
#pragma once

#include <stdint.h>
#include <string.h>

#include <functional>
#include <istream>
#include <map>
#include <string>
#include <vector>

namespace faults {

// Copies from and to memory of the device.
typedef std::function<bool(void *to, uint64_t from, size_t bytes)> Read;
typedef std::function<bool(uint64_t to, const void *from, size_t bytes)> Write;

// At which launches of a kernel something goes wrong: at number `from`, and then at every
// `every`-th (0: at that one alone).
struct When {
  std::string kernel;
  long from = 1, every = 0;

  bool is(const std::string &name, long launch) const {
    if (name != kernel || launch < from)
      return false;
    return every == 0 ? launch == from : (launch - from) % every == 0;
  }
};

struct Wrong {
  When when;
  // A node of the result, or `all`; or `nonsense`, which is all of them and no elements.
  std::string what;
};

struct Report {
  When when;
  uint64_t place;
};

struct Faults {
  std::vector<Wrong> wrong;
  std::vector<Report> reports;
  // Launches since the script was changed.
  std::map<std::string, long> launches;

  static When when(std::istream &words) {
    When when;
    words >> when.kernel >> when.from >> when.every;
    return when;
  }

  void read_wrong(std::istream &words) {
    Wrong fault;
    fault.when = when(words);
    words >> fault.what;
    wrong.push_back(fault);
  }

  void read_report(std::istream &words) {
    Report report;
    report.when = when(words);
    words >> report.place;
    reports.push_back(report);
  }

  // What is to be done when the launch of a kernel with these arguments has been worked off.
  std::function<void(const Read &, const Write &)> launched(const std::string &name,
                                                            void **arguments) {
    static const size_t NODE = 32;
    long launch = ++launches[name];
    // Columns and rows: inputs, count, results, report. The replica: two inputs.
    bool columns = name.find("seal_columns") == 0, rows = name.find("seal_rows") == 0;
    if (!columns && !rows && name != "seal_encode")
      return [](const Read &, const Write &) {};
    int at = columns || rows ? 1 : 2;
    uint32_t count;
    uint64_t results, report;
    memcpy(&count, arguments[at], sizeof count);
    memcpy(&results, arguments[at + 1], sizeof results);
    memcpy(&report, arguments[at + 2], sizeof report);
    std::vector<std::string> spoilt;
    std::vector<uint64_t> told;
    for (auto &fault : wrong)
      if (fault.when.is(name, launch))
        spoilt.push_back(fault.what);
    for (auto &fault : reports)
      if (fault.when.is(name, launch))
        told.push_back(fault.place);
    return [=](const Read &read, const Write &write) {
      for (auto &what : spoilt) {
        bool all = what == "all" || what == "nonsense";
        uint64_t node = all ? 0 : strtoull(what.c_str(), nullptr, 10);
        uint64_t end = all ? count : node < count ? node + 1 : node;
        for (; node < end; node++) {
          uint8_t bytes[NODE];
          if (what == "nonsense") {
            memset(bytes, 0xff, NODE);
            write(results + node * NODE, bytes, NODE);
          } else if (read(bytes, results + node * NODE, NODE)) {
            bytes[0] ^= 1;
            write(results + node * NODE, bytes, NODE);
          }
        }
      }
      for (uint64_t place : told)
        write(report, &place, sizeof place);
    };
  }
};

} // namespace faults
