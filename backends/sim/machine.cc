#include "backends/sim/machine.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <iterator>

#include "backends/sim/iommufd.h"
#include "backends/sim/machine_state.h"
#include "engine/base/log2.h"

namespace ioplan::sim {

namespace {

// Facts that the driver cannot do without. A boot log's feature mask stands in for SMMUv3's registers.
std::vector<UnitFact> needed_facts(const Unit& unit) {
  const auto& facts = unit.facts;
  switch (unit.driver) {
    case Driver::intel: return {UnitFact::cap, UnitFact::ecap};
    case Driver::amd: return {UnitFact::efr};
    case Driver::smmuv3:
      if (facts[UnitFact::features] && !facts[UnitFact::idr0]) return {UnitFact::oas};
      return {UnitFact::idr0, UnitFact::idr5, UnitFact::coherent};
    case Driver::smmuv2:
      return {UnitFact::page_sizes, UnitFact::stage1, UnitFact::stage2, UnitFact::input_bits, UnitFact::ipa_bits,
              UnitFact::coherent};
    case Driver::virtio: return {UnitFact::page_sizes};
    case Driver::riscv: return {UnitFact::riscv_capabilities};
    case Driver::s390: return {UnitFact::dma_start, UnitFact::dma_last};
    case Driver::mock: break;
  }
  return {};
}

Result<void> check_facts(const Host& host) {
  for (const Device& device : host.devices) {
    if (!device.unit || !device.group) continue;  // nobody can bind it
    const Unit& unit = host.unit(*device.unit);
    for (const UnitFact fact : needed_facts(unit)) {
      if (unit.facts[fact]) continue;
      return failure(fmt::format("`iommus.{}.{}` is unknown, and the driver of `{}` reads it", unit.id,
                                 row_of(fact).key, device.id),
                     "state it in the Host document");
    }
  }
  return {};
}

// The narrowest physical address that a unit's tables hold.
unsigned narrowest_output(const Host& host, const Law& law) {
  unsigned narrowest = 52;
  for (std::size_t i = 0; i < host.devices.size(); ++i) {
    const Device& device = host.devices[i];
    if (!device.unit || !device.group) continue;
    const HwptQuantities hwpt = law.allocate(law.describe(host, DeviceIndex(i)), 0);
    if (hwpt[HwptQ::page_sizes] == 0) continue;
    narrowest = std::min(narrowest, shape_of(hwpt, host.unit(*device.unit)).output_bits);
  }
  return narrowest;
}

std::uint64_t page_size_of(const Host& host) { return host.kernel.facts[KernelFact::page_size].value_or(4096); }

}  // namespace

// RAM lies above the tables. A machine with a narrow IOMMU has little of both: what it cannot reach would be of no use.
Machine::State::State(const Host& facts, const Law& law, const MachineOptions& wanted, std::uint64_t table_bytes,
                      std::uint64_t page_size)
    : host(facts),
      options(wanted),
      memlock(wanted.memlock_limit),
      tables(table_bytes),
      memory((table_bytes + pow2(21) - 1) & ~(pow2(21) - 1), page_size),
      core(host, law, options.hazards, tables, failures) {
  tables.share(failures);
}

Machine::Machine(std::unique_ptr<State> state) : state_(std::move(state)) {}
Machine::~Machine() = default;

Result<std::unique_ptr<Machine>> Machine::create(const Host& host, const Law& law, const MachineOptions& options) {
  if (auto facts = check_facts(host); !facts) return tl::make_unexpected(facts.error());
  const std::uint64_t tables = std::min(options.table_memory, pow2(narrowest_output(host, law) - 2));
  auto state = std::make_unique<State>(host, law, options, tables, page_size_of(host));
  return std::unique_ptr<Machine>(new Machine(std::move(state)));
}

PhysicalMemory& Machine::memory() { return state_->memory; }
TableArena& Machine::tables() { return state_->tables; }
const Host& Machine::host() const { return state_->host; }
void Machine::fail_nth(std::uint64_t n) { state_->failures.arm(n); }
bool Machine::injected() const { return state_->failures.struck(); }

std::string Machine::world() const {
  std::string text;
  const auto out = std::back_inserter(text);
  fmt::format_to(out, "locked user {} process {}\n", state_->memlock.charged(MemlockAccount::user),
                 state_->memlock.charged(MemlockAccount::process));
  for (const auto& [pool, taken] : state_->core.ids_taken()) {
    if (taken > 0) fmt::format_to(out, "domain ids of pool {}: {}\n", pool, taken);
  }
  for (const auto& [number, group] : state_->core.groups()) {
    if (group.owner == nullptr) continue;
    fmt::format_to(out, "group {}: claims {} {} pasids {}\n", number, group.claims,
                   group.domain != nullptr ? "attached" : "blocked", group.pasids.size());
    for (DeviceIndex d : group.members) {
      const DeviceState& device = state_->core.device(d);
      if (device.domain != group.domain) fmt::format_to(out, "  {} is blocked (H1)\n", state_->host.device(d).id);
    }
  }
  for (const Participant* participant : state_->participants) participant->append_text(text);
  return text;
}

}  // namespace ioplan::sim
