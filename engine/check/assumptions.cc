// assumptions: every default that is listed is a default that was needed, and those that always matter are listed.
//
// A listed default must be absent from the documents and be the stock value. Not to be missing: the kernel's
// architecture, release, page size, isolated MSI and scalable mode, what units of two drivers leave open, the machine
// type behind a size, the backing pages, and the reserved regions of the devices of their groups.

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "engine/base/text.h"
#include "engine/check/court.h"
#include "engine/check/gaps.h"

namespace ioplan::check {

namespace {

using obligation::assumptions;

class Review {
 public:
  Review(const Plan& plan, const Request& request, const Law& law, Judgement& judgement)
      : plan_(plan), request_(request), law_(law), judgement_(judgement) {
    find_relevant();
  }

  void run() {
    for (const Assumption& a : plan_.assumptions) check(a);
    expect_kernel();
    expect_units();
    for (const VirtualMachine& vm : request_.vms) expect_vm(vm);
    expect_reserved();
  }

 private:
  void object(const std::string& fact, std::string text) {
    judgement_.objections.push_back({std::string(assumptions), {fact}, std::move(text)});
  }

  void find_relevant() {
    std::set<std::uint32_t> groups;
    for (const VirtualMachine& vm : request_.vms) {
      for (const AssignedDevice& entry : vm.devices) {
        if (!entry.host) continue;
        assigned_.insert(entry.host->index());
        if (const auto group = request_.host.device(*entry.host).group) groups.insert(*group);
      }
    }
    relevant_ = assigned_;
    for (std::size_t d = 0; d < request_.host.devices.size(); ++d) {
      const auto& group = request_.host.devices[d].group;
      if (group && groups.contains(*group)) relevant_.insert(d);
    }
  }

  // "devices.reserved" stands for all its subjects; other paths name one thing.
  void check(const Assumption& a) {
    if (!listed_.insert(a.fact).second) object(a.fact, fmt::format("`{}` is listed twice", a.fact));
    if (a.fact.starts_with("devices.") && !a.subjects.empty()) return check_many(a);
    if (!defaulted(request_, a.fact))
      object(a.fact, fmt::format("`{}` is no default of a fact that is missing", a.fact));
    const std::string stock = stock_value(a.fact);
    if (!stock.empty() && stock != a.value) {
      object(a.fact, fmt::format("the default of `{}` is `{}`, not `{}`", a.fact, stock, a.value));
    }
  }

  void check_many(const Assumption& a) {
    const std::string key = a.fact.substr(std::string("devices.").size());
    std::string previous;
    for (const std::string& id : a.subjects) {
      if (!defaulted(request_, fmt::format("devices.{}.{}", id, key))) {
        object(a.fact, fmt::format("`{}` of `{}` is no default of a fact that is missing", key, id));
      }
      const auto device = request_.host.find_device(id);
      if (device && !relevant_.contains(device->index())) {
        object(a.fact, fmt::format("`{}` has no part in the answer", id));
      }
      if (id == previous) object(a.fact, fmt::format("`{}` is listed twice for `{}`", id, a.fact));
      previous = id;
    }
    if (key == "reserved" && a.value != "driver") object(a.fact, "regions that are not stated are the driver's own");
  }

  std::string stock_value(const std::string& path) const {
    if (path == "kernel.release") return "7.2.13";
    if (path == "kernel.arch") return std::string(name_of(arch_of(request_.host)));
    if (path == "kernel.page_size") return "4KiB";
    if (path.ends_with(".memory.backing")) return "4KiB";
    if (path.ends_with(".machine.type")) return stock_machine(path);
    if (path.ends_with(".granule")) return "kernel.page_size";
    if (path.ends_with(".input_range")) return "[0x0, 0xffffffffffffffff]";
    if (path.starts_with("kernel.")) return stock_kernel_fact(path.substr(std::string("kernel.").size()));
    return {};
  }

