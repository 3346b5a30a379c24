#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/lifecycle_text.h"
#include "constraints/kernel_law.h"
#include "engine/document/load.h"
#include "engine/document/plan_document.h"
#include "engine/lifecycle/migration.h"

namespace ioplan::cli {

namespace {

using Json = nlohmann::ordered_json;

std::string_view verdict_of(const Landing& l) {
  if (!l.lands) return "no";
  return l.live ? "yes, while it runs" : "yes, but only stopped";
}

std::string text_of(const std::vector<Landing>& landings) {
  std::string text;
  for (const Landing& l : landings) {
    text += fmt::format("{}: {}\n", l.host, verdict_of(l));
    for (const auto& [source, there] : l.substitutes) text += fmt::format("  device       {} -> {}\n", source, there);
    for (const FeatureChange& c : l.differences) {
      text += fmt::format("  differs      {}: {} -> {}\n", c.feature, c.before, c.after);
    }
    if (!l.reasons.empty()) text += conflict_text(l.reasons);
  }
  return text;
}

std::string json_of(const std::vector<Landing>& landings) {
  Json document = Json::array();
  for (const Landing& l : landings) {
    Plan carrier;
    carrier.conflict = l.reasons;
    Json substitutes = Json::array();
    for (const auto& [source, there] : l.substitutes)
      substitutes.push_back({{"device", source}, {"substitute", there}});
    document.push_back({{"host", l.host},
                        {"lands", l.lands},
                        {"live", l.lands && l.live},
                        {"substitutes", std::move(substitutes)},
                        {"differences", Json::parse(guest_json(l.differences))},
                        {"reasons", Json::parse(part_of_plan(carrier, "conflict"))},
                        {"plan", l.lands ? Json::parse(to_json(l.plan)) : Json(nullptr)}});
  }
  return document.dump(2) + "\n";
}

}  // namespace

Outcome migrate_command(const MigrateArguments& arguments) {
  const auto loaded = load(arguments.files);
  if (!loaded) return bad_input(loaded.error());
  const auto running = running_plan(arguments.plan, loaded->request);
  if (!running) return bad_input(running.error());
  if (running->vms.size() != 1 || running->ioas.size() != 1) {
    return bad_input({"a plan of one VM with devices can migrate", "plan its VMs one by one", {}, 0});
  }
  std::vector<Host> destinations;
  for (const std::string& file : arguments.to) {
    auto there = load({&file, 1});
    if (!there) return bad_input(there.error());
    if (there->request.host.name.empty()) there->request.host.name = file;
    destinations.push_back(std::move(there->request.host));
  }
  const std::vector<Landing> landings = migrate(*running, loaded->request, destinations, law_of(running->interface));
  return {landings.front().lands ? kYes : kNo, arguments.format == Format::text ? text_of(landings) : json_of(landings),
          ""};
}

}  // namespace ioplan::cli
