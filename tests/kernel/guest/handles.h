// What both subjects keep to translate handles into their own object ids.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "tests/kernel/guest/subject.h"

namespace ioplan::kernel_test {

inline constexpr std::uint32_t kNoSuchId = 0x7ffffffe;  // what a handle means that was destroyed or never made

class Handles {
 public:
  explicit Handles(std::size_t devices) : attached_(devices) { list(TargetKind::device).assign(devices, kNoSuchId); }

  std::uint32_t id(Target t) const {
    return t.handle < list(t.kind).size() ? list(t.kind)[t.handle] : kNoSuchId;
  }
  std::uint32_t ioas(unsigned handle) const { return id({TargetKind::ioas, handle}); }
  std::uint32_t hwpt(unsigned handle) const { return id({TargetKind::hwpt, handle}); }
  std::uint32_t device(unsigned number) const { return id({TargetKind::device, number}); }

  // The handle of a new object.
  std::uint64_t add(TargetKind kind, std::uint32_t id) {
    list(kind).push_back(id);
    return list(kind).size() - 1;
  }
  void forget(Target t) { list(t.kind).at(t.handle) = kNoSuchId; }
  void bound(unsigned device, std::uint32_t id) { list(TargetKind::device).at(device) = id; }

  // Who shares a HWPT, in words that do not depend on ids: the lowest device attached to the same one.
  std::uint64_t attach(unsigned device, std::uint32_t hwpt) {
    attached_[device] = hwpt;
    unsigned lowest = 0;
    while (attached_[lowest] != hwpt) ++lowest;
    return lowest;
  }
  void detach(unsigned device) { attached_[device] = 0; }

 private:
  std::vector<std::uint32_t>& list(TargetKind kind) { return ids_[static_cast<std::size_t>(kind)]; }
  const std::vector<std::uint32_t>& list(TargetKind kind) const { return ids_[static_cast<std::size_t>(kind)]; }

  std::array<std::vector<std::uint32_t>, 4> ids_;  // by kind
  std::vector<std::uint32_t> attached_;            // by device: its RID's HWPT
};

}  // namespace ioplan::kernel_test
