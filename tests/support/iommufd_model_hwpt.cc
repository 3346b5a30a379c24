// The half of the reference model about HWPTs and devices: allocation, joining an IOAS, attach, replace, dirty
// tracking.

#include <algorithm>
#include <cerrno>

#include "engine/base/log2.h"
#include "engine/law/rule.h"
#include "tests/support/iommufd_model.h"

namespace ioplan::slow {

namespace {

Outcome no(int error) { return {error, 0}; }
Outcome yes(std::uint64_t value = 0) { return {0, value}; }

// Which drivers have the operation domain_alloc_paging_flags; the others know no flag at all (KR 1.4).
bool knows_flags(Driver d) {
  return d == Driver::intel || d == Driver::amd || d == Driver::smmuv3 || d == Driver::mock;
}

// Whose paging domains have set_dev_pasid, and whose blocking domain has.
bool attaches_pasids(Driver d) { return d == Driver::intel || d == Driver::smmuv3 || d == Driver::mock; }
bool blocks_pasids(Driver d) { return attaches_pasids(d) || d == Driver::amd; }

// Where a domain id is taken when a device attaches; elsewhere a HWPT has one from its allocation on. Intel gives it
// back with the last device, smmuv2 (whose ids are context banks) with the HWPT.
bool ids_at_attach(Driver d) { return d == Driver::intel || d == Driver::smmuv2; }

std::uint8_t law_flags(std::uint32_t flags) {
  return static_cast<std::uint8_t>(((flags & sim::kHwptDirtyTracking) != 0 ? kDirtyTracking : 0) |
                                   ((flags & sim::kHwptNestParent) != 0 ? kNestParent : 0) |
                                   ((flags & sim::kHwptPasid) != 0 ? kPasid : 0));
}

int first_refusal(const Law& law, Phase phase, const Values& values) {
  for (const Rule* rule : law.rules()) {
    if (rule->phase == phase && !rule->strict && !holds(*rule, values)) return rule->errno_value;
  }
  return 0;
}

// 0: the device cannot issue any. A mock device without the PASID flag says 0 bits, which is one PASID.
std::uint64_t max_pasids(const DeviceQuantities& q, Driver driver) {
  const std::uint64_t bits = q[DeviceQ::pasid_bits];
  return bits == 0 && driver != Driver::mock ? 0 : std::uint64_t{1} << bits;
}

}  // namespace

// --------------------------------------------------------------------------------------------------------- devices

Driver Model::driver_of(std::size_t d) const { return host_.unit(*host_.devices[d].unit).driver; }

std::vector<std::size_t> Model::members(std::uint32_t group) const {
  std::vector<std::size_t> found;
  for (std::size_t d = 0; d < host_.devices.size(); ++d) {
    if (host_.devices[d].group == group) found.push_back(d);
  }
  return found;
}

std::uint32_t Model::group_of(const Context& c, ObjectId device) const {
  return *host_.devices[c.devices.at(device)].group;
}

bool Model::uses_software_msi(std::size_t d) const {
  return std::ranges::any_of(regions_[d], [](const ReservedRegion& r) { return r.type == ReservedType::sw_msi; });
}

// iommufd_device_bind, iommu_device_claim_dma_owner, and vfio_df_open, which opens a device once.
Outcome Model::bind(unsigned context, std::string_view name) {
  const auto index = host_.find_device(name);
  if (!index) return no(ENODEV);
  const std::size_t d = index->index();
  const std::vector<std::size_t> group = members(*host_.devices[d].group);
  bool owned = false;
  bool owned_elsewhere = false;
  for (unsigned other = 0; other < contexts_.size(); ++other) {
    for (const auto& [unused, bound] : contexts_[other].devices) {
      if (bound == d) return no(EINVAL);
      if (std::ranges::find(group, bound) == group.end()) continue;
      (other == context ? owned : owned_elsewhere) = true;
    }
  }
  if (devices_[d][DeviceQ::capable_op] == 0 || devices_[d][DeviceQ::cache_coherency] == 0) return no(EINVAL);
  const auto unsafe = [&](std::size_t m) { return devices_[m][DeviceQ::unsafe_interrupts] != 0; };
  if (std::ranges::any_of(group, unsafe)) return no(EPERM);
  if (owned_elsewhere) return no(EPERM);
  const auto direct = [&](std::size_t m) {
    return std::ranges::any_of(regions(m), [](const ReservedRegion& r) { return r.type == ReservedType::direct; });
  };
  if (!owned && std::ranges::any_of(group, direct)) return no(EINVAL);
  Context& c = contexts_[context];
  const ObjectId id = c.lowest_free_id();
  c.devices[id] = d;
  return yes(id);
}

// vfio_iommufd_physical_unbind lets go of everything first.
Outcome Model::unbind(unsigned context, ObjectId device) {
  Context& c = contexts_[context];
  if (!c.devices.contains(device)) return no(ENOENT);
  std::vector<std::uint32_t> pasids;
  for (const auto& [key, attachment] : c.attachments) {
    if (std::ranges::find(attachment.devices, device) != attachment.devices.end()) pasids.push_back(key.second);
  }
  for (std::uint32_t pasid : pasids) detach_from(context, device, pasid);
  c.devices.erase(device);
  return yes();
}

Outcome Model::get_hw_info(unsigned context, ObjectId device) const {
  const Context& c = contexts_[context];
  if (!c.devices.contains(device)) return no(ENOENT);
  const DeviceQuantities& q = devices_[c.devices.at(device)];
  return yes(q[DeviceQ::pasid_bits] | q[DeviceQ::dirty_capable] << 32);
}

// ------------------------------------------------------------------------------------------------------------ HWPTs

// iommufd_hwpt_paging_alloc up to the driver's domain_alloc_paging(_flags).
int Model::allocate(std::size_t d, std::uint32_t flags, Hwpt& h) const {
  constexpr std::uint32_t kKnown =
      sim::kHwptNestParent | sim::kHwptDirtyTracking | sim::kHwptFaultIdValid | sim::kHwptPasid;
  if (flags != 0 && !knows_flags(driver_of(d))) return EOPNOTSUPP;
  if ((flags & ~kKnown) != 0) return EOPNOTSUPP;
  if ((flags & sim::kHwptDirtyTracking) != 0 && devices_[d][DeviceQ::dirty_capable] == 0) return EOPNOTSUPP;
  if ((flags & sim::kHwptFaultIdValid) != 0 && (flags & sim::kHwptNestParent) != 0) return EOPNOTSUPP;
  h.is = law_.allocate(devices_[d], law_flags(flags));
  h.allocator = d;
  h.flags = flags;
  const int refused = first_refusal(law_, Phase::allocation, {&h.is, &devices_[d], nullptr});
  if (refused != 0) return refused;
  const auto pool = ids_at_attach(driver_of(d)) ? std::nullopt : pool_of(h, d);
  if (!pool || ids_at_allocation(*pool) < pool->capacity) return 0;
  if (driver_of(d) == Driver::amd) return ENOMEM;  // protection_domain_alloc has no errno to give
  return driver_of(d) == Driver::smmuv3 && h.is[HwptQ::stage] == 1 ? EBUSY : ENOSPC;  // xa_alloc, ida_alloc_range
}

std::optional<DomainPool> Model::pool_of(const Hwpt& h, std::size_t d) const {
  return law_.domain_pool(host_, *host_.devices[d].unit, static_cast<unsigned>(h.is[HwptQ::stage]));
}

std::size_t Model::ids_at_allocation(const DomainPool& pool) const {
  std::size_t taken = 0;
  for (const Context& c : contexts_) {
    for (const auto& [unused, h] : c.hwpts) {
      const auto its = pool_of(h, h.allocator);
      taken += !ids_at_attach(driver_of(h.allocator)) && its && its->key == pool.key;
    }
  }
  return taken;
}

// Devices of one unit that walk the same HWPT share an id; a HWPT on two Intel units has two.
int Model::take_domain_id(const Walked& target, const Hwpt& h, std::size_t d) const {
  if (!ids_at_attach(driver_of(d))) return 0;
  const auto pool = pool_of(h, d);
  if (!pool) return 0;
  std::set<Walked> holders;
  for (const auto& [key, walked] : walked_) {
    const auto its = pool_of(hwpt(walked), key.first);
    if (its && its->key == pool->key) holders.insert(walked);
  }
  for (unsigned c = 0; c < contexts_.size(); ++c) {
    for (const auto& [id, other] : contexts_[c].hwpts) {
      const auto its = pool_of(other, other.allocator);
      if (other.finished && its && its->key == pool->key) holders.insert({c, id});
    }
  }
  return holders.contains(target) || holders.size() < pool->capacity ? 0 : ENOSPC;
}

// smmuv2 has no geometry until a device attaches (KR 3.4): everything but IOVA 0 looks forbidden.
Range Model::aperture(const Hwpt& h) const {
  if (driver_of(h.allocator) == Driver::smmuv2 && !h.finished) return {0, 0};
  return {h.is[HwptQ::aperture_start], h.is[HwptQ::aperture_last]};
}

int Model::reserve(Ioas& ioas, const Range& range, Owner owner) const {
  const auto mapped_there = [&](const Area& a) { return a.range().overlaps(range); };
  const auto allowed_there = [&](const Range& r) { return r.overlaps(range); };
  if (std::ranges::any_of(ioas.areas, mapped_there) || std::ranges::any_of(ioas.allowed, allowed_there)) {
    return EADDRINUSE;
  }
  ioas.reserved.push_back({range, owner});
  return 0;
}

void Model::unreserve(Ioas& ioas, Owner owner) {
  std::erase_if(ioas.reserved, [&](const Reservation& r) { return r.owner == owner; });
}

int Model::accepts_area(const Hwpt& h, const Area& area) {
  const std::uint64_t granule = h.is[HwptQ::smallest_page];
  if (((area.iova | area.length | area.start_byte) & (granule - 1)) != 0) return EINVAL;
  if ((area.access & sim::kMapWriteable) == 0 && h.is[HwptQ::takes_read_only] == 0) return EINVAL;
  return 0;
}

// iopt_table_add_domain: alignment, aperture, then every area. The caller has put the HWPT among the objects.
int Model::join(Context& c, const Hwpt& h, const Range& aperture) {
  Ioas& ioas = c.ioases.at(h.ioas);
  const Owner owner{Owner::Kind::hwpt, h.serial};
  const std::uint64_t granule = h.is[HwptQ::smallest_page];
  const std::uint64_t before = alignment(c, h.ioas);
  const std::uint64_t after = std::max(before, granule);
  if (after > kPage) return EINVAL;
  const auto misaligned = [&](const Area& a) {
    return ((a.iova | a.length | a.start_byte % kPage) & (after - 1)) != 0;
  };
  if (after != before && std::ranges::any_of(ioas.areas, misaligned)) return EADDRINUSE;
  int error = 0;
  if (aperture.start != 0) error = reserve(ioas, {0, aperture.start - 1}, owner);
  if (error == 0 && aperture.last != kTop) error = reserve(ioas, {aperture.last + 1, kTop}, owner);
  std::vector<Area> filled;
  for (const Area& area : ioas.areas) {
    if (error == 0 && ioas.hwpts.empty()) error = pin(area);
    if (error == 0) error = accepts_area(h, area);
    filled.push_back(area);
    if (error == 0 && ioas.hwpts.empty() && over_limit(c, filled)) error = ENOMEM;
    if (error != 0) break;
  }
  if (error != 0) unreserve(ioas, owner);
  return error;
}

void Model::leave(Context& c, ObjectId id) {
  const Hwpt& h = c.hwpts.at(id);
  Ioas& ioas = c.ioases.at(h.ioas);
  unreserve(ioas, {Owner::Kind::hwpt, h.serial});
  std::erase(ioas.hwpts, id);
  c.hwpts.erase(id);
}

bool Model::in_use(const Context& c, ObjectId id) const {
  return std::ranges::any_of(c.attachments, [&](const auto& entry) { return entry.second.hwpt == id; });
}

// An automatic HWPT goes with its last user.
void Model::put(Context& c, ObjectId id) {
  if (c.hwpts.contains(id) && c.hwpts.at(id).automatic && !in_use(c, id)) leave(c, id);
}

Outcome Model::hwpt_alloc(unsigned context, ObjectId device, ObjectId pt, std::uint32_t flags, ObjectId fault) {
  Context& c = contexts_[context];
  if (!c.devices.contains(device)) return no(ENOENT);
  if (c.hwpts.contains(pt)) return no(EOPNOTSUPP);  // a nested HWPT without user data
  if (!c.ioases.contains(pt)) return no(EINVAL);
  Hwpt h;
  if (const int error = allocate(c.devices.at(device), flags, h); error != 0) return no(error);
  h.serial = ++serial_;
  h.ioas = pt;
  if (const int error = join(c, h, aperture(h)); error != 0) return no(error);
  if ((flags & sim::kHwptFaultIdValid) != 0) {
    if (!c.faults.contains(fault)) {
      unreserve(c.ioases.at(pt), {Owner::Kind::hwpt, h.serial});
      return no(ENOENT);
    }
    h.fault = fault;
  }
  const ObjectId id = c.lowest_free_id();
  for (const Area& area : c.ioases.at(pt).areas) mapped(h, c.ioases.at(pt), area);
  c.hwpts[id] = h;
  c.ioases.at(pt).hwpts.push_back(id);
  return yes(id);
}

// ----------------------------------------------------------------------------------------------------------- attaching

Outcome Model::attach(unsigned context, ObjectId device, ObjectId pt, std::uint32_t pasid) {
  return change_pt(context, device, pt, pasid, Manner::attach);
}

Outcome Model::replace(unsigned context, ObjectId device, ObjectId pt, std::uint32_t pasid) {
  return change_pt(context, device, pt, pasid, Manner::replace);
}

Outcome Model::vfio_attach(unsigned context, ObjectId device, ObjectId pt, std::uint32_t pasid) {
  const bool again = attached(context, device, pasid).has_value();
  return change_pt(context, device, pt, pasid, again ? Manner::replace : Manner::attach);
}

Outcome Model::change_pt(unsigned context, ObjectId device, ObjectId pt, std::uint32_t pasid, Manner manner) {
  Context& c = contexts_[context];
  if (!c.devices.contains(device) || !c.holds(pt)) return no(ENOENT);
  if (c.ioases.contains(pt)) return automatic(context, device, pt, pasid, manner);
  if (!c.hwpts.contains(pt)) return no(EINVAL);
  const std::optional<ObjectId> old = attached(context, device, pasid);
  const int error =
      manner == Manner::attach ? attach_to(context, device, pt, pasid) : replace_to(context, device, pt, pasid);
  if (error != 0) return no(error);
  if (old) put(c, *old);
  return yes(pt);
}

// iommufd_device_auto_get_domain: the oldest automatic HWPT that takes the device, else a new one.
Outcome Model::automatic(unsigned context, ObjectId device, ObjectId id, std::uint32_t pasid, Manner manner) {
  Context& c = contexts_[context];
  const std::optional<ObjectId> old = attached(context, device, pasid);
  const std::vector<ObjectId> candidates = c.ioases.at(id).hwpts;
  for (ObjectId candidate : candidates) {
    if (!c.hwpts.at(candidate).automatic) continue;
    const int error = manner == Manner::attach ? attach_to(context, device, candidate, pasid)
                                               : replace_to(context, device, candidate, pasid);
    if (error == EINVAL) continue;
    if (error != 0) return no(error);
    if (old) put(c, *old);
    return yes(candidate);
  }
  Hwpt fresh;
  if (const int error = allocate(c.devices.at(device), 0, fresh); error != 0) return no(error);
  fresh.serial = ++serial_;
  fresh.ioas = id;
  const ObjectId made = c.lowest_free_id();
  c.hwpts[made] = fresh;
  Ioas& ioas = c.ioases.at(id);
  int error = 0;
  if (manner == Manner::attach) {
    error = attach_to(context, device, made, pasid);
    if (error == 0) {
      error = join(c, fresh, aperture(c.hwpts.at(made)));
      if (error != 0) detach_from(context, device, pasid);
    }
    if (error == 0) ioas.hwpts.push_back(made);
  } else {
    error = join(c, fresh, aperture(fresh));
    if (error == 0) {
      ioas.hwpts.push_back(made);
      error = replace_to(context, device, made, pasid);
    }
  }
  if (error != 0) {
    leave(c, made);
    return no(error);
  }
  c.hwpts.at(made).automatic = true;
  for (const Area& area : ioas.areas) mapped(c.hwpts.at(made), ioas, area);
  if (old) put(c, *old);
  return yes(made);
}

// iopt_table_enforce_dev_resv_regions; only an attach looks at the mixture of MSI windows.
int Model::reserve_regions(Ioas& ioas, std::size_t d, Manner manner) const {
  const Owner owner{Owner::Kind::device, d};
  int error = 0;
  unsigned hardware_windows = 0;
  unsigned software_windows = 0;
  for (const ReservedRegion& region : regions(d)) {
    if (region.type == ReservedType::direct_relaxable) continue;
    hardware_windows += region.type == ReservedType::msi;
    software_windows += region.type == ReservedType::sw_msi;
    if (error == 0) error = reserve(ioas, region.range, owner);
  }
  const bool mixed = (software_windows > 0 && hardware_windows > 0) || software_windows > 1;
  if (error == 0 && manner == Manner::attach && mixed) error = EINVAL;
  if (error != 0) unreserve(ioas, owner);
  return error;
}

// iommufd_hwpt_pasid_compat
int Model::pasid_compatible(const Context& c, std::uint32_t group, const Hwpt& h, std::uint32_t pasid) const {
  const auto flagged = [](const Hwpt& other) { return (other.flags & sim::kHwptPasid) != 0; };
  if (pasid == 0) {
    const auto with_pasid = [&](const auto& entry) { return entry.first.first == group && entry.first.second != 0; };
    return !flagged(h) && std::ranges::any_of(c.attachments, with_pasid) ? EINVAL : 0;
  }
  if (!flagged(h)) return EINVAL;
  const auto rid = c.attachments.find({group, 0});
  return rid != c.attachments.end() && !flagged(c.hwpts.at(rid->second.hwpt)) ? EINVAL : 0;
}

// iommufd_hw_pagetable_attach
int Model::attach_to(unsigned context, ObjectId device, ObjectId id, std::uint32_t pasid) {
  Context& c = contexts_[context];
  const std::uint32_t group = group_of(c, device);
  const auto there = c.attachments.find({group, pasid});
  if (there != c.attachments.end()) {
    const Attachment& a = there->second;
    if (std::ranges::find(a.devices, device) != a.devices.end()) return EBUSY;
    if (a.hwpt != id) return EINVAL;
  }
  Ioas& ioas = c.ioases.at(c.hwpts.at(id).ioas);
  const std::size_t d = c.devices.at(device);
  if (pasid == 0) {
    if (const int error = reserve_regions(ioas, d, Manner::attach); error != 0) return error;
  }
  if (there == c.attachments.end()) {
    const int error = hardware(context, group, id, pasid, Manner::attach);
    if (error != 0 && pasid == 0) unreserve(ioas, {Owner::Kind::device, d});
    if (error != 0) return error;
  }
  Attachment& a = c.attachments[{group, pasid}];
  a.hwpt = id;
  a.devices.push_back(device);
  return 0;
}

// iommufd_device_do_replace, with what it does wrong (KR 2.4).
int Model::replace_to(unsigned context, ObjectId device, ObjectId id, std::uint32_t pasid) {
  Context& c = contexts_[context];
  const std::uint32_t group = group_of(c, device);
  const auto there = c.attachments.find({group, pasid});
  if (there == c.attachments.end()) return EINVAL;
  Attachment& a = there->second;
  if (std::ranges::find(a.devices, device) == a.devices.end()) return EINVAL;
  if (a.hwpt == id) return 0;
  const ObjectId old_ioas = c.hwpts.at(a.hwpt).ioas;
  const ObjectId new_ioas = c.hwpts.at(id).ioas;
  const bool moves = pasid == 0 && new_ioas != old_ioas;
  const auto drop_regions = [&](ObjectId ioas) {
    for (ObjectId other : a.devices) unreserve(c.ioases.at(ioas), {Owner::Kind::device, c.devices.at(other)});
  };
  for (ObjectId other : a.devices) {
    if (!moves) break;
    const int error = reserve_regions(c.ioases.at(new_ioas), c.devices.at(other), Manner::replace);
    if (error == 0) continue;
    drop_regions(new_ioas);
    return error;
  }
  const int error = hardware(context, group, id, pasid, Manner::replace);
  if (error != 0) {
    const bool dropped = pasid == 0 && options_.hazards.failed_replace_drops_reservations && error != ENOTRECOVERABLE;
    if (moves || dropped) drop_regions(new_ioas);
    return error;
  }
  if (moves) drop_regions(old_ioas);
  a.hwpt = id;
  return 0;
}

Outcome Model::detach(unsigned context, ObjectId device, std::uint32_t pasid) {
  if (!contexts_[context].devices.contains(device)) return no(ENOENT);
  if (attached(context, device, pasid)) detach_from(context, device, pasid);
  return yes();
}

// iommufd_hw_pagetable_detach
void Model::detach_from(unsigned context, ObjectId device, std::uint32_t pasid) {
  Context& c = contexts_[context];
  const std::uint32_t group = group_of(c, device);
  Attachment& a = c.attachments.at({group, pasid});
  const ObjectId id = a.hwpt;
  std::erase(a.devices, device);
  if (a.devices.empty()) {
    for (std::size_t m : members(group)) walked_.erase({m, pasid});
    c.attachments.erase({group, pasid});
  }
  if (pasid == 0) unreserve(c.ioases.at(c.hwpts.at(id).ioas), {Owner::Kind::device, c.devices.at(device)});
  put(c, id);
}

std::optional<ObjectId> Model::attached(unsigned context, ObjectId device, std::uint32_t pasid) const {
  const Context& c = contexts_[context];
  if (!c.devices.contains(device)) return std::nullopt;
  const auto there = c.attachments.find({group_of(c, device), pasid});
  if (there == c.attachments.end()) return std::nullopt;
  const std::vector<ObjectId>& devices = there->second.devices;
  if (std::ranges::find(devices, device) == devices.end()) return std::nullopt;
  return there->second.hwpt;
}

// --------------------------------------------------------------------------------------- what the core and drivers do

int Model::hardware(unsigned context, std::uint32_t group, ObjectId id, std::uint32_t pasid, Manner manner) {
  const Context& c = contexts_[context];
  const Hwpt& h = c.hwpts.at(id);
  if (const int error = pasid_compatible(c, group, h, pasid); error != 0) return error;
  const Walked target{context, id};
  return pasid == 0 ? hardware_rid(target, h, group, manner) : hardware_pasid(target, h, group, pasid, manner);
}

int Model::driver_accepts(const Hwpt& h, std::size_t d) const {
  return first_refusal(law_, Phase::attach, {&h.is, &devices_[d], nullptr});
}

// __iommu_attach_group, iommu_replace_group_handle, __iommu_group_set_domain_internal. Every device of the group must
// accept; those that did go back to where they were when one refuses.
int Model::hardware_rid(const Walked& target, const Hwpt& h, std::uint32_t group, Manner manner) {
  const std::vector<std::size_t> devices = members(group);
  if (h.is[HwptQ::owner] != devices_[devices.front()][DeviceQ::owner]) {
    return manner == Manner::replace && options_.hazards.replace_across_owners_crashes ? ENOTRECOVERABLE : EINVAL;
  }
  const auto before = walked_;
  for (std::size_t d : devices) {
    const bool intel = driver_of(d) == Driver::intel;
    if (intel) walked_.erase({d, 0});  // device_block_translation comes first
    int error = driver_accepts(h, d);
    if (error == 0 && intel && h.fault != 0) error = ENODEV;  // no simulated device has PRI
    if (error == 0) error = take_domain_id(target, h, d);
    if (error != 0) {
      walked_ = before;
      if (intel && options_.hazards.failed_replace_blocks_dma) walked_.erase({d, 0});
      return error;
    }
    walked_[{d, 0}] = target;
  }
  contexts_[target.context].hwpts.at(target.hwpt).finished = driver_of(devices.front()) == Driver::smmuv2;
  return 0;
}

// iommu_attach_device_pasid, iommu_replace_device_pasid: devices of the group without PASIDs are left out.
int Model::hardware_pasid(const Walked& target, const Hwpt& h, std::uint32_t group, std::uint32_t pasid,
                          Manner manner) {
  const std::vector<std::size_t> devices = members(group);
  const Driver theirs = driver_of(devices.front());
  if (!attaches_pasids(driver_of(h.allocator))) return EOPNOTSUPP;
  if (manner == Manner::attach && !blocks_pasids(theirs)) return EOPNOTSUPP;
  if (h.is[HwptQ::owner] != devices_[devices.front()][DeviceQ::owner]) return EINVAL;
  for (std::size_t d : devices) {
    const std::uint64_t most = max_pasids(devices_[d], theirs);
    if (manner == Manner::attach && most > 0 && pasid >= most) return EINVAL;
  }
  const auto before = walked_;
  for (std::size_t d : devices) {
    if (max_pasids(devices_[d], theirs) == 0) continue;
    int error = theirs == Driver::mock ? 0 : driver_accepts(h, d);  // the mock's set_dev_pasid looks at nothing
    if (error == 0 && theirs == Driver::smmuv3 && h.is[HwptQ::stage] != 1) error = EINVAL;
    if (error == 0) error = take_domain_id(target, h, d);
    if (error == 0 && theirs == Driver::intel && h.fault != 0) error = ENODEV;
    if (error != 0) {
      walked_ = before;
      return error;
    }
    walked_[{d, pasid}] = target;
  }
  return 0;
}

// ---------------------------------------------------------------------------------------------------------- DMA, dirty

// The page that translates `iova`: runs of physically contiguous memory, from their start on, each time with the
// largest page that alignment and rest allow.
Range Model::leaf(const Hwpt& h, const Area& area, std::uint64_t iova) const {
  // In offsets into the area, because its end may be the end of the space.
  const std::uint64_t wanted = iova - area.iova;
  const auto pa = [&](std::uint64_t at) { return physical(area, area.iova + at).value_or(0); };
  const auto next_page = [&](std::uint64_t at) { return at + kPage - (area.start_byte + at) % kPage; };
  const bool small = h.small.contains(area.iova);
  const auto cut = [&](std::uint64_t at) { return small || pa(at) != pa(at - 1) + 1; };
  std::uint64_t run = 0;
  std::uint64_t end = next_page(0);
  for (; end < area.length && (end <= wanted || !cut(end)); end = next_page(end)) {
    if (cut(end)) run = end;
  }
  end = std::min(end, area.length);
  while (true) {
    std::uint64_t size = 0;
    for (unsigned lg2 = 0; lg2 < 52; ++lg2) {
      const std::uint64_t candidate = pow2(lg2);
      const bool fits = (((area.iova + run) | pa(run)) & (candidate - 1)) == 0 && candidate <= end - run;
      if (bit(h.is[HwptQ::page_sizes], lg2) && fits) size = candidate;
    }
    if (size == 0 || wanted < run + size)
      return {area.iova + run, area.iova + run + std::max<std::uint64_t>(size, 1) - 1};
    run += size;
  }
}

// New leaves start clean, but on Arm Linux 7.2.13 maps writeable pages dirty where it tracks them.
void Model::mapped(Hwpt& h, const Ioas& ioas, const Area& area) {
  if (!ioas.huge_pages) h.small.insert(area.iova);
  const bool tracked = (h.flags & sim::kHwptDirtyTracking) != 0 && driver_of(h.allocator) == Driver::smmuv3;
  if (!tracked || (area.access & sim::kMapWriteable) == 0) return;
  for (std::uint64_t at = area.iova;;) {
    h.dirty.push_back(leaf(h, area, at));
    if (h.dirty.back().last >= area.range().last) return;
    at = h.dirty.back().last + 1;
  }
}

void Model::unmapped(Hwpt& h, const Area& area) {
  h.small.erase(area.iova);
  std::erase_if(h.dirty, [&](const Range& leaf) { return leaf.overlaps(area.range()); });
}

Outcome Model::dma(std::size_t d, std::uint32_t pasid, std::uint64_t iova, std::uint32_t access) {
  const auto there = walked_.find({d, pasid});
  if (there == walked_.end()) return no(EFAULT);
  Hwpt& h = contexts_[there->second.context].hwpts.at(there->second.hwpt);
  const Area* area = area_at(contexts_[there->second.context].ioases.at(h.ioas), iova);
  if (area == nullptr) return no(EFAULT);
  // Stage-1 entries of x86 and Arm, and s390's, can forbid writes but not reads.
  const bool always_readable = h.is[HwptQ::stage] == 1 && driver_of(h.allocator) != Driver::virtio;
  const std::uint32_t granted = area->access | (always_readable ? sim::kMapReadable : 0);
  if ((granted & access) == 0) return no(EFAULT);
  const bool tracked = (h.flags & sim::kHwptDirtyTracking) != 0;
  const bool marks = tracked && (h.logging || driver_of(h.allocator) == Driver::smmuv3);
  if (marks && (access & sim::kMapWriteable) != 0) {
    const Range hit = leaf(h, *area, iova);
    if (std::ranges::find(h.dirty, hit) == h.dirty.end()) h.dirty.push_back(hit);
  }
  return yes(*physical(*area, iova));
}

Outcome Model::hwpt_set_dirty_tracking(unsigned context, ObjectId id, bool enable) {
  Context& c = contexts_[context];
  if (!c.hwpts.contains(id)) return no(ENOENT);
  Hwpt& h = c.hwpts.at(id);
  if ((h.flags & sim::kHwptDirtyTracking) == 0) return no(EOPNOTSUPP);
  if (enable) h.dirty.clear();
  h.logging = enable;
  return yes();
}

// iommufd_check_iova_range, then areas without a hole between them: the scan ends at the first hole, and says nothing.
Outcome Model::hwpt_get_dirty_bitmap(unsigned context, ObjectId id, sim::DirtyRead mode, std::uint64_t iova,
                                     std::uint64_t length, std::uint64_t page_size, std::span<std::uint64_t> bitmap) {
  Context& c = contexts_[context];
  if (!c.hwpts.contains(id)) return no(ENOENT);
  Hwpt& h = c.hwpts.at(id);
  if (iova > kTop - (length - 1)) return no(EOVERFLOW);
  const std::uint64_t last = iova + length - 1;
  const std::uint64_t aligned = alignment(c, h.ioas) - 1;
  if ((iova & aligned) != 0 || ((last + 1) & aligned) != 0 || page_size == 0) return no(EINVAL);
  if ((iova & (page_size - 1)) != 0 || ((last + 1) & (page_size - 1)) != 0) return no(EINVAL);
  if ((h.flags & sim::kHwptDirtyTracking) == 0) return no(EOPNOTSUPP);
  const Ioas& ioas = c.ioases.at(h.ioas);
  std::optional<std::uint64_t> covered;  // up to here without a hole
  for (const Area* area = area_at(ioas, iova); area != nullptr; area = area_at(ioas, *covered + 1)) {
    covered = area->range().last;
    if (*covered >= last) break;
  }
  if (!covered) return yes();
  const Range scanned{iova, std::min(last, *covered)};
  for (const Range& dirty : h.dirty) {
    if (!dirty.overlaps(scanned)) continue;
    const std::uint64_t first_bit = (std::max(dirty.start, scanned.start) - iova) / page_size;
    const std::uint64_t last_bit = (std::min(dirty.last, scanned.last) - iova) / page_size;
    for (std::uint64_t b = first_bit; b <= last_bit; ++b) bitmap[b / 64] |= std::uint64_t{1} << b % 64;
  }
  if (mode == sim::DirtyRead::clear) {
    std::erase_if(h.dirty, [&](const Range& dirty) { return dirty.overlaps(scanned); });
  }
  return yes();
}

}  // namespace ioplan::slow
