// Moving between hosts: a VM can always go where it comes from; wherever it lands, the guest sees nothing worse and every
// device has a substitute of its class; and each thing that keeps it away is named.
//
// IOPLAN_SCALE multiplies the random runs, IOPLAN_SEED runs one seed only.
#include "engine/lifecycle/migration.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "constraints/kernel_law.h"
#include "engine/document/load.h"
#include "engine/planner/planner.h"
#include "tests/support/history.h"
#include "tests/support/seeds.h"

namespace ioplan {
namespace {

using testing::HasSubstr;

Plan planned(const Request& request) {
  PlanOptions options;
  options.explain_no = false;
  return make_plan(request, kernel_law(), options);
}

// One VM, without mediated devices.
Request random_source(std::uint64_t seed) {
  Request request = generator::History(seed).request();
  request.vms.resize(1);
  std::erase_if(request.vms[0].devices, [](const AssignedDevice& d) { return !d.host; });
  return request;
}

std::string text_of(const Landing& landing) {
  std::string text = landing.host + (landing.lands ? " lands" : " does not land") + "\n";
  for (const Conflict& c : landing.reasons) text += fmt::format("  {}: {}\n", c.rule, c.because);
  for (const FeatureChange& c : landing.differences) text += fmt::format("  {}: {} -> {}\n", c.feature, c.before, c.after);
  return text;
}

TEST(Migration, AVmCanGoWhereItComesFrom) {
  std::size_t landed = 0;
  for_seeds(300, [&](std::uint64_t seed) {
    const Request request = random_source(seed);
    const Plan running = planned(request);
    if (running.verdict != Verdict::feasible || running.hwpts.empty()) return;
    SCOPED_TRACE(seed);
    const Landing landing = migrate(running, request, {request.host}, kernel_law()).at(0);
    EXPECT_TRUE(landing.lands) << text_of(landing);
    EXPECT_TRUE(landing.differences.empty()) << text_of(landing);
    const bool tracks = std::ranges::all_of(running.hwpts, [](const auto& h) { return (h.flags & kDirtyTracking) != 0; });
    EXPECT_EQ(landing.live, tracks);
    ++landed;
  });
  fmt::print("{} VMs\n", landed);
  EXPECT_TRUE(one_seed_only() || landed > 0);
}

// What the guest sees, from the plans alone.
struct Seen {
  std::uint64_t page_sizes = ~std::uint64_t{0};
  unsigned address_bits = 64;
  bool dirty_tracking = true, noncoherent = false;

  explicit Seen(const Plan& plan) : noncoherent(plan.kvm.noncoherent_dma) {
    for (const PlannedHwpt& h : plan.hwpts) {
      page_sizes &= h.page_sizes;
      address_bits = std::min(address_bits, h.address_bits);
      dirty_tracking = dirty_tracking && (h.flags & kDirtyTracking) != 0;
    }
  }
};

void expect_no_worse(const Plan& here, const Landing& landing, const Request& source, const Host& there) {
  const Seen a(here), b(landing.plan);
  EXPECT_EQ(a.page_sizes & ~b.page_sizes, 0U);
  EXPECT_GE(b.address_bits, a.address_bits);
  EXPECT_TRUE(b.dirty_tracking || !a.dirty_tracking);
  EXPECT_EQ(b.noncoherent, a.noncoherent);
  EXPECT_EQ(landing.substitutes.size(), source.vms[0].devices.size());
  std::set<std::string> taken;
  for (const auto& [device, substitute] : landing.substitutes) {
    EXPECT_TRUE(taken.insert(substitute).second) << substitute << " stands for two";
    const Device& old = source.host.device(*source.host.find_device(device));
    EXPECT_EQ(there.device(*there.find_device(substitute)).facts[DeviceFact::device_class], old.facts[DeviceFact::device_class]);
  }
  for (const MemoryRange& m : here.ioas.at(0).memory) {
    EXPECT_TRUE(std::ranges::any_of(landing.plan.ioas.at(0).ranges, [&](const Range& r) { return r.contains(m.gpa); }));
  }
}

TEST(Migration, NothingIsWorseWhereItLands) {
  std::size_t lands = 0, stays = 0;
  for_seeds(300, [&](std::uint64_t seed) {
    const Request request = random_source(seed);
    const Plan running = planned(request);
    if (running.verdict != Verdict::feasible || running.hwpts.empty()) return;
    SCOPED_TRACE(seed);
    std::vector<Host> hosts;
    for (std::uint64_t n = 1; n <= 4; ++n) {
      hosts.push_back(random_source(seed + 1000 * n).host);
      hosts.back().name = fmt::format("host{}", n);
      // Like machines have like devices.
      for (std::size_t d = 0; d < hosts.back().devices.size(); ++d) {
        const Device& like = request.host.devices[d % request.host.devices.size()];
        hosts.back().devices[d].facts[DeviceFact::device_class] = like.facts[DeviceFact::device_class];
      }
    }
    const auto landings = migrate(running, request, hosts, kernel_law());
    ASSERT_EQ(landings.size(), hosts.size());
    for (std::size_t i = 0; i < landings.size(); ++i) {
      const Landing& landing = landings[i];
      EXPECT_TRUE(i == 0 || landings[i - 1].lands >= landing.lands) << "the best comes first";
      if (landing.lands) {
        expect_no_worse(running, landing, request, *std::ranges::find(hosts, landing.host, &Host::name));
        ++lands;
      } else {
        EXPECT_FALSE(landing.reasons.empty());
        ++stays;
      }
    }
  });
  fmt::print("{} landings, {} hosts that cannot take the VM\n", lands, stays);
  if (one_seed_only()) return;
  EXPECT_GT(lands, 0U);
  EXPECT_GT(stays, 0U);
}

// ------------------------------------------------------------------------------------------------- what keeps it away

constexpr const char* kVm = R"(---
apiVersion: ioplan/v1
kind: VirtualMachine
name: vm
memory: {size: 8GiB}
devices: [{host: "0000:01:00.0"}]
)";

std::string host_text(const std::string& name, const std::string& cap, const std::string& ecap, const std::string& device) {
  return fmt::format(R"(apiVersion: ioplan/v1
kind: Host
name: {}
kernel: {{arch: x86_64, release: 7.2.13, page_size: 4KiB, intel_iommu_sm: true, isolated_msi: true}}
iommus: [{{id: dmar0, driver: intel, cap: {}, ecap: {}}}]
devices: [{{{}, iommu: dmar0, group: 7}}]
)",
                     name, cap, ecap, device);
}

