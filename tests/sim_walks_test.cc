// The walks of backends/sim/walks.h as a user's test would call them: what they leave behind, what ends them, and how groups,
// domain ids and failures show. That each walk places devices as Linux and QEMU do is held on random hosts by
// tests/baselines_test.cc, against walks over rules alone.
#include "backends/sim/walks.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "backends/sim/iommufd.h"
#include "constraints/kernel_law.h"
#include "engine/document/load.h"
#include "engine/model/plan.h"

namespace ioplan::sim {
namespace {

constexpr std::array<Walk, 3> kWalks = {Walk::kernel, Walk::qemu, Walk::type1};

// Legacy VT-d, 48 bits, 2M and 1G pages, 16 domain ids; with and without snoop control.
const std::string kSnoops = "driver: intel, cap: 0xc002f0400, ecap: 0x81";
const std::string kPlain = "driver: intel, cap: 0xc002f0400, ecap: 0x1";

struct DeviceLine {
  unsigned unit;
  unsigned group;
  std::string more = {};
};

// Devices d0, d1, ... behind units u0, u1, ...
Host host_of(const std::vector<std::string>& units, const std::vector<DeviceLine>& devices) {
  std::string text = "apiVersion: ioplan/v1\nkind: Host\nkernel: {isolated_msi: true, la57: false}\niommus:\n";
  for (std::size_t u = 0; u < units.size(); ++u) text += fmt::format("  - {{id: u{}, {}}}\n", u, units[u]);
  text += "devices:\n";
  for (std::size_t d = 0; d < devices.size(); ++d) {
    text += fmt::format("  - {{id: d{:02}, iommu: u{}, group: {}{}}}\n", d, devices[d].unit, devices[d].group, devices[d].more);
  }
  const auto loaded = load_text("host", text);
  if (!loaded) throw std::runtime_error(to_text(loaded.error()));
  return loaded->request.host;
}

std::unique_ptr<Machine> machine_of(const Host& host) {
  auto machine = Machine::create(host, kernel_law());
  if (!machine) throw std::runtime_error(to_text(machine.error()));
  return std::move(*machine);
}

std::vector<DeviceIndex> devices(std::initializer_list<unsigned> order) {
  std::vector<DeviceIndex> result;
  for (unsigned d : order) result.push_back(DeviceIndex(d));
  return result;
}

// "0: 0 1; 2: 2": by HWPT, its allocator and devices.
std::string layout(const WalkOutcome& outcome) {
  std::string text;
  for (const WalkedHwpt& h : outcome.hwpts) {
    text += fmt::format("{}{}:", text.empty() ? "" : "; ", h.allocator.value);
    for (DeviceIndex d : h.devices) text += fmt::format(" {}", d.value);
  }
  if (!outcome.complete()) text += fmt::format("; {} refused {}", outcome.refused->value, outcome.refusal->errno_value);
  return text;
}

TEST(Walks, LeaveTheMachineAsItWas) {
  const Host host = host_of({kSnoops, kPlain}, {{0, 0}, {1, 1}, {0, 2}, {0, 2}});
  const auto machine = machine_of(host);
  const std::string before = machine->world();
  for (Walk kind : kWalks) {
    EXPECT_EQ(walk(kind, *machine, devices({0, 1, 2, 3})).hwpts.size(), 2U);
    EXPECT_EQ(machine->world(), before) << kWalkNames[static_cast<std::size_t>(kind)];
  }
}

TEST(Walks, OrderDecides) {
  const auto machine = machine_of(host_of({kSnoops, kPlain}, {{0, 0}, {1, 1}}));
  EXPECT_EQ(layout(walk(Walk::kernel, *machine, devices({0, 1}))), "0: 0; 1: 1");
  EXPECT_EQ(layout(walk(Walk::kernel, *machine, devices({1, 0}))), "1: 1 0");
  EXPECT_EQ(layout(walk(Walk::qemu, *machine, devices({1, 0}))), "1: 1 0");
  EXPECT_EQ(layout(walk(Walk::type1, *machine, devices({1, 0}))), "1: 1; 0: 0");  // type1 never mixes
}

// QEMU tries its newest HWPT first, the kernel its oldest: a third device that both take tells them apart.
TEST(Walks, OldestAndNewestFirst) {
  const std::string four_k_snoops = "driver: intel, cap: 0x2f0400, ecap: 0x81";
  // d0's tables have large pages, which d1's unit does not walk; d1's have none; both take d2.
  const auto machine = machine_of(host_of({kSnoops, four_k_snoops, kSnoops}, {{0, 0}, {1, 1}, {2, 2}}));
  EXPECT_EQ(layout(walk(Walk::kernel, *machine, devices({0, 1, 2}))), "0: 0 2; 1: 1");
  EXPECT_EQ(layout(walk(Walk::qemu, *machine, devices({0, 1, 2}))), "0: 0; 1: 1 2");
  EXPECT_EQ(layout(walk(Walk::type1, *machine, devices({0, 1, 2}))), "0: 0; 1: 1 2");
}

TEST(Walks, OutcomesTellFlagsAndCoherency) {
  const std::string scalable = "driver: intel, cap: 0xc002f0400, ecap: 0x1680000000081";  // SMTS, SSADS, SSTS, SMPWC
  const auto machine = machine_of(host_of({scalable}, {{0, 0}}));
  EXPECT_EQ(walk(Walk::kernel, *machine, devices({0})).hwpts.at(0).flags, 0);
  EXPECT_EQ(walk(Walk::qemu, *machine, devices({0})).hwpts.at(0).flags, kDirtyTracking);
  for (Walk kind : kWalks) EXPECT_TRUE(walk(kind, *machine, devices({0})).hwpts.at(0).enforce_cache_coherency);
}

// Two groups behind a unit with one id left: they share a HWPT, but type1 wants a second domain before it looks.
TEST(Walks, Type1NeedsADomainIdToTry) {
  const auto machine = machine_of(host_of({kSnoops + ", domains_used: 13"}, {{0, 0}, {0, 1}}));
  EXPECT_EQ(layout(walk(Walk::kernel, *machine, devices({0, 1}))), "0: 0 1");
  EXPECT_EQ(layout(walk(Walk::qemu, *machine, devices({0, 1}))), "0: 0 1");
  EXPECT_EQ(layout(walk(Walk::type1, *machine, devices({0, 1}))), fmt::format("0: 0; 1 refused {}", ENOSPC));
  // Here a group's like is asked again.
  const std::vector<PluggedGroup> groups = {devices({0}), devices({1})};
  const std::vector<std::uint32_t> order = {0, 1};
  EXPECT_EQ(layout(walk_groups(Walk::type1, *machine, kernel_law(), groups, order)), fmt::format("0: 0; 1 refused {}", ENOSPC));
}

TEST(Walks, EndWithoutDomainIds) {
  const auto machine = machine_of(host_of({kSnoops + ", domains_used: 14"}, {{0, 0}, {0, 1}}));
  for (Walk kind : kWalks) EXPECT_EQ(layout(walk(kind, *machine, devices({1, 0}))), fmt::format("; 1 refused {}", ENOSPC));
}

// The whole group must accept, plugged or not. iommufd takes coherency from the device that allocates, type1 from them all.
TEST(Walks, GroupsDecideTogether) {
  const auto machine = machine_of(host_of({kPlain, kSnoops}, {{0, 7}, {1, 7}}));
  EXPECT_EQ(layout(walk(Walk::kernel, *machine, devices({0, 1}))), "0: 0 1");
  EXPECT_EQ(layout(walk(Walk::kernel, *machine, devices({1}))), fmt::format("; 1 refused {}", EINVAL));
  EXPECT_EQ(layout(walk(Walk::qemu, *machine, devices({1}))), fmt::format("; 1 refused {}", EINVAL));
  const WalkOutcome type1 = walk(Walk::type1, *machine, devices({1}));
  EXPECT_EQ(layout(type1), "0: 1");  // the first member allocates
  EXPECT_FALSE(type1.hwpts.at(0).enforce_cache_coherency);
}

// Every failure for lack of something ends a walk or, in QEMU, makes it open another IOAS; the machine is as before.
TEST(Walks, SurviveEveryFailure) {
  const auto machine = machine_of(host_of({kSnoops, kPlain}, {{0, 0}, {1, 1}, {0, 2}}));
  const std::string before = machine->world();
  for (Walk kind : kWalks) {
    std::size_t struck = 0, second_ioas = 0;
    for (std::uint64_t n = 1;; ++n) {
      machine->fail_nth(n);
      const WalkOutcome outcome = walk(kind, *machine, devices({0, 1, 2}));
      const bool injected = machine->injected();
      machine->fail_nth(0);
      ASSERT_EQ(machine->world(), before) << n;
      if (!injected) break;
      ++struck;
      const bool opened = std::ranges::any_of(outcome.hwpts, [](const WalkedHwpt& h) { return h.ioas > 0; });
      second_ioas += opened;
      EXPECT_TRUE(kind != Walk::qemu || outcome.complete() == opened) << n;
      EXPECT_EQ(outcome.refusal.value_or(Refusal{ENOMEM, ""}).errno_value, ENOMEM) << n;
      EXPECT_FALSE(outcome.complete() && kind == Walk::kernel) << n;
    }
    EXPECT_GE(struck, 10U);
    EXPECT_EQ(second_ioas > 0, kind == Walk::qemu);
  }
}

// A walk that asks like groups once, and one that asks all because domain ids are scarce, see the same.
TEST(Walks, LikeGroupsNeedNoSecondQuestion) {
  const std::string four_k = "driver: intel, cap: 0x2f0400, ecap: 0x81", caching = "driver: intel, cap: 0xc002f0480, ecap: 0x81";
  std::vector<DeviceLine> lines;
  std::vector<PluggedGroup> groups;
  for (unsigned d = 0; d < 20; ++d) {
    lines.push_back({d % 4, d});
    groups.push_back({DeviceIndex(d)});
  }
  for (Walk kind : kWalks) {
    std::array<std::vector<std::string>, 2> seen;
    for (std::size_t scarce : {0U, 1U}) {
      // Four kinds: four ids left are enough, but not enough to be sure (five for type1, which tries with one more).
      const std::string used = scarce != 0 ? ", domains_used: 10" : "";
      const auto machine = machine_of(host_of({kSnoops + used, kPlain + used, four_k + used, caching + used}, lines));
      const WalkStatistics s = walk_orders(kind, *machine, kernel_law(), groups, 50, 3, [&](const WalkOutcome& outcome) {
        seen[scarce].push_back(layout(outcome));
        return std::string();
      });
      EXPECT_EQ(s.orders, 50U);
      EXPECT_EQ(s.failed, 0U);
    }
    EXPECT_EQ(seen[0], seen[1]) << kWalkNames[static_cast<std::size_t>(kind)];
    EXPECT_FALSE(std::ranges::all_of(seen[0], [&](const std::string& s) { return s == seen[0][0]; }));
  }
}

}  // namespace
}  // namespace ioplan::sim
