#include "cli/libioplan/ioplan.h"

#include "constraints/kernel_law.h"
#include "engine/planner/planner.h"

namespace ioplan {

Plan make_plan(const Request& request) { return make_plan(request, kernel_law(), PlanOptions{}); }

Judgement check_plan(const Plan& plan, const Request& request) {
  return check_plan(plan, request, kernel_law(), CheckOptions{});
}

Result<std::unique_ptr<sim::Machine>> simulate(const Host& host, const sim::MachineOptions& options) {
  return sim::Machine::create(host, kernel_law(), options);
}

}  // namespace ioplan
