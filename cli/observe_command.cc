// Drift: what a backend sees of a running layout's own objects, against the plan.
//
// A simulated host lives as long as the command, so it is made to run a layout first: the plan itself, or another one
// that somebody takes for it. What /dev/iommu holds is visible only through the descriptors of the process that made
// it: `apply --backend iommufd` compares what it has made with the plan, once, before it says that it is done.

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "backends/sim/machine.h"
#include "backends/sim/sim_backend.h"
#include "cli/commands.h"
#include "cli/lifecycle_text.h"
#include "constraints/kernel_law.h"
#include "engine/apply/apply.h"
#include "engine/document/load.h"

namespace ioplan::cli {

namespace {

using Json = nlohmann::ordered_json;

std::string text_of(const std::vector<Difference>& differences) {
  if (differences.empty()) return "no drift: everything that can be seen is as planned\n";
  std::string text = "drift\n\n";
  for (const Difference& d : differences) {
    text += fmt::format("  {}.{}: planned {}, observed {}\n", d.subject, d.attribute, d.predicted, d.observed);
  }
  return text;
}

std::string json_of(const std::vector<Difference>& differences) {
  Json document{{"drift", !differences.empty()}, {"differences", Json::array()}};
  for (const Difference& d : differences) {
    document["differences"].push_back(
        {{"subject", d.subject}, {"attribute", d.attribute}, {"planned", d.predicted}, {"observed", d.observed}});
  }
  return document.dump(2) + "\n";
}

}  // namespace

Outcome observe_command(const ObserveArguments& arguments) {
  const auto loaded = load(arguments.files);
  if (!loaded) return bad_input(loaded.error());
  const auto plan = running_plan(arguments.plan, loaded->request);
  if (!plan) return bad_input(plan.error());
  if (arguments.backend != "sim") {
    return bad_input(
        {"what `/dev/iommu` holds can be seen only by the process that made it",
         "`ioplan apply PLAN --backend iommufd` compares what it makes with the plan before it says that it is done",
         {},
         0});
  }
  const auto running = arguments.running.empty() ? plan : running_plan(arguments.running, loaded->request);
  if (!running) return bad_input(running.error());
  auto machine = sim::Machine::create(loaded->request.host, kernel_law());
  if (!machine) return bad_input(machine.error());
  sim::SimBackend backend(**machine);
  const ApplyReport report = apply_plan(*running, loaded->request.host, backend);
  if (report.outcome != ApplyOutcome::done) return bad_input(*report.error);
  const auto seen = backend.observe();
  if (!seen) return bad_input(seen.error());
  const std::vector<Difference> found = drift(*plan, *seen);
  return {found.empty() ? kYes : kNo, arguments.format == Format::text ? text_of(found) : json_of(found), ""};
}

}  // namespace ioplan::cli
