// Attach, replace, detach, and the automatic walk over an IOAS's HWPTs. Mirrors drivers/iommu/iommufd/device.c.
//
// Whole groups: the first device of a group attaches it, later ones only add their reserved regions and a reference.
// Replace has the hazards of Linux (machine.h Hazards): H1 lives in the core, H2 and H3 here.

#include <algorithm>
#include <cerrno>

#include "backends/sim/context_state.h"

namespace ioplan::sim {

namespace {

constexpr std::size_t kMsiPages = 64;  // of software MSI, for one context

// iopt_table_enforce_dev_resv_regions. Attaching also looks for the window of software MSI; replacing does not.
Answer<void> reserve_regions(IoPageTable& table, const DeviceState& device, GroupUse* attaching) {
  unsigned hardware = 0, software = 0;
  Answer<void> answer;
  for (const ReservedRegion& region : device.regions) {
    if (region.type == ReservedType::direct_relaxable) continue;
    if (region.type == ReservedType::msi) ++hardware;
    if (region.type == ReservedType::sw_msi) ++software;
    if (attaching != nullptr && region.type == ReservedType::sw_msi) attaching->msi_window = region.range.start;
    answer = table.reserve(region.range, &device);
    if (!answer) break;
  }
  if (answer && attaching != nullptr && (software > 1 || (software > 0 && hardware > 0))) {
    answer = refuse(EINVAL, "the device has both hardware and software MSI windows, or two software ones");
  }
  if (!answer) table.unreserve(&device);
  return answer;
}

// iommufd_hwpt_pasid_compat: RID and PASIDs of a group want HWPTs with the PASID flag together.
Answer<void> check_pasid(const GroupUse& group, const Hwpt& hwpt, std::uint32_t pasid) {
  const auto rid = group.attachments.find(0);
  if (pasid == 0) {
    const bool others = std::ranges::any_of(group.attachments, [](const auto& a) { return a.first != 0; });
    if (!hwpt.pasid && others) return refuse(EINVAL, "a PASID is attached, and the HWPT was not allocated for PASIDs");
    return {};
  }
  if (!hwpt.pasid) return refuse(EINVAL, "the HWPT was not allocated for PASIDs");
  if (rid != group.attachments.end() && !rid->second.hwpt->pasid) {
    return refuse(EINVAL, "the device's own HWPT was not allocated for PASIDs");
  }
  return {};
}

void unreserve_group(const GroupUse& group, IoPageTable& table) {
  const auto rid = group.attachments.find(0);
  for (const auto& [id, device] : rid->second.devices) table.unreserve(&device->device);
}

}  // namespace

Answer<ObjectId> Context::attach(ObjectId device, ObjectId pt, std::uint32_t pasid) {
  return state_->change(device, pt, pasid, State::Change::attach);
}

Answer<ObjectId> Context::replace(ObjectId device, ObjectId pt, std::uint32_t pasid) {
  return state_->change(device, pt, pasid, State::Change::replace);
}

Answer<ObjectId> Context::vfio_attach(ObjectId id, ObjectId pt, std::uint32_t pasid) {
  const BoundDevice* device = state_->find<BoundDevice>(id);
  const bool again = device != nullptr && state_->is_attached(*device, pasid);
  return state_->change(id, pt, pasid, again ? State::Change::replace : State::Change::attach);
}

Answer<void> Context::detach(ObjectId id, std::uint32_t pasid) {
  BoundDevice* device = state_->find<BoundDevice>(id);
  if (device == nullptr) return refuse(ENOENT, "there is no such device");
  state_->detach(*device, pasid);
  return {};
}

std::optional<ObjectId> Context::attached(ObjectId id, std::uint32_t pasid) const {
  const BoundDevice* device = state_->find<BoundDevice>(id);
  if (device == nullptr || !state_->is_attached(*device, pasid)) return std::nullopt;
  return device->group.attachments.at(pasid).hwpt->id;
}

bool Context::State::is_attached(const BoundDevice& device, std::uint32_t pasid) const {
  const auto it = device.group.attachments.find(pasid);
  return it != device.group.attachments.end() && it->second.devices.contains(device.id);
}

// iommufd_device_change_pt.
Answer<ObjectId> Context::State::change(ObjectId id, ObjectId pt, std::uint32_t pasid, Change change) {
  BoundDevice* device = find<BoundDevice>(id);
  if (device == nullptr) return refuse(ENOENT, "there is no such device");
  if (!objects.contains(pt)) return refuse(ENOENT, "there is no such HWPT or IOAS");
  if (Ioas* ioas = find<Ioas>(pt)) return change_automatic(*device, *ioas, pasid, change);
  Hwpt* hwpt = find<Hwpt>(pt);
  if (hwpt == nullptr) return refuse(EINVAL, "the object is neither a HWPT nor an IOAS");
  if (auto answer = change_to(*device, *hwpt, pasid, change); !answer) return tl::make_unexpected(answer.error());
  return pt;
}

Answer<void> Context::State::change_to(BoundDevice& device, Hwpt& hwpt, std::uint32_t pasid, Change change) {
  return change == Change::attach ? attach(device, hwpt, pasid) : replace(device, hwpt, pasid);
}

// iommufd_device_auto_get_domain: the first automatic HWPT, oldest first, that does not answer EINVAL; else a new one.
Answer<ObjectId> Context::State::change_automatic(BoundDevice& device, Ioas& ioas, std::uint32_t pasid, Change change) {
  for (Hwpt* hwpt : ioas.hwpts) {
    if (!hwpt->automatic) continue;
    const ObjectId id = hwpt->id;
    const auto answer = change_to(device, *hwpt, pasid, change);
    if (answer) return id;
    if (answer.error().errno_value != EINVAL) return tl::make_unexpected(answer.error());
  }
  auto made = make_hwpt(ioas, device, 0, change == Change::attach ? std::optional(pasid) : std::nullopt);
  if (!made) return tl::make_unexpected(made.error());
  Hwpt& fresh = **made;
  const ObjectId id = add(std::move(*made));  // while a HWPT that is about to go still has its id
  if (change == Change::replace) {
    if (auto answer = replace(device, fresh, pasid); !answer) {
      remove(fresh);
      return tl::make_unexpected(answer.error());
    }
  }
  fresh.automatic = true;
  return id;
}

// iommufd_hw_pagetable_attach.
Answer<void> Context::State::attach(BoundDevice& device, Hwpt& hwpt, std::uint32_t pasid) {
  GroupUse& group = device.group;
  if (exhausted()) return refuse(ENOMEM, "injected: no memory for an attachment");
  const auto present = group.attachments.find(pasid);
  const bool first = present == group.attachments.end();
  if (!first && present->second.devices.contains(device.id)) return refuse(EBUSY, "the device is attached already");
  if (!first && present->second.hwpt != &hwpt) return refuse(EINVAL, "the device's group is attached to another HWPT");
  if (pasid == 0) {
    if (auto answer = reserve_regions(hwpt.ioas.table, device.device, &group); !answer) return answer;
  }
  if (first) {
    if (auto answer = move_group(device, hwpt, pasid, nullptr); !answer) {
      if (pasid == 0) hwpt.ioas.table.unreserve(&device.device);
      return answer;
    }
  }
  Attachment& attachment = group.attachments[pasid];
  attachment.hwpt = &hwpt;
  attachment.devices.emplace(device.id, &device);
  ++device.users;
  ++hwpt.users;
  return {};
}

void Context::State::detach(BoundDevice& device, std::uint32_t pasid) {
  if (!is_attached(device, pasid)) return;
  GroupUse& group = device.group;
  Attachment& attachment = group.attachments.at(pasid);
  Hwpt& hwpt = *attachment.hwpt;
  attachment.devices.erase(device.id);
  if (attachment.devices.empty()) {
    if (pasid == 0) machine.core.detach(group.group);
    if (pasid != 0) machine.core.detach_pasid(group.group, pasid);
    group.attachments.erase(pasid);
  }
  if (pasid == 0) hwpt.ioas.table.unreserve(&device.device);
  --device.users;
  put_hwpt(hwpt);
}

// iommufd_device_do_replace.
Answer<void> Context::State::replace(BoundDevice& device, Hwpt& hwpt, std::uint32_t pasid) {
  if (!is_attached(device, pasid)) return refuse(EINVAL, "the device is not attached");
  GroupUse& group = device.group;
  Attachment& attachment = group.attachments.at(pasid);
  Hwpt& old = *attachment.hwpt;
  if (&hwpt == &old) return {};
  const bool moves = pasid == 0 && &hwpt.ioas != &old.ioas;  // to another IOAS: regions come along

  Answer<void> answer;
  for (auto it = attachment.devices.begin(); moves && answer && it != attachment.devices.end(); ++it) {
    answer = reserve_regions(hwpt.ioas.table, it->second->device, nullptr);
  }
  if (answer) answer = move_group(device, hwpt, pasid, &old);
  if (!answer) {
    // The kernel forgets that it reserved nothing where both HWPTs are of one IOAS, and drops what was there before (H2).
    const bool crashed = answer.error().errno_value == ENOTRECOVERABLE;
    const bool forgets = machine.options.hazards.failed_replace_drops_reservations && !crashed;
    if (moves || (pasid == 0 && forgets)) unreserve_group(group, hwpt.ioas.table);
    return answer;
  }
  if (moves) unreserve_group(group, old.ioas.table);
  attachment.hwpt = &hwpt;
  const auto moved = static_cast<unsigned>(attachment.devices.size());
  hwpt.users += moved;
  old.users -= moved - 1;
  put_hwpt(old);
  return {};
}

// The group moves, from `old` or from being blocked. Its interrupts need the doorbell in the table, at the latest when the
// driver has made one.
Answer<void> Context::State::move_group(BoundDevice& device, Hwpt& hwpt, std::uint32_t pasid, Hwpt* old) {
  GroupUse& group = device.group;
  if (pasid != 0) return move_pasid(device, hwpt, pasid, old);
  const bool unfinished = !hwpt.domain->finalised();
  const auto early = install_doorbell(group, hwpt);
  if (!early) return tl::make_unexpected(early.error());
  Answer<void> answer = check_pasid(group, hwpt, pasid);
  if (answer && exhausted()) answer = refuse(ENOMEM, "injected: no memory for an attach handle");
  if (answer && old != nullptr) answer = check_owner(device.device, hwpt);
  if (answer) answer = machine.core.attach(group.group, *hwpt.domain);
  if (!answer) {
    if (*early) remove_doorbell(group, hwpt);
    return answer;
  }
  const auto late = install_doorbell(group, hwpt);
  if (late) return {};
  if (old == nullptr) machine.core.detach(group.group);
  if (old != nullptr) static_cast<void>(machine.core.attach(group.group, *old->domain));  // where it just was
  if (unfinished) machine.core.unfinalise(*hwpt.domain);
  return tl::make_unexpected(late.error());
}

Answer<void> Context::State::move_pasid(BoundDevice& device, Hwpt& hwpt, std::uint32_t pasid, const Hwpt* old) {
  if (auto answer = check_pasid(device.group, hwpt, pasid); !answer) return answer;
  if (exhausted()) return refuse(ENOMEM, "injected: no memory for an attach handle");
  if (old == nullptr) return machine.core.attach_pasid(device.device, pasid, *hwpt.domain);
  return machine.core.replace_pasid(device.device, pasid, *hwpt.domain);
}

// Hazard H3: only a first attach asks whose HWPT it is.
Answer<void> Context::State::check_owner(const DeviceState& device, const Hwpt& hwpt) const {
  const bool foreign = hwpt.domain->attributes[HwptQ::owner] != device.quantities[DeviceQ::owner];
  if (!foreign || !machine.options.hazards.replace_across_owners_crashes) return {};
  return refuse(ENOTRECOVERABLE, "the kernel would crash here: replace across IOMMU drivers (H3)");
}

// Maps the interrupt doorbell where the group's devices look for it (iommufd_sw_msi_install). True: it was not there yet.
Answer<bool> Context::State::install_doorbell(const GroupUse& group, Hwpt& hwpt) {
  Domain& domain = *hwpt.domain;
  if (!group.msi_window || !domain.finalised() || domain.doorbells.contains(*group.msi_window)) return false;
  if (!msi_pages.contains(*group.msi_window)) {
    if (msi_pages.size() >= kMsiPages) return refuse(EOVERFLOW, "the context's software MSI pages are used up");
    if (exhausted()) return refuse(ENOMEM, "injected: no memory for a software MSI page");
  }
  const std::uint64_t page = machine.core.kernel_page_size();
  const int error = domain.table->map(*group.msi_window, kDoorbellPage, page, kRead | kWrite);
  if (error != 0) return refuse(error, "the interrupt doorbell cannot be mapped");
  domain.doorbells.insert(*group.msi_window);
  msi_pages.insert(*group.msi_window);
  return true;
}

void Context::State::remove_doorbell(const GroupUse& group, Hwpt& hwpt) {
  hwpt.domain->table->unmap(*group.msi_window, machine.core.kernel_page_size());
  hwpt.domain->doorbells.erase(*group.msi_window);
}

}  // namespace ioplan::sim
