// Transitions between layouts of containers by backends/type1, on an operating system that keeps books of VFIO
// (support/fake_vfio.h) and shares domains as type1 does: carried out to the letter, KVM knows whom it should at every moment,
// and every failing call leaves the old layout.
//
// IOPLAN_SCALE multiplies the random runs, IOPLAN_SEED runs one seed only.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <random>
#include <regex>
#include <set>

#include "backends/type1/type1_backend.h"
#include "constraints/kernel_law.h"
#include "engine/apply/apply.h"
#include "engine/document/load.h"
#include "engine/lifecycle/container_domains.h"
#include "engine/lifecycle/hotplug.h"
#include "engine/lifecycle/layout.h"
#include "engine/planner/planner.h"
#include "tests/support/fake_vfio.h"
#include "tests/support/history.h"
#include "tests/support/seeds.h"

namespace ioplan::type1 {
namespace {

using fake::FakeVfio;
using testing::IsEmpty;

// A machine on which groups share domains first-fit.
class Machine {
 public:
  Machine(const Host& host, const Plan& plan) : law_(host, type1_law()) {
    system.become(host, plan);
    for (const Device& d : host.devices) {
      if (d.group) device_of_[*d.group] = d.unit ? d.id : device_of_[*d.group];
    }
    system.add_huge_pages(std::uint64_t{2} << 20, std::uint64_t{1} << 40);
    system.add_huge_pages(std::uint64_t{1} << 30, std::uint64_t{1} << 40);
    system.on_join = [this](unsigned group, int container) {
      const auto it = containers_.try_emplace(container, law_).first;
      it->second.join(device_of_.at(group), fmt::format("domain{}", group));
      show(it->second);
    };
    system.on_leave = [this](unsigned group, int container) {
      ContainerDomains& domains = containers_.at(container);
      domains.leave(group);
      show(domains);
      if (domains.in_order().empty()) containers_.erase(container);
    };
  }

  FakeVfio system;

 private:
  void show(const ContainerDomains& domains) {
    const auto usable = domains.usable().ranges();
    for (const ContainerDomain& d : domains.in_order()) {
      for (const std::uint32_t g : d.groups) {
        system.domains[g] = {d.hwpt, d.what[HwptQ::page_sizes], d.what[HwptQ::enforce_cache_coherency] != 0,
                             {usable.begin(), usable.end()}};
      }
    }
  }

  GroupLaw law_;
  std::map<unsigned, std::string> device_of_;
  std::map<int, ContainerDomains> containers_;  // by descriptor
};

// Descriptors and views may be others after a group was closed and opened.
std::vector<std::string> without_numbers(const std::string& world) {
  const std::string plain = std::regex_replace(world, std::regex("(fd|container|of|view) (0x)?[0-9a-f]+"), "$1");
  std::vector<std::string> lines;
  for (std::size_t at = 0; at < plain.size();) {
    const std::size_t end = plain.find('\n', at);
    lines.push_back(plain.substr(at, end - at));
    at = end + 1;
  }
  std::ranges::sort(lines);
  return lines;
}

struct Life {
  explicit Life(std::uint64_t seed) : history(seed), request(generator::for_containers(history.request())) {
    request.policy.rules.clear();
    if (!request.vms.empty()) running = make_plan(request, type1_law(), {.budget = {}, .explain_no = false});
  }

  bool boots() const {
    const auto pci = [](const Device& d) { return d.id.find(':') != std::string::npos; };
    return running.verdict == Verdict::feasible && std::ranges::all_of(request.host.devices, pci);
  }

  std::optional<HotplugAnswer> next(HotplugPolicy mode) {
    const oracle::PlugChange c = history.next(oracle::layout_of(running));
    const bool mediated = std::ranges::any_of(c.add, [](const auto& d) { return is_uuid(d); });
    if (mediated || std::ranges::find(request.vms, c.vm, &VirtualMachine::name) == request.vms.end()) return std::nullopt;
    auto answer = hotplug(running, request, generator::change_of(c), mode, type1_law(), {{}, Advice::none});
    if (!answer || answer->verdict != Verdict::feasible || answer->transition.steps.empty()) return std::nullopt;
    return std::move(*answer);
  }

