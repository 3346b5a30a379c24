#include "engine/lifecycle/domain_ids.h"

#include <algorithm>

namespace ioplan {

DomainIds::DomainIds(const Host& host, const Law& law) : host_(host), law_(law) {
  auto units_of = std::make_shared<Units>();
  for (const Device& d : host.devices) {
    if (!d.group || !d.unit) continue;
    auto& units = (*units_of)[*d.group];
    if (std::ranges::find(units, *d.unit) == units.end()) units.push_back(*d.unit);
  }
  units_ = std::move(units_of);
}

// Of the units in front of the group's members, assigned or not.
std::vector<DomainPool> DomainIds::pools(unsigned stage, DeviceIndex device) const {
  std::vector<DomainPool> found;
  for (const UnitIndex unit : units_->at(*host_.device(device).group)) {
    const auto pool = law_.domain_pool(host_, unit, stage);
    if (pool && std::ranges::find(found, pool->key, &DomainPool::key) == found.end()) found.push_back(*pool);
  }
  return found;
}

void DomainIds::take(const std::string& hwpt, unsigned stage, DeviceIndex device) {
  for (const DomainPool& pool : pools(stage, device)) {
    ++groups_[pool.key][hwpt];
    const auto [it, fresh] = capacity_.try_emplace(pool.key, pool.capacity);
    if (!fresh) it->second = std::min(it->second, pool.capacity);
  }
}

void DomainIds::give_back(const std::string& hwpt, unsigned stage, DeviceIndex device) {
  for (const DomainPool& pool : pools(stage, device)) {
    auto& holders = groups_[pool.key];
    if (--holders[hwpt] == 0) holders.erase(hwpt);
  }
}

bool DomainIds::has_room(const std::string& hwpt, unsigned stage, DeviceIndex device) const {
  return std::ranges::all_of(pools(stage, device), [&](const DomainPool& pool) {
    const auto holders = groups_.find(pool.key);
    if (holders == groups_.end()) return pool.capacity > 0;
    return holders->second.contains(hwpt) || holders->second.size() < pool.capacity;
  });
}

bool DomainIds::overdrawn() const {
  return std::ranges::any_of(groups_, [&](const auto& pool) { return pool.second.size() > capacity_.at(pool.first); });
}

std::uint64_t DomainIds::left(const DomainPool& pool) const {
  const auto holders = groups_.find(pool.key);
  const std::uint64_t used = holders == groups_.end() ? 0 : holders->second.size();
  return pool.capacity > used ? pool.capacity - used : 0;
}

}  // namespace ioplan
