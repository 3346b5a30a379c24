// Who holds which domain ids while HWPTs come, go and change places: one for every HWPT and pool behind which it has a
// group. Held by tests/lifecycle_test.cc.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/law/law.h"
#include "engine/model/host.h"

namespace ioplan {

class DomainIds {
 public:
  DomainIds(const Host& host, const Law& law);

  // The group of `device` joins or leaves a HWPT of this stage.
  void take(const std::string& hwpt, unsigned stage, DeviceIndex device);
  void give_back(const std::string& hwpt, unsigned stage, DeviceIndex device);

  // Could it join, with the ids that are left?
  bool has_room(const std::string& hwpt, unsigned stage, DeviceIndex device) const;

  bool overdrawn() const;
  std::uint64_t left(const DomainPool& pool) const;

 private:
  std::vector<DomainPool> pools(unsigned stage, DeviceIndex device) const;

  const Host& host_;
  const Law& law_;
  using Units = std::unordered_map<std::uint32_t, std::vector<UnitIndex>>;
  std::shared_ptr<const Units> units_;                               // in front of a kernel group's members
  std::map<std::uint64_t, std::map<std::string, unsigned>> groups_;  // by pool and HWPT
  std::map<std::uint64_t, std::uint64_t> capacity_;
};

}  // namespace ioplan
