#include "engine/lifecycle/change.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "engine/base/text.h"
#include "engine/lifecycle/layout.h"
#include "engine/model/features.h"
#include "engine/solve/problem.h"

namespace ioplan {

namespace {

std::uint64_t bytes_in(const std::vector<MemoryRange>& memory) {
  std::uint64_t bytes = 0;
  for (const MemoryRange& m : memory) bytes += m.gpa.extent() + 1;
  return bytes;
}

// The documents' entries by device, for names and labels.
std::map<std::string_view, const AssignedDevice*> entries_of(const VirtualMachine& documented, const Host& host) {
  std::map<std::string_view, const AssignedDevice*> entries;
  for (const AssignedDevice& d : documented.devices) entries[d.host ? host.device(*d.host).id : d.mdev] = &d;
  return entries;
}

AssignedDevice fresh_entry(const Host& host, const std::string& id) {
  AssignedDevice fresh;
  fresh.host = host.find_device(id);
  if (!fresh.host) fresh.mdev = id;
  return fresh;
}

bool device_before(const AssignedDevice& a, const AssignedDevice& b) {
  if (a.host && b.host) return *a.host < *b.host;
  return a.host.has_value() != b.host.has_value() ? a.host.has_value() : a.mdev < b.mdev;
}

// What the document says about devices, held against those that the VM has; nothing is lost by a device that leaves.
void set_devices(VirtualMachine& vm, const VirtualMachine& documented, const Host& host,
                 const std::set<std::string>& ids) {
  const auto entries = entries_of(documented, host);
  vm.devices.clear();
  for (const std::string& id : ids) {
    const auto entry = entries.find(id);
    vm.devices.push_back(entry == entries.end() ? fresh_entry(host, id) : *entry->second);
  }
  std::ranges::sort(vm.devices, device_before);
  const auto named = [&](const std::string& name) {
    return std::ranges::any_of(vm.devices, [&](const AssignedDevice& d) {
      return d.name == name || d.mdev == name ||
             (d.host && (host.device(*d.host).id == name || host.device(*d.host).name == name));
    });
  };
  vm.needs.p2p = documented.needs.p2p;
  std::erase_if(vm.needs.p2p, [&](const auto& pair) { return !named(pair.first) || !named(pair.second); });
  vm.hotplug.hosts = documented.hotplug.hosts;
  std::erase_if(vm.hotplug.hosts, [&](const std::string& id) { return ids.contains(id); });
}

std::set<std::string> devices_of(const Plan& running, const PlannedIoas& ioas) {
  std::set<std::string> ids;
  for (const auto& list : {attached_devices(running, ioas.id), mediated_devices(running, ioas.id)}) {
    for (const std::string& id : list) ids.insert(ids.end(), id);  // mostly ascending
  }
  return ids;
}

// Memory that was plugged since boot is no longer expected.
void forget_what_came(VirtualMachine& vm, std::uint64_t documented_bytes) {
  const std::uint64_t now = bytes_in(vm.memory.ranges);
  const std::uint64_t came = now > documented_bytes ? now - documented_bytes : 0;
  vm.hotplug.memory = vm.hotplug.memory > came ? vm.hotplug.memory - came : 0;
}

void set_running(VirtualMachine& vm, const Host& host, const Plan& running) {
  const VirtualMachine documented = vm;
  const PlannedIoas* ioas = space_of(running, vm.name);
  const std::uint64_t bytes = bytes_in(memory_of(vm, host));
  set_devices(vm, documented, host, ioas == nullptr ? std::set<std::string>{} : devices_of(running, *ioas));
  if (ioas == nullptr) return;
  vm.memory.size.reset();
  vm.memory.ranges = ioas->memory;
  vm.memory.backing = ioas->backing;
  forget_what_came(vm, bytes);
}

class Changer {
 public:
  Changer(const Plan& running, const Request& request, const Change& change)
      : running_(running), change_(change), documented_(request), request_(running_request(running, request)) {}

  Result<Request> apply() {
    const auto index = vm_of(request_, change_);
    if (!index) return tl::make_unexpected(index.error());
    VirtualMachine& vm = request_.vms[*index];
    const std::uint64_t before = bytes_in(memory_of(vm, request_.host));
    if (auto ok = exchange_devices(vm, documented_.vms[*index]); !ok) return tl::make_unexpected(ok.error());
    if (auto ok = add_memory(vm); !ok) return tl::make_unexpected(ok.error());
    forget_what_came(vm, before);
    return std::move(request_);
  }

