// Objects: opening and closing, binding, options, destroy, and what tests may look at.
// Mirrors drivers/iommu/iommufd/main.c, ioas.c (options) and device.c iommufd_device_bind.

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <iterator>

#include "backends/sim/context_state.h"

namespace ioplan::sim {

std::unique_ptr<Context> Machine::open() {
  auto state = std::make_unique<Context::State>(*state_);
  state_->participants.push_back(state.get());
  return std::unique_ptr<Context>(new Context(std::move(state)));
}

Context::Context(std::unique_ptr<State> state) : state_(std::move(state)) {}

// Users first: devices and accesses, HWPTs, then what they refer to.
Context::~Context() {
  State& s = *state_;
  for (ObjectId id : objects()) {
    if (BoundDevice* device = s.find<BoundDevice>(id)) s.close_device(*device);
  }
  for (ObjectKind kind : {ObjectKind::access, ObjectKind::hwpt, ObjectKind::ioas, ObjectKind::fault_queue}) {
    for (ObjectId id : objects()) {
      if (Object& object = *s.objects.at(id); object.kind == kind) s.remove(object);
    }
  }
  std::erase(s.machine.participants, &s);
}

ObjectId Context::State::add(std::unique_ptr<Object> object) {
  const ObjectId id = lowest_free;
  object->id = id;
  auto next = objects.emplace(id, std::move(object)).first;
  do {
    ++lowest_free;
  } while (++next != objects.end() && next->first == lowest_free);
  return id;
}

void Context::State::erase(ObjectId id) {
  objects.erase(id);
  lowest_free = std::min(lowest_free, id);
}

void Context::State::remove(Object& object) {
  if (object.kind == ObjectKind::access) {
    Access& access = static_cast<Access&>(object);
    access.ioas.table.remove_access(access.alignment);
    --access.ioas.users;
  }
  if (object.kind == ObjectKind::hwpt) free_hwpt(static_cast<Hwpt&>(object));
  if (object.kind == ObjectKind::ioas) static_cast<Ioas&>(object).table.unmap({0, ~std::uint64_t{0}}).value();
  erase(object.id);
}

Answer<ObjectId> Context::bind(std::string_view name) {
  State& s = *state_;
  IommuCore& core = s.machine.core;
  const auto index = core.host().find_device(name);
  if (!index) return refuse(ENODEV, "there is no such device");
  DeviceState& device = core.device(*index);
  if (device.group == nullptr) return refuse(ENODEV, "it is unknown behind which IOMMU and in which group the device sits");
  if (device.bound) return refuse(EINVAL, "the device is open already");
  if (device.quantities[DeviceQ::capable_op] == 0) return refuse(EINVAL, "the IOMMU's driver tells no capabilities");
  if (device.quantities[DeviceQ::cache_coherency] == 0) return refuse(EINVAL, "the IOMMU does not make DMA cache coherent");
  if (!core.isolated_msi(*device.group)) return refuse(EPERM, "a device of the group has no isolated MSI");
  if (auto claimed = core.claim(*device.group, &s); !claimed) return tl::make_unexpected(claimed.error());
  if (s.exhausted()) {
    core.release(*device.group);
    return refuse(ENOMEM, "injected: no memory for an object");
  }
  GroupUse& group = s.groups.try_emplace(device.group->number, *device.group).first->second;
  ++group.devices;
  device.bound = true;
  return s.add(std::make_unique<BoundDevice>(device, group));
}

Answer<void> Context::unbind(ObjectId id) {
  BoundDevice* device = state_->find<BoundDevice>(id);
  if (device == nullptr) return refuse(ENOENT, "there is no such device");
  state_->close_device(*device);
  return {};
}

// VFIO detaches what is attached, PASIDs first.
void Context::State::close_device(BoundDevice& device) {
  std::vector<std::uint32_t> attached;
  for (const auto& [pasid, attachment] : device.group.attachments) {
    if (attachment.devices.contains(device.id)) attached.push_back(pasid);
  }
  for (auto pasid = attached.rbegin(); pasid != attached.rend(); ++pasid) detach(device, *pasid);
  machine.core.release(device.group.group);
  device.device.bound = false;
  if (--device.group.devices == 0) groups.erase(device.group.group.number);
  erase(device.id);
}

Answer<ObjectId> Context::access_create(ObjectId id, bool pins) {
  State& s = *state_;
  if (s.exhausted()) return refuse(ENOMEM, "injected: no memory for an object");
  Ioas* ioas = s.find<Ioas>(id);
  if (ioas == nullptr) return refuse(ENOENT, "there is no such IOAS");
  const std::uint64_t alignment = pins ? s.machine.core.kernel_page_size() : 1;
  if (auto added = ioas->table.add_access(alignment); !added) return tl::make_unexpected(added.error());
  ++ioas->users;
  return s.add(std::make_unique<Access>(*ioas, alignment));
}

Answer<void> Context::access_destroy(ObjectId id) {
  Access* access = state_->find<Access>(id);
  if (access == nullptr) return refuse(ENOENT, "there is no such access");
  state_->remove(*access);
  return {};
}

Answer<ObjectId> Context::fault_queue_alloc() {
  if (state_->exhausted()) return refuse(ENOMEM, "injected: no memory for an object");
  return state_->add(std::make_unique<FaultQueue>());
}

Answer<void> Context::destroy(ObjectId id) {
  const auto it = state_->objects.find(id);
  if (it == state_->objects.end()) return refuse(ENOENT, "there is no such object");
  if (it->second->users > 0) return refuse(EBUSY, "the object is in use");
  state_->remove(*it->second);
  return {};
}

Answer<void> Context::set_option(Option option, ObjectId object, std::uint64_t value) {
  State& s = *state_;
  if (option == Option::huge_pages) {
    Ioas* ioas = s.find<Ioas>(object);
    if (ioas == nullptr) return refuse(ENOENT, "there is no such IOAS");
    if (value == 0) return ioas->table.disable_large_pages();
    if (value != 1) return refuse(EINVAL, "the value is neither 0 nor 1");
    ioas->table.enable_large_pages();
    return {};
  }
  if (object != 0) return refuse(EOPNOTSUPP, "the option belongs to the context, not to an object");
  if (!s.machine.options.cap_sys_resource) return refuse(EPERM, "CAP_SYS_RESOURCE is missing");
  if (!s.objects.empty()) return refuse(EBUSY, "the context has objects already");
  if (value > 1) return refuse(EINVAL, "the value is neither 0 nor 1");
  s.account = value == 0 ? MemlockAccount::user : MemlockAccount::process;
  return {};
}

Answer<std::uint64_t> Context::get_option(Option option, ObjectId object) const {
  if (option == Option::rlimit_mode) {
    if (object != 0) return refuse(EOPNOTSUPP, "the option belongs to the context, not to an object");
    return state_->account == MemlockAccount::process ? 1 : 0;
  }
  const Ioas* ioas = state_->find<Ioas>(object);
  if (ioas == nullptr) return refuse(ENOENT, "there is no such IOAS");
  return ioas->table.large_pages() ? 1 : 0;
}

std::vector<ObjectId> Context::objects() const {
  std::vector<ObjectId> ids;
  for (const auto& [id, object] : state_->objects) ids.push_back(id);
  return ids;
}

std::uint64_t Context::pinned_bytes() const {
  std::set<const Pages*> all;
  state_->each_ioas([&](const Ioas& ioas) {
    ioas.table.visit_pages([&](const std::shared_ptr<Pages>& pages) { all.insert(pages.get()); });
  });
  std::uint64_t bytes = 0;
  for (const Pages* pages : all) bytes += pages->pinned_bytes();
  return bytes;
}

// What is pinned is charged, and to nobody else.
std::uint64_t Context::locked_bytes() const { return pinned_bytes(); }

void Context::State::append_text(std::string& text) const {
  const auto out = std::back_inserter(text);
  const Host& host = machine.host;
  fmt::format_to(out, "context: rlimit mode {} objects {}\n", static_cast<int>(account), objects.size());
  std::map<const void*, std::string> owners{{nullptr, "the selftest"}};
  for (const auto& [id, object] : objects) {
    if (const Hwpt* hwpt = find<Hwpt>(id)) owners[hwpt->domain.get()] = fmt::format("hwpt {}", id);
    if (const BoundDevice* device = find<BoundDevice>(id)) owners[&device->device] = host.device(device->device.index).id;
  }
  for (const auto& [id, object] : objects) {
    fmt::format_to(out, "  object {} users {}: ", id, object->users);
    if (const BoundDevice* device = find<BoundDevice>(id)) {
      fmt::format_to(out, "device {} group {}\n", owners.at(&device->device), device->group.group.number);
    } else if (const Ioas* ioas = find<Ioas>(id)) {
      fmt::format_to(out, "ioas hwpts");
      for (const Hwpt* hwpt : ioas->hwpts) fmt::format_to(out, " {}", hwpt->id);
      text += '\n';
      ioas->table.append_text(text, owners);
    } else if (const Hwpt* hwpt = find<Hwpt>(id)) {
      const Domain& domain = *hwpt->domain;
      fmt::format_to(out, "hwpt of ioas {} by {}{}{}{}{}{} faults {} tables {} doorbells {}\n", hwpt->ioas.id,
                     host.device(domain.allocator).id, hwpt->automatic ? " automatic" : "",
                     hwpt->nest_parent ? " nest-parent" : "", hwpt->pasid ? " pasid" : "",
                     domain.attributes[HwptQ::enforce_cache_coherency] != 0 ? " enforced" : "",
                     domain.tracks_dirty() ? (domain.logs_dirty() ? " dirty (logging)" : " dirty") : "",
                     hwpt->fault != nullptr ? hwpt->fault->id : 0, domain.table ? domain.table->table_bytes() : 0,
                     domain.doorbells.size());
    } else if (const Access* access = find<Access>(id)) {
      fmt::format_to(out, "access of ioas {} alignment {}\n", access->ioas.id, access->alignment);
    } else {
      text += "fault queue\n";
    }
  }
  for (const auto& [number, group] : groups) {
    for (const auto& [pasid, attachment] : group.attachments) {
      fmt::format_to(out, "  group {} pasid {} hwpt {}:", number, pasid, attachment.hwpt->id);
      for (const auto& [id, device] : attachment.devices) fmt::format_to(out, " {}", id);
      text += '\n';
    }
  }
}

}  // namespace ioplan::sim
