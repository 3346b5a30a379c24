#include "engine/check/gaps.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "engine/base/text.h"

namespace ioplan::check {

namespace {

std::string written(const FactRow& row, std::uint64_t value) {
  switch (row.kind) {
    case FactKind::boolean:
      return value != 0 ? "true" : "false";
    case FactKind::integer:
      return std::to_string(value);
    case FactKind::hex:
      return format_hex(value);
    case FactKind::size:
      return format_size(value);
  }
  return {};
}

std::vector<std::string> candidates(const FactRow& row) {
  std::vector<std::string> values;
  for (std::uint64_t v : row.candidates) values.push_back(written(row, v));
  return values;
}

bool looks_like_pci(const std::string& id) { return std::count(id.begin(), id.end(), ':') >= 1; }

class Finder {
 public:
  explicit Finder(const Request& request) : request_(request), host_(request.host) {}

  std::vector<Gap> find() {
    find_relevant();
    for (std::size_t d : relevant_) device_gaps(d);
    for (std::size_t u : units_) unit_gaps(u);
    if (any_unit(Driver::amd)) kernel_gap(KernelFact::la57);
    for (std::size_t v = 0; v < request_.vms.size(); ++v) vm_gaps(v);
    return std::move(gaps_);
  }

 private:
  void find_relevant() {
    std::set<std::uint32_t> groups;
    for (const VirtualMachine& vm : request_.vms) {
      for (const AssignedDevice& entry : vm.devices) {
        if (!entry.host) continue;
        assigned_.insert(entry.host->index());
        if (vm.needs.pasid != Need::no) wants_pasid_.insert(entry.host->index());
        if (const auto group = host_.device(*entry.host).group) groups.insert(*group);
      }
    }
    relevant_ = assigned_;
    for (std::size_t d = 0; d < host_.devices.size(); ++d) {
      if (host_.devices[d].group && groups.contains(*host_.devices[d].group)) relevant_.insert(d);
    }
    for (std::size_t d : relevant_) add_units(host_.devices[d]);
  }

  void add_units(const Device& d) {
    if (d.unit) units_.insert(d.unit->index());
    for (std::size_t u = 0; !d.unit && u < host_.units.size(); ++u) units_.insert(u);
  }

  bool any_unit(Driver driver) const {
    return std::any_of(units_.begin(), units_.end(), [&](std::size_t u) { return host_.units[u].driver == driver; });
  }

  // Could the device be behind a unit of this driver?
  bool may_be_behind(const Device& d, Driver driver) const {
    return d.unit ? host_.unit(*d.unit).driver == driver : any_unit(driver);
  }

  void device_gaps(std::size_t d) {
    const Device& device = host_.devices[d];
    if (!device.unit) unit_unknown(d);
    if (!device.group && assigned_.contains(d)) group_unknown(d);
    const bool mock = device.unit && host_.unit(*device.unit).driver == Driver::mock;  // does no DMA at all
    if (!mock && (arch_of(host_) != Arch::x86_64 || !looks_like_pci(device.id)))
      device_gap(d, DeviceFact::dma_coherent);
    if (may_be_behind(device, Driver::smmuv3)) device_gap(d, DeviceFact::canwbs);
    if (wants_pasid_.contains(d)) device_gap(d, DeviceFact::pasid_bits);
    if (assigned_.contains(d)) selected_gaps(d);
  }

  void unit_unknown(std::size_t d) {
    Gap gap{"devices." + host_.devices[d].id + ".iommu", {}, {}};
    for (const Unit& u : host_.units) gap.values.push_back(u.id);
    gap.fill = [d](Request& r, std::size_t i) { r.host.devices[d].unit = UnitIndex(i); };
    gaps_.push_back(std::move(gap));
  }

  void group_unknown(std::size_t d) {
    std::set<std::uint32_t> existing;
    for (const Device& other : host_.devices) {
      if (other.group) existing.insert(*other.group);
    }
    std::vector<std::uint32_t> numbers = {static_cast<std::uint32_t>(0x80000000U + d)};  // one of its own
    numbers.insert(numbers.end(), existing.begin(), existing.end());
    Gap gap{"devices." + host_.devices[d].id + ".group", {}, {}};
    for (std::uint32_t n : numbers) gap.values.push_back(std::to_string(n));
    gap.fill = [d, numbers](Request& r, std::size_t i) { r.host.devices[d].group = numbers[i]; };
    gaps_.push_back(std::move(gap));
  }

  // Facts that only a policy's selectors read.
  void selected_gaps(std::size_t d) {
    const auto asks = [&](auto has) {
      return std::any_of(request_.policy.rules.begin(), request_.policy.rules.end(),
                         [&](const PolicyRule& rule) { return any_selector(rule, has); });
    };
    if (asks([](const Selector& s) { return !s.device_class.empty(); })) device_gap(d, DeviceFact::device_class);
    if (asks([](const Selector& s) { return !s.vendor.empty(); })) device_gap(d, DeviceFact::vendor);
    if (asks([](const Selector& s) { return !s.device.empty(); })) device_gap(d, DeviceFact::device);
    if (asks([](const Selector& s) { return !s.numa.empty(); })) device_gap(d, DeviceFact::numa);
  }

  template <class Has>
  static bool any_selector(const PolicyRule& rule, Has has) {
    if (const auto* s = std::get_if<SeparateRule>(&rule.what)) return has(s->a) || has(s->b);
    if (const auto* t = std::get_if<TogetherRule>(&rule.what)) return has(t->which);
    if (const auto* r = std::get_if<RequireRule>(&rule.what)) return has(r->which);
    return false;
  }

