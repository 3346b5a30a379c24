// HWPTs: allocation, dirty tracking, and what the hardware tells about itself.
// Mirrors drivers/iommu/iommufd/hw_pagetable.c and device.c iommufd_get_hw_info.

#include <algorithm>
#include <bit>
#include <cerrno>

#include "backends/sim/context_state.h"
#include "engine/base/log2.h"

namespace ioplan::sim {

namespace {

constexpr std::uint64_t kLast = ~std::uint64_t{0};
constexpr std::string_view kNoHwpt = "there is no such HWPT";

bool knows_flags(const DeviceState& device) {
  return device.is(Driver::intel) || device.is(Driver::amd) || device.is(Driver::smmuv3) || device.is(Driver::mock);
}

// The uAPI's bits as the law's (engine/model/plan.h HwptFlag); a fault queue changes nothing in what is allocated.
std::uint8_t law_flags(std::uint32_t flags) {
  return static_cast<std::uint8_t>(((flags & kHwptDirtyTracking) != 0 ? kDirtyTracking : 0) |
                                   ((flags & kHwptNestParent) != 0 ? kNestParent : 0) |
                                   ((flags & kHwptPasid) != 0 ? kPasid : 0));
}

Answer<void> check_flags(const DeviceState& device, std::uint32_t flags) {
  if (flags != 0 && !knows_flags(device)) return refuse(EOPNOTSUPP, "the driver knows no HWPT flags");
  if ((flags & ~(kHwptNestParent | kHwptDirtyTracking | kHwptFaultIdValid | kHwptPasid)) != 0) {
    return refuse(EOPNOTSUPP, "unknown flags");
  }
  if ((flags & kHwptDirtyTracking) != 0 && device.quantities[DeviceQ::dirty_capable] == 0) {
    return refuse(EOPNOTSUPP, "the IOMMU cannot track dirty pages");
  }
  if ((flags & kHwptFaultIdValid) != 0 && (flags & kHwptNestParent) != 0) {
    return refuse(EOPNOTSUPP, "a nesting parent takes no faults");
  }
  return {};
}

// iommufd_check_iova_range.
Answer<void> check_dirty_range(const IoPageTable& table, std::uint64_t iova, std::uint64_t length, std::uint64_t page_size) {
  if (length - 1 > kLast - iova) return refuse(EOVERFLOW, "the range leaves the address space");
  const std::uint64_t end = iova + length;
  if (((iova | end) & (table.alignment() - 1)) != 0) return refuse(EINVAL, "the range is not aligned for the IOAS");
  if (page_size == 0) return refuse(EINVAL, "the page size is 0");
  if (((iova | end) & (page_size - 1)) != 0) return refuse(EINVAL, "the range is not aligned to the page size");
  return {};
}

std::uint64_t common_register(const Host& host, UnitFact reg) {
  std::uint64_t value = kLast;
  for (const Unit& unit : host.units) {
    if (unit.driver == Driver::amd && unit.facts[reg]) value &= *unit.facts[reg];
  }
  return value == kLast ? 0 : value;
}

HwInfo registers_of(const Host& host, const Unit& unit) {
  const auto fact = [&](UnitFact f) { return unit.facts[f].value_or(0); };
  switch (unit.driver) {
    case Driver::intel: return {1, {fact(UnitFact::cap), fact(UnitFact::ecap)}, 0, 0};
    case Driver::smmuv3:
      return {2, {fact(UnitFact::idr0), fact(UnitFact::idr1), 0, fact(UnitFact::idr3), 0, fact(UnitFact::idr5)}, 0, 0};
    case Driver::amd: return {4, {common_register(host, UnitFact::efr), common_register(host, UnitFact::efr2)}, 0, 0};
    case Driver::mock: return {0xfeedbeef, {0xdeadbeef}, 0, 0};
    default: return {};
  }
}

}  // namespace

Answer<ObjectId> Context::hwpt_alloc(ObjectId device_id, ObjectId pt, std::uint32_t flags, ObjectId fault_id) {
  State& s = *state_;
  BoundDevice* device = s.find<BoundDevice>(device_id);
  if (device == nullptr) return refuse(ENOENT, "there is no such device");
  if (s.find<Hwpt>(pt) != nullptr) return refuse(EOPNOTSUPP, "nested HWPTs are not simulated");
  Ioas* ioas = s.find<Ioas>(pt);
  if (ioas == nullptr) return refuse(EINVAL, "there is no such IOAS");
  auto hwpt = s.make_hwpt(*ioas, *device, flags, std::nullopt);
  if (!hwpt) return tl::make_unexpected(hwpt.error());
  if ((flags & kHwptFaultIdValid) != 0) {
    FaultQueue* fault = s.find<FaultQueue>(fault_id);
    if (fault == nullptr) {
      s.free_hwpt(**hwpt);
      return refuse(ENOENT, "there is no such fault queue");
    }
    ++fault->users;
    (*hwpt)->fault = fault;
    (*hwpt)->domain->takes_faults = true;
  }
  return s.add(std::move(*hwpt));
}

Answer<std::unique_ptr<Hwpt>> Context::State::make_hwpt(Ioas& ioas, BoundDevice& device, std::uint32_t flags,
                                                        std::optional<std::uint32_t> attaching) {
  if (auto checked = check_flags(device.device, flags); !checked) return tl::make_unexpected(checked.error());
  if (exhausted()) return refuse(ENOMEM, "injected: no memory for an object");
  auto domain = machine.core.allocate_domain(device.device.index, law_flags(flags), Coherency::enforce);
  if (!domain) return tl::make_unexpected(domain.error());
  auto hwpt = std::make_unique<Hwpt>(ioas);
  hwpt->domain = std::move(*domain);
  hwpt->nest_parent = (flags & kHwptNestParent) != 0;
  hwpt->pasid = (flags & kHwptPasid) != 0;

  Answer<void> answer;
  if (attaching) answer = attach(device, *hwpt, *attaching);
  if (answer) {
    answer = ioas.table.join(*hwpt->domain);
    if (!answer && attaching) detach(device, *attaching);
  }
  if (!answer) {
    machine.core.free_domain(std::move(hwpt->domain));
    return tl::make_unexpected(answer.error());
  }
  ++ioas.users;
  ioas.hwpts.push_back(hwpt.get());
  return hwpt;
}

void Context::State::free_hwpt(Hwpt& hwpt) {
  std::erase(hwpt.ioas.hwpts, &hwpt);
  hwpt.ioas.table.leave(*hwpt.domain);
  machine.core.free_domain(std::move(hwpt.domain));
  if (hwpt.fault != nullptr) --hwpt.fault->users;
  --hwpt.ioas.users;
}

void Context::State::put_hwpt(Hwpt& hwpt) {
  --hwpt.users;
  if (hwpt.automatic && hwpt.users == 0) remove(hwpt);
}

Answer<HwInfo> Context::get_hw_info(ObjectId id) const {
  const BoundDevice* bound = state_->find<BoundDevice>(id);
  if (bound == nullptr) return refuse(ENOENT, "there is no such device");
  const Host& host = state_->machine.host;
  const DeviceState& device = bound->device;
  HwInfo info = registers_of(host, host.unit(*host.device(device.index).unit));
  info.max_pasid_log2 = static_cast<unsigned>(device.quantities[DeviceQ::pasid_bits]);
  info.capabilities = kCapabilityAtsNotSupported;
  if (device.quantities[DeviceQ::dirty_capable] != 0) info.capabilities |= kCapabilityDirtyTracking;
  return info;
}

Answer<void> Context::hwpt_set_dirty_tracking(ObjectId id, bool enable) {
  Hwpt* hwpt = state_->find<Hwpt>(id);
  if (hwpt == nullptr) return refuse(ENOENT, kNoHwpt);
  Domain& domain = *hwpt->domain;
  if (!domain.tracks_dirty()) return refuse(EOPNOTSUPP, "the HWPT was not allocated for dirty tracking");
  if (enable) hwpt->ioas.table.clear_dirty(domain);  // a clean start
  domain.log_dirty(enable);
  return {};
}

Answer<void> Context::hwpt_get_dirty_bitmap(ObjectId id, DirtyRead mode, std::uint64_t iova, std::uint64_t length,
                                            std::uint64_t page_size, std::span<std::uint64_t> bitmap) {
  Hwpt* hwpt = state_->find<Hwpt>(id);
  if (hwpt == nullptr) return refuse(ENOENT, kNoHwpt);
  const IoPageTable& table = hwpt->ioas.table;
  if (auto checked = check_dirty_range(table, iova, length, page_size); !checked) return checked;
  if (!hwpt->domain->tracks_dirty()) return refuse(EOPNOTSUPP, "the HWPT was not allocated for dirty tracking");
  const auto page_lg2 = static_cast<unsigned>(std::countr_zero(page_size));
  if (bitmap.size() * 64 < length >> page_lg2) return refuse(EFAULT, "the bitmap is too short");
  table.read_dirty(*hwpt->domain, {iova, iova + length - 1}, mode, {iova, page_lg2, bitmap});
  return {};
}

std::optional<HwptView> Context::hwpt(ObjectId id) const {
  const Hwpt* hwpt = state_->find<Hwpt>(id);
  if (hwpt == nullptr) return std::nullopt;
  const Domain& domain = *hwpt->domain;
  const Host& host = state_->machine.host;
  HwptView view{.id = id,
                .ioas = hwpt->ioas.id,
                .allocator = host.device(domain.allocator).id,
                .shape = domain.shape(),
                .automatic = hwpt->automatic,
                .nest_parent = hwpt->nest_parent,
                .pasid = hwpt->pasid,
                .dirty_tracking = domain.tracks_dirty(),
                .enforce_cache_coherency = domain.attributes[HwptQ::enforce_cache_coherency] != 0,
                .table_bytes = domain.table ? domain.table->table_bytes() : 0,
                .devices = {},
                .doorbells = {domain.doorbells.begin(), domain.doorbells.end()}};
  view.shape.aperture = domain.aperture();
  std::set<DeviceIndex> attached;
  for (const auto& [number, group] : state_->groups) {
    for (const auto& [pasid, attachment] : group.attachments) {
      if (attachment.hwpt != hwpt) continue;
      for (const auto& [object, device] : attachment.devices) attached.insert(device->device.index);
    }
  }
  for (DeviceIndex d : attached) view.devices.push_back(host.device(d).id);
  return view;
}

PageTable* Context::table(ObjectId id) const {
  const Hwpt* hwpt = state_->find<Hwpt>(id);
  return hwpt == nullptr ? nullptr : hwpt->domain->table.get();
}

}  // namespace ioplan::sim
