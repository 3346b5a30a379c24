// Plans of random VMs over the guest's own devices, carried out on its own kernel and compared with what was predicted.
//
// For PCI devices only: mock ones have no VFIO device. Kernel command line: ioplan.plans, how many.
#include <cstdio>
#include <random>

#include "backends/iommufd/iommufd_backend.h"
#include "constraints/kernel_law.h"
#include "engine/apply/apply.h"
#include "engine/model/request.h"
#include "engine/planner/planner.h"
#include "tests/kernel/guest/boot.h"
#include "tests/kernel/guest/case.h"
#include "tests/kernel/guest/random_vm.h"

namespace ioplan::kernel_test {

namespace {

bool stands(const Plan& plan, const Host& host, vfio::System& system) {
  iommufd::IommufdBackend backend(system, host);
  const ApplyReport report = apply_plan(plan, host, backend);
  if (report.outcome == ApplyOutcome::done) return true;
  std::printf("plan not applied: %s\n", report.error ? to_text(*report.error).c_str() : "no reason given");
  for (const Difference& d : report.differences) {
    std::printf("  %s.%s: predicted %s, observed %s\n", d.subject.c_str(), d.attribute.c_str(), d.predicted.c_str(),
                d.observed.c_str());
  }
  return false;
}

}  // namespace

Outcome plans(const Guest& guest) {
  write_file("/proc/sys/vm/nr_hugepages", "104");
  const auto system = vfio::linux_system();
  std::mt19937_64 random(guest.seed);
  unsigned applied = 0, infeasible = 0, failed = 0;
  for (std::uint64_t i = command_line_number("ioplan.plans", 20); i > 0; --i) {
    Request request;
    request.host = guest.host;
    request.vms.push_back(random_vm(guest.host, guest.pci, random));
    const Plan plan = make_plan(request, kernel_law());
    if (plan.verdict != Verdict::feasible) {
      ++infeasible;  // dirty tracking, which QEMU's units cannot do
    } else {
      ++(stands(plan, guest.host, *system) ? applied : failed);
    }
  }
  return {failed == 0 && applied > 0, std::to_string(applied) + " plans applied and observed as predicted, " +
                                          std::to_string(infeasible) + " infeasible, " + std::to_string(failed) +
                                          " failed"};
}

}  // namespace ioplan::kernel_test
