#include "cli/lifecycle_text.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "engine/apply/apply.h"
#include "engine/document/plan_document.h"

namespace ioplan::cli {

namespace {

using Json = nlohmann::ordered_json;

// type1 cannot take a group along while one of its devices is open.
std::string interrupted_text(const Transition& t, KernelInterface interface) {
  if (t.interrupted.empty()) return "nobody";
  std::string text = fmt::format("{} device{}: {}", t.interrupted.size(), t.interrupted.size() == 1 ? "" : "s",
                                 fmt::join(t.interrupted, " "));
  if (interface == KernelInterface::type1) return text + "; type1 moves nobody: unplugged, and plugged again";
  if (!t.stopped.empty()) text += fmt::format("; DMA stops meanwhile for {}", fmt::join(t.stopped, " "));
  return text;
}

}  // namespace

std::string transition_text(const Transition& transition, const std::vector<FeatureChange>& guest,
                            KernelInterface interface) {
  std::string text = fmt::format("  interrupted  {}\n", interrupted_text(transition, interface));
  if (guest.empty()) text += "  guest sees   no change\n";
  for (const FeatureChange& c : guest) {
    text += fmt::format("  guest sees   {} of {}: {} -> {}\n", c.feature, c.vm, c.before, c.after);
  }
  text += transition.steps.empty() ? "\n  nothing to do\n" : "\n  steps\n";
  std::size_t number = 0;
  for (const Step& s : transition.steps) text += fmt::format("    {:>2}. {}\n", ++number, to_text(s));
  return text;
}

std::string conflict_text(const std::vector<Conflict>& conflict) {
  std::string text, rules;
  for (const Conflict& c : conflict) {
    text += fmt::format("  {} {}\n", text.empty() ? "because" : "and because", c.because);
    if (rules.find(c.rule) == std::string::npos) rules += (rules.empty() ? "" : ", ") + c.rule;
  }
  return text + fmt::format("  [{}]\n", rules);
}

std::string drift_text(const std::vector<Difference>& differences) {
  if (differences.empty()) return "no drift: everything that can be seen is as planned\n";
  std::string text = "drift\n\n";
  for (const Difference& d : differences) {
    text += fmt::format("  {}.{}: planned {}, observed {}\n", d.subject, d.attribute, d.predicted, d.observed);
  }
  return text;
}

std::string part_of_plan(const Plan& plan, const std::string& key) { return Json::parse(to_json(plan))[key].dump(); }

std::string steps_json(const std::vector<Step>& steps) {
  Plan carrier;
  carrier.steps = steps;
  return part_of_plan(carrier, "steps");
}

std::string guest_json(const std::vector<FeatureChange>& guest) {
  Json list = Json::array();
  for (const FeatureChange& c : guest) {
    list.push_back({{"vm", c.vm}, {"feature", c.feature}, {"before", c.before}, {"after", c.after}});
  }
  return list.dump();
}

}  // namespace ioplan::cli
