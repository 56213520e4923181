// The stand-in's cards: how many there are, what they are like, and which of them a process sees.
#pragma once

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <istream>
#include <string>
#include <vector>

namespace cards {

struct Card {
  std::string name = "stand-in";
  uint8_t uuid[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  int major = 9, minor = 0;
  // The compute mode, and whether another process has the card.
  int mode = 0, held = 0;

  // As people write it, with GPU- before it.
  std::string uuid_text() const {
    static const char digits[] = "0123456789abcdef";
    std::string text = "GPU";
    for (int i = 0; i < 16; i++) {
      if (i == 0 || i == 4 || i == 6 || i == 8 || i == 10)
        text += '-';
      text += digits[uuid[i] >> 4];
      text += digits[uuid[i] & 15];
    }
    return text;
  }
};

struct Cards {
  std::vector<Card> all = std::vector<Card>(1);
  // Those that the process sees, in the order in which it sees them.
  std::vector<int> shown = {0};
  // Whether CUDA_VISIBLE_DEVICES is obeyed.
  int obey = 0;

  void count(int devices) {
    all.resize(devices);
    for (int i = 1; i < devices; i++)
      all[i].uuid[15] = (uint8_t)(15 + i);
  }

  // `name TEXT`, `uuid HEX`, `compute MAJOR MINOR`, `mode NUMBER` or `held 1`, of a card.
  void read(std::istream &words) {
    size_t number;
    std::string key, hex;
    words >> number >> key;
    if (number >= all.size())
      return;
    Card &card = all[number];
    if (key == "name") {
      std::getline(words >> std::ws, card.name);
    } else if (key == "uuid") {
      words >> hex;
      for (size_t i = 0; i < 16 && 2 * i + 1 < hex.size(); i++)
        card.uuid[i] = (uint8_t)strtol(hex.substr(2 * i, 2).c_str(), nullptr, 16);
    } else if (key == "compute") {
      words >> card.major >> card.minor;
    } else if (key == "mode") {
      words >> card.mode;
    } else if (key == "held") {
      words >> card.held;
    }
  }

  // Which card an entry of CUDA_VISIBLE_DEVICES names, or -1: an index, or the beginning of a UUID
  // that only one card has.
  int named(const std::string &entry) const {
    if (entry.compare(0, 4, "GPU-") == 0) {
      int found = -1;
      for (size_t i = 0; i < all.size(); i++)
        if (all[i].uuid_text().compare(0, entry.size(), entry) == 0)
          found = found == -1 ? (int)i : -2;
      return found < 0 ? -1 : found;
    }
    if (entry.empty() || entry.find_first_not_of("0123456789") != std::string::npos)
      return -1;
    long index = strtol(entry.c_str(), nullptr, 10);
    return index < (long)all.size() ? (int)index : -1;
  }

  // What the process sees. As the driver's documents say: the devices of the list in its order, up
  // to the first entry that names none; nothing of a list that begins so.
  void look() {
    shown.clear();
    const char *list = obey ? getenv("CUDA_VISIBLE_DEVICES") : nullptr;
    if (!list) {
      for (size_t i = 0; i < all.size(); i++)
        shown.push_back((int)i);
      return;
    }
    std::string rest = list;
    while (true) {
      size_t comma = rest.find(',');
      int card = named(rest.substr(0, comma));
      if (card < 0 || std::find(shown.begin(), shown.end(), card) != shown.end())
        return;
      shown.push_back(card);
      if (comma == std::string::npos)
        return;
      rest = rest.substr(comma + 1);
    }
  }

  const Card &seen(int device) const { return all[shown[device]]; }
};

} // namespace cards