  generator::History history;
  Request request;
  Plan running;
};

std::string text_of(const ApplyReport& report) {
  std::string text = report.error ? to_text(*report.error) : "";
  for (const std::string& r : report.remains) text += "\nremains: " + r;
  return text;
}

bool harmless(const std::string& call) {
  return call.starts_with("read_link ") || call.starts_with("read /sys/") || call.starts_with("list ") || call == "read /proc/self/status";
}

TEST(Type1Changes, HistoriesAreCarriedOutToTheLetter) {
  std::size_t transitions = 0, steps = 0;
  for_seeds(200, [&](std::uint64_t seed) {
    Life life(seed);
    if (!life.boots()) return;
    Machine machine(life.request.host, life.running);
    const int kvm = machine.system.open_kvm();
    Type1Options options;
    options.kvm = kvm;
    Type1Backend backend(machine.system, std::move(options));
    const ApplyReport boot = apply_plan(life.running, life.request.host, backend);
    ASSERT_EQ(boot.outcome, ApplyOutcome::done) << seed << text_of(boot);
    for (unsigned plug = 0; plug < 6; ++plug) {
      const auto answer = life.next(static_cast<HotplugPolicy>((seed + plug) % 3));
      if (!answer) continue;
      const ApplyReport report =
          apply_transition(life.running, answer->plan, answer->transition.steps, life.request.host, backend);
      ASSERT_EQ(report.outcome, ApplyOutcome::done) << seed << " plug " << plug << ": " << text_of(report);
      life.running = answer->plan;
      ++transitions;
      steps += answer->transition.steps.size();
      std::set<unsigned> groups;
      for (const std::string& d : bound_devices(life.running)) {
        groups.insert(*life.request.host.device(*life.request.host.find_device(d)).group);
      }
      ASSERT_EQ(machine.system.with_kvm(kvm), std::vector<unsigned>(groups.begin(), groups.end())) << seed << " plug " << plug;
    }
    ASSERT_THAT(machine.system.violations, IsEmpty());
  });
  fmt::print("{} transitions, {} steps\n", transitions, steps);
  EXPECT_TRUE(one_seed_only() || transitions > scaled(100));
}

TEST(Type1Changes, EveryFailingCallLeavesTheOldLayout) {
  std::size_t failures = 0, rolled_back = 0;
  for_seeds(25, [&](std::uint64_t seed) {
    Life life(seed);
    if (!life.boots()) return;
    for (unsigned plug = 0; plug < 4; ++plug) {
      const auto answer = life.next(static_cast<HotplugPolicy>(1 + (seed + plug) % 2));
      if (!answer) continue;
      for (std::uint64_t k = 1;; ++k) {
        Machine machine(life.request.host, life.running);
        Type1Options options;
        options.kvm = machine.system.open_kvm();
        Type1Backend backend(machine.system, std::move(options));
        ASSERT_EQ(apply_plan(life.running, life.request.host, backend).outcome, ApplyOutcome::done);
        const auto before = without_numbers(machine.system.world());
        const std::size_t calls = machine.system.calls.size();
        machine.system.fail_nth(k, EIO);
        const ApplyReport report =
            apply_transition(life.running, answer->plan, answer->transition.steps, life.request.host, backend);
        if (!machine.system.struck()) {
          ASSERT_EQ(report.outcome, ApplyOutcome::done) << seed << text_of(report);
          break;
        }
        machine.system.fail_nth(0, 0);
        const std::string& failed = machine.system.calls.at(calls + k - 1);
        if (harmless(failed) && report.outcome == ApplyOutcome::done) continue;
        ++failures;
        const bool told = report.outcome == ApplyOutcome::refused || report.outcome == ApplyOutcome::rolled_back;
        ASSERT_TRUE(told) << seed << " plug " << plug << ", call " << k << " " << failed << ": " << text_of(report);
        rolled_back += report.outcome == ApplyOutcome::rolled_back ? 1 : 0;
        ASSERT_EQ(without_numbers(machine.system.world()), before) << seed << " plug " << plug << ", call " << k << " " << failed;
        ASSERT_THAT(machine.system.violations, IsEmpty());
      }
      life.running = answer->plan;
    }
  });
  fmt::print("{} failing calls, {} of them rolled back\n", failures, rolled_back);
  EXPECT_TRUE(one_seed_only() || rolled_back > scaled(100));
}

}  // namespace
}  // namespace ioplan::type1