constexpr const char* kCap = "0x19ed008c40780c66";    // 57 bits, 2 MiB and 1 GiB
constexpr const char* kNarrow = "0xd2008c40660462";   // 39 bits
constexpr const char* kSmall = "0x19ed008440780c66";  // no 1 GiB
constexpr const char* kEcap = "0x36f9ea6f050df";      // second stage, dirty tracking, snoop control
constexpr const char* kEcapLoose = "0x36f9ea6f0505f";  // no snoop control
constexpr const char* kNic = "id: \"0000:01:00.0\", class: 0x020000";

Request source() {
  auto loaded = load_text("case.yaml", host_text("here", kCap, kEcap, kNic) + kVm);
  if (!loaded) throw std::runtime_error(to_text(loaded.error()));
  return loaded->request;
}

Host other(const std::string& name, const std::string& cap, const std::string& ecap, const std::string& device) {
  auto loaded = load_text("case.yaml", host_text(name, cap, ecap, device));
  if (!loaded) throw std::runtime_error(to_text(loaded.error()));
  return loaded->request.host;
}

void expect_kept_away(const Host& host, const std::string& rule, const std::string& words) {
  const Request request = source();
  const Landing landing = migrate(planned(request), request, {host}, kernel_law()).at(0);
  EXPECT_FALSE(landing.lands) << text_of(landing);
  EXPECT_TRUE(std::ranges::any_of(landing.reasons, [&](const Conflict& c) {
    return c.rule == rule && c.because.find(words) != std::string::npos;
  })) << text_of(landing);
}

TEST(Migration, WhatKeepsItAwayIsNamed) {
  expect_kept_away(other("narrow", kNarrow, kEcap, kNic), "lifecycle.guest-visible", "`address_bits` is 57 at the source and 39 there");
  expect_kept_away(other("loose", kCap, kEcapLoose, kNic), "lifecycle.guest-visible", "`noncoherent_dma` is false at the source and true there");
  expect_kept_away(other("disks", kCap, kEcap, "id: \"0000:01:00.0\", class: 0x010802"), "lifecycle.substitute",
                   "disks has no device of the class of 0000:01:00.0");
  // Two devices, and one of their class there.
  auto two = load_text("case.yaml", host_text("two", kCap, kEcap, "id: \"0000:01:00.0\", class: 0x020000, iommu: dmar0, group: 1}, "
                                                                  "{id: \"0000:02:00.0\", class: 0x020000") +
                                        "---\napiVersion: ioplan/v1\nkind: VirtualMachine\nname: vm\nmemory: {size: 8GiB}\n"
                                        "devices: [{host: \"0000:01:00.0\"}, {host: \"0000:02:00.0\"}]\n");
  ASSERT_TRUE(two) << to_text(two.error());
  const Landing short_of = migrate(planned(two->request), two->request, {other("one", kCap, kEcap, kNic)}, kernel_law()).at(0);
  ASSERT_EQ(short_of.reasons.at(0).rule, "lifecycle.substitute") << text_of(short_of);
  EXPECT_EQ(short_of.reasons[0].because, "one has 1 device of the class of 0000:01:00.0, and the VM has 2");
  const Request request = source();
  const Landing small = migrate(planned(request), request, {other("small", kSmall, kEcap, kNic)}, kernel_law()).at(0);
  EXPECT_FALSE(small.lands) << text_of(small);
}

TEST(Migration, TheBestComesFirst) {
  Request request = source();
  request.vms[0].needs.dirty_tracking = Need::required;
  const Plan running = planned(request);
  ASSERT_EQ(running.verdict, Verdict::feasible);
  const auto landings = migrate(running, request,
                                {other("disks", kCap, kEcap, "id: \"0000:01:00.0\", class: 0x010802"),
                                 other("b-twin", kCap, kEcap, kNic), other("a-twin", kCap, kEcap, kNic)},
                                kernel_law());
  ASSERT_EQ(landings.size(), 3U);
  EXPECT_EQ(landings[0].host, "a-twin") << text_of(landings[0]);
  EXPECT_EQ(landings[1].host, "b-twin");
  EXPECT_EQ(landings[2].host, "disks");
  EXPECT_TRUE(landings[0].live);
}

// Without dirty tracking on every HWPT it lands cold, and that is said.
TEST(Migration, WithoutDirtyTrackingItLandsCold) {
  const Request request = source();
  const Landing landing = migrate(planned(request), request, {other("twin", kCap, kEcap, kNic)}, kernel_law()).at(0);
  EXPECT_TRUE(landing.lands) << text_of(landing);
  EXPECT_FALSE(landing.live);
  ASSERT_EQ(landing.reasons.size(), 1U);
  EXPECT_EQ(landing.reasons[0].rule, "lifecycle.live");
  EXPECT_THAT(landing.reasons[0].because, HasSubstr("can only be stopped and moved"));
}

}  // namespace
}  // namespace ioplan
