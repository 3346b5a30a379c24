#include "backends/sim/iommu_core.h"

#include <algorithm>
#include <cassert>
#include <cerrno>

#include "engine/base/log2.h"

namespace ioplan::sim {

namespace {

Driver driver_of(const Domain& domain) { return static_cast<Driver>(domain.attributes[HwptQ::driver]); }

// A domain of Intel's has an id of each unit that it is attached behind; other domains have one for life.
bool has_ids_by_unit(const Domain& domain) { return driver_of(domain) == Driver::intel; }

// AMD's allocator hides why it failed; SMMUv3's ASIDs live in an xarray, which calls a full range busy.
int out_of_ids(const Domain& domain) {
  if (driver_of(domain) == Driver::amd) return ENOMEM;
  return driver_of(domain) == Driver::smmuv3 && domain.attributes[HwptQ::stage] == 1 ? EBUSY : ENOSPC;
}

bool driver_attaches_pasids(Driver driver) {
  return driver == Driver::intel || driver == Driver::smmuv3 || driver == Driver::mock;
}

// AMD's blocking domain takes PASIDs, though no paging domain of AMD's does.
bool driver_blocks_pasids(Driver driver) { return driver_attaches_pasids(driver) || driver == Driver::amd; }

bool owned_by_driver_of(const Domain& domain, const DeviceState& device) {
  return domain.attributes[HwptQ::owner] == device.quantities[DeviceQ::owner];
}

}  // namespace

IommuCore::IommuCore(const Host& host, const Law& law, const Hazards& hazards, TableArena& tables,
                     FailurePoint& failures)
    : host_(host), law_(law), hazards_(hazards), tables_(tables), failures_(failures) {
  devices_.resize(host.devices.size());
  for (std::size_t i = 0; i < devices_.size(); ++i) {
    const Device& facts = host.devices[i];
    DeviceState& device = devices_[i];
    device.index = DeviceIndex(i);
    if (!facts.unit || !facts.group) continue;
    device.quantities = law.describe(host, device.index);
    device.regions = facts.reserved ? *facts.reserved : law.own_regions(host, device.index);
    device.group = &groups_[*facts.group];
    device.group->number = *facts.group;
    device.group->members.push_back(device.index);
    page_size_ = device.quantities[DeviceQ::kernel_page_size];
  }
  for (const Rule* rule : law.rules()) {
    if (rule->phase == Phase::allocation) allocation_rules_.push_back(rule);
    if (rule->phase == Phase::attach && !rule->strict) attach_rules_.push_back(rule);
  }
}

GroupState* IommuCore::group(std::uint32_t number) {
  const auto it = groups_.find(number);
  return it == groups_.end() ? nullptr : &it->second;
}

bool IommuCore::isolated_msi(const GroupState& group) const {
  return std::ranges::none_of(group.members,
                              [&](DeviceIndex d) { return device(d).quantities[DeviceQ::unsafe_interrupts] != 0; });
}

Answer<void> IommuCore::claim(GroupState& group, const void* owner) {
  if (group.owner != nullptr && group.owner != owner) return refuse(EPERM, "another owner has the DMA of its group");
  const bool direct = std::ranges::any_of(group.members, [&](DeviceIndex d) {
    return std::ranges::any_of(device(d).regions, [](const auto& r) { return r.type == ReservedType::direct; });
  });
  if (direct) return refuse(EINVAL, "firmware wants a device of its group mapped 1:1 (a `direct` reserved region)");
  group.owner = owner;
  ++group.claims;
  return {};
}

void IommuCore::release(GroupState& group) {
  assert(group.claims > 0);
  if (--group.claims > 0) return;
  assert(group.domain == nullptr && group.pasids.empty());
  group.owner = nullptr;
}

Answer<std::unique_ptr<Domain>> IommuCore::allocate_domain(DeviceIndex allocator, std::uint8_t flags,
                                                           Coherency coherency) {
  const DeviceState& made_for = device(allocator);
  HwptQuantities attributes = law_.allocate(made_for.quantities, flags);
  for (const Rule* rule : allocation_rules_) {
    if (!holds(*rule, {&attributes, &made_for.quantities, nullptr})) return refuse(rule->errno_value, rule->law);
  }
  if (coherency == Coherency::leave) attributes[HwptQ::enforce_cache_coherency] = 0;
  const Unit& unit = host_.unit(*host_.device(allocator).unit);
  auto domain = std::make_unique<Domain>(allocator, attributes, shape_of(attributes, unit));
  if (!PageTable::supported(domain->shape())) return refuse(EOPNOTSUPP, "no table format of this shape is simulated");
  if (!law_.automatic_only(unit.driver)) {
    if (auto made = finalise(*domain, made_for); !made) return tl::make_unexpected(made.error());
  }
  return domain;
}

Answer<void> IommuCore::finalise(Domain& domain, const DeviceState& device) {
  if (!has_ids_by_unit(domain)) {
    if (auto taken = take_id(domain, device); !taken) return taken;
  }
  if (domain.finalise(tables_)) return {};
  unfinalise(domain);
  return refuse(ENOMEM, "no memory for a page table's root");
}

void IommuCore::unfinalise(Domain& domain) {
  while (!domain.ids.empty()) return_id(domain, domain.ids.begin()->first);
  domain.table.reset();
}

void IommuCore::free_domain(std::unique_ptr<Domain> domain) {
  while (!domain->ids.empty()) return_id(*domain, domain->ids.begin()->first);
}

Answer<void> IommuCore::accepts(const Domain& domain, const GroupState& group) const {
  for (DeviceIndex d : group.members) {
    if (auto answer = driver_accepts(domain, device(d)); !answer) return answer;
  }
  return {};
}

Answer<void> IommuCore::attach(GroupState& group, Domain& domain) {
  if (group.domain == &domain) return {};
  // The core looks at the owner before any driver is asked (__iommu_attach_group), so nothing is torn down.
  if (!owned_by_driver_of(domain, device(group.members.front()))) {
    return refuse(EINVAL, "the HWPT was made by another IOMMU driver");
  }
  for (auto member = group.members.begin(); member != group.members.end(); ++member) {
    const auto answer = driver_attach(device(*member), domain);
    if (answer) continue;
    // Those that had already moved go back, which cannot fail: what they need was theirs a moment ago.
    for (auto moved = group.members.begin(); moved != member; ++moved) {
      driver_block(device(*moved));
      if (group.domain != nullptr) restore(device(*moved), *group.domain);
    }
    return answer;
  }
  group.domain = &domain;
  return {};
}

void IommuCore::detach(GroupState& group) {
  for (DeviceIndex d : group.members) driver_block(device(d));
  group.domain = nullptr;
}

Answer<void> IommuCore::attach_pasid(const DeviceState& device, std::uint32_t pasid, Domain& domain) {
  if (!driver_attaches_pasids(driver_of(domain)) ||
      !driver_blocks_pasids(static_cast<Driver>(device.quantities[DeviceQ::driver]))) {
    return refuse(EOPNOTSUPP, "the driver cannot attach page tables to PASIDs");
  }
  if (!owned_by_driver_of(domain, device)) return refuse(EINVAL, "the HWPT was made by another IOMMU driver");
  for (DeviceIndex d : device.group->members) {
    const DeviceState& member = this->device(d);
    if (member.max_pasids() > 0 && pasid >= member.max_pasids()) {
      return refuse(EINVAL, "the PASID is wider than what a device of the group can use");
    }
  }
  return set_pasid(*device.group, pasid, domain, nullptr);
}

Answer<void> IommuCore::replace_pasid(const DeviceState& device, std::uint32_t pasid, Domain& domain) {
  if (!driver_attaches_pasids(driver_of(domain))) {
    return refuse(EOPNOTSUPP, "the driver cannot attach page tables to PASIDs");
  }
  if (!owned_by_driver_of(domain, device)) return refuse(EINVAL, "the HWPT was made by another IOMMU driver");
  Domain* old = device.group->pasids.at(pasid);
  return old == &domain ? Answer<void>{} : set_pasid(*device.group, pasid, domain, old);
}

void IommuCore::detach_pasid(GroupState& group, std::uint32_t pasid) {
  for (DeviceIndex d : group.members) {
    DeviceState& member = device(d);
    const auto it = member.pasids.find(pasid);
    if (it == member.pasids.end()) continue;
    drop_id(*it->second, member);
    member.pasids.erase(it);
  }
  group.pasids.erase(pasid);
}

// Devices without PASIDs issue none, so they neither refuse nor matter.
Answer<void> IommuCore::set_pasid(GroupState& group, std::uint32_t pasid, Domain& domain, Domain* old) {
  for (auto it = group.members.begin(); it != group.members.end(); ++it) {
    DeviceState& member = device(*it);
    if (member.max_pasids() == 0) continue;
    const auto answer = driver_attach_pasid(member, pasid, domain);
    if (answer) continue;
    for (auto moved = group.members.begin(); moved != it; ++moved) {
      DeviceState& back = device(*moved);
      if (back.max_pasids() == 0) continue;
      drop_id(domain, back);
      back.pasids.erase(pasid);
      if (old == nullptr) continue;
      back.pasids[pasid] = old;
      hold_id(*old, back);
    }
    return answer;
  }
  group.pasids[pasid] = &domain;
  return {};
}

Answer<void> IommuCore::driver_accepts(const Domain& domain, const DeviceState& device) const {
  for (const Rule* rule : attach_rules_) {
    if (!holds(*rule, {&domain.attributes, &device.quantities, nullptr})) return refuse(rule->errno_value, rule->law);
  }
  return {};
}

// Intel's driver wants page requests turned on for a HWPT with a fault queue, and simulated devices have none (PRI).
Answer<void> IommuCore::enable_page_requests(const Domain& domain, const DeviceState& device) const {
  if (domain.takes_faults && device.is(Driver::intel)) return refuse(ENODEV, "the device has no page request interface");
  return {};
}

// The drivers' attach_dev. Intel tears the old translation down before it looks at the new domain (hazard H1); the others
// look first.
Answer<void> IommuCore::driver_attach(DeviceState& device, Domain& domain) {
  Domain* old = device.domain;
  const bool blocks_first = device.is(Driver::intel);
  if (blocks_first) driver_block(device);
  auto answer = driver_accepts(domain, device);
  if (answer) answer = enable_page_requests(domain, device);
  if (answer && !domain.finalised()) answer = finalise(domain, device);
  if (answer && has_ids_by_unit(domain)) answer = take_id(domain, device);
  if (!answer) {
    if (blocks_first && old != nullptr && !hazards_.failed_replace_blocks_dma) restore(device, *old);
    return answer;
  }
  if (!blocks_first) driver_block(device);
  device.domain = &domain;
  return {};
}

Answer<void> IommuCore::driver_attach_pasid(DeviceState& device, std::uint32_t pasid, Domain& domain) {
  // The mock's set_dev_pasid asks nothing (selftest.c mock_domain_set_dev_pasid_nop).
  Answer<void> answer;
  if (!device.is(Driver::mock)) answer = driver_accepts(domain, device);
  if (answer && has_ids_by_unit(domain)) answer = take_id(domain, device);
  if (answer) {
    answer = enable_page_requests(domain, device);
    if (!answer && has_ids_by_unit(domain)) drop_id(domain, device);
  }
  if (!answer) return answer;
  Domain*& slot = device.pasids[pasid];
  if (slot != nullptr) drop_id(*slot, device);
  slot = &domain;
  return {};
}

void IommuCore::driver_block(DeviceState& device) {
  if (device.domain != nullptr) drop_id(*device.domain, device);
  device.domain = nullptr;
}

void IommuCore::restore(DeviceState& device, Domain& domain) {
  device.domain = &domain;
  hold_id(domain, device);
}

std::optional<DomainPool> IommuCore::pool_of(const Domain& domain, const DeviceState& device) const {
  return law_.domain_pool(host_, *host_.device(device.index).unit, static_cast<unsigned>(domain.attributes[HwptQ::stage]));
}

// One id for each (domain, pool), shared by all attachments behind it.
Answer<void> IommuCore::take_id(Domain& domain, const DeviceState& device) {
  const auto pool = pool_of(domain, device);
  if (!pool) return {};
  if (failures_.strikes()) return refuse(ENOMEM, "injected: no memory for a domain id");
  if (!domain.ids.contains(pool->key) && ids_taken_[pool->key] >= pool->capacity) {
    return refuse(out_of_ids(domain), "the unit's domain ids are used up");
  }
  if (++domain.ids[pool->key] == 1) ++ids_taken_[pool->key];
  return {};
}

// Takes back an id that was given up a moment ago: nothing can be missing.
void IommuCore::hold_id(Domain& domain, const DeviceState& device) {
  if (!has_ids_by_unit(domain)) return;
  const auto pool = pool_of(domain, device);
  if (++domain.ids[pool->key] == 1) ++ids_taken_[pool->key];
}

void IommuCore::drop_id(Domain& domain, const DeviceState& device) {
  if (has_ids_by_unit(domain)) return_id(domain, pool_of(domain, device)->key);
}

void IommuCore::return_id(Domain& domain, std::uint64_t pool) {
  const auto held = domain.ids.find(pool);
  if (--held->second > 0) return;
  domain.ids.erase(held);
  --ids_taken_[pool];
}

}  // namespace ioplan::sim
