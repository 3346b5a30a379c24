#include "engine/document/vm_document.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <set>
#include <utility>
#include <vector>

#include "engine/base/text.h"
#include "engine/document/host_document.h"
#include "engine/document/selector.h"

namespace ioplan {

namespace {

constexpr std::uint64_t kPage = 4096;
// 52 bits of physical address are the most that x86, arm64 and riscv guests have.
constexpr std::uint64_t kMostMemory = std::uint64_t{1} << 52;
constexpr std::array<std::string_view, 2> kAccessNames = {"rw", "ro"};
constexpr std::array<std::string_view, 3> kViommuModes = {"auto", "nested", "shadow"};

// --- memory ---

// Bytes of guest memory: whole pages, not more than a guest can address.
std::uint64_t read_memory_size(Reader& reader, const Field& field) {
  const std::uint64_t size = reader.size(field);
  if (!field || !reader.ok()) return size;
  const std::string words = in_backticks(field.value.text());
  const std::string key = in_backticks(field.key);
  if (size % kPage != 0) reader.fail(field.value, fmt::format("{} {} is not a multiple of 4KiB", key, words));
  if (size > kMostMemory) {
    reader.fail(field.value, fmt::format("{} {} is more than a guest can address", key, words), "at most `4PiB`");
  }
  return size;
}

MemoryRange read_memory_range(Reader& reader, const Node& node) {
  static constexpr std::array<std::string_view, 2> keys = {"gpa", "access"};
  const MapReader map(reader, node, "ranges", keys);
  const Field gpa = map.required("gpa");
  MemoryRange memory{reader.range(gpa), Access::read_write};
  if (const Field access = map.optional("access")) memory.access = reader.enumeration<Access>(access, kAccessNames);
  if (gpa && reader.ok() && (memory.gpa.start % kPage != 0 || memory.gpa.last % kPage != kPage - 1)) {
    reader.fail(gpa.value,
                fmt::format("range `[{:#x}, {:#x}]` is not whole 4KiB pages", memory.gpa.start, memory.gpa.last),
                "`last` is inclusive: a range ends at an address like `0x7fffffff`");
  }
  return memory;
}

void read_memory_ranges(Reader& reader, const Field& field, std::vector<MemoryRange>& ranges) {
  std::vector<std::pair<MemoryRange, Node>> found;
  if (field && field.value.is_sequence() && field.value.size() == 0) {
    reader.fail(field.value, "`ranges` is an empty list");
  }
  reader.items(field,
               [&](const Field& item) { found.emplace_back(read_memory_range(reader, item.value), item.value); });
  std::ranges::stable_sort(found, {}, &std::pair<MemoryRange, Node>::first);
  for (std::size_t i = 0; i < found.size() && reader.ok(); ++i) {
    const Range& range = found[i].first.gpa;
    if (i > 0 && range.overlaps(ranges.back().gpa)) {
      const Range& before = ranges.back().gpa;
      reader.fail(found[i].second,
                  fmt::format("range `[{:#x}, {:#x}]` overlaps `[{:#x}, {:#x}]` at {}", range.start, range.last,
                              before.start, before.last, to_text(found[i - 1].second.place())));
    }
    ranges.push_back(found[i].first);
  }
}

Memory read_memory(Reader& reader, const Field& field) {
  static constexpr std::array<std::string_view, 3> keys = {"size", "ranges", "backing"};
  Memory memory;
  if (!field) return memory;
  const MapReader map(reader, field.value, "memory", keys);
  const Field size = map.optional("size");
  const Field ranges = map.optional("ranges");
  const std::string_view help = "`size` is laid out as the machine does; `ranges` are all that is mapped";
  if (size && ranges) reader.fail(ranges.value, "`memory` has both `size` and `ranges`", std::string(help));
  if (!size && !ranges) reader.fail(map.node(), "`memory` has neither `size` nor `ranges`", std::string(help));
  if (size) memory.size = read_memory_size(reader, size);
  if (size && memory.size == 0) reader.fail(size.value, "`size` of `memory` must not be 0");
  read_memory_ranges(reader, ranges, memory.ranges);
  if (const Field backing = map.optional("backing")) memory.backing = reader.page_size(backing);
  return memory;
}

Machine read_machine(Reader& reader, const Field& field) {
  static constexpr std::array<std::string_view, 3> keys = {"type", "cpu_vendor", "pci_hole64_size"};
  Machine machine;
  if (!field) return machine;
  const MapReader map(reader, field.value, "machine", keys);
  if (const Field type = map.optional("type")) machine.type = reader.enumeration<MachineType>(type, kMachineTypeNames);
  if (const Field vendor = map.optional("cpu_vendor")) {
    machine.cpu_vendor = reader.enumeration<CpuVendor>(vendor, kCpuVendorNames);
  }
  if (const Field hole = map.optional("pci_hole64_size")) machine.pci_hole64_size = read_memory_size(reader, hole);
  return machine;
}

// --- devices ---

// Lower case comes out.
std::string read_uuid(Reader& reader, const Field& field) {
  std::string uuid = reader.text(field);
  if (!field || !reader.ok()) return {};
  if (!is_uuid(uuid)) {
    reader.fail(field.value, fmt::format("{} is not the UUID of a mediated device", in_backticks(uuid)),
                "write it as sysfs names it: `83b8f4f2-509f-382f-3c1e-e6bfe0fa1001`");
  }
  std::ranges::transform(uuid, uuid.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return uuid;
}

AssignedDevice read_assigned(Reader& reader, const Node& node, const Host& host) {
  static constexpr std::array<std::string_view, 4> keys = {"host", "mdev", "name", "label"};
  const MapReader map(reader, node, "devices", keys);
  const Field host_id = map.optional("host");
  const Field mdev = map.optional("mdev");
  AssignedDevice device;
  if (static_cast<bool>(host_id) == static_cast<bool>(mdev)) {
    reader.fail(node, host_id ? "a device of a VM has both `host` and `mdev`" : "a device of a VM has no `host`",
                "name a host device with `host`, or a mediated device with `mdev`");
    return device;
  }
  if (host_id) device.host = find_device(reader, host_id, host);
  if (mdev) device.mdev = read_uuid(reader, mdev);
  if (const Field name = map.optional("name")) device.name = reader.text(name);
  reader.one_or_more(map.optional("label"), [&](const Field& f) { device.labels.push_back(reader.text(f)); });
  std::ranges::sort(device.labels);
  return device;
}

bool device_less(const AssignedDevice& a, const AssignedDevice& b) {
  if (a.host && b.host) return *a.host < *b.host;
  if (a.host || b.host) return a.host.has_value();
  return a.mdev < b.mdev;
}

void read_devices(Reader& reader, const Field& field, const Host& host, Assignments& assignments, VirtualMachine& vm) {
  std::map<std::string, Node> names;
  reader.items(field, [&](const Field& item) {
    AssignedDevice device = read_assigned(reader, item.value, host);
    if (!reader.ok()) return;
    if (device.host) assignments.claim_host(reader, *device.host, vm.name, item.value);
    if (!device.host) assignments.claim_mdev(reader, device.mdev, vm.name, item.value);
    if (!device.name.empty()) {
      const auto [it, added] = names.try_emplace(device.name, item.value);
      if (!added) {
        reader.fail(item.value,
                    fmt::format("two devices of VM {} with the name {}; the first is at {}", in_backticks(vm.name),
                                in_backticks(device.name), to_text(it->second.place())));
      }
    }
    vm.devices.push_back(std::move(device));
  });
  std::ranges::sort(vm.devices, device_less);
}

// --- needs ---

// The devices of a VM by every name that `p2p` may use: the VM's name, the host id, the host's name.
class PeerNames {
 public:
  PeerNames(const VirtualMachine& vm, const Host& host) : vm_(vm) {
    for (const AssignedDevice& d : vm.devices) {
      if (!d.host) {
        add(d.mdev, "");
        add(d.name, "");
        continue;
      }
      const Device& device = host.device(*d.host);
      add(device.id, device.id);
      add(d.name, device.id);
      if (device.name != d.name) add(device.name, device.id);
    }
  }

  std::string find(Reader& reader, const Field& field) const {
    const std::string word = reader.text(field);
    if (!field || !reader.ok()) return {};
    const auto it = ids_.find(word);
    if (it == ids_.end()) {
      std::vector<std::string_view> names;
      for (const auto& [name, ids] : ids_) names.push_back(name);
      reader.fail(field.value,
                  fmt::format("{} in `p2p` is not a device of VM {}", in_backticks(word), in_backticks(vm_.name)),
                  names.size() <= 16 ? advice_for(word, names) : "");
      return {};
    }
    if (it->second.size() > 1) {
      reader.fail(field.value, fmt::format("{} in `p2p` names {} devices", in_backticks(word), it->second.size()),
                  "use host ids");
    } else if (it->second.begin()->empty()) {
      reader.fail(field.value,
                  fmt::format("{} in `p2p` is a mediated device, which has no BARs of its own", in_backticks(word)));
    }
    return *it->second.begin();
  }

 private:
  void add(const std::string& name, const std::string& id) {
    if (!name.empty()) ids_[name].insert(id);
  }

  const VirtualMachine& vm_;
  std::map<std::string, std::set<std::string>> ids_;
};

void read_p2p(Reader& reader, const Field& field, const VirtualMachine& vm, const Host& host, Needs& needs) {
  if (!field) return;
  const PeerNames peers(vm, host);
  reader.items(field, [&](const Field& item) {
    if (!item.value.is_sequence() || item.value.size() != 2) {
      return reader.fail(item.value, "`p2p` must be a list of pairs", "write `p2p: [[gpu0, nic0]]`");
    }
    const Node first = item.value.first();
    std::pair pair(peers.find(reader, {first, "p2p"}), peers.find(reader, {item.value.after(first), "p2p"}));
    if (reader.ok() && pair.first == pair.second) {
      return reader.fail(item.value, fmt::format("`p2p` pairs {} with itself", in_backticks(pair.first)));
    }
    if (natural_less(pair.second, pair.first)) std::swap(pair.first, pair.second);
    needs.p2p.push_back(std::move(pair));
  });
  std::ranges::sort(needs.p2p, [](const auto& a, const auto& b) {
    return a.first != b.first ? natural_less(a.first, b.first) : natural_less(a.second, b.second);
  });
  needs.p2p.erase(std::unique(needs.p2p.begin(), needs.p2p.end()), needs.p2p.end());
}

Needs read_needs(Reader& reader, const Field& field, const VirtualMachine& vm, const Host& host) {
  static constexpr std::array<std::string_view, 5> keys = {"dirty_tracking", "nest_parent", "nesting_parent", "pasid",
                                                           "p2p"};
  Needs needs;
  if (!field) return needs;
  const MapReader map(reader, field.value, "needs", keys);
  const auto need = [&](std::string_view key, Need& into) {
    if (const Field f = map.optional(key)) into = reader.enumeration<Need>(f, kNeedNames);
  };
  if (map.optional("nest_parent") && map.optional("nesting_parent")) {
    reader.fail(map.optional("nesting_parent").value, "`nesting_parent` is another name for `nest_parent`",
                "write one of them");
  }
  need("dirty_tracking", needs.dirty_tracking);
  need("nest_parent", needs.nest_parent);
  need("nesting_parent", needs.nest_parent);
  need("pasid", needs.pasid);
  read_p2p(reader, map.optional("p2p"), vm, host, needs);
  return needs;
}

// --- the rest ---

ViommuModel read_viommu(Reader& reader, const Field& field) {
  static constexpr std::array<std::string_view, 2> keys = {"model", "mode"};
  if (!field) return ViommuModel::none;
  const MapReader map(reader, field.value, "viommu", keys);
  if (const Field mode = map.optional("mode")) reader.choice(mode, kViommuModes);
  const Field model = map.required("model");
  const auto which = reader.enumeration<ViommuModel>(model, kViommuModelNames);
  if (reader.ok() && which != ViommuModel::none) {
    reader.fail(model.value, fmt::format("a guest IOMMU ({}) cannot be planned yet", in_backticks(model.value.text())),
                "use `viommu: {model: none}`");
  }
  return which;
}

void read_expected(Reader& reader, const Node& node, const Host& host, const VirtualMachine& vm,
                   HotplugExpectation& hotplug) {
  static constexpr std::array<std::string_view, 2> keys = {"host", "class"};
  const MapReader map(reader, node, "expect", keys);
  const Field id = map.optional("host");
  const Field code = map.optional("class");
  if (static_cast<bool>(id) == static_cast<bool>(code)) {
    return reader.fail(node, "an entry of `expect` has one of `host` and `class`");
  }
  if (code) hotplug.classes.push_back(class_code(read_class(reader, code)));
  if (!id) return;
  const auto device = find_device(reader, id, host);
  if (device && std::ranges::find(vm.devices, device, &AssignedDevice::host) != vm.devices.end()) {
    reader.fail(id.value, fmt::format("{} is expected, but VM {} has it already", in_backticks(id.value.text()),
                                      in_backticks(vm.name)));
  }
  hotplug.hosts.push_back(reader.text(id));
}

HotplugExpectation read_hotplug(Reader& reader, const Field& field, const Host& host, const VirtualMachine& vm) {
  static constexpr std::array<std::string_view, 2> keys = {"expect", "memory"};
  HotplugExpectation hotplug;
  if (!field) return hotplug;
  const MapReader map(reader, field.value, "hotplug", keys);
  reader.items(map.optional("expect"),
               [&](const Field& item) { read_expected(reader, item.value, host, vm, hotplug); });
  if (const Field memory = map.optional("memory")) hotplug.memory = read_memory_size(reader, memory);
  std::ranges::sort(hotplug.hosts, natural_less);
  std::ranges::sort(hotplug.classes);
  hotplug.hosts.erase(std::unique(hotplug.hosts.begin(), hotplug.hosts.end()), hotplug.hosts.end());
  hotplug.classes.erase(std::unique(hotplug.classes.begin(), hotplug.classes.end()), hotplug.classes.end());
  return hotplug;
}

}  // namespace

void Assignments::fail_claimed(Reader& reader, const Claim& first, const Claim& second) {
  const std::string device = in_backticks(second.device);
  const std::string place = to_text(first.node.place());
  if (first.vm == second.vm) {
    reader.fail(second.node, fmt::format("device {} appears twice in VM {}; the first is at {}", device,
                                         in_backticks(first.vm), place));
  } else {
    reader.fail(second.node,
                fmt::format("device {} is given to VM {} and, at {}, to VM {}", device, in_backticks(second.vm), place,
                            in_backticks(first.vm)),
                "a device belongs to one VM");
  }
}

void Assignments::claim_host(Reader& reader, DeviceIndex index, const std::string& vm, const Node& node) {
  const Device& device = host_.device(index);
  const Claim claim{device.id, vm, node};
  const auto [it, added] = devices_.try_emplace(device.id, claim);
  if (!added) return fail_claimed(reader, it->second, claim);
  if (!device.group) return;
  const auto [group, first] = groups_.try_emplace(*device.group, claim);
  const Claim& other = group->second;
  if (first || other.vm == vm) return;
  reader.fail(node,
              fmt::format("group {} is split: device {} is given to VM {} and, at {}, device {} to VM {}",
                          *device.group, in_backticks(device.id), in_backticks(vm), to_text(other.node.place()),
                          in_backticks(other.device), in_backticks(other.vm)),
              "a group is the smallest thing that can be assigned: give its devices to one VM");
}

void Assignments::claim_mdev(Reader& reader, const std::string& uuid, const std::string& vm, const Node& node) {
  const Claim claim{uuid, vm, node};
  const auto [it, added] = devices_.try_emplace(uuid, claim);
  if (!added) fail_claimed(reader, it->second, claim);
}

VirtualMachine read_vm(Reader& reader, const Node& root, const Host& host, Assignments& assignments) {
  static constexpr std::array<std::string_view, 10> keys = {
      "apiVersion", "kind",   "name",  "memory",  "machine",
      "devices",    "viommu", "needs", "hotplug", "guest_cache_maintenance"};
  const MapReader map(reader, root, "VirtualMachine", keys);
  VirtualMachine vm;
  vm.name = reader.text(map.required("name"));
  vm.memory = read_memory(reader, map.required("memory"));
  vm.machine = read_machine(reader, map.optional("machine"));
  vm.viommu = read_viommu(reader, map.optional("viommu"));
  read_devices(reader, map.optional("devices"), host, assignments, vm);
  vm.needs = read_needs(reader, map.optional("needs"), vm, host);
  vm.hotplug = read_hotplug(reader, map.optional("hotplug"), host, vm);
  vm.guest_cache_maintenance = reader.boolean(map.optional("guest_cache_maintenance"));
  return vm;
}

}  // namespace ioplan
