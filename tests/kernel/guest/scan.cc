// `ioplan scan` inside the guest: what it finds is what GET_HW_INFO says, what QEMU was asked to build, and what the
// guest's own reading of sysfs (host_facts.cc) has; and a capture of the guest gives the same bytes as the guest.
#include <algorithm>
#include <cstdio>
#include <string>

#include "backends/intake/archive.h"
#include "backends/intake/hw_info.h"
#include "backends/intake/scan.h"
#include "backends/vfio/system.h"
#include "engine/document/host_document.h"
#include "tests/kernel/guest/boot.h"
#include "tests/kernel/guest/case.h"

namespace ioplan::kernel_test {

namespace {

struct Complaints {
  unsigned asked = 0;
  std::string first;

  void expect(bool holds, const std::string& what) {
    ++asked;
    if (holds) return;
    std::printf("scan: %s\n", what.c_str());
    if (first.empty()) first = what;
  }
};

std::uint64_t bits(std::uint64_t word, unsigned high, unsigned low) { return word >> low & ((std::uint64_t{1} << (high - low + 1)) - 1); }

// QEMU's options, which run.sh repeats on the command line.
void expect_built(const Unit& unit, Complaints& complaints) {
  const auto option = [](const char* key) { return command_line(std::string("ioplan.built.") + key, ""); };
  const auto expect = [&](const char* key, std::uint64_t found) {
    if (const std::string wanted = option(key); !wanted.empty()) {
      complaints.expect(std::to_string(found) == wanted, unit.id + " has " + key + " " + std::to_string(found) + ", built with " + wanted);
    }
  };
  complaints.expect(option("driver") == name_of(unit.driver), unit.id + " is of driver " + std::string(name_of(unit.driver)));
  if (unit.driver != Driver::intel) return;
  const std::uint64_t cap = unit.facts.at(UnitFact::cap), ecap = unit.facts.at(UnitFact::ecap);
  expect("aw", bits(cap, 21, 16) + 1);
  expect("snoop", bits(ecap, 7, 7));
  expect("scalable", bits(ecap, 43, 43));
  expect("caching", bits(cap, 7, 7));
}

// What host_facts.cc reads by hand.
void expect_alike(const Host& found, const Guest& guest, Complaints& complaints) {
  for (const Device& d : guest.host.devices) {
    if (guest.host.unit(*d.unit).driver == Driver::mock) continue;
    const auto index = found.find_device(d.id);
    complaints.expect(index.has_value(), d.id + " was not found");
    if (!index) continue;
    const Device& scanned = found.device(*index);
    complaints.expect(scanned.group == d.group, d.id + " is in another group");
    complaints.expect(scanned.unit && found.unit(*scanned.unit).id == guest.host.unit(*d.unit).id, d.id + " is behind another unit");
    complaints.expect(scanned.facts[DeviceFact::device_class] == d.facts[DeviceFact::device_class], d.id + " is of another class");
    complaints.expect(scanned.reserved.has_value() && scanned.reserved->size() == d.reserved->size(), d.id + " has other regions");
    complaints.expect(scanned.facts[DeviceFact::pasid_bits].has_value(), d.id + " keeps its capabilities to itself");
  }
  const auto isolated = found.kernel.facts[KernelFact::isolated_msi];
  complaints.expect(isolated == guest.host.kernel.facts[KernelFact::isolated_msi], "isolated_msi is " + std::to_string(isolated.value_or(9)));
}

}  // namespace

Outcome scan(const Guest& guest) {
  Complaints complaints;
  const auto files = intake::open_directory("/");
  if (!files) return {false, files.error().message};
  intake::Entries entries;
  intake::Findings findings;
  intake::scan(*intake::recorder(**files, entries), intake::HostName::leave_out, findings);
  const intake::Settled live = intake::Findings(findings).settle();
  complaints.expect(live.contradictions.empty(), "sysfs contradicts itself");

  const auto archive = intake::write_archive(entries);
  const auto capture = archive ? intake::read_archive(*archive, "capture") : intake::read_archive("", "capture");
  intake::Findings again;
  if (capture) intake::scan(*intake::files_of(*capture), intake::HostName::leave_out, again);
  complaints.expect(to_yaml(std::move(again).settle().host) == to_yaml(live.host), "a capture gives other bytes");

  intake::ask_iommufd(*vfio::linux_system(), live.host, findings);
  const intake::Settled asked = std::move(findings).settle();
  for (const intake::Contradiction& c : asked.contradictions) complaints.expect(false, c.fact + " is not what GET_HW_INFO says");
  const bool silent = std::ranges::any_of(asked.host.unknown, [](const Gap& g) { return g.fact.ends_with("hw_info"); });
  const bool tells = std::ranges::any_of(live.host.units, [](const Unit& u) { return u.driver == Driver::intel || u.driver == Driver::amd; });
  complaints.expect(!silent || !tells, "GET_HW_INFO could not be asked");

  for (const Unit& u : live.host.units) {
    if (u.driver != Driver::mock) expect_built(u, complaints);
  }
  expect_alike(live.host, guest, complaints);
  std::printf("%s", to_yaml(asked.host).c_str());
  return {complaints.first.empty(), complaints.first.empty() ? std::to_string(complaints.asked) + " facts as they should be" : complaints.first};
}

}  // namespace ioplan::kernel_test
