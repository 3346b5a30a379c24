// Drift: what a backend sees of a running layout, against the plan.
//
// A simulated host lives as long as the command, so it is made to run a layout first: the plan itself, or another one
// that somebody takes for it. What /dev/iommu holds can be seen by the process that made it only: `apply --hold` compares
// when it is asked to (SIGUSR1). From outside there are the devices: whether VFIO drives them, and who has them open.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "backends/sim/machine.h"
#include "backends/sim/simulated_backend.h"
#include "backends/vfio/device.h"
#include "backends/vfio/holders.h"
#include "cli/commands.h"
#include "cli/lifecycle_text.h"
#include "constraints/kernel_law.h"
#include "engine/apply/apply.h"
#include "engine/base/text.h"
#include "engine/document/load.h"
#include "engine/lifecycle/layout.h"
#include "engine/model/features.h"

namespace ioplan::cli {

namespace {

using Json = nlohmann::ordered_json;

struct Drift {
  std::vector<Difference> differences;
  std::vector<std::string> not_seen;  // objects of the plan
};

Outcome told(const Drift& found, Format format) {
  const int code = found.differences.empty() ? kYes : kNo;
  if (format == Format::text) {
    std::string text = drift_text(found.differences);
    if (!found.not_seen.empty()) {
      text += fmt::format("not seen: {}: only the process that holds them sees them (SIGUSR1 asks `ioplan apply --hold`)\n",
                          fmt::join(found.not_seen, ", "));
    }
    return {code, text, ""};
  }
  Json document{{"drift", !found.differences.empty()}, {"differences", Json::array()}, {"not_seen", found.not_seen}};
  for (const Difference& d : found.differences) {
    document["differences"].push_back(
        {{"subject", d.subject}, {"attribute", d.attribute}, {"planned", d.predicted}, {"observed", d.observed}});
  }
  return {code, document.dump(2) + "\n", ""};
}

// The devices of a plan as somebody who has none of them open sees them.
class FromOutside {
 public:
  FromOutside(vfio::System& system, KernelInterface interface)
      : system_(system), in_containers_(interface == KernelInterface::type1), holders_(vfio::holders_of_vfio_files(system)) {}

  Drift look(const Plan& plan) {
    for (const PlannedIoas& ioas : plan.ioas) look_at(plan, ioas);
    for (const PlannedHwpt& h : plan.hwpts) found_.not_seen.push_back(h.id);
    return std::move(found_);
  }

 private:
  void look_at(const Plan& plan, const PlannedIoas& ioas) {
    std::vector<std::string> devices = attached_devices(plan, ioas.id);
    for (const auto& more : {mediated_devices(plan, ioas.id), ioas.retained}) devices.insert(devices.end(), more.begin(), more.end());
    std::set<std::string> processes;
    for (const std::string& d : devices) {
      for (const vfio::Holder& h : holders_of(d)) processes.insert(fmt::format("{} ({})", h.process, h.name));
    }
    if (processes.size() > 1) differ(ioas.id, "process", "one", fmt::format("{}", fmt::join(processes, ", ")));
    found_.not_seen.push_back(ioas.id);
  }

  std::vector<vfio::Holder> holders_of(const std::string& device) {
    const auto file = in_containers_ ? vfio::find_group(system_, device) : vfio::find_cdev(system_, device);
    if (!file) {
      differ(device, "driver", "a VFIO driver", file.error().message);
      return {};
    }
    const auto it = holders_.find(*file);
    if (it != holders_.end()) return it->second;
    differ(device, "process", "one", "none that this user can see");
    return {};
  }

  void differ(const std::string& subject, std::string attribute, std::string planned, std::string observed) {
    found_.differences.push_back({subject, std::move(attribute), std::move(planned), std::move(observed)});
  }

  vfio::System& system_;
  bool in_containers_;  // devices are opened by their groups
  std::map<std::string, std::vector<vfio::Holder>> holders_;
  Drift found_;
};

Result<Drift> on_a_simulated_host(const Plan& plan, const Plan& running, const Host& host) {
  auto machine = sim::Machine::create(host, kernel_law());
  if (!machine) return tl::make_unexpected(machine.error());
  const auto backend = sim::simulated_backend(**machine, running.interface);
  const ApplyReport report = apply_plan(running, host, *backend);
  if (report.outcome != ApplyOutcome::done) return tl::make_unexpected(*report.error);
  const auto seen = backend->observe();
  if (!seen) return tl::make_unexpected(seen.error());
  return Drift{drift(plan, *seen), {}};
}

}  // namespace

Outcome observe_command(const ObserveArguments& arguments) {
  const auto loaded = load(arguments.files);
  if (!loaded) return bad_input(loaded.error());
  const auto plan = running_plan(arguments.plan, loaded->request);
  if (!plan) return bad_input(plan.error());
  if (arguments.backend != "sim") {
    if (arguments.backend != kKernelInterfaceNames[static_cast<std::size_t>(plan->interface)]) {
      return bad_input({fmt::format("the plan is not for {}", arguments.backend), "name the interface that it was planned for", {}, 0});
    }
    if (!arguments.running.empty()) {
      return bad_input({"`--running` is what a simulated host runs", "give it with `--backend sim`", {}, 0});
    }
    const auto system = vfio::linux_system();
    return told(FromOutside(*system, plan->interface).look(*plan), arguments.format);
  }
  const auto running = arguments.running.empty() ? plan : running_plan(arguments.running, loaded->request);
  if (!running) return bad_input(running.error());
  if (const auto same = same_interface(*plan, *running, arguments.running); !same) return bad_input(same.error());
  const auto found = on_a_simulated_host(*plan, *running, loaded->request.host);
  return found ? told(*found, arguments.format) : bad_input(found.error());
}

}  // namespace ioplan::cli
