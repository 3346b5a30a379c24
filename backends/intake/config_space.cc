#include "backends/intake/config_space.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

namespace ioplan::intake {

namespace {

constexpr std::size_t kHeaderBytes = 64;
constexpr std::size_t kExtendedStart = 256;
constexpr std::size_t kWholeBytes = 4096;

// Capability ids and the bytes of each that are looked at.
enum Id : unsigned { kExpress = 0x10 };
enum ExtendedId : unsigned { kAcs = 0x0d, kAts = 0x0f, kPri = 0x13, kPasid = 0x1b };
constexpr std::size_t kExpressBytes = 10;
constexpr std::size_t kExtendedBytes = 8;

unsigned word(std::string_view config, std::size_t at) {
  return static_cast<unsigned char>(config[at]) | static_cast<unsigned>(static_cast<unsigned char>(config[at + 1])) << 8;
}

std::uint32_t dword(std::string_view config, std::size_t at) {
  return word(config, at) | static_cast<std::uint32_t>(word(config, at + 2)) << 16;
}

// The capabilities in the order of the list, and the first of each id; `complete` when the end of the list was reached,
// `broken` where there was nothing that could be read.
struct List {
  std::vector<std::pair<unsigned, std::size_t>> visited;
  std::optional<std::size_t> broken;
  std::map<unsigned, std::size_t> offset;
  bool complete = false;

  void add(unsigned id, std::size_t at) {
    visited.emplace_back(id, at);
    offset.try_emplace(id, at);
  }

  const std::size_t* find(unsigned id) const {
    const auto it = offset.find(id);
    return it == offset.end() ? nullptr : &it->second;
  }
};

List legacy_list(std::string_view config) {
  constexpr unsigned kMost = 48;
  List list;
  if (config.size() < kHeaderBytes) return list;
  const bool has_list = (word(config, 0x06) & 0x10U) != 0;
  const bool cardbus = (static_cast<unsigned char>(config[0x0e]) & 0x7fU) == 2;
  std::size_t at = has_list ? static_cast<unsigned char>(config[cardbus ? 0x14 : 0x34]) & 0xfcU : 0U;
  for (unsigned i = 0; i < kMost; ++i) {
    if (at < kHeaderBytes) {
      list.complete = true;
      return list;
    }
    if (at + 2 > config.size()) return list;
    const unsigned header = word(config, at);
    if ((header & 0xffU) == 0xffU) {
      list.broken = at;
      return list;
    }
    list.add(header & 0xffU, at);
    at = header >> 8 & 0xfcU;
  }
  return list;
}

List extended_list(std::string_view config) {
  constexpr unsigned kMost = (kWholeBytes - kExtendedStart) / 8;
  List list;
  std::size_t at = kExtendedStart;
  for (unsigned i = 0; i < kMost; ++i) {
    if (at + 4 > config.size()) return list;
    const std::uint32_t header = dword(config, at);
    if (header == 0xffffffff) {
      list.broken = at;
      return list;
    }
    list.add(header & 0xffffU, at);
    at = header >> 20 & 0xffcU;
    if (at < kExtendedStart) {
      list.complete = true;
      return list;
    }
  }
  return list;
}

struct Lists {
  List legacy, extended;

  explicit Lists(std::string_view config) : legacy(legacy_list(config)), extended(extended_list(config)) {
    const bool conventional = legacy.complete && legacy.find(kExpress) == nullptr;
    if (conventional) extended = {{}, {}, {}, true};
  }
};

// The register `at` bytes into a capability; 0 where the function lacks it; nothing where that is not known.
std::optional<std::uint64_t> register_of(const List& list, unsigned id, std::size_t at, std::string_view config) {
  const std::size_t* offset = list.find(id);
  if (offset == nullptr) return list.complete ? std::optional<std::uint64_t>(0) : std::nullopt;
  if (*offset + at + 2 > config.size()) return std::nullopt;
  return word(config, *offset + at);
}

std::optional<bool> has(const List& list, unsigned id) {
  if (list.find(id) != nullptr) return true;
  return list.complete ? std::optional(false) : std::nullopt;
}

}  // namespace

PciCapabilities capabilities_of(std::string_view config) {
  const Lists lists(config);
  PciCapabilities found;
  found.bytes = config.size();
  found.ats = has(lists.extended, kAts);
  found.pri = has(lists.extended, kPri);
  found.acs = register_of(lists.extended, kAcs, 4, config);
  found.acs_enabled = register_of(lists.extended, kAcs, 6, config);
  if (const auto pasid = register_of(lists.extended, kPasid, 4, config)) found.pasid_bits = *pasid >> 8 & 0x1fU;
  if (const auto control = register_of(lists.legacy, kExpress, 8, config)) found.no_snoop = (*control >> 11 & 1U) != 0;
  return found;
}

// Everything that the walks look at, so that they go the same way through the excerpt.
std::string config_excerpt(std::string_view config) {
  const Lists lists(config);
  std::string kept(config.size(), '\0');
  const auto keep = [&](std::size_t at, std::size_t bytes) {
    const std::string_view part = config.substr(std::min(at, config.size()), bytes);
    kept.replace(std::min(at, config.size()), part.size(), part);
  };
  keep(0, kHeaderBytes);
  for (const auto& [id, at] : lists.legacy.visited) keep(at, id == kExpress ? kExpressBytes : 2);
  for (const auto& [id, at] : lists.extended.visited) {
    const bool read = id == kAcs || id == kAts || id == kPri || id == kPasid;
    keep(at, read ? kExtendedBytes : 4);
  }
  if (lists.legacy.broken) keep(*lists.legacy.broken, 2);
  if (lists.extended.broken) keep(*lists.extended.broken, 4);
  return kept;
}

}  // namespace ioplan::intake