  std::string stock_machine(const std::string& path) const {
    for (const VirtualMachine& vm : request_.vms) {
      if (path != "vms." + vm.name + ".machine.type") continue;
      return std::string(kMachineTypeNames[static_cast<std::size_t>(machine_type(request_, vm))]);
    }
    return {};
  }

  static std::string stock_kernel_fact(const std::string& key) {
    for (std::size_t i = 0; i < kFactCount<KernelFact>; ++i) {
      const FactRow& row = row_of(static_cast<KernelFact>(i));
      if (row.key != key || !row.stock) continue;
      return row.kind == FactKind::boolean ? (*row.stock != 0 ? "true" : "false") : std::to_string(*row.stock);
    }
    return {};
  }

  void expect(const std::string& path) {
    if (defaulted(request_, path) && !listed_.contains(path)) {
      object(path, fmt::format("the answer rests on the default of `{}`, which is not listed", path));
    }
  }

  // Would another value make another device of any that is relevant? Asked only where all else is known.
  bool matters(KernelFact fact) const {
    if (request_.host.kernel.facts[fact] || !gaps_of(request_).empty()) return false;
    Host other = request_.host;
    for (std::uint64_t value : row_of(fact).candidates) {
      other.kernel.facts[fact] = value;
      for (std::size_t d : relevant_) {
        if (law_.describe(other, DeviceIndex(d)) != law_.describe(request_.host, DeviceIndex(d))) return true;
      }
    }
    return false;
  }

  bool needs_kernel_msi() const {
    return std::any_of(relevant_.begin(), relevant_.end(), [&](std::size_t d) {
      const Device& device = request_.host.devices[d];
      return !device.facts[DeviceFact::isolated_msi] && device.unit &&
             request_.host.unit(*device.unit).driver != Driver::mock;
    });
  }

  void expect_kernel() {
    if (assigned_.empty()) return;
    for (const char* path : {"kernel.arch", "kernel.release", "kernel.page_size"}) expect(path);
    if (needs_kernel_msi()) expect("kernel.isolated_msi");
    if (matters(KernelFact::intel_iommu_sm)) expect("kernel.intel_iommu_sm");
  }

  void expect_units() {
    std::set<std::size_t> units;
    for (std::size_t d : relevant_) {
      if (request_.host.devices[d].unit) units.insert(request_.host.devices[d].unit->index());
    }
    for (std::size_t u : units) expect_unit(request_.host.units[u]);
  }

  // A boot log of an SMMUv3 tells no granule; a virtio-iommu without input range takes every address.
  void expect_unit(const Unit& unit) {
    const bool from_log = unit.facts[UnitFact::features] && !unit.facts[UnitFact::idr0];
    if (unit.driver == Driver::smmuv3 && from_log) expect("iommus." + unit.id + ".granule");
    if (unit.driver == Driver::virtio) expect("iommus." + unit.id + ".input_range");
  }

  void expect_vm(const VirtualMachine& vm) {
    expect("vms." + vm.name + ".memory.backing");
    if (vm.memory.size) expect("vms." + vm.name + ".machine.type");
  }

  void expect_reserved() {
    std::set<std::string> named;
    for (const Assumption& a : plan_.assumptions) {
      if (a.fact == "devices.reserved") named.insert(a.subjects.begin(), a.subjects.end());
    }
    for (std::size_t d : relevant_) {
      const Device& device = request_.host.devices[d];
      if (device.reserved || named.contains(device.id)) continue;
      object("devices.reserved", fmt::format("`{}` has the driver's own regions, which is not listed", device.id));
    }
  }

  const Plan& plan_;
  const Request& request_;
  const Law& law_;
  Judgement& judgement_;
  std::set<std::size_t> assigned_, relevant_;
  std::set<std::string> listed_;
};

}  // namespace

void check_assumptions(const Plan& plan, const Request& request, const Law& law, Judgement& judgement) {
  Review(plan, request, law, judgement).run();
}

}  // namespace ioplan::check
