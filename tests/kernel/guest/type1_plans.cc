// Plans through VFIO type1 on the guest's own kernel: random VMs over its PCI devices, planned for containers, applied by
// backends/type1 and observed equal to prediction, locked memory included; and every one applied again on the simulated
// container. What iommufd alone can do is refused as infeasible; a plan for iommufd is refused before anything is touched.
#include <cstdio>
#include <random>

#include "backends/sim/machine.h"
#include "backends/sim/sim_type1_backend.h"
#include "backends/type1/type1_backend.h"
#include "backends/vfio/admission.h"
#include "constraints/kernel_law.h"
#include "engine/apply/apply.h"
#include "engine/model/request.h"
#include "engine/planner/planner.h"
#include "tests/kernel/guest/boot.h"
#include "tests/kernel/guest/case.h"
#include "tests/kernel/guest/random_vm.h"

namespace ioplan::kernel_test {

namespace {

bool told(const char* where, const ApplyReport& report) {
  if (report.outcome == ApplyOutcome::done) return true;
  std::printf("type1 plan not applied, %s: %s\n", where, report.error ? to_text(*report.error).c_str() : "no reason given");
  for (const Difference& d : report.differences) {
    std::printf("  %s.%s: predicted %s, observed %s\n", d.subject.c_str(), d.attribute.c_str(), d.predicted.c_str(),
                d.observed.c_str());
  }
  return false;
}

bool stands(const Plan& plan, const Host& host, vfio::System& system) {
  type1::Type1Backend linux_backend(system);
  const auto machine = sim::Machine::create(host, kernel_law());
  if (!machine) return false;
  sim::SimType1Backend simulated(**machine);
  return told("on Linux", apply_plan(plan, host, linux_backend)) && told("simulated", apply_plan(plan, host, simulated));
}

// The third of the plan's maps is made to overlap the first: the kernel refuses it, and all is taken back.
bool is_taken_back(Plan plan, const Host& host, vfio::System& system) {
  for (Step& s : plan.steps) {
    if (s.kind == StepKind::map && s.iova.start != 0) s.iova = {0, s.iova.last - s.iova.start};
  }
  type1::Type1Backend backend(system);
  const ApplyReport report = apply_plan(plan, host, backend);
  if (report.outcome == ApplyOutcome::rolled_back) return true;
  std::printf("an impossible type1 plan was not rolled back: %s\n", report.error ? to_text(*report.error).c_str() : "done");
  return false;
}

bool is_refused(const Request& request, vfio::System& system) {
  type1::Type1Backend backend(system);
  return apply_plan(make_plan(request, kernel_law()), request.host, backend).outcome == ApplyOutcome::refused;
}

}  // namespace

Outcome type1_plans(const Guest& guest) {
  write_file("/proc/sys/vm/nr_hugepages", "104");
  const auto system = vfio::linux_system();
  const auto locked = vfio::locked_bytes(*system);
  std::mt19937_64 random(guest.seed);
  unsigned applied = 0, taken_back = 0, refused = 0, infeasible = 0, failed = 0;
  for (std::uint64_t i = command_line_number("ioplan.plans", 20); i > 0; --i) {
    Request request;
    request.host = guest.host;
    request.vms.push_back(random_vm(guest.host, guest.pci, random));
    const Plan plan = make_plan(request, type1_law());
    if (plan.verdict != Verdict::feasible) {
      ++infeasible;  // dirty tracking
      continue;
    }
    ++(stands(plan, guest.host, *system) ? applied : failed);
    ++(is_taken_back(plan, guest.host, *system) ? taken_back : failed);
    ++(is_refused(request, *system) ? refused : failed);
  }
  const bool leaks = vfio::locked_bytes(*system) != locked;
  if (leaks) std::printf("locked memory was leaked\n");
  return {failed == 0 && applied > 0 && !leaks,
          std::to_string(applied) + " type1 plans applied and observed as predicted, " + std::to_string(taken_back) +
              " taken back, " + std::to_string(refused) + " of iommufd refused, " + std::to_string(infeasible) +
              " infeasible, " + std::to_string(failed) + " failed"};
}

}  // namespace ioplan::kernel_test
