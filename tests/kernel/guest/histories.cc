// Random lives of a VM over the guest's own devices: it boots as planned, devices and memory come and go in every mode, and
// its own kernel must take every step of every transition; after each the layout is observed and compared. One IOMMU lets
// all devices share, so a random policy keeps some apart: that makes HWPTs come and go, and devices move. (VFIO type1 lets all
// share, whatever the policy says: there such plans are infeasible, and groups leave and join.)
//
// For PCI devices only: mock ones have no VFIO device. Kernel command line: ioplan.histories, how many lives.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <random>

#include "backends/iommufd/iommufd_backend.h"
#include "backends/type1/type1_backend.h"
#include "backends/vfio/admission.h"
#include "constraints/kernel_law.h"
#include "engine/apply/apply.h"
#include "engine/lifecycle/hotplug.h"
#include "engine/lifecycle/layout.h"
#include "engine/model/request.h"
#include "engine/planner/planner.h"
#include "tests/kernel/guest/boot.h"
#include "tests/kernel/guest/case.h"
#include "tests/kernel/guest/random_vm.h"

namespace ioplan::kernel_test {

namespace {

constexpr unsigned kChanges = 6;  // that a life asks for

struct Count {
  unsigned lives = 0, transitions = 0, steps = 0, moved = 0, refused = 0, failed = 0;
};

// One or two devices, in or out, and sometimes 2 MiB more.
Change random_change(const Plan& running, const Guest& guest, std::mt19937_64& random) {
  Change change;
  const std::vector<std::string> there = bound_devices(running);
  for (unsigned i = 1 + random() % 2; i > 0; --i) {
    const std::string& id = guest.host.devices[guest.pci[random() % guest.pci.size()]].id;
    const bool runs = std::ranges::find(there, id) != there.end();
    std::vector<std::string>& list = runs ? change.remove : change.add;
    if (std::ranges::find(list, id) == list.end()) list.push_back(id);
  }
  if (random() % 6 == 0) change.memory_size = std::uint64_t{2} << 20;
  return change;
}

// Up to two pairs of devices that may not share.
Policy random_policy(const Guest& guest, std::mt19937_64& random) {
  const auto one = [&] {
    Selector selector;
    selector.host.push_back(guest.host.devices[guest.pci[random() % guest.pci.size()]].id);
    return selector;
  };
  Policy policy;
  for (std::uint64_t i = random() % 3; i > 0; --i) {
    policy.rules.push_back({"apart" + std::to_string(i), SeparateRule{one(), one()}});
  }
  return policy;
}

void print(const ApplyReport& report, const std::vector<Step>& steps) {
  std::printf("transition not taken: %s\n", report.error ? to_text(*report.error).c_str() : "no reason given");
  for (const Step& s : steps) std::printf("  %s\n", to_text(s).c_str());
}

std::unique_ptr<Backend> backend_for(KernelInterface interface, vfio::System& system, const Host& host) {
  if (interface == KernelInterface::type1) return std::make_unique<type1::Type1Backend>(system);
  return std::make_unique<iommufd::IommufdBackend>(system, host);
}

// False when the kernel did not do as predicted.
bool live(const Guest& guest, KernelInterface interface, vfio::System& system, std::mt19937_64& random, Count& count) {
  const Law& law = law_of(interface);
  Request request;
  request.host = guest.host;
  request.vms.push_back(random_vm(guest.host, guest.pci, random));
  request.policy = random_policy(guest, random);
  Plan running = make_plan(request, law);
  if (running.verdict != Verdict::feasible) return true;  // a group kept apart; dirty tracking, which QEMU's units cannot do
  const auto backend = backend_for(interface, system, guest.host);
  if (const ApplyReport report = apply_plan(running, guest.host, *backend); report.outcome != ApplyOutcome::done) {
    print(report, running.steps);
    return false;
  }
  ++count.lives;
  for (unsigned i = 0; i < kChanges; ++i) {
    const auto mode = static_cast<HotplugPolicy>(random() % 3);
    auto answer = hotplug(running, request, random_change(running, guest, random), mode, law, {{}, Advice::none});
    if (!answer || answer->verdict != Verdict::feasible) {
      ++count.refused;
      continue;
    }
    const std::vector<Step>& steps = answer->transition.steps;
    const ApplyReport report = apply_transition(running, answer->plan, steps, guest.host, *backend);
    if (report.outcome != ApplyOutcome::done) {
      print(report, steps);
      return false;
    }
    ++count.transitions;
    count.steps += static_cast<unsigned>(steps.size());
    count.moved += static_cast<unsigned>(answer->transition.interrupted.size());
    running = std::move(answer->plan);
  }
  return true;
}

Outcome lives(const Guest& guest, KernelInterface interface) {
  write_file("/proc/sys/vm/nr_hugepages", "104");
  const auto system = vfio::linux_system();
  const auto locked = vfio::locked_bytes(*system);
  std::mt19937_64 random(guest.seed);
  Count count;
  for (std::uint64_t i = command_line_number("ioplan.histories", 30); i > 0 && count.failed < 5; --i) {
    if (!live(guest, interface, *system, random, count)) ++count.failed;
  }
  const bool leaks = vfio::locked_bytes(*system) != locked;
  const auto text = [](unsigned n, const char* what) { return std::to_string(n) + what; };
  return {count.failed == 0 && count.transitions > 0 && !leaks,
          text(count.lives, " histories of ") + text(count.transitions, " transitions, ") + text(count.steps, " steps taken by the kernel (") +
              text(count.moved, " devices moved), ") + text(count.refused, " changes refused beforehand, ") +
              text(count.failed, " failed") + (leaks ? ", locked memory was leaked" : "")};
}

}  // namespace

Outcome histories(const Guest& guest) { return lives(guest, KernelInterface::iommufd); }
Outcome type1_histories(const Guest& guest) { return lives(guest, KernelInterface::type1); }

}  // namespace ioplan::kernel_test