 private:
  Result<void> exchange_devices(VirtualMachine& vm, const VirtualMachine& documented) const {
    const PlannedIoas* ioas = space_of(running_, vm.name);
    std::set<std::string> devices = ioas == nullptr ? std::set<std::string>{} : devices_of(running_, *ioas);
    for (const std::string& id : change_.remove) {
      if (devices.erase(id) == 0) {
        return failure(fmt::format("`{}` is not in {}", id, vm.name), "the plan's HWPTs list its devices");
      }
    }
    for (const std::string& id : change_.add) {
      if (auto ok = may_be_added(vm, id); !ok) return ok;
      if (!devices.insert(id).second) return failure(fmt::format("`{}` is in {} already", id, vm.name));
      if (std::ranges::find(change_.remove, id) != change_.remove.end()) {
        return failure(fmt::format("`{}` is both added and removed", id));
      }
    }
    set_devices(vm, documented, request_.host, devices);
    return {};
  }

  Result<void> may_be_added(const VirtualMachine& vm, const std::string& id) const {
    if (!is_uuid(id) && !request_.host.find_device(id)) {
      std::vector<std::string_view> ids;
      for (const Device& d : request_.host.devices) ids.push_back(d.id);
      const auto near = nearest_name(id, ids);
      return failure(fmt::format("the host has no device `{}`", id),
                     near ? fmt::format("did you mean `{}`?", *near) : "a mediated device is named by its UUID");
    }
    for (const PlannedIoas& ioas : running_.ioas) {
      const bool kept = ioas.vm != vm.name && std::ranges::find(ioas.retained, id) != ioas.retained.end();
      if (ioas.vm != vm.name && (kept || devices_of(running_, ioas).contains(id))) {
        return failure(fmt::format("`{}` is in {} already", id, ioas.vm), "remove it there first");
      }
    }
    return not_of_anothers_group(vm, id);
  }

  // A group belongs to one VM (the kernel's DMA owner).
  Result<void> not_of_anothers_group(const VirtualMachine& vm, const std::string& id) const {
    const auto index = request_.host.find_device(id);
    if (!index || !request_.host.device(*index).group) return {};
    for (const VirtualMachine& other : request_.vms) {
      if (other.name == vm.name) continue;
      for (const AssignedDevice& d : other.devices) {
        if (!d.host || request_.host.device(*d.host).group != request_.host.device(*index).group) continue;
        return failure(fmt::format("`{}` is in the IOMMU group of {}, which {} has", id,
                                   request_.host.device(*d.host).id, other.name),
                       "a group belongs to one VM");
      }
    }
    return {};
  }

  Result<void> add_memory(VirtualMachine& vm) const {
    const std::uint64_t backing = vm.memory.backing.value_or(4096);
    std::vector<Range> added = change_.memory;
    std::vector<MemoryRange> memory = memory_of(vm, request_.host);
    for (const Range& r : added) memory.push_back({r, Access::read_write});
    std::ranges::sort(memory);
    if (change_.memory_size != 0) {
      if (change_.memory_size % backing != 0) return not_whole(format_size(change_.memory_size), backing);
      const Range next = hotplug_range(memory, backing, change_.memory_size);
      if (next.last < next.start) return failure("memory cannot reach beyond 2^64");
      memory.push_back({next, Access::read_write});
      added.push_back(next);
    }
    for (const Range& r : added) {
      if (r.start % backing != 0 || (r.last + 1) % backing != 0) return not_whole(format_ranges({&r, 1}), backing);
    }
    for (std::size_t m = 1; m < memory.size(); ++m) {
      if (memory[m].gpa.start > memory[m - 1].gpa.last) continue;
      return failure(fmt::format("`{}` overlaps memory of {} at {}", format_ranges({&memory[m].gpa, 1}), vm.name,
                                 format_ranges({&memory[m - 1].gpa, 1})),
                     "`+SIZE` finds a place");
    }
    if (added.empty() || space_of(running_, vm.name) == nullptr) return {};
    vm.memory.size.reset();
    vm.memory.ranges = std::move(memory);
    return {};
  }

  static Result<void> not_whole(const std::string& what, std::uint64_t backing) {
    return failure(
        fmt::format("`{}` is no whole number of {} pages, which back the memory", what, format_size(backing)));
  }

  const Plan& running_;
  const Change& change_;
  const Request& documented_;
  Request request_;
};

}  // namespace

Result<std::size_t> vm_of(const Request& request, const Change& change) {
  if (change.vm.empty()) {
    if (request.vms.size() == 1) return std::size_t{0};
    return failure("the documents have several VMs", "say which one with `--vm NAME`");
  }
  const auto it = std::ranges::find(request.vms, change.vm, &VirtualMachine::name);
  if (it == request.vms.end()) return failure(fmt::format("there is no VM `{}`", change.vm));
  return static_cast<std::size_t>(it - request.vms.begin());
}

Request running_request(const Plan& running, const Request& request) {
  Request now = request;
  for (VirtualMachine& vm : now.vms) set_running(vm, now.host, running);
  return now;
}

Result<Request> changed_request(const Plan& running, const Request& request, const Change& change) {
  return Changer(running, request, change).apply();
}

}  // namespace ioplan