  void device_gap(std::size_t d, DeviceFact fact) {
    if (host_.devices[d].facts[fact]) return;
    const FactRow& row = row_of(fact);
    gaps_.push_back(
        {fmt::format("devices.{}.{}", host_.devices[d].id, row.key), candidates(row),
         [d, fact](Request& r, std::size_t i) { r.host.devices[d].facts[fact] = row_of(fact).candidates[i]; }});
  }

  // What each driver's reading of its registers cannot do without.
  void unit_gaps(std::size_t u) {
    const Facts<UnitFact>& facts = host_.units[u].facts;
    using F = UnitFact;
    switch (host_.units[u].driver) {
      case Driver::intel:
        return unit_gap(u, {F::cap, F::ecap});
      case Driver::amd:
        return unit_gap(u, {F::efr, F::efr2});
      case Driver::smmuv3:
        if (facts[F::features] && !facts[F::idr0]) return unit_gap(u, {F::oas});
        return unit_gap(u, {F::idr0, F::idr1, F::idr5, F::coherent});
      case Driver::smmuv2:
        return unit_gap(u, {F::page_sizes, F::stage1, F::stage2, F::input_bits, F::ipa_bits, F::coherent});
      case Driver::virtio:
        return unit_gap(u, {F::page_sizes});
      case Driver::riscv:
        return unit_gap(u, {F::riscv_capabilities});
      case Driver::s390:
        return unit_gap(u, {F::dma_start, F::dma_last});
      case Driver::mock:
        return;
    }
  }

  void unit_gap(std::size_t u, std::initializer_list<UnitFact> needed) {
    for (UnitFact fact : needed) {
      if (host_.units[u].facts[fact]) continue;
      const FactRow& row = row_of(fact);
      gaps_.push_back(
          {fmt::format("iommus.{}.{}", host_.units[u].id, row.key), candidates(row),
           [u, fact](Request& r, std::size_t i) { r.host.units[u].facts[fact] = row_of(fact).candidates[i]; }});
    }
  }

  void kernel_gap(KernelFact fact) {
    if (host_.kernel.facts[fact]) return;
    gaps_.push_back({fmt::format("kernel.{}", row_of(fact).key), candidates(row_of(fact)),
                     [fact](Request& r, std::size_t i) { r.host.kernel.facts[fact] = row_of(fact).candidates[i]; }});
  }

  void vm_gaps(std::size_t v) {
    const VirtualMachine& vm = request_.vms[v];
    const bool x86 = vm.machine.type ? *vm.machine.type == MachineType::q35 || *vm.machine.type == MachineType::pc
                                     : arch_of(host_) == Arch::x86_64;
    if (!vm.memory.size || !x86 || vm.machine.cpu_vendor) return;
    gaps_.push_back({"vms." + vm.name + ".machine.cpu_vendor", {"intel", "amd"}, [v](Request& r, std::size_t i) {
                       r.vms[v].machine.cpu_vendor = static_cast<CpuVendor>(i);
                     }});
  }

  const Request& request_;
  const Host& host_;
  std::set<std::size_t> assigned_, relevant_, wants_pasid_, units_;
  std::vector<Gap> gaps_;
};

using Digits = std::vector<std::size_t>;

Completion complete(const Request& request, const std::vector<Gap>& gaps, const Digits& digits) {
  Completion result{request, {}};
  for (std::size_t g = 0; g < gaps.size(); ++g) {
    gaps[g].fill(result.request, digits[g]);
    if (g > 0) result.text += ", ";
    result.text += fmt::format("`{}` = {}", gaps[g].path, gaps[g].values[digits[g]]);
  }
  return result;
}

// The number of combinations, or `cap` when there are more.
std::uint64_t combinations(const std::vector<Gap>& gaps, std::uint64_t cap) {
  std::uint64_t product = 1;
  for (const Gap& gap : gaps) {
    product *= gap.values.size();
    if (product == 0 || product > cap) return product == 0 ? 0 : cap + 1;
  }
  return product;
}

std::set<Digits> every_combination(const std::vector<Gap>& gaps, std::uint64_t count) {
  std::set<Digits> all;
  for (std::uint64_t n = 0; n < count; ++n) {
    Digits digits;
    std::uint64_t rest = n;
    for (const Gap& gap : gaps) {
      digits.push_back(rest % gap.values.size());
      rest /= gap.values.size();
    }
    all.insert(std::move(digits));
  }
  return all;
}

// Each fact takes each of its values once, while all others take their first, and while all others take their last.
std::set<Digits> one_by_one(const std::vector<Gap>& gaps, std::uint64_t budget) {
  Digits first(gaps.size(), 0);
  Digits last;
  for (const Gap& gap : gaps) last.push_back(gap.values.size() - 1);
  std::set<Digits> all = {first, last};
  for (std::size_t g = 0; g < gaps.size(); ++g) {
    for (std::size_t v = 0; v < gaps[g].values.size(); ++v) {
      for (Digits digits : {first, last}) {
        digits[g] = v;
        if (all.size() < budget) all.insert(std::move(digits));
      }
    }
  }
  return all;
}

}  // namespace

std::vector<Gap> gaps_of(const Request& request) { return Finder(request).find(); }

Completions completions_of(const Request& request, std::uint64_t budget) {
  const std::vector<Gap> gaps = gaps_of(request);
  const std::uint64_t count = combinations(gaps, budget);
  Completions result;
  result.exhaustive = count <= budget;
  if (count == 0) return result;  // a fact without any value to try: nothing can be said
  for (const Digits& digits : result.exhaustive ? every_combination(gaps, count) : one_by_one(gaps, budget)) {
    result.all.push_back(complete(request, gaps, digits));
  }
  return result;
}

}  // namespace ioplan::check
